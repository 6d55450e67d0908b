"""Which columns and arrays of a source are data, and which are labels, context or split, or are left out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppvae.errors import DataError, DatasetError, OptionError, suggestion

from .arrays import to_rows
from .found import ONE, Found
from .label_columns import NO_LABEL, demand_measurements
from .tables import codes_of, column_values, frame_values, is_frame

# The parts of a data set, in their order.
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Roles:
    """Which columns, or arrays beside x, are labels, context or split, and which are left out.

    Attributes:
        label: colours pictures and names data; ``"none"`` says that no column of numbers is a label or an identity.
        drop: are left out.
        context: are given to the programs.
        split: names the part of each row.
        stratify: has the classes that each part is to hold.
    """

    label: str | None = None
    drop: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    split: str | None = None
    stratify: str | None = None

    @property
    def asked(self) -> dict[str, str]:
        """The columns that are no data, each with the option that names it."""
        named = {"label_column": self.label, "split_column": self.split, "stratify": self.stratify}
        found = {column: option for option, column in named.items() if column is not None}
        return found | {c: "context_columns" for c in self.context} | {c: "drop_columns" for c in self.drop}


class Array(NamedTuple):
    """Numbers of a source.

    Attributes:
        what: to call it in a message.
        values: it.
        columns: the names of its columns, where it has any.
    """

    what: str
    values: np.ndarray
    columns: tuple[Hashable, ...] | None = None


@dataclass(frozen=True)
class Arranged:
    """The data of a source as rows, and what stands beside them, over all parts one after the other.

    Attributes:
        parts: the rows, ``(num_data, num_features)`` each, of one part, of training and test data, or of three parts.
        datum_shape: the shape of one datum in the source; ``()`` where it is one number.
        columns: their names, where they have names.
        context: what the programs take after x, by name.
        chosen: which of it came from ``context_columns``.
        names: the names of classes, by the name of a label or context that was text.
        label: for each datum; None where there is none.
        label_names: the names of its classes, where it was text.
        split: the same of the column that names parts.
        stratify: the same of the column of classes.
        missing: how many values are missing, and where the first is, in words; empty where none are.
        is_bytes: whether the numbers were unsigned bytes.
    """

    parts: list[Tensor]
    datum_shape: tuple[int, ...]
    columns: tuple[str, ...] | None
    context: dict[str, np.ndarray]
    chosen: tuple[str, ...]
    names: dict[str, tuple[str, ...]]
    label: np.ndarray | None
    label_names: tuple[str, ...] | None
    split: np.ndarray | None
    stratify: np.ndarray | None
    missing: str
    is_bytes: bool


def arrange(found: Found, roles: Roles) -> Arranged:
    """Divide what a source holds into data and what stands beside them.

    Raises:
        DatasetError: it holds neither one array, nor three parts, nor x and its context.
        DataError: the data are empty, not numeric or infinite, or a column may be no measurement.
        OptionError: a column that was named is not there.
    """
    keys = _keys_of_x(found)
    members = [found.members[key] for key in keys]
    others = {key: value for key, value in found.members.items() if key not in keys}
    there = [str(c) for value in members[:1] if is_frame(value) for c in value.columns]
    demand_there([*there, *others, *found.beside], found.what, roles)
    arrays: list[Any] = []
    taken: list[dict[str, Any]] = []
    for key, value in zip(keys, members, strict=True):
        what = found.what if key in (ONE, "x") else f"array {key!r} of {found.what}"
        array, columns = _numbers(value, what, roles, first=not arrays, like=arrays[0] if arrays else None)
        arrays.append(array)
        taken.append(columns)
    beside = {name: np.concatenate([each[name] for each in taken]) for name in taken[0]} | found.beside
    beside |= {name: value for name, value in others.items() if name in roles.asked}
    context = {
        name: column_values(value, value.columns[0]) if is_frame(value) and value.shape[1] == 1 else value
        for name, value in others.items()
        if name not in roles.asked
    }
    label = roles.label if roles.label not in (None, NO_LABEL) or NO_LABEL in beside else None
    label = found.label if roles.label is None and found.label not in roles.asked else label
    coded = {name: codes_of(_plain(beside[name], name, found.what)) for name in (*roles.context, label) if name}
    parts = [_checked(array) for array in arrays]
    shapes = [array.values.shape[1:] for array in arrays]
    if len(set(shapes)) > 1:
        raise DataError(f"train, validation and test in {found.what} hold data of different shapes {shapes}: make them "
                        "one.")  # fmt: skip
    missing = [counted("missing value", array, rows.isnan()) for array, rows in zip(arrays, parts, strict=True)]
    names = arrays[0].columns
    return Arranged(
        parts=parts,
        datum_shape=shapes[0],
        columns=tuple(map(str, names)) if names and not all(isinstance(c, int) for c in names) else None,
        context=context | {name: coded[name][0] for name in roles.context},
        chosen=roles.context,
        names={name: names for name, (_, names) in coded.items() if names},
        label=None if label is None else coded[label][0],
        label_names=coded[label][1] or None if label is not None else None,
        split=None if roles.split is None else beside[roles.split],
        stratify=None if roles.stratify is None else beside[roles.stratify],
        missing="; ".join(filter(None, missing)),
        is_bytes=all(array.values.dtype == np.uint8 for array in arrays),
    )


def _keys_of_x(found: Found) -> list[str]:
    """The names of the one array, or of the parts."""
    named = found.members
    keys = {"train": "train", "validation": "valid" if "valid" in named else "validation", "test": "test"}
    if {"train", "test"} <= named.keys():
        return [key for key in keys.values() if key in named]
    if "x" in named or len(named) == 1:
        return ["x"] if "x" in named else list(named)
    listed = ", ".join(sorted(named)) or "none"
    raise DatasetError(
        f"{found.what} holds the arrays {listed}: give one array, or train, validation and test, or x and its context."
    )


def demand_there(there: Sequence[str], what: str, roles: Roles) -> None:
    """Raise OptionError where a column is named that is not there, or is named twice."""
    for column, option in roles.asked.items():
        if column not in there and not (option == "label_column" and column == NO_LABEL):
            listed = ", ".join(there[:20]) + (", …" if len(there) > 20 else "") if there else "none, as an array has"
            raise OptionError(
                f"{option} names {column!r}, which is no column of {what}{suggestion(column, list(there))}: its "
                f"columns are {listed}."
            )
    if twice := set(roles.drop) & {*roles.context, roles.label, roles.split, roles.stratify}:
        raise OptionError(
            f"drop_columns names {sorted(map(str, twice))[0]!r}, which another option uses: name it once."
        )


def _numbers(
    value: Any, what: str, roles: Roles, *, first: bool, like: Array | None
) -> tuple[Array, dict[str, np.ndarray]]:
    """The data of an array or a table, and the columns of the table that were asked for."""
    if not is_frame(value):
        return Array(what, value), {}
    if like is not None and like.columns is not None:
        lost = [c for c in like.columns if c not in value.columns]
        if lost:
            raise DataError(f"{what} has no column {lost[0]!r}, which {like.what} has: give both the same columns.")
    by_name = {str(column): column for column in value.columns}
    taken = {name: column_values(value, by_name[name]) for name in roles.asked if name in by_name}
    rest = value[[column for name, column in by_name.items() if name not in roles.asked]]
    rest = rest if like is None or like.columns is None else rest[list(like.columns)]
    if not rest.shape[1]:
        raise DataError(f"every column of {what} is named as something else, and none is left as data: leave some.")
    if len(rest):
        demand_measurements(rest, what, roles.label is not None, roles.label == NO_LABEL or not first)
    values = frame_values(rest, what)
    return Array(what, values[:, 0] if values.shape[1] == 1 else values, tuple(rest.columns.tolist())), taken


def _plain(values: np.ndarray, name: str, what: str) -> np.ndarray:
    """What stands beside the data, one value each; numbers may be missing only where they are labels."""
    if values.ndim != 1:
        raise DataError(f"{name!r} of {what} has shape {values.shape}: give one value for each datum.")
    return values.astype(str) if values.dtype.kind not in "buif" else values


def _checked(array: Array) -> Tensor:
    """The array as rows, once it is known to hold real numbers, of which none is infinite."""
    what, values = array.what, array.values
    if values.dtype.kind not in "buif":
        raise DataError(f"{what} holds {values.dtype}: give real numbers.")
    if values.ndim == 0 or values.size == 0:
        raise DataError(f"{what} has shape {values.shape}: give one row for each datum, with at least one number each.")
    rows = to_rows(values)
    infinite = counted("infinite or overlarge value", array, rows.isinf())
    if infinite:
        raise DataError(f"{infinite}: remove or replace such values.")
    if rows.isnan().all():
        raise DataError(f"{what} holds nothing but missing values (NaN): give numbers.")
    if values.dtype.kind in "iu" and rows.abs().max() >= 2**24:
        exact = values.astype(np.float64).reshape(rows.shape)
        lost = torch.from_numpy(rows.double().numpy() != exact)
        if lost.any():
            place = counted("whole number", array, lost)
            raise DataError(
                f"{place}, which single precision rounds: subtract a constant, divide, or work in double precision "
                "(torch.set_default_dtype(torch.float64))."
            )
    return rows


def counted(kind: str, array: Array, which: Tensor) -> str:
    """How many values of an array are of a kind, and where the first is; empty where none are."""
    count = int(which.sum())
    if not count:
        return ""
    row, column = which.nonzero()[0].tolist()
    label = repr(array.columns[column]) if array.columns is not None else column
    return (
        f"{array.what} has {count} {kind}{'s' * (count > 1)}, the first in row {row}, column {label} (counted from 0)"
    )
