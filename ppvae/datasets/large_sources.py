"""Which sources are too large to be read into memory, and how their rows come to stand in a file.

A ``.npy`` is its own file; what Parquet, Zarr and torch data sets hold is laid out chunk by chunk in a temporary one,
so that rows can be taken in any order.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppvae.errors import DataError, DatasetError

from .arrangement import Roles
from .label_columns import NO_LABEL
from .large_tables import columns_beside, data_columns
from .rows import PORTION, Stored, stored_npy
from .user_files import open_zarr

# From so many rows, or so many MiB in single precision, on data are not read into memory.
MANY_ROWS, MANY_MB = 200_000, 128


@dataclass(frozen=True)
class Large:
    """A source that is too large for the memory.

    Attributes:
        what: it is called in messages.
        name: of the data set.
        store: lays the rows out in a file, or names the file in which they are.
        columns: the names of the data's columns, where they have names.
        whole: those of them that hold whole numbers.
        beside: the columns that another option names, whole: numbers, or the codes of classes with their names.
    """

    what: str
    name: str
    store: Callable[[], Stored]
    columns: tuple[str, ...] | None = None
    whole: tuple[str, ...] = ()
    beside: dict[str, tuple[np.ndarray, tuple[str, ...]]] = field(default_factory=dict)

    def words(self, name: Any) -> np.ndarray:
        """The values of a column beside the data, as its table has them."""
        values, names = self.beside[name]
        return np.array(names, dtype=object)[values] if names else values


def is_many(shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape is too large to be read into memory by default."""
    return len(shape) > 0 and (shape[0] > MANY_ROWS or 4 * int(np.prod(shape)) > MANY_MB * 2**20)


def large(source: Any, roles: Roles) -> Large | None:
    """The source as one that is streamed; None where it is small, or of a kind that is read whole.

    Args:
        source: as :func:`.load.load_dataset` takes it.
        roles: what columns are for that are not data.

    Raises:
        DataError: a column holds no numbers, or is named, and the source has no names.
        OptionError: a column that was named is not there.
    """
    if isinstance(source, str | Path) and Path(source).suffix.lower() == ".parquet":
        path = Path(source).expanduser()
        return _parquet(path, roles) if path.exists() else None
    found = _without_names(source)
    if found is not None and (named := {k: v for k, v in roles.asked.items() if k != NO_LABEL}):
        column, option = next(iter(named.items()))
        raise DataError(
            f"{found.what} is too large to be read whole and has no names of columns, and {option} names {column!r}: "
            "write it as .parquet, whose columns have names, or give what stands beside x in a file of its own by "
            "context."
        )
    return found


def _without_names(source: Any) -> Large | None:
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        kind = {".npy": _npy, ".zarr": _zarr}.get(path.suffix.lower())
        return kind(path) if kind is not None and path.exists() else None
    if isinstance(source, np.memmap) and source.filename is not None and source.flags.c_contiguous:
        stored = Stored(Path(source.filename), source.shape, source.dtype, source.offset)
        return Large(str(stored.path), stored.path.name, lambda: stored) if is_many(stored.shape) else None
    if isinstance(source, torch.utils.data.Dataset) and hasattr(source, "__len__"):
        return _torch(source)
    return None


def _npy(path: Path) -> Large | None:
    try:
        stored = stored_npy(path)
    except (ValueError, OSError):
        return None  # the reader of small files says what is wrong
    return Large(str(path), path.name, lambda: stored) if is_many(stored.shape) else None


def _parquet(path: Path, roles: Roles) -> Large | None:
    try:
        from pyarrow import parquet

        file = parquet.ParquetFile(path)
    except (ImportError, ValueError, OSError):
        return None
    rows = file.metadata.num_rows
    if not is_many((rows, len(set(file.schema_arrow.names) - set(roles.asked)))):
        return None
    columns, whole = data_columns(file.schema_arrow, roles, str(path))

    def chunks() -> Iterator[np.ndarray]:
        for batch in file.iter_batches(max(1, PORTION // len(columns)), columns=columns):
            found = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in columns}
            yield np.column_stack([found[name].astype(np.float32) for name in columns])

    return Large(
        str(path),
        path.name,
        lambda: _laid_out(chunks(), (rows, len(columns)), np.dtype(np.float32), str(path)),
        tuple(columns),
        whole,
        columns_beside(file, roles),
    )


def _zarr(path: Path) -> Large | None:
    array = open_zarr(path)
    if not is_many(array.shape):
        return None
    rows = max(1, PORTION // max(1, int(np.prod(array.shape[1:]))))
    rows = max(rows // array.chunks[0], 1) * array.chunks[0]  # each chunk is unpacked once

    def chunks() -> Iterator[np.ndarray]:
        for start in range(0, array.shape[0], rows):
            yield np.asarray(array[start : start + rows])

    return Large(str(path), path.name, lambda: _laid_out(chunks(), array.shape, array.dtype, str(path)))


def _torch(source: Any) -> Large | None:
    """A torch data set of x, or of tuples that begin with x, or of dicts that hold it."""
    if not len(source):
        return None
    first = _x_of(source[0])
    if first is None or not is_many((len(source), *first.shape)):
        return None
    what = f"the {type(source).__name__}"

    def chunks() -> Iterator[np.ndarray]:
        for i in range(len(source)):
            x = _x_of(source[i])
            if x is None or x.shape != first.shape:
                raise DataError(f"datum {i} of {what} has another shape than the first, {first.shape}: give all one.")
            yield x[None]

    shape = (len(source), *first.shape)
    return Large(what, type(source).__name__, lambda: _laid_out(chunks(), shape, first.dtype, what))


def _x_of(item: Any) -> np.ndarray | None:
    if isinstance(item, dict):
        item = item.get("x", next(iter(item.values()), None))
    elif isinstance(item, tuple | list) and item:
        item = item[0]
    return np.asarray(item.numpy() if isinstance(item, Tensor) else item) if hasattr(item, "shape") else None


def _laid_out(chunks: Iterator[np.ndarray], shape: tuple[int, ...], dtype: np.dtype, what: str) -> Stored:
    """The chunks one after the other in a temporary file, which is removed when the process ends.

    Raises:
        DatasetError: there is no room.
    """
    folder = tempfile.mkdtemp(prefix="ppvae-rows-")
    path = Path(folder) / "rows"
    try:
        with path.open("wb") as file:
            for chunk in chunks:
                file.write(np.ascontiguousarray(chunk, dtype=dtype).data)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise DatasetError(
            f"the rows of {what} could not be laid out in {folder} ({error.strerror or error}): name a folder "
            "with room for them by the environment variable TMPDIR, or save them as a .npy."
        ) from error
    stored = Stored(path, shape, dtype)
    weakref.finalize(stored, shutil.rmtree, folder, ignore_errors=True)
    return stored
