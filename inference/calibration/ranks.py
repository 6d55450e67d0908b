"""Ranks of exact draws among a guide's draws, and whether they are uniform.

Let u* be drawn from a density ∝ v(u) p(u|x), and u_1 … u_K independently from q(u|x). If q is the posterior p(u|x),
then given the *set* {u*, u_1 … u_K} each of its members is u* with probability ∝ its v, so that with ξ ~ U(0, 1)

    U = (Σ_k v_k [u_k < u*] + ξ (v* + Σ_k v_k [u_k = u*])) / (v* + Σ_k v_k)

is uniform on (0, 1): exactly, for every K and v, with ties or without. For v = 1 it is the rank of simulation-based
calibration, spread over its K + 1 values. It holds for any function of u, and of the set, in place of u.

Three p-values are read off M independent values U of each unit. With the normal scores s = Φ⁻¹(U), N(0, 1) if q is
right,

    shape   T = min_i min(P(B_i ≤ n_i), P(B_i ≥ n_i)) of the counts n_i = #{U ≤ z_i}, B_i ~ Binomial(M, z_i), where
            z_i = 1/E … (E − 1)/E: the least tail over the whole ECDF. Its distribution is known: counts of uniforms
            are a Markov chain, and P(T > t) is the probability that the chain stays inside the band;
    mean    √M s̄ / sd(s) ~ Student's t, M − 1 degrees of freedom, whatever the spread is;
    spread  Σ (s − s̄)² ~ χ²_{M−1}.

References:
    Validating Bayesian Inference Algorithms with Simulation-Based Calibration (Talts et al., 2018), arXiv:1804.06788.
    Graphical Test for Discrete Uniformity and its Applications in Goodness-of-Fit Evaluation and Multiple Sample
    Comparison (Säilynoja, Bürkner & Vehtari, 2022), arXiv:2103.10522: the band, and the chain of counts.
    Conformal Prediction Under Covariate Shift (Tibshirani, Barber, Candès & Ramdas, 2019), arXiv:1904.06019: weighted
    exchangeability, the reason for the sum in which u* counts too.
    A Simple Sequentially Rejective Multiple Test Procedure (Holm, 1979), Scandinavian Journal of Statistics 6.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

# The ECDF is held against its band at the hundredths.
MOST_POINTS = 100
# Tails between which P(T ≤ t) is computed and interpolated; below them P(T ≤ t) ≤ 2 E t.
LEAST_TAIL, LARGEST_TAIL = 1e-6, 0.4

TESTS = ("shape", "mean", "spread")


def normalised(log_v: Tensor) -> Tensor:
    """Weights of u* (first) and of the draws that add up to one, ``(1 + num_draws, num_simulations)``."""
    return log_v.double().softmax(0)


def weighted_pit(exact: Tensor, draws: Tensor, weights: Tensor) -> Tensor:
    """U of every simulation and unit.

    Args:
        exact: u*, ``(num_simulations, num_units)``.
        draws: of the guide, ``(num_draws, num_simulations, num_units)``.
        weights: normalised, of u* and of the draws, ``(1 + num_draws, num_simulations)``.

    Returns:
        float64 ``(num_simulations, num_units)`` in (0, 1); ξ is drawn from torch's global generator.

    Example:
        >>> import torch
        >>> exact, draws = torch.tensor([[0.5]]), torch.arange(4.0).reshape(4, 1, 1)
        >>> even = torch.full((5, 1), 0.2)
        >>> 0.2 < weighted_pit(exact, draws, even).item() < 0.4  # one draw of four lies below
        True
    """
    weights = weights.to(torch.float64)[..., None]
    below = (weights[1:] * (draws < exact)).sum(0)
    same = weights[0] + (weights[1:] * (draws == exact)).sum(0)
    least = torch.finfo(torch.float64).eps
    return (below + torch.rand_like(below) * same).clamp(least, 1 - least)


def p_values(pit: Array) -> Array:
    """p-values of shape, mean and spread of every unit, ``(num_units, 3)``, from U ``(num_simulations, num_units)``."""
    m = len(pit)
    s = scipy.special.ndtri(pit)
    square = ((s - s.mean(0)) ** 2).sum(0)
    mean = 2 * scipy.special.stdtr(m - 1, -np.abs(s.mean(0)) * np.sqrt(m * (m - 1) / square))
    spread = 2 * np.minimum(scipy.special.chdtr(m - 1, square), scipy.special.chdtrc(m - 1, square))
    return np.stack([shape_p_value(pit), mean, np.minimum(spread, 1.0)], -1)


def holm(p: Array) -> Array:
    """Adjusted p-values: those of at most α are all right together with probability at least 1 − α.

    Example:
        >>> import numpy as np
        >>> holm(np.array([0.01, 0.5, 0.02])).round(3).tolist()
        [0.03, 0.5, 0.04]
    """
    order = np.argsort(p, axis=None)
    steps = p.flatten()[order] * np.arange(p.size, 0, -1)
    out = np.empty(p.size)
    out[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return out.reshape(p.shape)


def shape_p_value(pit: Array) -> Array:
    """P(T ≤ t) of every column, up to interpolation."""
    m = len(pit)
    z = points(m)
    lower, upper = _tails(m)
    i = np.arange(len(z))
    counts = np.stack([np.searchsorted(np.sort(column), z, side="right") for column in pit.T])
    t = np.minimum(lower[counts, i], upper[counts, i]).min(-1)
    known = np.exp(np.interp(np.log(np.maximum(t, 1e-300)), *np.log(_table(m))))
    return np.where(t < LEAST_TAIL, np.minimum(known, 2 * len(z) * t), known)


def band(num_simulations: int, level: float) -> tuple[Array, Array, Array]:
    """The simultaneous band of an ECDF of uniforms: z, and its lower and upper end there.

    Args:
        num_simulations: M.
        level: probability with which the ECDF leaves the band somewhere.
    """
    from arviz_stats.ecdf_utils import get_pointwise_confidence_band

    tails, p = np.log(_table(num_simulations))
    tail = np.exp(np.interp(np.log(level), p, tails))
    z = points(num_simulations)
    lower, upper = get_pointwise_confidence_band(1 - 2 * tail, num_simulations, z)
    return z, lower, upper


def points(num_simulations: int) -> Array:
    """Where the ECDF is looked at, inside (0, 1)."""
    edges = min(MOST_POINTS, num_simulations)
    return np.arange(1, edges) / edges


@lru_cache(maxsize=8)
def _tails(m: int) -> tuple[Array, Array]:
    """P(B_i ≤ n) and P(B_i ≥ n), each ``(m + 1, num_points)``."""
    n, z = np.arange(m + 1)[:, None], points(m)
    return scipy.special.bdtr(n, m, z), scipy.special.bdtrc(n - 1, m, z)


@lru_cache(maxsize=8)
def _table(m: int) -> Array:
    """Tails t and P(T ≤ t), ``(2, num_tails)``; finer where M is small and T has steps."""
    tails = np.geomspace(LEAST_TAIL, LARGEST_TAIL, int(np.clip(6000 / m, 24, 200)))
    return np.stack([tails, np.maximum.accumulate([max(1 - _stays_inside(m, t), 1e-15) for t in tails])])


def _stays_inside(m: int, tail: float) -> float:
    """P(T > t): no count has a tail of t or less."""
    lower, upper = _tails(m)
    log_factorial = scipy.special.gammaln(np.arange(m + 1) + 1)
    before, first, z_before = np.ones(1), 0, 0.0
    for i, z in enumerate(points(m)):
        inside = np.flatnonzero((lower[:, i] > tail) & (upper[:, i] > tail))
        if not len(inside):
            return 0.0
        n, c = inside[None, :], (first + np.arange(len(before)))[:, None]
        share = (z - z_before) / (1 - z_before)  # of the m − c that lie above z_before
        k = n - c
        log_mass = log_factorial[m - c] - log_factorial[np.maximum(k, 0)] - log_factorial[m - n]
        log_mass = log_mass + k * np.log(share) + (m - n) * np.log1p(-share)
        before, first, z_before = before @ np.where(k >= 0, np.exp(np.minimum(log_mass, 0.0)), 0.0), inside[0], z
    return float(before.sum())
