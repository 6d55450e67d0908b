"""Start the chains of a datum anew from places that carry their weights.

Chains that start over-dispersed may settle in modes of no mass, and never leave them. Annealed importance sampling from
a start π₀ to the posterior (:mod:`ppvae.inference.sampling.annealing`) gives each of its chains a weight w with

    E[w f(u)] = p(x) E[f(u) | x]    for every f,

whether π₀ is the prior or the guide. The weights of both are on one scale, so that their places are pooled: what the
guide misses is found from the prior, and what is narrow from the guide. With W_k = w_k / Σw, *systematic resampling*
draws U ~ Uniform(0, 1) and keeps, for each c = 0, …, C − 1, the place k with

    W_1 + … + W_{k−1} ≤ (c + U)/C < W_1 + … + W_k.

Place k is kept ⌊C W_k⌋ or ⌈C W_k⌉ times, C W_k on average, and so are places side by side with the sum of their W. They
are numbered as the leaves of a tree that joins the nearest first (average linkage), in which the places of a mode that
stands apart lie side by side: it is kept so often as its whole weight asks.

References:
    Annealed Importance Sampling (Neal, 2001), Statistics and Computing 11, arXiv:physics/9803008.
    Sequential Monte Carlo Samplers (Del Moral, Doucet & Jasra, 2006), Journal of the Royal Statistical Society B 68:
    weighted places, resampled and moved.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..option_records import Start
from ..pair import Pair, has_continuum
from .annealing import forward_in_portions
from .pilot import tune

# Annealed chains of each start, for each chain that starts anew; and the distributions on their way.
CHAINS_EACH, DISTRIBUTIONS = 4, 100
# Distances are cut off at this many median deviations of a coordinate: a place astray is far away, and no more.
FARTHEST = 1e8
# Draws of a datum, of all chains, among which the neighbours of a place are sought; and how many times as far as the
# loneliest of them a place must lie to be left behind.
NEIGHBOURS, LONELIER = 1000, 1.5


class Places(NamedTuple):
    """Where annealed chains ended, those of a mode side by side; on the CPU.

    Attributes:
        u: ``(num_places, num_data, dim)``.
        weights: W, ``(num_places, num_data)``, float64; they sum to 1 for each datum that has any.
        found: which data have a place of finite weight, ``(num_data,)`` bool; of others nothing is known.
    """

    u: Tensor
    weights: Tensor
    found: Tensor

    def rows(self, index: Tensor) -> Places:
        """The places of some data."""
        return Places(self.u[:, index], self.weights[:, index], self.found[index])

    def starts(self, num_chains: int) -> Tensor:
        """Places kept in proportion to their weights, ``(num_chains, num_data, dim)``."""
        return self.u[systematic(self.weights, num_chains), torch.arange(self.u.shape[1])]

    def left_behind(self, draws: Tensor) -> Tensor:
        """The weight of the places to which draws ``(num_chains, num_draws, num_data, dim)`` do not come, per datum.

        Draws of the posterior are as near to the draws of the chains as those of one chain are to those of others. A
        place is left behind if it is much farther from the nearest draw than any of these is from another chain's.
        """
        draws = draws[:, :: max(len(draws) * draws.shape[1] // NEIGHBOURS, 1)].double()
        chain = torch.arange(len(draws)).repeat_interleave(draws.shape[1])
        same = chain[:, None] == chain
        left = []
        for states, places, weights in zip(
            *(t.unbind(-2) for t in (draws, self.u.double())), self.weights.T, strict=True
        ):
            flat = states.flatten(0, 1)
            scale = flat.std(0).clamp(min=torch.finfo(flat.dtype).tiny)
            apart = torch.cdist(flat / scale, flat / scale).masked_fill(same, torch.inf).amin(1)
            away = torch.cdist(places / scale, flat / scale).amin(1)
            left.append(weights[~(away <= LONELIER * apart.max())].sum())
        return torch.stack(left)


def annealed_places(pair: Pair, num_chains: int, memory_mb: float) -> Places:
    """Where chains end that are annealed from the prior and from the guide, and their weights.

    Args:
        pair: the pair on the data.
        num_chains: how many chains are to start from these places.
        memory_mb: budget in MiB for the chains that are annealed at a time.
    """
    log_w, u = _pool(pair, CHAINS_EACH * num_chains, memory_mb)
    # An infinite density is an underflow, and where there is none is no place.
    log_w = torch.where(log_w.isfinite() & u.isfinite().all(-1), log_w, -torch.inf)
    order = _side_by_side(u)
    weights = log_w.softmax(0).nan_to_num(0.0).gather(0, order)
    return Places(u.gather(0, order[..., None].expand_as(u)), weights, log_w.isfinite().any(0))


def systematic(weights: Tensor, count: int) -> Tensor:
    """Systematic resampling of each column of weights ``(num_places, num_data)``: numbers ``(count, num_data)``.

    Example:
        >>> import torch
        >>> kept = systematic(torch.tensor([[0.5], [0.0], [0.25], [0.25]]), 4)
        >>> kept[:, 0].tolist()
        [0, 0, 2, 3]
    """
    upto = weights.double().cumsum(0)
    offset = torch.rand(weights.shape[1], dtype=torch.float64)
    at = (torch.arange(count, dtype=torch.float64)[:, None] + offset) / count * upto[-1]
    kept = torch.searchsorted(upto.T.contiguous(), at.T.contiguous(), right=True).T
    return kept.clamp(max=len(weights) - 1)


def _pool(pair: Pair, count: int, memory_mb: float) -> tuple[Tensor, Tensor]:
    """Annealed chains, ``count`` of each start: log w ``(num_places, num_data)``, and where they end; on the CPU."""
    parts = []
    for start in _starts(pair):
        tuning = tune(pair, start, DISTRIBUTIONS)
        parts.append(forward_in_portions(pair, tuning, start, count, memory_mb))
    return torch.cat([part.log_w for part in parts]), torch.cat([part.ends.cpu() for part in parts])


def _starts(pair: Pair) -> tuple[Start, ...]:
    """The starts whose weights have the mean p(x): not a prior that is masked, which is no distribution."""
    return ("prior", "guide") if has_continuum(pair) else ("guide",)


def _side_by_side(u: Tensor) -> Tensor:
    """Numbers of places ``(num_places, num_data, dim)`` in the order of a tree's leaves, ``(num_places, num_data)``."""
    from scipy.cluster.hierarchy import leaves_list, linkage  # slow to import

    middle = u.median(0).values
    scale = (u - middle).abs().median(0).values.clamp(min=torch.finfo(u.dtype).tiny)
    scaled = ((u - middle) / scale).nan_to_num(FARTHEST).clamp(-FARTHEST, FARTHEST).double()
    leaves = [torch.from_numpy(leaves_list(linkage(one.numpy(), "average"))) for one in scaled.unbind(1)]
    return torch.stack(leaves, 1).long()
