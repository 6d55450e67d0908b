"""A user's own files: ``.npy``, ``.npz``, ``.csv``, ``.tsv`` or ``.parquet``, as arrays and tables.

A file that is damaged, not numeric or holds infinite values is refused in one sentence that names the file and, if
known, the place. Missing values (NaN, an empty cell or NA in a table) are read: a pair may leave them out of its
density, and where they stand is noted for the sentence that refuses a pair that does not.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ppvae.errors import DataError, DatasetError

from .arrays import DAMAGE, read_npy, read_npz
from .found import ONE, Found, member
from .tables import frame_values, is_frame, to_frame
from .text_tables import read_text_table

# What to do with files of other kinds.
OTHER_KINDS = {
    ".h5ad": "open it with anndata.read_h5ad and give the AnnData to load_dataset, or save its array X as .npy",
    ".xlsx": "save the sheet as .csv",
    ".xls": "save the sheet as .csv",
    ".ods": "save the sheet as .csv",
    ".txt": "rename it to .csv if it is a table; blanks, tabs and semicolons between numbers are understood",
    ".dat": "rename it to .csv if it is a table; blanks, tabs and semicolons between numbers are understood",
    ".gz": "unpack it",
    ".zip": "unpack it",
    ".pt": "load it with torch.load and write the tensor with numpy.save, as .npy",
    ".pth": "load it with torch.load and write the tensor with numpy.save, as .npy",
    ".pkl": "unpickle it where you trust it, and give the object to load_dataset",
    ".json": "read it with pandas and write it as .csv or .parquet",
    ".feather": "read it with pandas and write it as .parquet",
    ".h5": "read the array and write it with numpy.save, as .npy",
    ".mat": "read it with scipy.io.loadmat and write the array with numpy.save, as .npy",
    ".png": "give a folder of pictures as a torch Dataset, torchvision's ImageFolder, to load_dataset",
    ".jpg": "give a folder of pictures as a torch Dataset, torchvision's ImageFolder, to load_dataset",
}


def in_file(path: Path) -> Found:
    """The arrays and tables that a file holds.

    Args:
        path: a file that exists and ends in one of :data:`SUFFIXES`.

    Raises:
        DatasetError: the file cannot be read.
        DataError: it is empty.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "mine.npy"
        >>> np.save(path, np.zeros((10, 8, 8)))
        >>> {name: array.shape for name, array in in_file(path).members.items()}
        {'': (10, 8, 8)}
    """
    suffix = path.suffix.lower()
    try:
        return Found(str(path), path.name, _READERS[suffix](path))
    except (DataError, DatasetError):
        raise
    except ImportError as error:
        raise DatasetError(f"{path} needs pyarrow: install it with `pip install pyarrow`, or write a .npy.") from error
    except DAMAGE as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DatasetError(f"{path} cannot be read as {suffix} ({reason}): write it again.") from error


def read_arrays(path: Path) -> list[np.ndarray]:
    """Every array of a file, as numbers; a table of one column is a vector.

    Raises:
        DatasetError: the file cannot be read.
        DataError: a table holds no numbers.
    """
    return [_numbers(value, path) for value in in_file(path).members.values()]


def _numbers(value: Any, path: Path) -> np.ndarray:
    if not is_frame(value):
        return np.asarray(value)
    values = frame_values(value, str(path))
    return values[:, 0] if values.shape[1] == 1 else values


def _read_npy(path: Path) -> dict[str, Any]:
    return {ONE: member(read_npy(path), str(path))}


def _read_archive(path: Path) -> dict[str, Any]:
    return {key: member(array, f"array {key!r} of {path}") for key, array in read_npz(path).items()}


def _read_text(path: Path) -> dict[str, Any]:
    return {ONE: read_text_table(path)}


def _read_parquet(path: Path) -> dict[str, Any]:
    import pandas as pd

    return {ONE: to_frame(pd.read_parquet(path), str(path))}


def _read_zarr(path: Path) -> dict[str, Any]:
    return {ONE: np.asarray(open_zarr(path))}


def open_zarr(path: Path) -> Any:
    """The array of a Zarr folder, of which nothing is read yet.

    Raises:
        DatasetError: zarr is not installed, or the folder holds no array.
    """
    try:
        import zarr
    except ImportError as error:
        raise DatasetError(f"{path} needs zarr: install it with `pip install zarr`, or write a .npy.") from error
    try:
        return zarr.open_array(path, mode="r")
    except Exception as error:  # zarr has a type of its own for each kind of damage
        reason = " ".join(str(error).split()).rstrip(".")
        raise DatasetError(f"{path} holds no Zarr array ({reason}): name the folder of one array.") from error


_READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    ".npy": _read_npy,
    ".npz": _read_archive,
    ".csv": _read_text,
    ".tsv": _read_text,
    ".parquet": _read_parquet,
    ".zarr": _read_zarr,
}
SUFFIXES = tuple(_READERS)
