"""A number that is at least log p(x) on average, from coupled chains: a cross-check of the tangents (:mod:`.tangent`).

For weights w ≥ 0 with E[w] = p(x), Jensen's inequality says

    E[w log w] / E[w] ≥ log p(x),

and the left side is the mean of log w under the law of w tilted by w, which particle-independent Metropolis–Hastings
has as its stationary one: propose a fresh weight w', and go there with probability min(1, w'/w). Two such chains, one a
step behind the other, are given the same proposals and the same uniform numbers; X₀ = w₁, and Y₀ = w₂ is X's first
proposal too. The one behind is never the heavier, so that they meet when X first accepts, at τ, and

    H = log X₀ + Σ_{t=1}^{τ−1} [log X₀ − log Y_{t−1}],      E[H] = E[w log w] / E[w],

without bias, from τ + 1 weights. The distance from log p(x) is about the relative variance of w, and so several times
that of the tangents, which use all weights at once.

References:
    Unbiased Markov chain Monte Carlo for intractable target distributions (Middleton et al., 2018), arXiv:1807.08691.
    Unbiased Smoothing using Particle Independent Metropolis-Hastings (Middleton et al., 2019), arXiv:1902.01781.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Weights that a run may take on average, so that they seldom run out.
WEIGHTS_PER_RUN = 8


def coupled(log_w: Tensor) -> Tensor:
    """The mean of H over runs on a datum's weights, ``(num_data,)``, in nats; random, by the global generator.

    How many runs there are is fixed beforehand, one for every eight weights; a datum whose weights run out before they
    are done has +inf, since leaving a run out would make the rest too low.

    Args:
        log_w: independent log weights, ``(num_weights, num_data)``.

    Example:
        Log-normal weights with mean 1 and log w of variance 0.5, whose E[w log w] is 0.25:

        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> log_w = 0.5**0.5 * torch.randn(160, 500, dtype=torch.float64) - 0.25
        >>> abs(float(coupled(log_w).mean()) - 0.25) < 0.05
        True
    """
    log_u = torch.rand(log_w.shape, dtype=torch.float64).log()
    runs = max(1, len(log_w) // WEIGHTS_PER_RUN)
    columns = zip(log_w.double().T.tolist(), log_u.T.tolist(), strict=True)
    return torch.tensor([_mean(w, u, runs) for w, u in columns], dtype=torch.float64)


def _mean(log_w: list[float], log_u: list[float], runs: int) -> float:
    total, place = 0.0, 0
    for _ in range(runs):
        found, place = _run(log_w, log_u, place)
        total += found
    return total / runs


def _run(log_w: list[float], log_u: list[float], place: int) -> tuple[float, int]:
    """H from the weights of a place on, and the place after those that it took; +inf where there are not enough."""
    if place + 1 >= len(log_w):
        return math.inf, place
    first, behind, found = log_w[place], log_w[place + 1], log_w[place]
    place += 1
    while log_u[place] > log_w[place] - first:  # the chain ahead stays where it is
        behind = log_w[place] if log_w[place] >= behind or log_u[place] <= log_w[place] - behind else behind
        found += first - behind
        place += 1
        if place == len(log_w):
            return math.inf, place
    return found, place + 1
