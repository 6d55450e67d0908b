"""The data of a training, cut into mini-batches in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ppvae.datasets import Dataset

from ..pair import Arguments, Batch, Pair, as_batch, finite_batch


@dataclass(frozen=True)
class Source:
    """The data of a training, in an order that depends on the seed and the epoch alone."""

    data: Arguments
    validation: Batch | None
    draw: Callable[[Tensor], Tensor]
    batch_size: int
    seed: int
    whole: bool = False

    @staticmethod
    def of(data: Any, validation: Any, batch_size: int, seed: int) -> Source:
        """The source of a tensor, a tuple ``(x, *context)`` or a :class:`ppvae.datasets.Dataset`."""
        draw: Callable[[Tensor], Tensor] = lambda x: x  # noqa: E731
        if isinstance(data, Dataset):
            validation = data.batch("validation") if validation is None and len(data.validation) else validation
            data, draw = data.batch("train"), data.draw
        batch = finite_batch(as_batch(data, "data"), "data")
        held_out = finite_batch(as_batch(validation, "validation"), "validation") if validation is not None else None
        return Source(Arguments.of(batch), held_out, draw, batch_size, seed)

    def cut_as(self, pair: Pair | None) -> Source:
        """The source with its data cut as a pair's are; whole, where the pair runs on all data at once."""
        if pair is None or not pair.divisible:
            return replace(self, whole=True)
        return replace(self, data=replace(self.data, by_row=pair.arguments.by_row))

    @property
    def num_data(self) -> int:
        """How many data there are."""
        return self.data.num_rows

    @property
    def num_batches(self) -> int:
        """Batches in an epoch; the last may be smaller."""
        return 1 if self.whole else math.ceil(self.num_data / self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """The order of the data in an epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(self.num_data, generator=generator)

    def batch(self, order: Tensor, number: int) -> Batch:
        """The batch of that number in an order of the data."""
        if self.whole:
            picked = self.data.batch
        else:
            picked = self.data.rows(order[number * self.batch_size : (number + 1) * self.batch_size]).batch
        return (self.draw(picked[0]), *picked[1:])
