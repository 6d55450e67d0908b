"""Reading numpy's files, and arrays as rows of a tensor."""

import csv
import tokenize
import zipfile
import zlib
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ppvae.errors import DatasetError

# The exceptions that numpy, pandas and the standard library raise for a damaged file.
DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
    csv.Error,
)


def read_npy(path: Path) -> np.ndarray:
    """Read the one array of a ``.npy`` file; pickled objects are never run.

    Args:
        path: the file.

    Returns:
        The array.

    Raises:
        Exception: one of :data:`DAMAGE`, as numpy raises it: the file is not a ``.npy`` of a plain array.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "mine.npy"
        >>> np.save(path, np.eye(3))
        >>> read_npy(path).shape
        (3, 3)
    """
    with path.open("rb") as file:  # a file that numpy opens by itself stays open when it is damaged
        array = np.load(file, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("it is an archive of arrays, a .npz")
    return array


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read every array of a ``.npz`` archive; pickled objects are never run.

    Args:
        path: the file.

    Returns:
        The arrays by name.

    Raises:
        DatasetError: the file is damaged or no archive of plain arrays, whatever numpy raises over it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "mine.npz"
        >>> np.savez(path, train=np.eye(3), test=np.ones(2))
        >>> {name: array.shape for name, array in read_npz(path).items()}
        {'train': (3, 3), 'test': (2,)}
    """
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("it is a single array, a .npy")
            return {key: archive[key] for key in archive.files}
    except DAMAGE as error:
        raise DatasetError(f"{path} is damaged or no .npz of plain arrays ({error}): get or write it again.") from error


def to_rows(array: np.ndarray) -> Tensor:
    """Lay each datum flat, in torch's default floating-point type.

    Args:
        array: ``(num_data, ...)`` real numbers.

    Returns:
        ``(num_data, num_features)``, a copy; what is too large for the type becomes infinite.

    Example:
        >>> to_rows(np.zeros((10, 8, 8), dtype=np.uint8)).shape
        torch.Size([10, 64])
    """
    dtype = torch.get_default_dtype()
    with np.errstate(over="ignore"):  # what becomes infinite is reported as not finite, by row and column
        # A copy, so that the tensor never writes into memory that another holds.
        flat = np.array(array, dtype=np.float64 if dtype == torch.float64 else np.float32, order="C")
    return torch.from_numpy(flat.reshape(len(flat), prod(array.shape[1:]))).to(dtype)


def without_missing(rows: Tensor) -> Tensor:
    """The rows with each missing value (NaN) replaced by observed values of its column, one after the other.

    This is for shapes, ranges and starting values, not for a density: a replacement lies in the support that the
    column has. A column without any value takes those of the others.

    Args:
        rows: ``(num_data, ...)``, with some number that is not NaN.

    Example:
        >>> without_missing(torch.tensor([[1.0, 5.0], [torch.nan, 6.0], [2.0, torch.nan], [torch.nan, 7.0]])).tolist()
        [[1.0, 5.0], [1.0, 6.0], [2.0, 5.0], [2.0, 7.0]]
    """
    missing = rows.isnan().reshape(len(rows), -1)
    if not missing.any():
        return rows
    filled = rows.reshape(len(rows), -1).clone()
    everywhere = filled[~missing]
    for j in missing.any(0).nonzero().flatten().tolist():
        there = filled[~missing[:, j], j]
        values = there if len(there) else everywhere
        filled[missing[:, j], j] = values[torch.arange(int(missing[:, j].sum())) % len(values)]
    return filled.reshape(rows.shape)


def evenly_spaced(x: Tensor, most: int | None) -> Tensor:
    """At most so many rows, evenly spaced over all: test data are often sorted by class.

    Args:
        x: ``(num_data, ...)``.
        most: how many rows at most; None keeps all.

    Example:
        >>> evenly_spaced(torch.arange(10), 4)
        tensor([0, 3, 6, 9])
    """
    if most is None or most >= len(x):
        return x
    return x[torch.linspace(0, len(x) - 1, most).round().long()]
