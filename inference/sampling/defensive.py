"""Draws of the guide, of the prior and of further distributions together: a defence against a guide that misses modes.

Importance sampling from the guide alone says nothing about places where the guide never looks: the weights of a guide
that sits on one of two modes are nearly equal, and half the evidence is missing. With shares α of the draws from the
prior and γ from a mixture r of distributions that was fixed beforehand (:mod:`ppvae.inference.sampling.mode_search`),
all of them weighted by the mixture they come from,

    w = p(x, u) / [(1 − α − γ) q(u|x) + α p(u) + γ r(u)],      E[w] = p(x),

the weights are bounded, w ≤ p(x|u)/α, and where the guide is good this costs a factor 1/(1 − α − γ) of the draws at
most. The shares are fixed beforehand (the balance heuristic), which can only lower the variance.

Draws of the prior alone have the mean p(x) too. Where enough of them carry weight and they agree with the whole, the
guide misses nothing that the whole does not count: `confirms`.

References:
    Weighted Average Importance Sampling and Defensive Mixture Distributions (Hesterberg, 1995), Technometrics 37.
    Optimally Combining Sampling Techniques for Monte Carlo Rendering (Veach & Guibas, 1995), SIGGRAPH.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..pair import Pair
from .heavy_draws import HeavyDraws
from .student import StudentMixture

# The share α of the draws that comes from the prior: at first, and where it has found what the guide misses.
PRIOR_SHARE, LARGE_PRIOR_SHARE = 0.2, 0.8
# Effective draws of the prior that are enough to confirm an estimate: were a quarter of the posterior missing from it,
# none of so many draws of the posterior would fall there once in 300 times.
ENOUGH = 20.0
# By how many standard errors the prior's draws may differ.
AGREEMENT = 3.0
# Draws that were rounded onto the boundary of a support stand farther out than this; there log |det ∂T/∂u| has
# swallowed the density, and the draw counts as one of weight zero.
_OUTERMOST = 1e4


class Strata(NamedTuple):
    """Log weights of one sample, in nats.

    Attributes:
        mixed: of all draws as draws of the mixture, ``(num_draws, num_data)``, in random order.
        guide: of the guide's draws as draws of the guide, fewer of them.
        prior: of the prior's draws as draws of the prior.
        heaviest: of the mixture's draws.
    """

    mixed: Tensor
    guide: Tensor
    prior: Tensor
    heaviest: HeavyDraws


def defensive_weights(
    pair: Pair,
    num_draws: int,
    memory_mb: float,
    prior_share: float = PRIOR_SHARE,
    proposal: StudentMixture | None = None,
    proposal_share: float = 0.0,
) -> Strata:
    """Log weights of draws of guide, prior and a further proposal.

    Args:
        pair: the pair on the data.
        num_draws: K, at least 3.
        memory_mb: budget in MiB for one pass of the pair.
        prior_share: α.
        proposal: r, with at least one component for each datum.
        proposal_share: γ; 0 without a proposal.
    """
    num_prior = max(round(prior_share * num_draws), 1)
    num_others = max(round(proposal_share * num_draws), 1) if proposal is not None else 0
    counts = {"guide": num_draws - num_prior - num_others, "prior": num_prior, "proposal": num_others}
    log_shares = [math.log(count / num_draws) if count else -math.inf for count in counts.values()]
    mixed, own, by_prior = [], [], []
    heaviest: HeavyDraws | None = None
    for source, count in counts.items():
        for u, densities in _densities(pair, proposal, source, count, memory_mb):
            log_guide, log_prior, log_proposal, log_joint = densities
            parts = zip(log_shares, (log_guide, log_prior, log_proposal), strict=True)
            mixed.append(log_joint - torch.logsumexp(torch.stack([share + part for share, part in parts]), 0))
            heaviest = heaviest.among(u, mixed[-1]) if heaviest is not None else HeavyDraws.of(u, mixed[-1])
            if source == "guide":
                own.append(log_joint - log_guide)
            if source == "prior":
                by_prior.append(log_joint - log_prior)
    assert heaviest is not None
    return Strata(torch.cat(mixed)[torch.randperm(num_draws)], torch.cat(own), torch.cat(by_prior), heaviest)


def confirms(prior_log_evidence: Tensor, prior_ess: Tensor, log_evidence: Tensor) -> Tensor:
    """Whether draws of the prior alone agree with an estimate and are enough to say so, ``(num_data,)`` bool."""
    agree = (log_evidence - prior_log_evidence).abs() <= AGREEMENT / prior_ess.clamp(min=1.0).sqrt()
    return agree & (prior_ess >= ENOUGH)


def _densities(
    pair: Pair, proposal: StudentMixture | None, source: str, count: int, memory_mb: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """Draws, piece by piece, with log q, log p(u), log r(u), log p(x, u), ``(4, particles, num_data)``."""
    if not count:
        return
    outermost = math.inf if pair.by_guide else _OUTERMOST  # normals have no boundary
    for particles in pair.portions(count, memory_mb):
        size = particles.stop - particles.start
        with torch.no_grad():
            if source == "proposal":
                assert proposal is not None
                u = proposal.draw(size)
            else:
                u = pair.draw("guide" if source == "guide" else "prior", size)
            log_guide, log_prior, log_joint = pair.ends(u).cpu()
            log_proposal = torch.full_like(log_joint, -math.inf) if proposal is None else proposal.log_prob(u).cpu()
        outside = (u.abs() > outermost).any(-1).cpu()
        starts = (part.where(~outside, 0.0) for part in (log_guide, log_prior, log_proposal))
        yield u, torch.stack([*starts, log_joint.where(~outside, -torch.inf)])
