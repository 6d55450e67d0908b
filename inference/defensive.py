"""Draws of the guide and of the prior together: a defence against a guide that misses part of the posterior.

Importance sampling from the guide alone says nothing about places where the guide never looks: the weights of a guide
that sits on one of two modes are nearly equal, and half the evidence is missing. With a share α of the draws from the
prior, all of them weighted by the mixture they come from,

    u_k ~ (1 − α) q(u|x) + α p(u),      w_k = p(x, u_k) / [(1 − α) q(u_k|x) + α p(u_k)],      E[w] = p(x),

the weights are bounded, w ≤ p(x|u)/α, and where the guide is good this costs a factor 1/(1 − α) of the draws at most.
The shares are fixed beforehand (the balance heuristic), which can only lower the variance. What neither finds stays
unseen: a part of the posterior that the guide misses and in which not one of the prior's draws falls, as in many
dimensions nearly every part is.

References:
    Weighted Average Importance Sampling and Defensive Mixture Distributions (Hesterberg, 1995), Technometrics 37.
    Optimally Combining Sampling Techniques for Monte Carlo Rendering (Veach & Guibas, 1995), SIGGRAPH.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .chunks import chunks
from .density import Density, Start

# The share α of the draws that comes from the prior: at first, and where it has found what the guide misses.
PRIOR_SHARE, LARGE_PRIOR_SHARE = 0.2, 0.8
# Draws that were rounded onto the boundary of a support stand farther out than this; there log |det ∂T/∂u| has
# swallowed the density, and the draw counts as one of weight zero.
_OUTERMOST = 1e4


def defensive_weights(
    density: Density, num_draws: int, memory_mb: float, prior_share: float = PRIOR_SHARE
) -> tuple[Tensor, Tensor]:
    """Log weights of draws of guide and prior, in nats.

    Args:
        density: the pair on the data.
        num_draws: K, at least 2.
        memory_mb: budget in MiB for one pass of the pair.
        prior_share: α.

    Returns:
        The log weights of all draws as draws of the mixture, ``(num_draws, num_data)``, in random order; and those of
        the guide's draws as draws of the guide, fewer of them.
    """
    num_prior = max(round(prior_share * num_draws), 1)
    counts: dict[Start, int] = {"guide": num_draws - num_prior, "prior": num_prior}
    log_shares = [math.log(count / num_draws) for count in counts.values()]
    mixed, own = [], []
    for start, count in counts.items():
        for log_guide, log_prior, log_joint in _ends(density, start, count, memory_mb):
            mixture = torch.logaddexp(log_shares[0] + log_guide, log_shares[1] + log_prior)
            mixed.append(log_joint - mixture)
            if start == "guide":
                own.append(log_joint - log_guide)
    return torch.cat(mixed)[torch.randperm(num_draws)], torch.cat(own)


def _ends(density: Density, start: Start, count: int, memory_mb: float) -> Iterator[Tensor]:
    """The densities of draws, piece by piece: log q, log p(u), log p(x, u), ``(3, particles, num_data)``."""
    for _, particles in chunks(count, 1, density.bytes_each * density.num_data, memory_mb):
        with torch.no_grad():
            u = density.draw(start, particles.stop - particles.start)
            log_guide, log_prior, log_joint = density.ends(u).cpu()
        outside = (u.abs() > _OUTERMOST).any(-1).cpu()
        starts = (part.where(~outside, 0.0) for part in (log_guide, log_prior))
        yield torch.stack([*starts, log_joint.where(~outside, -torch.inf)])
