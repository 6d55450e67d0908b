"""The data of a training, cut into mini-batches in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppvae.datasets import Dataset
from ppvae.errors import DataError

from .importance import finite_batch
from .traces import Batch, as_batch, rows


@dataclass(frozen=True)
class Source:
    """The data of a training, in an order that depends on the seed and the epoch alone."""

    data: Batch
    validation: Batch | None
    draw: Callable[[Tensor], Tensor]
    batch_size: int
    seed: int

    @staticmethod
    def of(data: Any, validation: Any, batch_size: int, seed: int) -> Source:
        """The source of a tensor, a tuple ``(x, *context)`` or a :class:`ppvae.datasets.Dataset`."""
        draw: Callable[[Tensor], Tensor] = lambda x: x  # noqa: E731
        if isinstance(data, Dataset):
            validation = data.validation if validation is None else validation
            data, draw = data.train, data.draw
        batch = finite_batch(as_batch(data))
        for i, part in enumerate(batch[1:], 1):
            if isinstance(part, Tensor) and part.dim() and len(part) != len(batch[0]):
                raise DataError(
                    f"data[{i}] has {len(part)} rows and data[0] has {len(batch[0])}: the members of a tuple of data "
                    "must run over the same data."
                )
        held_out = finite_batch(as_batch(validation)) if validation is not None else None
        return Source(batch, held_out, draw, batch_size, seed)

    @property
    def num_batches(self) -> int:
        """Batches in an epoch; the last may be smaller."""
        return math.ceil(len(self.data[0]) / self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """The order of the data in an epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(len(self.data[0]), generator=generator)

    def batch(self, order: Tensor, number: int) -> Batch:
        """The batch of that number in an order of the data."""
        picked = rows(self.data, order[number * self.batch_size : (number + 1) * self.batch_size])
        return (self.draw(picked[0]), *picked[1:])
