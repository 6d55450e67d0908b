"""The data of a run as its pair takes them: the context in the order of the arguments, and cut where that is right.

What is cut is asked of the pair, which is run on few of the data (:meth:`ppvae.inference.pair.Pair.on`):

- Where it can be run on some of the data alone, they are divided into training, validation and test data, and so is
  each context whose rows go with them. A table or a graph that all data share is never cut, also where it has as many
  rows as there are data by accident.
- Where it cannot, since the data share a latent (the weights of a regression), since the guide has parameters for each
  datum, or since a context relates the data to each other, there are no held-out data: all are trained on and measured.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyro
import torch
from torch import Tensor

from ppvae.datasets import Dataset, evenly_spaced
from ppvae.errors import OptionError, PpvaeError
from ppvae.inference.pair import FailedRun, Pair
from ppvae.storage import Settings

from . import missing_values
from .context_order import in_order
from .loaded_data import loaded
from .make_pair import with_data

Batch = tuple[Tensor, ...]
Unit = Literal["datum", "data set"]
# The part of the data that is measured where none is held out.
TRAINING = "training"
# So many data are not divided before the check of a pair that fails: it may run on all of them only.
FEW_DATA = 1000
# Of data that are not held in memory, so many show what is cut.
NUM_SHOWN = 2000


@dataclass(frozen=True)
class RunData:
    """The data of a run.

    Attributes:
        data: as the pair takes them.
        unit: what has an evidence of its own: ``"datum"`` or ``"data set"``.
        understood: whether the pair could be asked; if not, the contract's check says why.
        missing: that values are missing, a sentence; empty where none are.
    """

    data: Dataset
    unit: Unit = "datum"
    understood: bool = True
    missing: str = ""

    @property
    def remarks(self) -> list[str]:
        """Remarks on the data, a sentence each."""
        leaked = [self.data.leakage] if self.data.leakage else []
        return [*([self.missing] if self.missing else []), *self.data.notes, *leaked, *self._held_out()]

    def _held_out(self) -> list[str]:
        if self.unit == "data set":
            return [
                "the latents are shared by the data: the data set is the unit, all of it was trained on, and log p(x) "
                "is the evidence of these training data, not of held-out data."
            ]
        if not self.data.divided:
            return [
                "the programs run on all data at once only (as with parameters for each datum): there are no held-out "
                "data, and the numbers are those of the training data."
            ]
        return []

    def part(self, split: str | None) -> str:
        """The part of the data that is measured, in words: ``"test"`` by default, ``"training"`` where all are.

        Raises:
            OptionError: there are no such data.
        """
        if self.data.divided:
            return split or "test"
        if split is not None:
            raise OptionError(f"there are no {split} data, since all data were trained on: leave --split out.")
        return TRAINING

    def batch(self, part: str, most: int | None = None) -> Batch:
        """``(x, *context)`` of a part of the data; where they can be cut, at most ``most`` of them, evenly spaced."""
        return self.data.batch(*self._place(part, most))

    def numbers(self, part: str, most: int | None = None) -> Tensor:
        """The row numbers of :meth:`batch` in its part of the data."""
        name, index = self._place(part, most)
        return torch.arange(len(getattr(self.data, name)))[index]

    def labels(self, part: str, most: int | None = None) -> list[str] | None:
        """The labels of :meth:`batch` in words; None where there are none."""
        return self.data.label_words(*self._place(part, most))

    def example(self) -> Batch:
        """``(x, *context)`` of the training data; of some of them where they are not held in memory."""
        return self.data.batch("train", slice(NUM_SHOWN) if self.data.streams else slice(None))

    def some(self, batch: Batch, most: int) -> Batch:
        """At most ``most`` of the data of a batch, evenly spaced, where they can be cut."""
        if not self.data.divided:
            return batch
        return self.rows(batch, evenly_spaced(torch.arange(len(batch[0])), most))

    def rows(self, batch: Batch, index: Tensor) -> Batch:
        """Some rows of a batch of data that can be cut, each with its own context."""
        own = (True, *(one.by_row for one in self.data.context))
        return tuple(
            values[index.to(values.device)] if cut else values for values, cut in zip(batch, own, strict=False)
        )

    def _place(self, part: str, most: int | None) -> tuple[str, Tensor]:
        name = "train" if part == TRAINING else part
        all_rows = torch.arange(len(getattr(self.data, name)))
        return name, evenly_spaced(all_rows, most if self.data.divided else None)


def load_pair_and_data(settings: Settings, pair: Any = None) -> tuple[Any, RunData]:
    """The pair that the settings name, and the data as it takes them.

    Args:
        settings: of the run.
        pair: the pair itself; None makes it.

    Raises:
        PpvaeError: the data, the context or the pair cannot be had, or do not fit together.
    """
    settings = with_data(settings)
    data = loaded(settings)
    pair = missing_values.made_pair(settings, data) if pair is None else pair
    if not _takes_rows(pair):
        data = data.as_in_file()
    data = replace(data, context=tuple(in_order(pair.model, data, settings.pair)))
    arranged = _arranged(pair, data, settings)
    if arranged.understood and arranged.data.divided:
        missing_values.check_parts(pair, arranged.data, settings.pair)
    return pair, arranged


def _takes_rows(pair: Any) -> bool:
    """Whether a pair is told how many numbers a datum is, and so gets it as a row of them."""
    kind = type(pair)
    return hasattr(kind, "for_data") or (
        inspect.isclass(kind) and not inspect.ismodule(pair) and "num_features" in inspect.signature(kind).parameters
    )


# --- what is cut ------------------------------------------------------------------------------------------------------


def _arranged(pair: Any, data: Dataset, settings: Settings) -> RunData:
    """The data cut as the pair allows; a pair that fails is left to the check of its contract."""
    whole = _shown(data)
    x, *context = whole.batch("train")
    # What an earlier pair has left in Pyro's store is none of this one's.
    with torch.random.fork_rng(devices=[]), pyro.get_param_store().scope():
        torch.manual_seed(settings.seed)
        try:
            with Pair.on(pair.model, pair.guide, (whole.draw(x), *context), density=False) as found:
                unit, divisible, by_row = found.unit, found.divisible, found.arguments.by_row
                missing = missing_values.remark(data, found)
        except PpvaeError as error:
            missing_values.check_cause(pair, (x, *context), data, settings.pair, error)
            if isinstance(error, FailedRun):
                _check_rows(data, error)
            return RunData(whole if len(x) <= FEW_DATA and not data.streams else data, understood=False)
    if not divisible and data.streams:
        raise OptionError(
            f"{settings.pair} runs on all data at once only, and {data.name} is too large to be held in memory: give "
            "fewer rows, or a pair that can be run on some of the data."
        )
    if not divisible:
        return RunData(whole, unit, missing=missing)
    parts = []
    for one, own in zip(data.context, by_row[1:], strict=True):
        if own and not one.by_row:  # parts of their own, and a context of the training part alone
            raise OptionError(
                f"the context {one.name!r} has rows for the training part of {data.name} only: give the rows of train, "
                "validation and test, one after the other."
            )
        parts.append(replace(one, by_row=own))
    return RunData(replace(data, context=tuple(parts)), missing=missing)


def _shown(data: Dataset) -> Dataset:
    """All data as the training part; of data that stream some, as if there were no others."""
    if not data.streams:
        return data.undivided()
    some = data.sampled(NUM_SHOWN)
    (x, *context), rows = some.batch("train"), torch.arange(len(some.train))
    of_rows = [replace(one, values=values) for one, values in zip(some.context, context, strict=True)]
    none = {"validation": rows[:0], "test": rows[:0]}
    return replace(
        some, context=tuple(of_rows), train=x, validation=x[:0], test=x[:0], rows={"train": rows, **none}, labels=None
    )


def _check_rows(data: Dataset, error: FailedRun) -> None:
    """Raise OptionError where a pair fails on a context that has another number of rows than there are data."""
    num_data = sum(len(part) for part in (data.train, data.validation, data.test))
    for one in data.context:
        if one.values.dim() and not one.by_row:
            raise OptionError(
                f"the pair fails on these data, and the context {one.name!r} has {len(one.values)} rows for {num_data} "
                f"data: if they are to go with the data, give one for each ({str(error).rstrip('.')})."
            ) from error
