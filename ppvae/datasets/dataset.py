"""A data set: rows in a training, a validation and a test part, and what stands beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ppvae.errors import DataError
from ppvae.printed import Printed

from . import leakage
from .arrangement import PARTS
from .context import Context
from .rows import Rows
from .standardise import Standardisation

# Grey validation and test pictures are binarised with this seed whatever the run's own, so that runs can be compared.
BINARISATION_SEED = 20110411
# Of training rows that stream, so many stand for all where all would have to be read.
SHOWN = 10_000
# Columns that are named where a data set is printed.
MOST_SHOWN = 10


@dataclass(frozen=True, eq=False, repr=False)
class Dataset(Printed):
    """Rows of data in three parts, in torch's default floating-point type.

    Attributes:
        name: the data set's name, or the file's.
        train: ``(num_train, num_features)``; for ``mnist`` the grey values in [0, 1] that :meth:`draw` binarises. Of
            large data :class:`.rows.Rows`, which reads them from their file as they are asked for.
        validation: ``(num_validation, num_features)``, as the likelihood sees them.
        test: ``(num_test, num_features)``, as the likelihood sees them.
        event_shape: the shape of one datum before it was flattened, (8, 8) for the digits.
        labels: class labels by part (``"train"``, ``"validation"``, ``"test"``) where they exist.
        total_count: the largest count where the values are counts (digits: 16).
        binarise: whether a training step draws zeros and ones from grey rows.
        context: what the programs take after x, in their order.
        rows: the row numbers of each part among all data, by part, by which context is cut; none where there are none.
        own_parts: whether the parts are the data set's own; else a seed has made them.
        datum_shape: the shape of one datum as its file has it; None where that is ``event_shape``.
        missing: how many values of a file are missing (NaN), and where the first is, in words; empty where none are.
        columns: the names of the features, where they have names.
        label_names: the classes that labels 0, 1, … stand for, where these were words.
        standardisation: the map that brought x from the units of its file to mean 0 and standard deviation 1.
        source_hash: the hash of the data before they were standardised in memory; empty of others.
        duplicates: how many rows of the validation and test part stand in the training part too, by part.
        notes: what a reader of numbers of these data must be told, a sentence each.
    """

    name: str
    train: Tensor
    validation: Tensor
    test: Tensor
    event_shape: tuple[int, ...]
    labels: dict[str, Tensor] | None = None
    total_count: int | None = None
    binarise: bool = False
    context: tuple[Context, ...] = ()
    rows: dict[str, Tensor] | None = None
    own_parts: bool = True
    datum_shape: tuple[int, ...] | None = None
    missing: str = ""
    columns: tuple[str, ...] | None = None
    label_names: tuple[str, ...] | None = None
    standardisation: Standardisation | None = None
    source_hash: str = ""
    duplicates: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(getattr(self, part))} {part}" for part in PARTS)
        shape = " × ".join(map(str, self.event_shape)) or "1"
        lines = [f"Dataset {self.name}: {counts} data of shape {shape}"]
        if self.columns:
            lines.append(f"columns: {', '.join(self.columns[:MOST_SHOWN])}" + ", …" * (len(self.columns) > MOST_SHOWN))
        if self.labels is not None:
            lines.append(f"{len(torch.cat(list(self.labels.values())).unique())} classes of labels")
        if self.context:
            lines.append(f"context: {', '.join(one.name for one in self.context)}")
        if self.standardisation is not None:
            lines.append("standardised; log p(x) of a run is in the units of the file")
        missing = [f"missing values: {self.missing}"] if self.missing else []
        return "\n".join([*lines, *missing, *([self.leakage] if self.leakage else []), *self.notes])

    @property
    def divided(self) -> bool:
        """Whether there are data that are not trained on."""
        return len(self.test) > 0

    @property
    def streams(self) -> bool:
        """Whether the training rows are read from a file as they are needed."""
        return isinstance(self.train, Rows)

    def some(self, most: int = SHOWN) -> Tensor:
        """The training rows; where they stream, at most so many of them, evenly spaced."""
        train: Any = self.train
        return train.some(most) if self.streams else train

    def portions(self, part: str) -> Iterator[Tensor]:
        """All rows of a part, in pieces that fit a small memory where they stream."""
        rows: Any = getattr(self, part)
        yield from rows.portions() if isinstance(rows, Rows) else (rows,)

    def sampled(self, most: int = SHOWN) -> Dataset:
        """The data set itself, or one of some of its training rows in memory where they stream."""
        if not self.streams:
            return self
        index = torch.linspace(0, len(self.train) - 1, min(most, len(self.train))).round().long()
        rows = {**self._row_numbers(), "train": self._row_numbers()["train"][index]}
        labels = self.labels and {**self.labels, "train": self.labels["train"][index]}
        note = f"of the training data, which are not held in memory, {len(index)} are used here, evenly spaced."
        return replace(self, train=self.train[index], rows=rows, labels=labels, notes=(*self.notes, note))

    @property
    def leakage(self) -> str:
        """A sentence that says how many held-out data are also training data; empty where none are."""
        return leakage.sentence(self.duplicates.get("test", 0), self.duplicates.get("validation", 0), len(self.test))

    def batch(self, part: str, index: Tensor | slice = slice(None)) -> tuple[Tensor, ...]:
        """``(x, *context)`` of a part, or of some of its rows.

        Args:
            part: ``"train"``, ``"validation"`` or ``"test"``.
            index: which of its rows; all by default.
        """
        return (getattr(self, part)[index], *self.beside(part, index))

    def beside(self, part: str, index: Tensor | slice = slice(None)) -> tuple[Tensor, ...]:
        """The context of a part, or of some of its rows."""
        if not any(one.by_row for one in self.context):
            return tuple(one.values for one in self.context)
        rows = self._row_numbers()[part][index]
        return tuple(one.values[rows] if one.by_row else one.values for one in self.context)

    def undivided(self) -> Dataset:
        """All data as the training part, in the order of their file; of a data set with parts of its own, the first."""
        rows = self._row_numbers()
        x, numbers = self.train, rows["train"]
        if not self.own_parts:
            order = torch.cat([rows[part] for part in PARTS])
            x = torch.cat([self.train, self.validation, self.test])[order.argsort()]
            numbers = order.sort().values
        labels = None
        if self.labels is not None:
            own = [self.labels[part] for part in (PARTS if not self.own_parts else PARTS[:1])]
            given = torch.cat([rows[part] for part in (PARTS if not self.own_parts else PARTS[:1])])
            whole = torch.cat(own)[given.argsort()]
            labels = {"train": whole, "validation": whole[:0], "test": whole[:0]}
        none = {"validation": numbers[:0], "test": numbers[:0]}
        all_rows = {"train": numbers, **none}
        return replace(self, train=x, validation=x[:0], test=x[:0], rows=all_rows, labels=labels, duplicates={})

    def label_words(self, part: str, index: Tensor | slice = slice(None)) -> list[str] | None:
        """The labels of a part, or of some of its rows, in words; None where there are none."""
        if self.labels is None:
            return None
        values = self.labels[part][index].tolist()
        return [self.label_names[int(v)] if self.label_names else f"{v:g}" for v in values]

    def binarised(self) -> Dataset:
        """Pictures of unsigned bytes for a Bernoulli likelihood: zeros and ones with probability x/255.

        Training rows are drawn afresh at each step (:meth:`draw`), validation and test rows once.

        Raises:
            DataError: the data are no such pictures.
        """
        if self.total_count != 255 or self.missing:
            raise DataError(
                f"{self.name} holds no bytes 0 … 255: give pictures of bytes, or zeros and ones as they are."
            )
        largest = self.total_count
        parts = {part: changed(getattr(self, part), lambda rows: rows / largest) for part in PARTS}
        for i, part in enumerate(PARTS[1:]):
            parts[part] = drawn_once(parts[part], BINARISATION_SEED + i)
        return replace(self, **parts, total_count=None, binarise=True)

    def as_in_file(self) -> Dataset:
        """The data with the shape that the file gives them, which may be numbers or pictures instead of rows."""
        shape = self.event_shape if self.datum_shape is None else self.datum_shape
        return replace(self, **{part: getattr(self, part).reshape(-1, *shape) for part in PARTS})

    def _row_numbers(self) -> dict[str, Tensor]:
        if self.rows is not None:
            return self.rows
        numbers = torch.arange(sum(len(getattr(self, part)) for part in PARTS))
        sizes = [len(getattr(self, part)) for part in PARTS]
        return dict(zip(PARTS, numbers.split(sizes), strict=True))

    def draw(self, rows: Tensor) -> Tensor:
        """Return training rows as they enter one step: a fresh Bernoulli draw of grey rows, other rows unchanged.

        Args:
            rows: ``(batch, num_features)``, rows of ``train``.

        Returns:
            The rows as the likelihood sees them, same shape; fresh draws use torch's global generator.
        """
        return torch.bernoulli(rows) if self.binarise else rows


def changed(rows: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Rows with a function applied to each, now or when they are read."""
    return rows.changed(change) if isinstance(rows, Rows) else change(rows)


def drawn_once(grey: Tensor, seed: int) -> Tensor:
    """Zeros and ones, drawn from grey values in [0, 1]."""
    # Uniforms in double precision make the draw the same whatever the default type is.
    uniform = torch.rand(grey.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (uniform < grey).to(grey.dtype)
