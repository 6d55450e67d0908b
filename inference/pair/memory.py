"""Cut work into pieces that fit a memory budget.

What a pair needs per draw and unit cannot be read off its code, so it is measured: small runs under a dispatch mode
that adds up the bytes of every tensor made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from ..options import valid_memory
from .randomness import generator_kept

# One (draw, unit) never costs less than its float64 weight and what is computed from it.
FLOOR = 64


class _Bytes(TorchDispatchMode):
    """Counts the bytes of all tensors that operations return (an upper bound of what is alive at once)."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.total += sum(t.nbytes for t in tree_iter(out) if isinstance(t, Tensor) and t.is_contiguous())
        return out


def growth(work: Callable[[int], Any], few: int, many: int) -> int:
    """Bytes by which the work grows with one more draw."""
    totals = []
    for num_draws in (few, many):
        with torch.no_grad(), generator_kept(), _Bytes() as counted:
            work(num_draws)
        totals.append(counted.total)
    return max((totals[1] - totals[0]) // (many - few), FLOOR)


def chunks(num_draws: int, num_units: int, bytes_each: int, memory_mb: float) -> Iterator[tuple[slice, slice]]:
    """Slices ``(units, draws)`` that cover the rectangle, units outermost, each within the budget.

    All draws of a unit go first into one chunk: the guide's network then runs once for many draws.
    """
    budget = max(int(valid_memory(memory_mb) * 2**20) // bytes_each, 1)
    draws = min(num_draws, budget)
    units = min(num_units, max(budget // draws, 1))
    for n in range(0, num_units, units):
        for k in range(0, num_draws, draws):
            yield slice(n, min(n + units, num_units)), slice(k, min(k + draws, num_draws))
