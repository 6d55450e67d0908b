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
    if not len(train) or not len(held_out):
        return 0
    return int(HeldOut(held_out).among(train).sum())


class HeldOut:
    """Held-out rows that are looked for among training rows, which may come piece by piece.

    Args:
        rows: ``(num_held_out, ...)``.
    """

    def __init__(self, rows: Tensor) -> None:
        self._rows = _comparable(rows)
        self._keys = _keys(self._rows)

    def among(self, train: Tensor) -> np.ndarray:
        """For each held-out row whether some training row is equal to it, ``(num_held_out,)`` of bool."""
        rows = _comparable(train)
        keys = _keys(rows)
        found: np.ndarray = np.isin(self._keys, keys)
        if found.any():  # rows of one key may still differ
            there = rows[np.isin(keys, self._keys)]
            found[found] = np.isin(_as_bytes(self._rows[found]), _as_bytes(there))
        return found


def sentence(num_test: int, num_validation: int, of_test: int) -> str:
    """A sentence that says how many held-out data are also training data; empty where none are.

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


def _comparable(rows: Tensor) -> np.ndarray:
    """Rows whose bits are equal where they are."""
    flat = rows.reshape(len(rows), -1).cpu().numpy() + 0.0  # −0 is 0
    flat[np.isnan(flat)] = np.nan  # of which there are many kinds
    return np.ascontiguousarray(flat)


def _keys(flat: np.ndarray) -> np.ndarray:
    """A whole number for each row, the same for equal rows: a sum of its bits with odd weights, modulo 2⁶⁴."""
    bits = flat.view(np.uint32 if flat.dtype.itemsize == 4 else np.uint64)
    weights = np.random.default_rng(0).integers(0, 2**63, bits.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    keys: np.ndarray = bits.astype(np.uint64) @ weights
    return keys


def _as_bytes(flat: np.ndarray) -> np.ndarray:
    """Each row as one value that can be compared."""
    return flat.view(np.dtype((np.void, flat.dtype.itemsize * flat.shape[1]))).reshape(-1)
