"""Draws far from where chains ended: do they find more of the posterior there than the chains did?

Chains that never came to a part of the posterior have weights that say nothing of it, however near to each other these
are. A part that is broad is found by draws from ever wider normal distributions about the chains' ends,

    r(u) = (1/n) Σ_f N(u; m, f² diag s²),   f = 1.5, 3, 6, 12, 24, 48,

with the weighted mean m and standard deviation s of the ends. Let A be the places outside of nine tenths of the chains'
weight, by the distance |(u − m)/s|. Then

    E_r[p(x, u)/r(u); A] = p(x, A)   and   E[w; the chain ends in A] = p(x, A):

where the first exceeds the second by more than three standard errors, the chains have not reached all of A. What this
cannot see: parts that are narrow, and parts nearer than A.

References:
    Annealed importance sampling (Neal, 2001), arXiv:physics/9803008, §3: E[w f(u)] = p(x) E[f(u) | x].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..pair import own_randomness
from .mixture_start import AnnealingPath

# Widths of the normal distributions, in standard deviations of the chains' ends.
FACTORS = (1.5, 3.0, 6.0, 12.0, 24.0, 48.0)
# The chains' weight that lies within.
WITHIN = 0.9
# What the excess must be to count: so many standard errors, and that of so many effective draws.
STANDARD_ERRORS, FEW = 3.0, 10.0
# Draws, as a share of the chains' evaluations; and the fewest from each width.
FAR_SHARE, LEAST_DRAWS = 0.05, 48


def num_far_draws(evaluations: int) -> int:
    """How many draws, of all widths together, suit chains that cost so many evaluations per datum."""
    return max(int(FAR_SHARE * evaluations / len(FACTORS)), LEAST_DRAWS) * len(FACTORS)


def unreached(path: AnnealingPath, ends: Tensor, log_w: Tensor, num_draws: int, memory_mb: float) -> Tensor:
    """The share of p(x) that lies far out where the chains did not come, ``(num_data,)``; 0 where none was found.

    The global generators are left as they were found.

    Args:
        path: what the chains were annealed on.
        ends: where they ended, ``(num_chains, num_data, dim)``.
        log_w: their weights, ``(num_chains, num_data)``.
        num_draws: of all widths together.
        memory_mb: budget in MiB for one pass of the pair.
    """
    log_w = log_w.to(ends.device).double()
    shares = log_w.softmax(0).nan_to_num(0.0)
    mean = (shares[..., None] * ends.double()).sum(0)
    scale = (shares[..., None] * (ends.double() - mean).square()).sum(0).sqrt().clamp(min=1e-12)
    distance = ((ends.double() - mean) / scale).square().sum(-1)
    edge = _weighted_quantile(distance, shares)
    by_draws = _draws_beyond(path, mean, scale, edge, num_draws, ends, memory_mb) - (
        torch.logsumexp(log_w, 0) - math.log(len(log_w))
    )
    weights = by_draws.exp().nan_to_num(0.0, 0.0, 0.0)  # relative to the chains' estimate
    found, error = weights.mean(0), weights.std(0) / math.sqrt(len(weights))
    effective = weights.sum(0).square() / weights.square().sum(0)
    outside = (distance > edge).double()
    by_chains = (shares * outside).sum(0)
    chains_error = (shares.square() * (outside - by_chains).square()).sum(0).sqrt()
    excess = found - by_chains
    sure = (effective >= FEW) & (excess > STANDARD_ERRORS * torch.hypot(error, chains_error))
    return torch.where(sure, excess / (1 + excess), 0.0).cpu()


def _weighted_quantile(values: Tensor, shares: Tensor) -> Tensor:
    """The least of the values ``(num, num_data)`` below or at which nine tenths of the shares lie."""
    ordered, order = values.sort(0)
    below = (shares.gather(0, order).cumsum(0) < WITHIN).sum(0, keepdim=True).clamp(max=len(values) - 1)
    return ordered.gather(0, below)[0]


def _draws_beyond(
    path: AnnealingPath, mean: Tensor, scale: Tensor, edge: Tensor, num_draws: int, ends: Tensor, memory_mb: float
) -> Tensor:
    """Log weights of the wide draws, ``(num_draws, num_data)``; −inf within the edge, or where there is no number."""
    factors = torch.tensor(FACTORS, dtype=torch.float64, device=mean.device)
    each = factors.repeat_interleave(num_draws // len(FACTORS))[:, None, None]
    with own_randomness(), torch.no_grad():
        noise = torch.randn(len(each), *mean.shape, dtype=torch.float64).to(mean.device)
        u = (mean + each * scale * noise).to(ends)
        parts = path.portions(len(u), memory_mb)
        log_joint = torch.cat([path.path("guide")(u[part])[1] for part in parts]).double()
    distance = ((u.double() - mean) / scale).square().sum(-1)
    dim = u.shape[-1]
    constant = scale.log().sum(-1) + dim / 2 * math.log(2 * math.pi) + math.log(len(factors))
    log_r = torch.stack([-distance / (2 * f * f) - dim * math.log(f) for f in FACTORS]).logsumexp(0) - constant
    beyond = (log_joint - log_r).where(distance > edge, -math.inf)
    return beyond.nan_to_num(-math.inf, math.inf, -math.inf)
