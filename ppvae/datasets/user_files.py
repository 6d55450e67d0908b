"""A user's own files: ``.npy``, ``.npz``, ``.csv`` or ``.parquet``, as rows of finite numbers.

A file that is damaged, not numeric or not finite is refused in one sentence that names the file and, if known, the
place.
"""

import csv
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ppvae.errors import DataError, DatasetError

from .arrays import DAMAGE, read_npy, read_npz, to_rows

if TYPE_CHECKING:
    from pandas import DataFrame  # pandas is slow to import, and most runs read no table


def read_user_file(path: Path) -> tuple[list[Tensor], tuple[int, ...]]:
    """Read the rows of a file: all of them, or those of its three parts.

    Args:
        path: a file that exists and ends in one of :data:`SUFFIXES`.

    Returns:
        The rows, ``(num_data, num_features)`` each, of the file's one array or of its training, validation and test
        part in this order; and the shape of one datum before it was flattened.

    Raises:
        DatasetError: the file cannot be read, or holds neither one array nor three parts.
        DataError: its content is empty, not numeric or not finite, or the parts hold data of different shapes.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "mine.npy"
        >>> np.save(path, np.zeros((10, 8, 8)))
        >>> (rows,), event_shape = read_user_file(path)
        >>> rows.shape, event_shape
        (torch.Size([10, 64]), (8, 8))
    """
    arrays = _read(path)
    parts = [_checked(array, what, columns) for what, columns, array in arrays]
    shapes = [array.shape[1:] or (1,) for _, _, array in arrays]
    if len(set(shapes)) > 1:
        raise DataError(f"train, validation and test in {path} hold data of different shapes {shapes}: make them one.")
    return parts, shapes[0]


_Named = tuple[str, Sequence[object] | None, np.ndarray]  # what to call an array in a message, its columns' names, it


def _read(path: Path) -> list[_Named]:
    """The file's one array, or its three parts in their order."""
    suffix = path.suffix.lower()
    try:
        return _READERS[suffix](path)
    except (DataError, DatasetError):
        raise
    except ImportError as error:
        raise DatasetError(f"{path} needs pyarrow: install it with `pip install pyarrow`, or write a .npy.") from error
    except DAMAGE as error:
        raise DatasetError(f"{path} cannot be read as {suffix} ({error}): write it again.") from error


def _read_npy(path: Path) -> list[_Named]:
    return [(str(path), None, read_npy(path))]


def _read_parts(path: Path) -> list[_Named]:
    arrays = read_npz(path)
    if "valid" in arrays:
        arrays.setdefault("validation", arrays["valid"])
    keys = ["train", "validation", "test"] if {"train", "validation", "test"} <= set(arrays) else list(arrays)
    if len(keys) not in (1, 3) or (len(keys) == 3 and "train" not in keys):
        found = ", ".join(sorted(arrays)) or "none"
        raise DatasetError(f"{path} holds the arrays {found}: give one array, or train, validation and test.")
    return [(f"array {key!r} of {path}", None, arrays[key]) for key in keys]


def _read_csv(path: Path) -> list[_Named]:
    import pandas as pd

    with path.open(newline="", encoding="utf-8-sig") as file:
        first = next(csv.reader(file), None)
    if first is None:
        raise DataError(f"{path} is empty: give at least 3 rows.")
    if "" in first:
        # The column of row numbers that pandas adds would be taken for data.
        raise DataError(
            f"the first line of {path} has an empty cell: fill it, or drop the index (index=False in pandas)."
        )
    is_header = not all(map(_is_number, first)) or (len(first) > 2 and first == [str(i) for i in range(len(first))])
    with warnings.catch_warnings():
        # pandas would drop the cells of a row that is longer than the first, and only warn.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            frame = pd.read_csv(path, header=0 if is_header else None, encoding="utf-8-sig", index_col=False)
        except pd.errors.ParserWarning as error:
            raise DatasetError(f"{path} has rows of different lengths ({error}): give each the same.") from error
    return [_from_frame(frame, path)]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_parquet(path: Path) -> list[_Named]:
    import pandas as pd

    return [_from_frame(pd.read_parquet(path), path)]


def _from_frame(frame: "DataFrame", path: Path) -> _Named:
    from pandas.api.types import is_numeric_dtype

    if frame.empty:
        raise DataError(
            f"{path} has {len(frame)} rows and {len(frame.columns)} columns: give at least 3 rows of numbers."
        )
    for column, dtype in frame.dtypes.items():
        if not is_numeric_dtype(dtype):
            raise DataError(f"column {column!r} of {path} does not hold numbers ({dtype}): drop or encode it.")
    return str(path), list(frame.columns), frame.to_numpy(dtype=np.float64, na_value=np.nan)


def _checked(array: np.ndarray, what: str, columns: Sequence[object] | None) -> Tensor:
    """The array as rows, once it is known to hold finite real numbers."""
    if array.dtype.kind not in "buif":
        raise DataError(f"{what} holds {array.dtype}: give real numbers.")
    if array.ndim == 0 or array.size == 0:
        raise DataError(f"{what} has shape {array.shape}: give one row for each datum, with at least one number each.")
    rows = to_rows(array)
    wrong = ~torch.isfinite(rows)
    if wrong.any():
        row, column = wrong.nonzero()[0].tolist()
        label = repr(columns[column]) if columns is not None else column
        count = int(wrong.sum())
        raise DataError(
            f"{what} has {count} missing, infinite or overlarge value{'s' * (count > 1)}, the first in row {row}, "
            f"column {label} (counted from 0): remove or replace such values."
        )
    return rows


_READERS: dict[str, Callable[[Path], list[_Named]]] = {
    ".npy": _read_npy,
    ".npz": _read_parts,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
SUFFIXES = tuple(_READERS)
