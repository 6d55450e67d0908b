"""Data in memory as what two programs take, ``(x, *context)``, without a split: what every estimator does with its x.

Tensors stay what they are, but for the small integers (8 and 16 bits), which overflow in densities: they become torch's
default floating-point type. So do arrays and tables of numbers, ``float64`` among them: the parameters of a pair have
that type unless a user says otherwise, and who does gives tensors. Arrays of whole numbers of more bits and of truth
values keep their kind in a context, where they index and mask.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppvae.errors import DataError

from .arrangement import Roles, arrange
from .dataset import Dataset
from .found import is_array_like, member
from .sources import find
from .tables import column_values, is_frame, is_table
from .torch_datasets import is_torch_data

SMALL = (torch.uint8, torch.int8, torch.int16)


def program_arguments(x: Any, name: str = "x") -> tuple[Any, ...]:
    """``x`` or ``(x, *context)`` as tensors.

    Args:
        x: a tensor; or an array, a table of pandas or polars, a list of rows, a torch Dataset or DataLoader; or a tuple
            of such and of context, which may hold anything.
        name: what the caller's argument is called.

    Raises:
        DataError: it holds no numbers, or a column that may be no measurement.

    Example:
        >>> program_arguments(np.zeros((3, 2)))[0].dtype, program_arguments(torch.zeros(3, dtype=torch.uint8))[0].dtype
        (torch.float32, torch.float32)
    """
    if isinstance(x, Dataset):
        raise DataError(f"{name} is a Dataset of ppvae, in three parts: give one, as in {name}.batch('test').")
    if isinstance(x, Tensor):
        return (_floating_if_small(x),)
    if _is_batch(x):
        return (program_arguments(x[0], name)[0], *(_context(each) for each in x[1:]))
    return _of_source(x, name)


def column_names(x: Any) -> tuple[str, ...]:
    """The names of the features of a table, or of the table that ``(x, *context)`` begins with; empty of all else."""
    first = x[0] if isinstance(x, tuple) and x else x
    return tuple(str(name) for name in first.columns) if is_table(first) and hasattr(first, "columns") else ()


def _is_batch(x: Any) -> bool:
    """Whether this is ``(x, *context)``: a tuple, or a list that begins with a tensor, as batches of loaders are."""
    if isinstance(x, list) and x and isinstance(x[0], np.ndarray) and x[0].ndim:
        raise DataError(
            "a list of arrays may be rows or (x, *context): give numpy.stack of the rows, or a tuple (x, *context)."
        )
    if not isinstance(x, tuple | list) or not x:
        return False
    is_rows = isinstance(x[0], Tensor) and not x[0].dim() and isinstance(x, list)
    return (isinstance(x[0], Tensor) and not is_rows) or (isinstance(x, tuple) and _has_rows(x[0]))


def _has_rows(x: Any) -> bool:
    return is_array_like(x) or is_torch_data(x) or isinstance(x, list)


def _of_source(x: Any, name: str) -> tuple[Any, ...]:
    if not is_torch_data(x) and not is_array_like(x) and not (isinstance(x, list) and x) and not hasattr(x, "toarray"):
        raise DataError(
            f"{name} must be a tensor whose first dimension counts the data, or a tuple ({name}, *context); it is "
            f"{'an empty ' if isinstance(x, tuple | list) else ''}{type(x).__name__}: convert it with torch.as_tensor."
        )
    if is_torch_data(x) or is_table(x) or isinstance(x, list):
        arranged = arrange(find(x), Roles())
        rows = torch.cat(arranged.parts).reshape(-1, *arranged.datum_shape)
        return (rows, *(_context(values) for values in arranged.context.values()))
    value = member(x, name)
    if is_frame(value):
        return _of_source(value, name)
    if value.dtype.kind not in "buif":
        raise DataError(f"{name} holds {value.dtype}: give real numbers.")
    return (torch.from_numpy(np.array(value, np.float64)).to(torch.get_default_dtype()),)


def _context(value: Any) -> Any:
    """A member of the context: arrays and columns become tensors of their kind, all else stays."""
    if is_table(value):
        frame = member(value, "the context")
        value = column_values(frame, frame.columns[0]) if frame.shape[1] == 1 else frame.to_numpy()
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind not in "buif":
        raise DataError(f"a context holds {value.dtype}: give real numbers.")
    kinds = {"b": torch.bool, "i": torch.int64, "u": torch.int64, "f": torch.get_default_dtype()}
    number = {"b": np.bool_, "i": np.int64, "u": np.int64, "f": np.float64}[value.dtype.kind]
    return torch.from_numpy(np.array(value, number)).to(kinds[value.dtype.kind])


def _floating_if_small(x: Tensor) -> Tensor:
    return x.to(torch.get_default_dtype()) if x.dtype in SMALL else x
