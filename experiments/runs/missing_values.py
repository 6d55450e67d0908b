"""Missing values (NaN) in a user's data: a pair may leave them out of its densities; another is refused in a sentence.

That a pair leaves them out is found by running it (:meth:`ppvae.inference.pair.Pair.on`): its densities are finite, or
the same whatever stands in their place.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyro
import torch
from torch import Tensor

from ppvae.datasets import PARTS, Dataset, without_missing
from ppvae.errors import DataError, PpvaeError
from ppvae.inference.pair import Pair
from ppvae.storage import Settings

from .make_pair import make_pair


def made_pair(settings: Settings, data: Dataset) -> Any:
    """The pair of :func:`.make_pair.make_pair`; the error says so where its constructor refuses missing values.

    Raises:
        PpvaeError: the pair cannot be made.
    """
    try:
        return make_pair(settings, data)
    except DataError as error:
        if data.missing:
            data = data.sampled()
            filled: dict[str, Any] = {part: without_missing(getattr(data, part)) for part in PARTS}
            make_pair(settings, replace(data, **filled))
            raise refusal(data, settings.pair) from error
        raise


def remark(data: Dataset, pair: Pair) -> str:
    """A sentence that says which values log p(x) is of where some are missing; empty where none are."""
    if data.streams and not data.missing:  # all rows were looked at when they were found
        return ""
    rows = [rows for part in PARTS for rows in data.portions(part)]
    missing, count = sum(int(one.isnan().sum()) for one in rows), sum(one.numel() for one in rows)
    if not missing or any(finding.code == "missing-scored" for finding in pair.structure.otherwise):  # says it itself
        return ""
    return (
        f"{missing} of the {count} values of {data.name} are missing: the pair leaves them out, and log p(x) is "
        "that of the values that are there."
    )


def check_parts(pair: Any, data: Dataset, name: str) -> None:
    """Run a pair on the validation and test part that a file brings, where values are missing in them.

    Raises:
        DataError: missing values reach a density.
    """
    for batch in map(data.batch, ("validation", "test")) if data.own_parts and data.missing else ():
        if batch[0].isnan().any():
            try:
                _run(pair, batch)
            except PpvaeError as error:
                check_cause(pair, batch, data, name, error)


def check_cause(pair: Any, batch: tuple[Tensor, ...], data: Dataset, name: str, error: PpvaeError) -> None:
    """Raise DataError where a pair fails on data with missing values, and does not with others in their place.

    Args:
        pair: the two programs.
        batch: ``(x, *context)``, on which it fails.
        data: the data set, which says where values are missing.
        name: of the pair.
        error: the failure.
    """
    x, *context = batch
    if not data.missing or not x.isnan().any():
        return
    try:
        _run(pair, (without_missing(x), *context))
    except PpvaeError:
        return  # something else is wrong
    raise refusal(data, name) from error


def refusal(data: Dataset, name: str) -> DataError:
    """The error that a pair cannot take the missing values of its data."""
    return DataError(
        f"{data.missing}, and {name} does not leave them out of its densities: remove such rows or fill them in, or "
        "give a pair that masks them, with .mask(~x.isnan()) on the distribution of x and x.nan_to_num() for its value."
    )


def _run(pair: Any, batch: tuple[Tensor, ...]) -> None:
    with (
        torch.random.fork_rng(devices=[]),
        pyro.get_param_store().scope(),
        Pair.on(pair.model, pair.guide, batch, density=False),
    ):
        pass
