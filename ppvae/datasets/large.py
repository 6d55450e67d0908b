"""Data that are not read into memory: large ``.npy``, Parquet and Zarr files, and large torch data sets.

Training rows stay in a file and are read batch by batch (:class:`.rows.Rows`). Of the validation and test
rows so many are drawn at random that they fit the memory. All rows are looked at once, for values that cannot be used
and for held-out rows that stand among the training data.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor

from ppvae.errors import DataError

from . import leakage
from .arrangement import PARTS, Roles
from .arrays import to_rows
from .dataset import Dataset
from .large_sources import Large
from .large_tables import demand_measured
from .rows import Rows, Stored
from .splits import Split, demand_three, parts_by_column, random_parts, stratified_parts

# Validation and test rows that are kept.
MOST_HELD_OUT = 10_000
# Single precision rounds whole numbers from here on.
EXACT = 2**24


def streamed(found: Large, split: Split, roles: Roles, seed: int) -> Dataset:
    """The data set of a large source, without its context.

    Raises:
        DataError: it holds no real numbers, or values that cannot be used.
        DatasetError: its rows cannot be laid out in a temporary file.
    """
    stored = found.store()
    if stored.dtype.kind not in "buif" or not stored.width:
        raise DataError(f"{found.what} holds {stored.dtype} of shape {stored.shape}: give rows of real numbers.")
    if found.columns:
        demand_measured(stored, found.columns, found.whole, roles, found.what)
    train, *held_out = _divided(found, stored.shape[0], split, seed)
    sizes = [len(part) for part in held_out]
    train = train.sort().values  # so that a pass over all of them reads the file from its begin to its end
    held_out = [part[:MOST_HELD_OUT].sort().values for part in held_out]
    validation, test = (to_rows(stored.read(part.numpy())) for part in held_out)
    missing, largest, copies = _looked_at(stored, found.what, [validation, test], train)
    rows = dict(zip(PARTS, (train, *held_out), strict=True))
    label, names = found.beside.get(str(roles.label), (None, ()))
    note = (
        f"{found.name} is large ({stored.shape[0]} rows): training rows are read from the file as they are needed; of "
        f"{sizes[0]} validation and {sizes[1]} test rows {len(validation)} and {len(test)} are used, drawn at random."
    )
    return Dataset(
        found.name,
        cast(Tensor, Rows(stored, train)),
        validation,
        test,
        stored.shape[1:] or (1,),
        total_count=255 if stored.dtype == np.uint8 and largest >= 128 else None,
        labels=None if label is None else {part: torch.as_tensor(label)[index] for part, index in rows.items()},
        label_names=names or None,
        rows=rows,
        own_parts=False,
        datum_shape=stored.shape[1:],
        missing=missing,
        columns=found.columns,
        duplicates=dict(zip(PARTS[1:], copies, strict=True)),
        notes=(note,),
    )


def _divided(found: Large, num_data: int, split: Split, seed: int) -> list[Tensor]:
    """Row numbers of the three parts, in a random order."""
    if split.column is None and split.stratify is None:
        return random_parts(num_data, split, seed, found.what)
    demand_three(num_data, found.what)
    values = found.words(split.column or split.stratify)
    parts = (parts_by_column if split.column else stratified_parts)(values, split, seed, found.what)
    generator = torch.Generator().manual_seed(seed)
    return [part[torch.randperm(len(part), generator=generator)] for part in parts]


def _looked_at(stored: Stored, what: str, held_out: list[Tensor], train: Tensor) -> tuple[str, float, list[int]]:
    """How many values are missing, the largest, and how many held-out rows stand among the training rows.

    Raises:
        DataError: values are infinite, or are rounded, or all are missing.
    """
    missing, first, largest = 0, None, -np.inf
    trains = torch.zeros(stored.shape[0], dtype=torch.bool)
    trains[train] = True
    looked_for = [leakage.HeldOut(part) for part in held_out]
    found = [np.zeros(len(part), dtype=bool) for part in held_out]
    for start, values in stored.portions():
        rows = to_rows(values)
        if rows.isinf().any():
            place = rows.isinf().nonzero()[0].tolist()
            raise DataError(
                f"{what} has an infinite or overlarge value in row {start + place[0]}, column {place[1]} (counted from "
                "0): remove or replace such values."
            )
        if stored.dtype.kind in "iu" and rows.dtype != torch.float64 and rows.abs().max() >= EXACT:
            raise DataError(
                f"{what} holds whole numbers of {EXACT} or more, which single precision rounds: subtract a constant or "
                "divide."
            )
        nan = rows.isnan()
        if nan.any():
            first = first or [start + int(nan.nonzero()[0][0]), int(nan.nonzero()[0][1])]
            missing += int(nan.sum())
        largest = max(largest, float(rows.nan_to_num(-np.inf).max()))
        others = rows[trains[start : start + len(rows)]]
        found = [old | each.among(others) for old, each in zip(found, looked_for, strict=True)]
    if missing == stored.shape[0] * stored.width:
        raise DataError(f"{what} holds nothing but missing values (NaN): give numbers.")
    told = f"{what} has {missing} missing value{'s' * (missing > 1)}, the first in row {first[0]}, column {first[1]} " \
        "(counted from 0)" if first else ""  # fmt: skip
    return told, largest, [int(which.sum()) for which in found]
