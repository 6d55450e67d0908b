"""Scores of candidates, one of which is an exact draw, by classifiers that were fitted on other simulations.

The reason and the formulas stand in :mod:`ppvae.inference.calibration.discriminative`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from torch import Tensor

from ppvae.errors import NonFiniteError
from ppvae.progress import Progress

from ..pair import Pair

Array = NDArray[np.float64]

# Parts of the simulations, of which the first is fitted on alone; relabellings of each; draws that standardise.
PARTS, RELABELLINGS, STANDARDISING = 5, 1000, 50


@dataclass(frozen=True)
class Candidates:
    """The exact draw (first) and the guide's, of every simulation.

    Attributes:
        z: standardised by other draws of the guide, ``(num_simulations, 1 + num_draws, num_units)``.
        log_w: log p(x', u) − log q(u|x'), ``(num_simulations, 1 + num_draws)``; less their mean over other draws.
        log_q: log q(u|x'), likewise.
        mean: m, of the other draws, ``(num_simulations, num_units)``.
        elbo: mean log w of the other draws, ``(num_simulations,)``.
    """

    z: Tensor
    log_w: Tensor
    log_q: Tensor
    mean: Tensor
    elbo: Tensor


def candidates(simulated: list[tuple[Pair, Tensor]], num_draws: int, memory_mb: float, bar: Progress) -> Candidates:
    """The exact draws and the guide's, on pairs on simulated data, each with its exact draws."""
    parts: list[tuple[Tensor, ...]] = []
    count = num_draws + STANDARDISING
    for pair, exact in simulated:
        for units in pair.pieces(count, memory_mb):
            part = pair.rows(units)
            u = torch.cat([exact[None, units], part.draw("guide", count)])
            log_q, _, log_joint = part.ends(u).cpu().double()
            parts.append(_standardised(u.cpu().double(), log_joint - log_q, log_q))
            bar.advance(part.num_units)
    return Candidates(*(torch.cat(pieces) for pieces in zip(*parts, strict=True)))


def _standardised(u: Tensor, log_w: Tensor, log_q: Tensor) -> tuple[Tensor, ...]:
    """By the draws that are no candidates, which the exact one is none of: exchangeable they remain."""
    if not log_w.isfinite().all():
        raise NonFiniteError("log weights are not finite: see what check(model, guide, x) finds.")
    others, elbo = u[-STANDARDISING:], log_w[-STANDARDISING:].mean(0)
    mean, spread = others.mean(0), others.std(0).clamp(min=1e-300)
    z = (u[:-STANDARDISING] - mean) / spread
    relative = log_q - log_q[-STANDARDISING:].mean(0)
    return z.transpose(0, 1), (log_w - elbo)[:-STANDARDISING].T, relative[:-STANDARDISING].T, mean, elbo


def scored(features: Array, generator: np.random.Generator) -> tuple[Array, float]:
    """Λ of all parts but the first, each by a classifier of the parts before it, and their joined p-value.

    Args:
        features: φ, of the exact draw first, ``(num_simulations, 1 + num_draws, num_features)``.
        generator: of the labels that are drawn anew.
    """
    parts = np.array_split(np.arange(len(features)), PARTS)
    scores, normal = [], 0.0
    for k in range(1, PARTS):
        before = features[: parts[k][0]]
        score, tail = known(features[parts[k]] @ _weights(before), generator)
        scores.append(score)
        normal += scipy.special.ndtri(tail)
    return np.concatenate(scores), float(scipy.special.ndtr(normal / math.sqrt(PARTS - 1)))


def known(s: Array, generator: np.random.Generator) -> tuple[Array, float]:
    """Λ with scores s that were fitted on none of these simulations, ``(num_simulations, 1 + num_draws)``, and p."""
    log_p = scipy.special.log_softmax(s, axis=-1) + math.log(s.shape[1])
    return log_p[:, 0], _upper_tail(log_p, generator)


def _weights(features: Array) -> Array:
    """Of a logistic regression between the exact draw and each of the others, on the differences of their features."""
    from sklearn.linear_model import LogisticRegression

    differences = (features[:, :1] - features[:, 1:]).reshape(-1, features.shape[-1])
    scale = np.sqrt((differences**2).mean(0))
    scale[scale < 1e-6] = np.inf  # rounding is no feature
    both = np.concatenate([differences, -differences]) / scale
    labels = np.repeat([1, 0], len(differences))
    fitted = LogisticRegression(C=1.0, fit_intercept=False, max_iter=200).fit(both, labels)
    weights: Array = fitted.coef_[0] / scale
    return weights


def _upper_tail(log_p: Array, generator: np.random.Generator) -> float:
    """The p-value of the exact draws' sum of Λ among sums with labels drawn anew; ties are broken at random."""
    drawn = generator.integers(log_p.shape[1], size=(RELABELLINGS, len(log_p)))
    sums = log_p[np.arange(len(log_p)), drawn].sum(1)
    own = log_p[:, 0].sum()
    tolerance = 1e-9 * (1 + np.abs(log_p).sum())
    above, same = (sums > own + tolerance).sum(), (np.abs(sums - own) <= tolerance).sum()
    return float((above + generator.uniform() * (same + 1)) / (RELABELLINGS + 1))
