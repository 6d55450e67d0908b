"""What a source of data, a file or an object in memory, holds: arrays and tables by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppvae.errors import DataError

from .tables import is_table, table_of_records, to_frame

# What a source of one array or table calls it.
ONE = ""


@dataclass(frozen=True)
class Found:
    """The arrays and tables of a source, by name.

    Attributes:
        what: it is called in messages.
        name: of the data set.
        members: arrays, and tables of pandas, by name: :data:`ONE`, or those of an archive.
        beside: arrays with a value or more for each datum, which are used only where they are asked for.
        label: which of them colours pictures unless something else is asked for.
        by_name: whether the names of context are those of the programs' arguments; else its order counts.
    """

    what: str
    name: str
    members: dict[str, Any]
    beside: dict[str, np.ndarray] = field(default_factory=dict)
    label: str | None = None
    by_name: bool = True


def member(value: Any, what: str) -> Any:
    """An array or table in memory as an array of numpy, or as a table of pandas where columns have names or text.

    Args:
        value: a tensor, an array, a table of pandas or polars, a list of numbers, of rows or of dicts, a sparse matrix.
        what: it is called in a message.

    Raises:
        DataError: it is nothing of the kind.

    Example:
        >>> member([[1, 2], [3, 4]], "the list").shape, member(torch.zeros(3, dtype=torch.bfloat16), "x").dtype
        ((2, 2), dtype('float32'))
    """
    if isinstance(value, Tensor):
        return _of_tensor(value, what)
    if is_table(value):
        return to_frame(value, what)
    if isinstance(value, np.ndarray):
        return _of_array(value, what)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return _of_list(value, what)
    if callable(getattr(value, "toarray", None)):  # a sparse matrix of scipy
        return member(value.toarray(), what)
    if hasattr(value, "__array__") and not np.isscalar(value):
        return member(np.asarray(value), what)
    raise DataError(
        f"{what} is {_kind(value)}: give a tensor, an array, a table of pandas or polars, a list of rows, a torch "
        "Dataset or DataLoader, or the path of a file."
    )


def is_array_like(value: Any) -> bool:
    """Whether a value has rows: what may stand first in ``(x, *context)``."""
    return isinstance(value, Tensor | np.ndarray) or is_table(value) or hasattr(value, "__array__")


def in_memory(value: Any, what: str, name: str) -> Found:
    """What an object in memory holds, other than a torch Dataset: an array, a table, a tuple, a mapping, an AnnData.

    Raises:
        DataError: it holds no data.
    """
    if is_annotated(value):
        return _of_annotated(value, what, name)
    if isinstance(value, Mapping):
        arrays = {str(key): member(each, f"{key!r} of {what}") for key, each in value.items()}
        columns = [array for array in arrays.values() if isinstance(array, np.ndarray) and array.ndim == 1]
        if len(columns) == len(arrays) > 1 and len({len(column) for column in columns}) == 1 and "x" not in arrays:
            return Found(what, name, {ONE: table_of_records(arrays)})
        return Found(what, name, arrays)
    if isinstance(value, tuple) and value and is_array_like(value[0]):
        context = {f"context_{i}": member(each, f"member {i} of {what}") for i, each in enumerate(value[1:], start=1)}
        return Found(what, name, {"x": member(value[0], what), **context}, by_name=False)
    return Found(what, name, {ONE: member(value, what)})


def _of_tensor(value: Tensor, what: str) -> np.ndarray:
    if value.is_complex():
        raise DataError(f"{what} holds complex numbers: give their parts, torch.view_as_real.")
    if value.is_meta or value.is_quantized:
        raise DataError(
            f"{what} is a {'meta' if value.is_meta else 'quantised'} tensor, without numbers: give numbers."
        )
    value = value.detach().to("cpu")
    value = value.to_dense() if value.layout != torch.strided else value
    if value.dtype in (torch.bfloat16, *(t for t in (getattr(torch, n, None) for n in _FLOAT8) if t is not None)):
        value = value.float()
    return np.asarray(value.numpy())


_FLOAT8 = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")


def _of_array(value: np.ndarray, what: str) -> Any:
    if isinstance(value, np.ma.MaskedArray):
        if value.dtype.kind not in "buif":
            raise DataError(f"{what} holds {value.dtype}: give real numbers.")
        return np.asarray(value.data) if not np.ma.is_masked(value) else np.ma.filled(value.astype(np.float64), np.nan)
    if value.dtype.names:
        return table_of_records(value)
    if value.dtype == object:
        return _of_objects(value, what)
    return np.asarray(value)


def _of_objects(value: np.ndarray, what: str) -> Any:
    """Numbers and text in an array of objects; text makes it a table, whose columns can be asked about."""
    try:
        return value.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        if value.ndim == 2:
            return table_of_records(value.tolist())
    raise DataError(
        f"{what} holds objects that are no numbers, or rows of different lengths: give an array of numbers."
    )


def _of_list(value: Sequence[Any], what: str) -> Any:
    if not len(value):
        raise DataError(f"{what} is empty: give at least 3 rows.")
    if all(isinstance(row, Mapping) for row in value):
        return to_frame(table_of_records(value), what)
    if all(isinstance(row, Tensor) for row in value):
        shapes = {tuple(row.shape) for row in value}
        if len(shapes) > 1:
            raise DataError(f"{what} has rows of different shapes, {_two(shapes)}: give each the same.")
        return _of_tensor(torch.stack(list(value)), what)
    try:
        array = np.array(value)
    except ValueError as error:
        raise DataError(f"{what} has rows of different lengths: give each the same.") from error
    if array.dtype.kind in "US" and array.ndim == 2:
        return to_frame(table_of_records(value), what)
    return _of_array(array, what)


def _two(shapes: set[tuple[int, ...]]) -> str:
    return " and ".join(str(shape) for shape in sorted(shapes)[:2])


def is_annotated(value: Any) -> bool:
    """Whether a value is an AnnData, or looks like one."""
    return all(hasattr(value, name) for name in ("X", "obs", "var_names"))


def _of_annotated(value: Any, what: str, name: str) -> Found:
    values = member(value.X, f"X of {what}")
    if values.ndim != 2:
        raise DataError(f"X of {what} has shape {values.shape}: give a row for each observation.")
    obs = to_frame(value.obs, f"obs of {what}")
    beside = {str(column): obs[column].to_numpy() for column in obs.columns}
    import pandas as pd

    return Found(what, name, {ONE: pd.DataFrame(values, columns=[str(n) for n in value.var_names])}, beside)


def _kind(value: Any) -> str:
    kind = type(value)
    return "None" if value is None else kind.__name__ if kind.__module__ == "builtins" else f"a {kind.__name__}"
