"""A user's own files: ``.npy``, ``.npz``, ``.csv`` or ``.parquet``, as rows of numbers.

A file that is damaged, not numeric or holds infinite values is refused in one sentence that names the file and, if
known, the place. Missing values (NaN, an empty cell or NA in a table) are read: a pair may leave them out of its
density, and where they stand is noted for the sentence that refuses a pair that does not.
"""

import csv
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import Tensor

from ppvae.errors import DataError, DatasetError

from .arrays import DAMAGE, read_npy, read_npz, to_rows

# The parts of a data set, in their order.
PARTS = ("train", "validation", "test")
# Words for a missing value in a table, of those that pandas reads as one.
MISSING = ("NA", "N/A", "n/a", "<NA>", "#N/A", "NULL", "null", "None")

if TYPE_CHECKING:
    from pandas import DataFrame  # pandas is slow to import, and most runs read no table


class UserFile(NamedTuple):
    """The content of a file of data.

    Attributes:
        parts: the rows, ``(num_data, num_features)`` each, of the file's one array or of its training, validation and
            test part in this order.
        datum_shape: the shape of one datum in the file; ``()`` where it is one number.
        context: what an archive holds beside, by name.
        missing: how many values are missing, and where the first is, in words; empty where none are.
    """

    parts: list[Tensor]
    datum_shape: tuple[int, ...]
    context: dict[str, np.ndarray]
    missing: str = ""


class Array(NamedTuple):
    """An array of a file.

    Attributes:
        what: what to call it in a message.
        values: it.
        columns: the names of its columns, where it has any.
        name: in an archive.
    """

    what: str
    values: np.ndarray
    columns: Sequence[object] | None = None
    name: str = ""


def read_user_file(path: Path) -> UserFile:
    """Read the rows of a file: all of them, or those of its three parts.

    Args:
        path: a file that exists and ends in one of :data:`SUFFIXES`.

    Raises:
        DatasetError: the file cannot be read, or holds neither one array, nor three parts, nor x and its context.
        DataError: its content is empty, not numeric or infinite, or the parts hold data of different shapes.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "mine.npy"
        >>> np.save(path, np.zeros((10, 8, 8)))
        >>> (rows,), datum_shape, *_ = read_user_file(path)
        >>> rows.shape, datum_shape
        (torch.Size([10, 64]), (8, 8))
    """
    context: dict[str, np.ndarray] = {}
    arrays = read_arrays(path)
    if path.suffix.lower() == ".npz":
        arrays, context = _x_and_context(path, arrays)
    parts = [_checked(array) for array in arrays]
    shapes = [array.values.shape[1:] for array in arrays]
    if len(set(shapes)) > 1:
        raise DataError(f"train, validation and test in {path} hold data of different shapes {shapes}: make them one.")
    missing = [_counted("missing value", array, rows.isnan()) for array, rows in zip(arrays, parts, strict=True)]
    return UserFile(parts, shapes[0], context, "; ".join(filter(None, missing)))


def read_arrays(path: Path) -> list[Array]:
    """Every array of a file; a table of one column is a vector.

    Raises:
        DatasetError: the file cannot be read.
        DataError: a table holds no numbers.
    """
    suffix = path.suffix.lower()
    try:
        return _READERS[suffix](path)
    except (DataError, DatasetError):
        raise
    except ImportError as error:
        raise DatasetError(f"{path} needs pyarrow: install it with `pip install pyarrow`, or write a .npy.") from error
    except DAMAGE as error:
        raise DatasetError(f"{path} cannot be read as {suffix} ({error}): write it again.") from error


def _x_and_context(path: Path, arrays: list[Array]) -> tuple[list[Array], dict[str, np.ndarray]]:
    """The one array or the three parts of an archive, and the arrays beside them."""
    named = {array.name: array for array in arrays}
    if "valid" in named:
        named.setdefault("validation", named.pop("valid"))
    if set(PARTS) <= set(named):
        keys = list(PARTS)
    elif "x" in named or len(named) == 1:
        keys = ["x"] if "x" in named else list(named)
    else:
        found = ", ".join(sorted(named)) or "none"
        raise DatasetError(
            f"{path} holds the arrays {found}: give one array, or train, validation and test, or x and its context."
        )
    return [named[key] for key in keys], {key: a.values for key, a in named.items() if key not in keys}


