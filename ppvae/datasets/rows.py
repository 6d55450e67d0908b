"""Rows that stay in their file, and are read when they are asked for.

Rows are read and not mapped: the pages of a mapped file count as memory, and those around each row with them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppvae.errors import DatasetError

from .arrays import to_rows

# Numbers that are read at once in a pass over all rows: 16 MB in single precision.
PORTION = 2**22


@dataclass(frozen=True, eq=False)
class Stored:
    """An array in a file, its rows one after the other.

    Attributes:
        path: the file.
        shape: ``(num_data, ...)``.
        dtype: of its numbers.
        offset: where the first number stands, in bytes.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int = 0

    @property
    def width(self) -> int:
        """How many numbers a datum has."""
        return prod(self.shape[1:])

    def read(self, index: slice | np.ndarray) -> np.ndarray:
        """Read the rows that a slice or an array of numbers names.

        Raises:
            DatasetError: the file is gone, or shorter than it was.
        """
        size = self.width * self.dtype.itemsize
        try:
            with self.path.open("rb", buffering=0) as file:
                if isinstance(index, slice):
                    start, stop, step = index.indices(self.shape[0])
                    if step == 1:
                        count = max(stop - start, 0)
                        found = np.fromfile(file, self.dtype, count * self.width, offset=self.offset + start * size)
                        return found.reshape(count, *self.shape[1:])
                    index = np.arange(start, stop, step)
                found = np.empty((len(index), *self.shape[1:]), self.dtype)
                rows = found.reshape(len(index), self.width).view(np.uint8)
                for row, number in zip(rows, index.tolist(), strict=True):
                    content = os.pread(file.fileno(), size, self.offset + number * size)
                    if len(content) != size:
                        raise ValueError("it has ended")
                    row[:] = np.frombuffer(content, np.uint8)
                return found
        except (OSError, ValueError) as error:
            raise DatasetError(f"the rows of {self.path} cannot be read any more ({error}): put it back.") from error

    def portions(self) -> Iterator[tuple[int, np.ndarray]]:
        """All rows in their order, so many at a time as fit a small budget, each time with the number of the first."""
        size = max(1, PORTION // max(self.width, 1))
        for start in range(0, self.shape[0], size):
            yield start, self.read(slice(start, start + size))


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a stored array: ``rows[index]`` is a tensor of those that an index, a slice or a mask names.

    Attributes:
        stored: the array.
        numbers: which of its rows, in which order; None for all.
        event_shape: of a datum; None lays it flat.
        change: what is done to rows that were read, row by row.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "mine.npy"
        >>> np.save(path, np.arange(12.0, dtype=np.float32).reshape(4, 3))
        >>> rows = Rows.of(path)
        >>> len(rows), rows.shape, rows[torch.tensor([3, 0])].tolist()
        (4, torch.Size([4, 3]), [[9.0, 10.0, 11.0], [0.0, 1.0, 2.0]])
    """

    stored: Stored
    numbers: Tensor | None = None
    event_shape: tuple[int, ...] | None = None
    change: Callable[[Tensor], Tensor] | None = None

    @staticmethod
    def of(path: str | Path) -> Rows:
        """The rows of a ``.npy`` file.

        Raises:
            ValueError, OSError: it is none, or its first dimension does not come first in the file.
        """
        return Rows(stored_npy(Path(path)))

    def __len__(self) -> int:
        return self.stored.shape[0] if self.numbers is None else len(self.numbers)

    @property
    def shape(self) -> torch.Size:
        """The shape of a tensor of all rows."""
        inner = (self.stored.width,) if self.event_shape is None else self.event_shape
        return torch.Size((len(self), *inner))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the tensors that are read."""
        return torch.get_default_dtype()

    def __getitem__(self, index: Any) -> Tensor:
        if isinstance(index, Tensor):
            index = index.cpu()
        found: slice | np.ndarray
        if self.numbers is not None:
            found = self.numbers[index].numpy()
        else:
            found = index if isinstance(index, slice) else torch.arange(len(self))[index].numpy()
        rows = to_rows(self.stored.read(found))
        rows = rows if self.event_shape is None else rows.reshape(-1, *self.event_shape)
        return rows if self.change is None else self.change(rows)

    def portions(self) -> Iterator[Tensor]:
        """All rows in their order, so many at a time as fit a small budget."""
        size = max(1, PORTION // max(self.stored.width, 1))
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def reshape(self, *shape: int) -> Rows:
        """The same rows, each datum in another shape; the first of ``shape`` is −1."""
        return replace(self, event_shape=shape[1:])

    def changed(self, change: Callable[[Tensor], Tensor]) -> Rows:
        """The same rows, with a function applied to each when it is read."""
        before = self.change
        return replace(self, change=change if before is None else lambda rows: change(before(rows)))

    def some(self, most: int) -> Tensor:
        """At most so many rows, evenly spaced over all."""
        return self[torch.linspace(0, len(self) - 1, min(most, len(self))).round().long()]


def stored_npy(path: Path) -> Stored:
    """The array of a ``.npy`` file, of which nothing is read but its head.

    Raises:
        ValueError, OSError: the file is none, or its rows do not stand one after the other.
    """
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_column, dtype = read(file)
        if by_column and len(shape) > 1:
            raise ValueError("its columns stand one after the other, not its rows: save it in C order")
        return Stored(path, tuple(shape), dtype, file.tell())
