"""The data that a guide is mended on: some to train on, others to measure gains on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ppvae.datasets import Dataset
from ppvae.errors import OptionError

from ..pair import Batch, Pair, Program, as_batch, finite_batch, where_parameters_are

# One of so many data is held out, where none are given.
HELD_OUT = 5
# Data that networks are made on, and those that show what the programs take.
SHOWN, EXAMPLE = 200, 20
# Data held out that gains are measured on, at most: paired, they are known well enough from so many.
MEASURED = 2000


@dataclass(frozen=True)
class MendingData:
    """The data that a guide is mended on.

    Attributes:
        train: what it is trained on.
        measured: ``(x, *context)`` that gains are measured on, 2000 data at most.
        held_out: whether these are not trained on.
        example: some of the data, as the programs see them in training.
        shown: more of them, on which networks are made.
        unit: what has an evidence of its own.
        divisible: whether the programs run on some of the data alone.
    """

    train: Any
    measured: Batch
    held_out: bool
    example: Batch
    shown: Batch
    unit: str
    divisible: bool

    @staticmethod
    def of(model: Program, guide: Program, x: Any, validation: Any) -> MendingData:
        """The data divided, if they are not and can be.

        Raises:
            DataError: they are none.
            OptionError: there is no validation part where there must be one.
        """
        draw = lambda values: values  # noqa: E731
        if isinstance(x, Dataset):
            validation = x.batch("validation") if validation is None and len(x.validation) else validation
            draw = x.draw
        batch = as_batch(x.batch("train") if isinstance(x, Dataset) else x)
        batch = where_parameters_are(model, guide, finite_batch(batch))
        seen = (draw(batch[0]), *batch[1:])
        with Pair.on(model, guide, seen) as pair:
            unit, divisible, arguments = pair.unit, pair.divisible and pair.unit == "datum", pair.arguments
        train: Any = x if isinstance(x, Dataset) else batch
        if not divisible:
            return MendingData(train, seen, False, seen, seen, unit, divisible)
        if validation is None and isinstance(x, Dataset):
            raise OptionError("the data set has no validation part to measure gains on: give validation=.")
        if validation is None:
            if arguments.num_rows < 2 * HELD_OUT:
                raise OptionError(f"x holds {arguments.num_rows} data, too few to hold some out: give validation=.")
            every = torch.arange(arguments.num_rows, device=arguments.device)
            validation = arguments.rows(every[every % HELD_OUT == 0]).batch
            arguments = arguments.rows(every[every % HELD_OUT != 0])
            train = arguments.batch
        measured = where_parameters_are(model, guide, finite_batch(as_batch(validation, "validation"), "validation"))
        with Pair.on(model, guide, measured) as pair:
            measured = some(pair, MEASURED)
        shown, example = (arguments.rows(slice(0, n)).batch for n in (SHOWN, EXAMPLE))
        return MendingData(train, measured, True, example, shown, unit, divisible)


def some(pair: Pair, most: int) -> Batch:
    """The data of a pair, or so many of them, evenly spaced over all."""
    if pair.num_units <= most:
        return pair.batch
    return pair.rows(torch.linspace(0, pair.num_units - 1, most).long()).batch


def training_data(data: MendingData) -> Batch:
    """What the pair is trained on, each datum once."""
    if not isinstance(data.train, Dataset):
        return as_batch(data.train)
    x, *context = data.train.batch("train")
    return data.train.draw(x), *context
