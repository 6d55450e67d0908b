"""Duplicates over the split: held-out data that stand among the training data too, to the last digit."""

from __future__ import annotations

import numpy as np
from torch import Tensor


def duplicates(train: Tensor, held_out: Tensor) -> int:
    """How many rows of the held-out data are equal to some training row; missing values are equal to each other.

    Args:
        train: ``(num_train, ...)``.
        held_out: ``(num_held_out, ...)``.

    Example:
        >>> import torch
        >>> duplicates(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[3.0, 4.0], [3.0, 5.0], [3.0, 4.0]]))
        2
    """
    return int(which(train, held_out).sum())


def which(train: Tensor, held_out: Tensor) -> np.ndarray:
    """As :func:`duplicates`, for each held-out row: ``(num_held_out,)`` of bool."""
    if not len(train) or not len(held_out):
        return np.zeros(len(held_out), dtype=bool)
    return np.isin(_as_bytes(held_out), _as_bytes(train))


def sentence(num_test: int, num_validation: int, of_test: int) -> str:
    """That held-out data stand among the training data, in a sentence; empty where none do.

    Args:
        num_test: test data that do.
        num_validation: validation data that do.
        of_test: how many test data there are.
    """
    if not num_test and not num_validation:
        return ""
    also = f", and {num_validation} of the validation data" if num_validation else ""
    return (
        f"{num_test} of the {of_test} test data{also} stand among the training data too, to the last digit: remove "
        "duplicates before the split, or log p(x) of the test data is too good; of discrete data with few values this "
        "is to be expected."
    )


def _as_bytes(rows: Tensor) -> np.ndarray:
    """Each row as one value that can be compared."""
    flat = rows.reshape(len(rows), -1).cpu().numpy() + 0.0  # −0 is 0
    flat[np.isnan(flat)] = np.nan  # of which there are many kinds
    flat = np.ascontiguousarray(flat)
    return flat.view(np.dtype((np.void, flat.dtype.itemsize * flat.shape[1]))).reshape(-1)
