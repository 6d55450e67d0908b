"""Whether an unused unit would grow under the likelihood: :mod:`ppvae.inference.latents.stability` for any decoder.

Let r(x) be what the model expects x to be too low by, x − E_q[E[x|z]], in standard deviations of the noise feature by
feature, and u a direction. A unit that adds ε z_j along u to the natural parameters of p(x|z), with a guide to match,
changes the mean ELBO by

    ½ ε² (ρ − 1),      ρ = E[(uᵀ r)²],

to second order (natural parameters: normal, Bernoulli, binomial, Poisson; in others ρ is a guide). The largest ρ over
all u is found on the training data, and estimated on data held out, where it is not chosen and so not too large. For a
linear decoder with exact guide it is that module's ratio. ρ > 1: likelihood and ELBO would let a unit grow from
nothing; ρ ≤ 1: they hold it at nothing, unless it starts far off.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..pair import Pair, generator_kept

# Draws of the guide that expectations are means over, so many at a time; features with less than this share of the
# largest noise variance are left out.
DRAWS, AT_ONCE, LEAST_SHARE = 64, 16, 1e-3


def growth_ratio(train: Pair, held_out: Pair) -> tuple[float, float]:
    """ρ on data held out, and its standard error over data; NaN where the observed numbers have no mean.

    Args:
        train: the pair on data that the direction is found on.
        held_out: the pair on others.
    """
    unknown = math.nan, math.nan
    if any("Categorical" in type(fn).__name__ for fn in _observed(train)):
        return unknown
    with torch.no_grad(), generator_kept(0):
        r, variance = _residuals(train)
        other, _ = _residuals(held_out)
    used = variance > LEAST_SHARE * variance.max()
    if not bool(r.isfinite().all() and other.isfinite().all()) or not bool(used.any()):
        return unknown
    scale, centre = variance[used].sqrt(), r[:, used].mean(0)
    u = torch.linalg.svd((r[:, used] - centre) / scale, full_matrices=False)[2][0]
    squares = (((other[:, used] - centre) / scale) @ u).square()
    return float(squares.mean()), float(squares.std()) / math.sqrt(len(squares))


def _observed(pair: Pair) -> list[Any]:
    trace: Any = pair.programs.seen(pair.frame, pair.batch)
    found = [trace.nodes[name]["fn"] for name in pair.structure.observed]
    return [fn.base_dist if isinstance(fn, torch.distributions.Independent) else fn for fn in found]


def _residuals(pair: Pair) -> tuple[Tensor, Tensor]:
    """x − E_q[E[x|z]], ``(num_data, num_features)``, and the noise variance, mean over the data, by feature."""
    expected, variance, x = torch.zeros(()), torch.zeros(()), torch.zeros(())
    for _ in range(DRAWS // AT_ONCE):
        z = pair.guide_values(AT_ONCE)
        mean = _flat(pair.expectations(z), pair)
        expected = expected + mean.mean(0) * AT_ONCE / DRAWS
        noise = _flat(pair.predictions(z, AT_ONCE), pair) - mean
        variance = variance + noise.square().mean((0, 1)) * AT_ONCE / DRAWS
        x = _flat(pair.observations({name: value[:1] for name, value in z.items()}), pair)[0]
    return x - expected, variance


def _flat(values: dict[str, Tensor], pair: Pair) -> Tensor:
    """All observed numbers, ``(num_draws, num_data, num_features)``."""
    parts = [values[name].flatten(2) if values[name].dim() > 2 else values[name][..., None] for name in
             pair.structure.observed]  # fmt: skip
    return torch.cat([part.double() for part in parts], -1).cpu()
