"""Means of differences between two runs on the same data.

Two runs on the same data meet the same easy and hard data, so that the spread over data cancels in the difference

    mean of d_i,   d_i = b_i − a_i,   standard error √(Var(d)/N),

which is far better known than the two means are: most of their errors is that spread.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ppvae.errors import RunError

Values = dict[str, np.ndarray]


def paired(a: Values, b: Values, errors: Mapping[str, str]) -> dict[str, Any]:
    """The means of b − a over the data for which all values are finite, in nats.

    Args:
        a: the quantities of one run and their errors, ``(num_data,)`` each.
        b: of the other.
        errors: the name of each quantity's error, by the name of the quantity.

    Returns:
        For each quantity its mean, ``*_standard_error``, the ``*_monte_carlo_error`` in that, and ``*_share_higher``,
        the share of data for which b's is higher; ``num_data``; and ``num_left_out``, data for which some value of
        either run is not finite. A mean is None, and its error too, where there is no datum.

    Example:
        >>> a = {"elbo": np.array([1.0, 2.0]), "error": np.zeros(2)}
        >>> b = {"elbo": np.array([2.0, 5.0]), "error": np.zeros(2)}
        >>> d = paired(a, b, {"elbo": "error"})  # 1 and 3
        >>> d["elbo"], d["elbo_standard_error"], d["elbo_share_higher"]
        (2.0, 1.0, 1.0)
    """
    finite = np.all([np.isfinite(e[name]) for e in (a, b) for name in errors], axis=0)
    n = int(finite.sum())
    out: dict[str, Any] = {"num_data": n, "num_left_out": len(finite) - n}
    for name, error in errors.items():
        d = (b[name] - a[name])[finite]
        monte_carlo = math.sqrt(float((a[error] ** 2 + b[error] ** 2)[finite].sum())) / max(n, 1)
        total = float(d.std(ddof=1)) / math.sqrt(n) if n > 1 else monte_carlo
        out |= {name: float(d.mean()) if n else None, f"{name}_standard_error": total}
        out |= {f"{name}_monte_carlo_error": monte_carlo, f"{name}_share_higher": float((d > 0).mean()) if n else None}
    return out


def on_the_same(values: list[Values], rows: list[np.ndarray | None]) -> list[Values] | None:
    """The values of two runs on the data that both have.

    Args:
        values: of each run, ``(num_data,)`` each.
        rows: which rows of the data they are; None where the file does not say: then both must have as many.

    Returns:
        The values; None if there are no such data, or if it cannot be told which they are.
    """
    a, b = rows
    if a is None or b is None:
        same = len({len(v) for each in values for v in each.values()}) == 1
        return values if same else None
    common, *places = np.intersect1d(a, b, return_indices=True)
    if not len(common):
        return None
    return [{name: v[at] for name, v in each.items()} for each, at in zip(values, places, strict=True)]


def read_rows(file: Path) -> np.ndarray | None:
    """Which rows of the data the values of a file are of; None where it does not say, as of a data set."""
    with xr.open_dataset(file, engine="h5netcdf") as dataset:
        return dataset["row"].to_numpy() if "row" in dataset.coords else None


def read_values(file: Path, errors: Mapping[str, str], command: str) -> Values:
    """Quantities and their errors from a file of a run.

    Args:
        file: netCDF.
        errors: the name of each quantity's error, by the name of the quantity.
        command: which writes the file again.

    Raises:
        RunError: the file is missing or damaged.
    """
    try:
        with xr.open_dataset(file, engine="h5netcdf") as dataset:
            return {name: dataset[name].to_numpy().astype(float) for pair in errors.items() for name in pair}
    except Exception as error:  # HDF5 has many
        raise RunError(f"{file} is missing or damaged: `{command}` writes it again.") from error
