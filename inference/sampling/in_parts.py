"""A pair's densities at long lists of unconstrained latents, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..option_records import Start
from ..pair import Pair


class InParts(NamedTuple):
    """A pair at lists of latents of every datum, a part of the list at a time, as many as the memory allows."""

    pair: Pair
    memory_mb: float

    def draw(self, start: Start, count: int) -> Tensor:
        """Draws of the guide or of the prior, ``(count, num_data, dim)``."""
        return torch.cat([self.pair.draw(start, part.stop - part.start) for part in self._parts(count)])

    def ends(self, u: Tensor) -> Tensor:
        """log q, log p(u) and log p(x, u), ``(3, num_places, num_data)``."""
        return torch.cat([self.pair.ends(u[part]) for part in self._parts(len(u))], 1)

    def joint(self, u: Tensor) -> Tensor:
        """log p(x, u), ``(num_places, num_data)``."""
        return torch.cat([self.pair.joint(u[part])[0] for part in self._parts(len(u))])

    def rows(self, index: Tensor) -> InParts:
        """The same at some of the data."""
        return self._replace(pair=self.pair.rows(index))

    def _parts(self, count: int) -> Iterator[slice]:
        return self.pair.portions(count, self.memory_mb)
