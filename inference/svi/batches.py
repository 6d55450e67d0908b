"""The data of a training, cut into mini-batches in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ppvae.datasets import Dataset
from ppvae.errors import OptionError

from ..pair import Arguments, Batch, Pair, as_batch, finite_batch

# Of data that are read batch by batch, so many show how the programs run.
NUM_SHOWN = 2000


@dataclass(frozen=True)
class Source:
    """The data of a training, in an order that depends on the seed and the epoch alone.

    Where training rows are read from a file batch by batch, ``rows`` are these, ``data`` holds their numbers in their
    place, and ``draw`` reads them.

    Attributes:
        data: all of them.
        validation: data to score.
        draw: what is done to x at each draw.
        batch_size: data per step, of all processes together.
        seed: of the order.
        whole: whether the programs run on all data at once.
        share: the rows of each batch that this process takes.
    """

    data: Arguments
    validation: Batch | None
    draw: Callable[[Tensor], Tensor]
    batch_size: int
    seed: int
    whole: bool = False
    share: slice = field(default_factory=lambda: slice(None))
    rows: Any = None

    @staticmethod
    def of(data: Any, validation: Any, batch_size: int, seed: int) -> Source:
        """The source of a tensor, a tuple ``(x, *context)`` or a :class:`ppvae.datasets.Dataset`."""
        draw: Callable[[Tensor], Tensor] = _as_it_is
        if isinstance(data, Dataset):
            validation = data.batch("validation") if validation is None and len(data.validation) else validation
            if data.streams:
                return _streamed(data, validation, batch_size, seed)
            data, draw = data.batch("train"), data.draw
        batch = finite_batch(as_batch(data, "data"), "data")
        held_out = finite_batch(as_batch(validation, "validation"), "validation") if validation is not None else None
        return Source(Arguments.of(batch), held_out, draw, batch_size, seed)

    @property
    def shown(self) -> Batch:
        """All data, or some where they are read from a file batch by batch: what shows how the programs run."""
        if self.rows is None:
            return (self.draw(self.data.batch[0]), *self.data.batch[1:])
        some = self.data.rows(slice(NUM_SHOWN)).batch
        return (self.draw(some[0]), *some[1:])

    @property
    def marks(self) -> Batch:
        """What a checkpoint must agree with: the data, or some of them where they are read batch by batch."""
        return (*self.data.batch, self.rows[:NUM_SHOWN]) if self.rows is not None else self.data.batch

    def cut_as(self, pair: Pair | None, share: slice) -> Source:
        """The source with its data cut as a pair's are; whole, where the pair runs on all data at once.

        Args:
            pair: the pair on the data.
            share: the rows of each batch that this process takes.

        Raises:
            OptionError: there are several processes, and nothing to divide among them; or the data cannot be held.
        """
        if pair is None or not pair.divisible:
            if self.rows is not None:
                raise OptionError(
                    "the pair runs on all data at once only, and these are too large to be held in memory: give fewer "
                    "rows, or a pair that can be run on some of the data."
                )
            if share != slice(None):
                raise OptionError(
                    "compute asks for several processes, and this pair runs on all data at once: there is nothing to "
                    "divide among them. Leave compute out."
                )
            return replace(self, whole=True)
        return replace(self, data=replace(self.data, by_row=pair.arguments.by_row), share=share)

    def validated(self, share: slice) -> Batch:
        """Some of the validation data."""
        assert self.validation is not None
        if share == slice(None):
            return self.validation
        arguments = Arguments.of(self.validation)
        known = len(arguments.leaves) == len(self.data.leaves)
        return replace(arguments, by_row=self.data.by_row if known else arguments.by_row).rows(share).batch

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

    def size(self, number: int) -> int:
        """How many data the batch of that number has, on all processes together."""
        return self.num_data if self.whole else min(self.batch_size, self.num_data - number * self.batch_size)

    def own_size(self, number: int) -> int:
        """How many of them this process takes."""
        return len(range(self.size(number))[self.share])

    def batch(self, order: Tensor, number: int) -> Batch:
        """This process's share of the batch of that number in an order of the data."""
        rows = order[number * self.batch_size : (number + 1) * self.batch_size][self.share]
        picked = self.data.batch if self.whole else self.data.rows(rows).batch
        return (self.draw(picked[0]), *picked[1:])


def _as_it_is(x: Tensor) -> Tensor:
    """What data are drawn by that are not drawn afresh; it can be sent to another process."""
    return x


def _streamed(data: Dataset, validation: Any, batch_size: int, seed: int) -> Source:
    """The source of training rows that are read batch by batch: the numbers of the rows are cut in their place."""
    own = [one.by_row for one in data.context]
    numbers = data.rows["train"] if data.rows is not None else torch.arange(len(data.train))
    values = [one.values[numbers] if mine else one.values for one, mine in zip(data.context, own, strict=True)]
    held_out = validation if validation is not None else data.batch("validation")
    return Source(
        Arguments.of((torch.arange(len(data.train)), *values)),
        finite_batch(as_batch(held_out, "validation"), "validation"),
        lambda rows: data.draw(data.train[rows]),
        batch_size,
        seed,
        rows=data.train,
    )