def _read_npy(path: Path) -> list[Array]:
    return [Array(str(path), read_npy(path))]


def _read_archive(path: Path) -> list[Array]:
    return [Array(f"array {key!r} of {path}", array, name=key) for key, array in read_npz(path).items()]


def _read_csv(path: Path) -> list[Array]:
    import pandas as pd

    with path.open(newline="", encoding="utf-8-sig") as file:
        first = next(csv.reader(file), None)
    if first is None:
        raise DataError(f"{path} is empty: give at least 3 rows.")
    if "" in first:
        # The column of row numbers that pandas adds would be taken for data.
        raise DataError(
            f"the first line of {path} has an empty cell: fill it (NA for a missing value), or drop the index "
            "(index=False in pandas)."
        )
    is_header = not _is_data(first) or (len(first) > 2 and first == [str(i) for i in range(len(first))])
    with warnings.catch_warnings():
        # pandas would drop the cells of a row that is longer than the first, and only warn.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            frame = pd.read_csv(path, header=0 if is_header else None, encoding="utf-8-sig", index_col=False)
        except pd.errors.ParserWarning as error:
            raise DatasetError(f"{path} has rows of different lengths ({error}): give each the same.") from error
    if frame.isna().any(axis=None):  # pandas reads a row that is too short as one with missing values
        _demand_whole_rows(path, len(first))
    return [_from_frame(frame, path)]


def _demand_whole_rows(path: Path, num_columns: int) -> None:
    with path.open(newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if row and len(row) != num_columns:
                raise DatasetError(
                    f"{path} has rows of different lengths (row {number} has {len(row)} cells, the first has "
                    f"{num_columns}): give each the same, with NA or nothing in a cell for a missing value."
                )


def _is_data(line: Sequence[str]) -> bool:
    """Whether a line of a table holds numbers, some of them perhaps missing, and no names of columns."""
    return all(_is_number(cell) or cell.strip() in MISSING for cell in line) and any(map(_is_number, line))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_parquet(path: Path) -> list[Array]:
    import pandas as pd

    return [_from_frame(pd.read_parquet(path), path)]


def _from_frame(frame: "DataFrame", path: Path) -> Array:
    from pandas.api.types import is_bool_dtype, is_integer_dtype, is_numeric_dtype

    if frame.empty:
        raise DataError(
            f"{path} has {len(frame)} rows and {len(frame.columns)} columns: give at least 3 rows of numbers."
        )
    for column, dtype in frame.dtypes.items():
        if not is_numeric_dtype(dtype):
            raise DataError(f"column {column!r} of {path} does not hold numbers ({dtype}): drop or encode it.")
    whole = all(is_integer_dtype(t) or is_bool_dtype(t) for t in frame.dtypes) and not frame.isna().any(axis=None)
    values = frame.to_numpy(dtype=np.int64) if whole else frame.to_numpy(dtype=np.float64, na_value=np.nan)
    return Array(str(path), values[:, 0] if values.shape[1] == 1 else values, list(frame.columns))


def _checked(array: Array) -> Tensor:
    """The array as rows, once it is known to hold real numbers, of which none is infinite."""
    what, values = array.what, array.values
    if values.dtype.kind not in "buif":
        raise DataError(f"{what} holds {values.dtype}: give real numbers.")
    if values.ndim == 0 or values.size == 0:
        raise DataError(f"{what} has shape {values.shape}: give one row for each datum, with at least one number each.")
    rows = to_rows(values)
    infinite = _counted("infinite or overlarge value", array, rows.isinf())
    if infinite:
        raise DataError(f"{infinite}: remove or replace such values.")
    if rows.isnan().all():
        raise DataError(f"{what} holds nothing but missing values (NaN): give numbers.")
    return rows


def _counted(kind: str, array: Array, which: Tensor) -> str:
    """How many values of an array are of a kind, and where the first is; empty where none are."""
    count = int(which.sum())
    if not count:
        return ""
    row, column = which.nonzero()[0].tolist()
    label = repr(array.columns[column]) if array.columns is not None else column
    return (
        f"{array.what} has {count} {kind}{'s' * (count > 1)}, the first in row {row}, column {label} (counted from 0)"
    )


_READERS: dict[str, Callable[[Path], list[Array]]] = {
    ".npy": _read_npy,
    ".npz": _read_archive,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
SUFFIXES = tuple(_READERS)
