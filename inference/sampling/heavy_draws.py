"""The heaviest of independent draws: they carry most of what the draws know of where the posterior is."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

# How many are kept of each datum: nearly all of the weight, where the draws do not settle the datum by themselves.
KEPT = 256
# Fewer where a draw is long, so that those of a hundred data are some 4 million numbers; but so many always.
NUMBERS, LEAST_KEPT = 4_000_000, 32


class HeavyDraws(NamedTuple):
    """Of each datum, the draws of the greatest weight.

    Attributes:
        u: ``(num_kept, num_data, dim)``.
        log_w: their log weights, ``(num_kept, num_data)``, with E[w] = p(x) over all draws.
        num_draws: of how many draws they are the heaviest, ``(num_data,)``.

    Example:
        >>> import torch
        >>> u = torch.arange(100.0)[:, None, None]
        >>> heavy = HeavyDraws.of(u, u[..., 0]).among(u + 0.5, u[..., 0] + 0.5)
        >>> heavy.log_w[:3, 0].tolist(), heavy.u[2].item(), heavy.num_draws.tolist()
        ([99.5, 99.0, 98.5], 98.5, [200])
    """

    u: Tensor
    log_w: Tensor
    num_draws: Tensor

    @staticmethod
    def of(u: Tensor, log_w: Tensor) -> HeavyDraws:
        """The heaviest of draws ``(num_draws, num_data, dim)`` and log weights ``(num_draws, num_data)``."""
        kept = num_kept(u.shape[-1])
        few = max(kept - len(u), 0)  # as many for all data, however few draws some have
        numbers = log_w.nan_to_num(-math.inf, math.inf, -math.inf)
        numbers, at = pad(numbers, (0, 0, 0, few), value=-math.inf).topk(kept, 0)
        at = at.clamp(max=len(u) - 1).to(u.device)
        heaviest = u.gather(0, at[..., None].expand(*at.shape, u.shape[-1]))
        return HeavyDraws(heaviest, numbers, torch.full((u.shape[1],), len(u)))

    @staticmethod
    def none(num_data: int, like: Tensor) -> HeavyDraws:
        """No draws yet, in the type and the dimension of others."""
        u = like.new_zeros(num_kept(like.shape[-1]), num_data, like.shape[-1])
        log_w = torch.full(u.shape[:2], -math.inf, dtype=torch.float64)
        return HeavyDraws(u, log_w, torch.ones(num_data, dtype=torch.long))

    def among(self, u: Tensor, log_w: Tensor) -> HeavyDraws:
        """The heaviest of these and of further draws."""
        found = HeavyDraws.of(torch.cat([self.u, u.to(self.u)]), torch.cat([self.log_w, log_w]))
        return found._replace(num_draws=self.num_draws + len(u))

    def rows(self, index: Tensor) -> HeavyDraws:
        """Those of some data."""
        return HeavyDraws(self.u[:, index.to(self.u.device)], self.log_w[:, index], self.num_draws[index])

    def put(self, index: Tensor, others: HeavyDraws) -> HeavyDraws:
        """The same with others in the place of those of the data ``index``."""
        at = index.to(self.u.device)
        return HeavyDraws(
            self.u.index_copy(1, at, others.u),
            self.log_w.index_copy(1, index, others.log_w),
            self.num_draws.index_copy(0, index, others.num_draws),
        )


def num_kept(dim: int) -> int:
    """How many draws of so many numbers are kept of each datum."""
    return min(KEPT, max(LEAST_KEPT, NUMBERS // (100 * max(dim, 1))))
