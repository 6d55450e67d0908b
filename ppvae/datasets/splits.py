"""How data are divided into a training, a validation and a test part: by fractions, by a column, or class by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ppvae.errors import DataError, DatasetError, OptionError

from .arrangement import PARTS

# What a column may call the parts.
NAMES = {"train": 0, "training": 0, "validation": 1, "valid": 1, "val": 1, "dev": 1, "test": 2, "testing": 2}
FRACTIONS = (0.8, 0.1, 0.1)


@dataclass(frozen=True)
class Split:
    """How data are divided into their three parts.

    Attributes:
        fractions: of the data, to train, to validate and to test, each at least one datum.
        column: of a table, that says for each row ``train``, ``validation`` or ``test``; then the fractions only say
            how much of the training part validates, where the column names no validation rows.
        stratify: a column of classes, each of which is divided by the fractions.

    Example:
        >>> Split((0.5, 0.25, 0.25), stratify="species").fractions
        (0.5, 0.25, 0.25)
    """

    fractions: tuple[float, float, float] = FRACTIONS
    column: str | None = None
    stratify: str | None = None

    def __post_init__(self) -> None:
        given = self.fractions
        fine = isinstance(given, Sequence) and not isinstance(given, str) and len(given) == 3
        fine = fine and all(isinstance(f, int | float) and 0 < f < 1 for f in given)
        if not fine or not math.isclose(sum(given), 1, abs_tol=1e-6):
            raise OptionError(
                f"split must be three fractions above 0 whose sum is 1, as in 0.8,0.1,0.1; it is {given}."
            )
        if self.column is not None and self.stratify is not None:
            raise OptionError("a split column divides the data itself: leave stratify out, or give fractions.")

    @staticmethod
    def of(given: Split | Sequence[float] | str | None) -> Split:
        """The split that was asked for: itself, three fractions, or the name of a column."""
        if isinstance(given, Split):
            return given
        if isinstance(given, str):
            return Split(column=given)
        return Split() if given is None else Split(tuple(given))  # type: ignore[arg-type]


def random_parts(num_data: int, split: Split, seed: int, what: str) -> list[Tensor]:
    """Row numbers of the three parts, from one random order.

    Raises:
        DatasetError: there are fewer than 3 data.
    """
    demand_three(num_data, what)
    order = torch.randperm(num_data, generator=torch.Generator().manual_seed(seed))
    validation, test = (max(1, int(num_data * f + 1e-9)) for f in split.fractions[1:])
    train = num_data - validation - test
    if train < 1:
        raise DatasetError(
            f"{what} has {num_data} rows, too few to be split by {split.fractions}: give other fractions."
        )
    return list(order.split([train, validation, test]))


def demand_three(num_data: int, what: str) -> None:
    """Raise DatasetError unless there is a datum for each part."""
    if num_data < 3:
        raise DatasetError(f"{what} has {num_data} rows: give at least 3, one each to train, validate and test.")


def stratified_parts(classes: np.ndarray, split: Split, seed: int, what: str) -> list[Tensor]:
    """Row numbers of the three parts, in which each class has its share to within one or two data.

    Args:
        classes: ``(num_data,)``, a class for each datum; what is missing is a class too.
        split: the fractions, and the name of the column.
        seed: of the order.
        what: the data are called.

    Raises:
        DatasetError: there are fewer than 3 data.
        DataError: there are too many different values for classes.
    """
    demand_three(len(classes), what)
    names, codes = np.unique(classes.astype(str), return_inverse=True)
    if len(names) > len(classes) / 3:
        raise DataError(
            f"column {split.stratify!r} of {what} has {len(names)} different values in {len(classes)} rows, which are "
            "no classes: leave --stratify out, or name another column."
        )
    order = torch.randperm(len(codes), generator=torch.Generator().manual_seed(seed))
    order = order[torch.from_numpy(codes).reshape(-1)[order].argsort(stable=True)]
    at = torch.arange(1, len(order) + 1, dtype=torch.float64)
    _, validate, test = split.fractions
    is_test = _dealt(at, test)
    rest = order[~is_test]
    is_validation = _dealt(at[: len(rest)], validate / (1 - test))
    parts = [rest[~is_validation], rest[is_validation], order[is_test]]
    if any(len(part) == 0 for part in parts):
        raise DatasetError(f"{what} has too few rows to be split by {split.fractions}: give other fractions.")
    return [part.sort().values for part in parts]


def _dealt(at: Tensor, share: float) -> Tensor:
    """Every so many of the numbers 1, 2, …, so that their share is met everywhere."""
    return (at * share + 0.5).floor() > ((at - 1) * share + 0.5).floor()


def parts_by_column(values: np.ndarray, split: Split, seed: int, what: str) -> list[Tensor]:
    """Row numbers of the three parts, as a column names them.

    Raises:
        DataError: it holds other words, or names no training or no test data.
    """
    words = [str(value).strip().lower() for value in values]
    other = next((str(value) for value, word in zip(values, words, strict=True) if word not in NAMES), None)
    if other is not None:
        raise DataError(
            f"column {split.column!r} of {what} is to say train, validation or test, and holds {other!r}: write these "
            "words, or split by fractions, as in --split 0.8,0.1,0.1."
        )
    codes = torch.tensor([NAMES[word] for word in words])
    parts = [(codes == part).nonzero().flatten() for part in range(3)]
    for part in (0, 2):
        if not len(parts[part]):
            raise DataError(f"column {split.column!r} of {what} names no {PARTS[part]} data: name some.")
    return with_validation(parts, split, seed, what)


def with_validation(parts: list[Tensor], split: Split, seed: int, what: str) -> list[Tensor]:
    """The parts, of which the second is taken from the training data at random where it is empty."""
    train, validation, test = parts
    if len(validation):
        return parts
    if len(train) < 2:
        raise DatasetError(f"{what} has one datum to train and none to validate: give more.")
    order = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))]
    share = split.fractions[1] / (split.fractions[0] + split.fractions[1])
    size = max(1, int(share * len(train)))
    return [order[size:].sort().values, order[:size].sort().values, test]
