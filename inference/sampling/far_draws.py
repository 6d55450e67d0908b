"""Draws far from where chains ended: do they find more of the posterior there than the chains did?

Chains that never came to a part of the posterior have weights that say nothing of it, however near to each other these
are. A part that is broad is found by draws from ever wider normal distributions about the chains' ends,

    r(u) = (1/n) Σ_f N(u; m, f² diag s²),   f = 1.5, 3, 6, 12, 24, 48,

with the weighted mean m and standard deviation s of the ends. Let A be the places outside of nine tenths of the chains'
weight, by the distance |(u − m)/s|. Then

    E_r[p(x, u)/r(u); A] = p(x, A)   and   E[w; the chain ends in A] = p(x, A):

where the first exceeds the second by more than three standard errors, the chains have not reached all of A. Draws of
guide and prior that were made before are asked the same, by their own weights: they cost nothing, and where the guide
is wide they find more. What neither can see: parts that are narrow, and parts nearer than A.

References:
    Annealed importance sampling (Neal, 2001), arXiv:physics/9803008, §3: E[w f(u)] = p(x) E[f(u) | x].
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..pair import own_randomness
from .heavy_draws import HeavyDraws
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


def unreached(
    path: AnnealingPath,
    ends: Tensor,
    log_w: Tensor,
    num_draws: int,
    memory_mb: float,
    heavy: HeavyDraws | None = None,
) -> Tensor:
    """The share of p(x) that lies far out where the chains did not come, ``(num_data,)``; 0 where none was found.

    The global generators are left as they were found.

    Args:
        path: what the chains were annealed on.
        ends: where they ended, ``(num_chains, num_data, dim)``.
        log_w: their weights, ``(num_chains, num_data)``.
        num_draws: of all widths together.
        memory_mb: budget in MiB for one pass of the pair.
        heavy: the heaviest of draws that know nothing of the chains, in the chains' coordinates, to be asked too.
    """
    reach = Reach.of(ends, log_w)
    u, log_draw_w = _wide_draws(path, reach, num_draws, ends, memory_mb)
    share = reach.excess(u, log_draw_w, torch.full_like(reach.edge, len(u)))
    return share if heavy is None else torch.maximum(share, reach.excess(*heavy))


class Reach(NamedTuple):
    """Where the chains ended.

    Attributes:
        mean: m, ``(num_data, dim)``.
        scale: s, ``(num_data, dim)``.
        edge: the squared distance within which nine tenths of their weight lie, ``(num_data,)``.
        beyond: the share of their weight beyond, ``(num_data,)``.
        error: its standard error.
        log_evidence: their estimate of log p(x), ``(num_data,)``.
    """

    mean: Tensor
    scale: Tensor
    edge: Tensor
    beyond: Tensor
    error: Tensor
    log_evidence: Tensor

    @staticmethod
    def of(ends: Tensor, log_w: Tensor) -> Reach:
        """That of chains; see :func:`unreached`."""
        log_w, ends = log_w.to(ends.device).double(), ends.double()
        shares = log_w.softmax(0).nan_to_num(0.0)
        mean = (shares[..., None] * ends).sum(0)
        scale = (shares[..., None] * (ends - mean).square()).sum(0).sqrt().clamp(min=1e-12)
        distance = ((ends - mean) / scale).square().sum(-1)
        edge = _weighted_quantile(distance, shares)
        outside = (distance > edge).double()
        beyond = (shares * outside).sum(0)
        error = (shares.square() * (outside - beyond).square()).sum(0).sqrt()
        return Reach(mean, scale, edge, beyond, error, torch.logsumexp(log_w, 0) - math.log(len(log_w)))

    def distance(self, u: Tensor) -> Tensor:
        """|(u − m)/s|², of places ``(num_places, num_data, dim)``."""
        return ((u.double() - self.mean) / self.scale).square().sum(-1)

    def excess(self, u: Tensor, log_w: Tensor, num_draws: Tensor) -> Tensor:
        """The share of p(x) that draws find beyond the edge and chains do not, ``(num_data,)``; 0 where unsure.

        Args:
            u: draws, ``(num, num_data, dim)``.
            log_w: their log weights, ``(num, num_data)``, E[w] = p(x) over all draws.
            num_draws: of which these are all that count, ``(num_data,)``.
        """
        num_draws = num_draws.to(self.edge)
        beyond = log_w.to(self.edge).where(self.distance(u) > self.edge, -math.inf)
        weights = (beyond - self.log_evidence).exp().nan_to_num(0.0, 0.0, 0.0)  # relative to the chains' estimate
        found, squares = weights.sum(0) / num_draws, weights.square().sum(0)
        error = (squares / num_draws - found.square()).clamp(min=0).sqrt() / num_draws.sqrt()
        effective = weights.sum(0).square() / squares
        excess = found - self.beyond
        sure = (effective >= FEW) & (excess > STANDARD_ERRORS * torch.hypot(error, self.error))
        return torch.where(sure, excess / (1 + excess), 0.0).cpu()


def _weighted_quantile(values: Tensor, shares: Tensor) -> Tensor:
    """The least of the values ``(num, num_data)`` below or at which nine tenths of the shares lie."""
    ordered, order = values.sort(0)
    below = (shares.gather(0, order).cumsum(0) < WITHIN).sum(0, keepdim=True).clamp(max=len(values) - 1)
    return ordered.gather(0, below)[0]


def _wide_draws(
    path: AnnealingPath, reach: Reach, num_draws: int, ends: Tensor, memory_mb: float
) -> tuple[Tensor, Tensor]:
    """Draws from ever wider normals ``(num_draws, num_data, dim)``, and their log weights; −inf without a number."""
    factors = torch.tensor(FACTORS, dtype=torch.float64, device=reach.mean.device)
    each = factors.repeat_interleave(num_draws // len(FACTORS))[:, None, None]
    with own_randomness(), torch.no_grad():
        noise = torch.randn(len(each), *reach.mean.shape, dtype=torch.float64).to(reach.mean.device)
        u = (reach.mean + each * reach.scale * noise).to(ends)
        parts = path.portions(len(u), memory_mb)
        log_joint = torch.cat([path.path("guide")(u[part])[1] for part in parts]).double()
    distance, dim = reach.distance(u), u.shape[-1]
    constant = reach.scale.log().sum(-1) + dim / 2 * math.log(2 * math.pi) + math.log(len(factors))
    log_r = torch.stack([-distance / (2 * f * f) - dim * math.log(f) for f in FACTORS]).logsumexp(0) - constant
    return u, (log_joint - log_r).nan_to_num(-math.inf, math.inf, -math.inf)
