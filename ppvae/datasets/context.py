"""Context: what the programs of a pair take after x, such as labels, covariates, lengths, masks or a graph.

A context keeps the shape that its file has, and the kind of its numbers: whole numbers and truth values index and mask,
and stay what they are; others have torch's default floating-point type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ppvae.errors import DataError, DatasetError

from .user_files import SUFFIXES, read_arrays


@dataclass(frozen=True, eq=False)
class Context:
    """An argument of the programs after x.

    Attributes:
        name: of the array in its archive, or of its file.
        values: all of it, ``(num_data, ...)`` where its rows go with the data.
        by_row: whether its rows go with the data; else all data share it.
        by_name: whether the name says which argument it is; else its place among the others does.
        is_column: whether it is a column of the data's table: its name counts where all such are names of arguments.
    """

    name: str
    values: Tensor
    by_row: bool
    by_name: bool = False
    is_column: bool = False


def contexts(
    files: Sequence[str | Path], arrays: Mapping[str, np.ndarray], num_data: int, data: str, by_name: bool = True
) -> list[Context]:
    """The context from files of its own, or from the archive of the data.

    An array with as many rows as there are data is taken to go with them, until a pair says that it is shared.

    Args:
        files: ``.npy``, ``.npz`` with one array, ``.csv`` or ``.parquet``, in the order of the programs' arguments.
        arrays: what the archive of the data holds beside x, by name.
        num_data: rows of x, in all parts.
        data: the name of the data, for messages.
        by_name: whether the names of the arrays are those of arguments.

    Raises:
        DatasetError: a file is missing or cannot be read.
        DataError: an array does not hold real numbers.
    """
    found = [_made(name, array, num_data, f"array {name!r} of {data}", by_name) for name, array in arrays.items()]
    return found + [_from_file(Path(file).expanduser(), num_data) for file in files]


def of_columns(columns: Mapping[str, np.ndarray], num_data: int, data: str) -> list[Context]:
    """The context from columns of the data's own table, in the order in which they were asked for.

    Raises:
        DataError: a column holds infinite values.
    """
    made = [_made(name, values, num_data, f"column {name!r} of {data}", False) for name, values in columns.items()]
    return [replace(one, is_column=True) for one in made]


def _from_file(path: Path, num_data: int) -> Context:
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        what = "is no file" if path.suffix.lower() in SUFFIXES else f"does not end in one of {', '.join(SUFFIXES)}"
        raise DatasetError(f"the context {path} {what}: correct the path.")
    arrays = read_arrays(path)
    if len(arrays) != 1:
        raise DatasetError(
            f"the context {path} holds {len(arrays)} arrays: give one in a file, and a --context for each, or put them "
            "beside x into the one .npz of --data."
        )
    return _made(path.stem, arrays[0], num_data, str(path), False)


def _made(name: str, array: np.ndarray, num_data: int, what: str, by_name: bool) -> Context:
    if array.dtype.kind not in "buif":
        raise DataError(f"the context {what} holds {array.dtype}: give real numbers.")
    if np.isinf(array).any():
        raise DataError(f"the context {what} holds infinite values: remove or replace them.")
    kinds = {"b": torch.bool, "i": torch.int64, "u": torch.int64, "f": torch.get_default_dtype()}
    number = np.int64 if array.dtype.kind == "u" else array.dtype.newbyteorder("=")
    values = torch.from_numpy(np.array(array, dtype=number, order="C")).to(kinds[array.dtype.kind])
    return Context(name, values, values.dim() > 0 and len(values) == num_data, by_name)
