"""Tables of pandas and polars as numbers with names of columns. Both libraries are loaded only where they are used."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ppvae.errors import DataError

if TYPE_CHECKING:
    from pandas import DataFrame


def is_table(value: Any) -> bool:
    """Whether a value is a table or a column of pandas or polars."""
    return _library(value) in ("pandas", "polars") and type(value).__name__ in ("DataFrame", "Series", "LazyFrame")


def is_frame(value: Any) -> bool:
    """Whether a value is a DataFrame of pandas, to which :func:`to_frame` brings every table."""
    return _library(value) == "pandas" and type(value).__name__ == "DataFrame"


def to_frame(table: Any, what: str) -> DataFrame:
    """A table or a column as a DataFrame of pandas whose columns have different names.

    Args:
        table: of pandas or polars.
        what: it is called in a message.

    Raises:
        DataError: two columns have one name.
    """
    import pandas as pd

    if _library(table) == "polars":
        table = table.collect() if type(table).__name__ == "LazyFrame" else table
        table = table.to_frame() if type(table).__name__ == "Series" else table
        frame = pd.DataFrame({name: _of_polars(table[name], what) for name in table.columns})
    else:
        frame = table.to_frame(0 if table.name is None else table.name) if isinstance(table, pd.Series) else table
    if isinstance(frame.columns, pd.MultiIndex):
        frame = frame.set_axis([" ".join(map(str, names)) for names in frame.columns], axis=1)
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise DataError(f"{what} has two columns called {twice!r}: give each a name of its own.")
    return frame.infer_objects()


def table_of_records(rows: Sequence[Any] | Mapping[str, Any] | np.ndarray) -> DataFrame:
    """A table from a list of dicts or of rows with text in them, from columns by name, or from a structured array."""
    import pandas as pd

    if isinstance(rows, np.ndarray):
        return pd.DataFrame({str(name): rows[name] for name in rows.dtype.names or ()})
    return pd.DataFrame(dict(rows) if isinstance(rows, Mapping) else list(rows)).infer_objects()


def frame_values(frame: DataFrame, what: str) -> np.ndarray:
    """The numbers of a table, ``(num_data, num_columns)``; whole ones where all are, and none is missing.

    Raises:
        DataError: it is empty.
    """
    from pandas.api.types import is_bool_dtype, is_integer_dtype

    if frame.empty:
        raise DataError(
            f"{what} has {len(frame)} rows and {len(frame.columns)} columns: give at least 3 rows of numbers."
        )
    whole = all(is_integer_dtype(t) or is_bool_dtype(t) for t in frame.dtypes) and not frame.isna().any(axis=None)
    if whole and len(set(frame.dtypes)) == 1 and isinstance(frame.dtypes.iloc[0], np.dtype):
        return frame.to_numpy()
    if whole:
        return frame.to_numpy(dtype=np.int64)
    return np.column_stack([_column(frame[name], what, name) for name in frame.columns])


def column_values(frame: DataFrame, name: Hashable) -> np.ndarray:
    """A column as it is used beside the data: numbers where it holds them, else text."""
    from pandas.api.types import is_numeric_dtype

    column = frame[name]
    if is_numeric_dtype(column.dtype):
        return frame_values(frame[[name]], repr(name))[:, 0]
    return column.astype(object).where(column.notna(), "").astype(str).to_numpy()


def codes_of(values: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Classes as whole numbers 0, 1, … in alphabetic order, and their names; numbers stay what they are."""
    if values.dtype.kind in "buif":
        return values, ()
    names, codes = np.unique(values.astype(str), return_inverse=True)
    return codes.reshape(-1).astype(np.int64), tuple(str(name) for name in names)


def _column(column: Any, what: str, name: Hashable) -> np.ndarray:
    try:
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"column {name!r} of {what} cannot be read as numbers ({error}): encode it or drop it."
        ) from error


def _of_polars(column: Any, what: str) -> np.ndarray:
    if column.dtype.is_nested():
        raise DataError(f"column {column.name!r} of {what} holds {column.dtype}, several values a cell: unnest it.")
    if column.dtype.is_decimal():
        column = column.cast(float)
    return np.array(column.to_numpy())


def _library(value: Any) -> str:
    return type(value).__module__.partition(".")[0]
