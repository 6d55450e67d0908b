"""Cut work into pieces that fit a memory budget.

What a pair needs per particle and datum cannot be read off its code, so it is measured: one small run under a
dispatch mode that adds up the bytes of every tensor made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from ppvae.errors import OptionError, PairError, first_line

from .traces import Batch, Plates, Program, generator_kept, particle_traces, rows

# One (particle, datum) never costs less than its float64 weight and what is computed from it.
_FLOOR = 64


class _Bytes(TorchDispatchMode):
    """Counts the bytes of all tensors that operations return (an upper bound of what is alive at once)."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.total += sum(t.nbytes for t in tree_iter(out) if isinstance(t, Tensor) and t.is_contiguous())
        return out


def bytes_per_particle(model: Program, guide: Program, batch: Batch, plates: Plates) -> int:
    """Bytes that one particle of one datum costs, measured as the growth from 2 to 34 particles of one datum."""
    one = rows(batch, slice(0, 1))
    totals = []
    for num_particles in (2, 34):
        with torch.no_grad(), generator_kept(), _Bytes() as counted:
            try:
                for trace in particle_traces(model, guide, one, num_particles, plates):
                    trace.compute_log_prob()
            except (RuntimeError, ValueError, IndexError) as error:
                raise PairError(
                    f"the pair does not run under an outer plate of particles ({first_line(error)}): let both programs "
                    "broadcast over dimensions left of the data, and see what check(model, guide, x) finds."
                ) from error
        totals.append(counted.total)
    return max((totals[1] - totals[0]) // 32, _FLOOR)


def chunks(num_particles: int, num_data: int, bytes_each: int, memory_mb: float) -> Iterator[tuple[slice, slice]]:
    """Slices ``(data, particles)`` that cover the rectangle, data outermost, each within the budget.

    All particles of a datum go first into one chunk: the guide's network then runs once for many particles.
    """
    if not memory_mb > 0:
        raise OptionError(f"memory_mb must be a positive number of mebibytes; it is {memory_mb}.")
    budget = max(int(memory_mb * 2**20) // bytes_each, 1)
    particles = min(num_particles, budget)
    data = min(num_data, max(budget // particles, 1))
    for n in range(0, num_data, data):
        for k in range(0, num_particles, particles):
            yield slice(n, min(n + data, num_data)), slice(k, min(k + particles, num_particles))
