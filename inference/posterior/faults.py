"""What is wrong with a guide, in words, where Monte Carlo error allows to say.

Measures of the guide q against draws of the posterior p, in the coordinates u of :mod:`ppvae.inference.pair`:

    shifted              |E_q u_j − E_p u_j| > 0.25 sd_p(u_j) for some j
    too narrow           sd_q(u_j) < 0.9 sd_p(u_j) for some j
    too wide             sd_q(u_j) > sd_p(u_j)/0.9 for some j
    correlation missed   |ρ_q − ρ_p| > 0.3 for some pair of coordinates
    mode missed          a part of at least 5 % of the posterior lies beyond a valley that is less than half as high as
                         the lower of its two sides, and the guide has less than a tenth of that part there
    different shape      none of these, but TV(q, p) > 0.25: some event's probability is off by more than 0.25
    good                 none of these

A fault is stated where its measure exceeds the limit by more than its error, and ``good`` where every measure stays
below its limit by more than its error; otherwise ``cannot tell``. An error is as many standard errors as the largest of
all measures of a datum exceeds with probability 1 % (Bonferroni), so that a stated fault is false for at most 1 % of
data. k̂ is no ground for a verdict: above 0.7 it says that the weights do not repair the guide (Pareto Smoothed
Importance Sampling, Vehtari et al., 2024, arXiv:1507.02646).

The limits are this project's conventions. In a Gaussian posterior a shift of 0.25 sd turns 95 % intervals into 94.3 %
ones with tails of 1.4 and 4.3 %; 0.9 of the width leaves 92.2 %, 1/0.9 makes them 97.1 %. The total variation is
what bounds every classifier that tells draws of q from draws of p, accuracy ≤ (1 + TV)/2 (Revisiting Classifier
Two-Sample Tests, Lopez-Paz & Oquab, 2017, arXiv:1610.06545).

The primary fault, named first, is a missed mode, which brings all others with it; else the one that accounts for most
of KL(q‖p) between Gaussians of the same moments (:func:`causes`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy

BIAS_LIMIT, RATIO_LIMIT, CORRELATION_LIMIT, VARIATION_LIMIT = 0.25, 0.9, 0.3, 0.25
# Least share of the posterior that counts as a mode, how high the valley may be, and what share of it q may have.
MODE_SHARE, VALLEY_DEPTH, MODE_COVERED = 0.05, 0.5, 0.1
# Probability that any fault of a datum is stated falsely.
FALSE_ALARM = 0.01
GOOD, CANNOT_TELL = "good", "cannot tell"
SHIFTED, NARROW, WIDE = "shifted", "too narrow", "too wide"
CORRELATION, MODE, SHAPE = "correlation missed", "mode missed", "different shape"
WORDS = GOOD, MODE, CORRELATION, SHIFTED, NARROW, WIDE, SHAPE, CANNOT_TELL
FAULTS = WORDS[1:-1]

# For the density of draws along a line, in their standard deviations.
GRID, BANDWIDTH = 128, 0.12
# Standard errors by which a valley must be lower than its sides.
VALLEY_ERRORS = 5.0
# Newton's steps towards the best scales.
NEWTON_STEPS = 50


class Measures(NamedTuple):
    """What a verdict on one datum is read from; each measure ``(dim,)`` or a number, with its standard error.

    Attributes:
        bias: (E_q u − E_p u)/sd_p, ``(dim,)``.
        bias_error: of it.
        log_ratio: log sd_q − log sd_p, ``(dim,)``.
        log_ratio_error: of it.
        correlation: |ρ_q − ρ_p| of the pairs of coordinates, ``(dim (dim − 1)/2,)``.
        correlation_error: of it.
        total_variation: TV(q, p).
        total_variation_error: of it.
        missed_mass: share of the posterior in a mode that the guide misses; 0 if there is none.
        causes: KL(q‖p) of the Gaussians by shift, scale and correlation, ``(3,)``, in nats.
    """

    bias: np.ndarray
    bias_error: np.ndarray
    log_ratio: np.ndarray
    log_ratio_error: np.ndarray
    correlation: np.ndarray
    correlation_error: np.ndarray
    total_variation: float
    total_variation_error: float
    missed_mass: float
    causes: np.ndarray


def verdict(measures: Measures) -> tuple[str, ...]:
    """The faults of a guide on one datum, the primary one first; or ``("good",)``, or ``("cannot tell",)``."""
    m = measures
    z = -scipy.special.ndtri(FALSE_ALARM / 2 / (2 * m.bias.size + m.correlation.size + 1))
    limit = -np.log(RATIO_LIMIT)
    shift, scale, correlation = m.causes
    tests = {
        CORRELATION: (m.correlation, m.correlation_error, CORRELATION_LIMIT, correlation),
        SHIFTED: (abs(m.bias), m.bias_error, BIAS_LIMIT, shift),
        NARROW: (-m.log_ratio, m.log_ratio_error, limit, scale),
        WIDE: (m.log_ratio, m.log_ratio_error, limit, scale),
    }
    found = {word: nats for word, (value, error, most, nats) in tests.items() if (value - z * error > most).any()}
    faults = sorted(found, key=lambda word: (-found[word], -(tests[word][0] / tests[word][2]).max()))
    if m.missed_mass > 0:
        return MODE, *faults
    if faults:
        return tuple(faults)
    if m.total_variation - z * m.total_variation_error > VARIATION_LIMIT:
        return (SHAPE,)
    clear = all((value + z * error < most).all() for value, error, most, _ in tests.values())
    return (GOOD,) if clear and m.total_variation + z * m.total_variation_error < VARIATION_LIMIT else (CANNOT_TELL,)


def causes(shift: np.ndarray, guide: np.ndarray, posterior: np.ndarray) -> np.ndarray:
    """KL(q‖p) of two Gaussians by what would have to be mended, in nats.

        shift         ½ δᵀPδ, with P the precision of p
        correlation   min_D KL(N(0, DQD) ‖ N(0, P⁻¹)) over diagonal D > 0: what no change of the scales mends
        scale         the rest, KL(N(0, Q) ‖ N(0, P⁻¹)) − correlation

    A mean-field guide that is as good as mean-field can be has no scale part, though it is narrower than the posterior.

    Args:
        shift: difference of the means δ, ``(dim,)``.
        guide: covariance Q, ``(dim, dim)``.
        posterior: covariance P⁻¹, ``(dim, dim)``.

    Returns:
        shift, scale, correlation, ``(3,)``.

    Example:
        >>> import numpy as np
        >>> posterior = np.array([[1.0, 0.8], [0.8, 1.0]])
        >>> best = np.diag(1 / np.diag(np.linalg.inv(posterior)))
        >>> causes(np.zeros(2), best, posterior).round(3) + 0.0
        array([0.   , 0.   , 0.511])
    """
    precision = np.linalg.inv(posterior)
    product, dim = precision * guide, len(shift)
    constant = -dim - np.linalg.slogdet(guide)[1] - np.linalg.slogdet(precision)[1]
    d = np.sqrt(dim / product.sum()) * np.ones(dim)  # minimises dᵀ(P∘Q)d/2 − Σ log d along its own direction
    for _ in range(NEWTON_STEPS):
        slope = product @ d - 1 / d
        step = np.linalg.solve(product + np.diag(1 / d**2), slope)
        decrement = np.sqrt(max(slope @ step, 0.0))
        d = d - step / (1 + decrement)  # damped: the function is self-concordant
    whole = (product.sum() + constant) / 2
    correlation = (d @ product @ d - 2 * np.log(d).sum() + constant) / 2
    return np.array([shift @ precision @ shift / 2, whole - correlation, correlation])


def missed_mass(guide: np.ndarray, posterior: np.ndarray, worth: float | None = None) -> float:
    """The share of the posterior in a mode that the guide misses, or 0.

    Draws are seen along each coordinate and along the direction that tells the means of the two best (Fisher's). Only
    valleys that are deep by more than five standard errors of the smoothed counts are believed.

    Args:
        guide: draws of q, ``(num_draws, dim)``.
        posterior: draws of p, ``(num_draws, dim)``.
        worth: how many independent draws those of p are worth; None for all.
    """
    repeats = len(posterior) / (worth or len(posterior))
    centre, scale = posterior.mean(0), posterior.std(0)
    q, p = (guide - centre) / scale, (posterior - centre) / scale
    fisher = np.linalg.solve(np.atleast_2d(np.cov(p.T)) + 1e-9 * np.eye(p.shape[1]), q.mean(0))
    lines = np.concatenate([np.eye(p.shape[1]), fisher[:, None] / max(np.linalg.norm(fisher), 1e-300)], 1)
    return max(_missed_along(a, b, repeats) for a, b in zip((q @ lines).T, (p @ lines).T, strict=True))


def _missed_along(guide: np.ndarray, posterior: np.ndarray, repeats: float) -> float:
    edges = np.linspace(np.quantile(posterior, 0.001), np.quantile(posterior, 0.999), GRID + 1)
    counts = np.histogram(posterior, edges)[0]
    width = BANDWIDTH * posterior.std() / (edges[1] - edges[0])
    reach = np.arange(-int(4 * width) - 1, int(4 * width) + 2)
    density = np.convolve(counts, np.exp(-0.5 * (reach / width) ** 2), mode="same")
    left, right = np.maximum.accumulate(density), np.maximum.accumulate(density[::-1])[::-1]
    below = np.cumsum(counts) / counts.sum()
    side = np.minimum(left, right)
    # The kernel, squared, has 1/√2 of its mass: the variance of a sum of independent counts under it.
    clear = side - density > VALLEY_ERRORS * np.sqrt((side + density) / np.sqrt(2) * repeats)
    inside = (below > MODE_SHARE) & (below < 1 - MODE_SHARE)
    missed = 0.0
    for valley in np.flatnonzero(inside & clear & (density < VALLEY_DEPTH * side)):
        guide_below = (guide < edges[valley + 1]).mean()
        for share, covered in ((below[valley], guide_below), (1 - below[valley], 1 - guide_below)):
            if covered < MODE_COVERED * share:
                missed = max(missed, share)
    return float(missed)
