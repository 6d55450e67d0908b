"""An upper end for log p(x) of any data, from importance weights.

Let w_1 … w_n be independent, w_i ≥ 0, E[w_i] = p(x), and let A_{-i} be the mean of the others. The logarithm lies below
its tangents, log p ≤ log A + p/A − 1 for every A > 0, and w_i is independent of A_{-i}, so that

    U = (1/n) Σ_i [log A_{-i} + w_i/A_{-i} − 1],        E[U] ≥ log p(x)    for every n ≥ 2.

The distance is about half the relative variance of the mean of all weights, 1/(2 ESS), as it is below for log p̂.

**What is promised**: the mean of U over data is an unbiased estimate of a number that is at least the mean of
log p(x). Its error is estimated from the spread of U over disjoint batches of the chains, s_n² = Var_b(U_nb)/B for a
datum; the chains of data are independent, so that SE² = Σ s_n²/N² with Welch and Satterthwaite's degrees of freedom
(Σ s_n²)²/Σ [s_n⁴/(B − 1)], and the upper end is U + t SE with Student's quantile t.

**What is not**: a confidence that holds for any weights. None exists: a huge weight of small probability changes no
sample and any log p(x). The error is that of a large sample, and holds only if the chains reach all of the posterior
and the tail of the weights is light (k-hat < 0.5, where they have a variance). No datum and no weight is capped or left
out, since that could only lower U.

References:
    Bounding Evidence and Estimating Log-Likelihood in VAE (Struski et al., 2022), arXiv:2206.09453: the tangent form.
"""

from __future__ import annotations

import math

import scipy
import torch
from torch import Tensor

from ..evidence import tail_shape

# Batches of the chains from whose spread the error is estimated: two halves, where the errors of this many data average
# out, and more for a single datum, whose error would otherwise have one degree of freedom.
HALVES, ENOUGH_DATA, BATCHES_OF_ONE = 2, 4, 4
# A single datum's error is multiplied by (1 − k̂)^(−3/2) of its own weights, with k̂ at most so large.
LARGEST_K = 0.9


def tangent(log_w: Tensor) -> Tensor:
    """U of ``(num_chains, num_data)`` log weights, ``(num_data,)``, in nats, float64.

    What is not a weight (NaN, or an overflow) makes U +inf, as do weights of zero alone: the bound may only rise. So
    does a single weight, which has no others.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> log_w = torch.randn(64, 1000, dtype=torch.float64) - 0.5  # log-normal weights with mean 1
        >>> below, above = (log_w.logsumexp(0) - torch.tensor(64.0).log()).mean(), tangent(log_w).mean()
        >>> bool(-0.03 < below < 0 < above < 0.03)
        True
    """
    log_w = log_w.double().nan_to_num(math.inf, math.inf, -math.inf)
    count = len(log_w)
    if count < 2:
        return torch.full_like(log_w[0], math.inf)
    log_others = _log_sum_of_others(log_w) - math.log(count - 1)
    share = torch.where(log_w.isneginf(), 0.0, (log_w - log_others).exp())
    return (log_others + share - 1).mean(0).nan_to_num(math.inf, math.inf, math.inf)


def upper(log_w: Tensor, risk: float, pareto_k: Tensor) -> Tensor:
    """U + t (1 − k̂)^(−3/2) SE of every datum by itself, ``(num_data,)``; +inf where k̂ is unknown.

    The factor makes up for the large weights that few chains seldom show; coverage is at least 94 % at a confidence of
    95 % where the true shape of the tail is 0.5 or less (held by ``tests/inference``).

    Args:
        log_w: ``(num_chains, num_data)``.
        risk: with which the upper end of a datum may be exceeded, where the error holds.
        pareto_k: k̂ of each datum's weights.
    """
    error = (_variance(log_w, BATCHES_OF_ONE) * _factor(pareto_k).square()).sqrt()
    return (tangent(log_w) + _quantile(risk, BATCHES_OF_ONE - 1) * error).nan_to_num(math.inf)


def mean_upper(log_w: Tensor, risk: float, pareto_k: Tensor) -> float:
    """U + t SE of the mean over the data.

    Args:
        log_w: ``(num_chains, num_data)``.
        risk: with which it may be exceeded, where the error holds.
        pareto_k: k̂ of each datum's weights, which enters where the data are few.
    """
    return end_of_mean(mean_parts(log_w, pareto_k), risk)


def mean_parts(log_w: Tensor, pareto_k: Tensor) -> Tensor:
    """U, s² and the degrees of freedom of s² of every datum, ``(3, num_data)``, as they enter the mean's upper end."""
    few = log_w.shape[1] < ENOUGH_DATA
    batches = BATCHES_OF_ONE if few else HALVES
    variance = _variance(log_w, batches) * (_factor(pareto_k).square() if few else 1.0)
    return torch.stack([tangent(log_w), variance, torch.full_like(variance, batches - 1)])


def end_of_mean(parts: Tensor, risk: float) -> float:
    """U + t SE of the mean over the data, from :func:`mean_parts`; +inf where it is not known."""
    values, variance, freedoms = parts
    total = float(variance.sum())
    if not math.isfinite(total):
        return math.inf
    freedom = total**2 / float((variance.square() / freedoms).sum()) if total > 0 else math.inf
    found = float(values.mean()) + _quantile(risk, freedom) * math.sqrt(total) / len(values)
    return math.inf if math.isnan(found) else found


def pooled_tail(log_w: Tensor) -> float:
    """k̂ of the weights of all data together, each in units of its datum's mean; NaN where there is nothing to fit.

    A minority of the data with heavy tails, which no median shows, makes up the tail of all.
    """
    relative = log_w - torch.logsumexp(log_w, 0) + math.log(len(log_w))
    known = relative[:, relative.isfinite().any(0)]
    return float(tail_shape(known.reshape(-1, 1))) if known.numel() else math.nan


def _log_sum_of_others(log_w: Tensor) -> Tensor:
    """log Σ_{j≠i} w_j for every i, without a difference of sums: one weight may outweigh all others by far."""
    nothing = torch.full_like(log_w[:1], -math.inf)
    before = torch.cat([nothing, log_w[:-1].logcumsumexp(0)])
    after = torch.cat([log_w.flip(0)[:-1].logcumsumexp(0).flip(0), nothing])
    return torch.logaddexp(before, after)


def _variance(log_w: Tensor, num_batches: int) -> Tensor:
    """s², the variance of the mean of U over the batches, ``(num_data,)``; NaN where U is not finite in some batch."""
    if len(log_w) < 2 * num_batches:
        return torch.full_like(log_w[0], math.nan, dtype=torch.float64)
    return torch.stack([tangent(batch) for batch in log_w.tensor_split(num_batches)]).var(0) / num_batches


def _factor(pareto_k: Tensor) -> Tensor:
    return (1 - pareto_k.clamp(0, LARGEST_K)) ** -1.5


def _quantile(risk: float, freedom: float) -> float:
    """t, Student's quantile."""
    return -float(scipy.special.stdtrit(freedom, risk))
