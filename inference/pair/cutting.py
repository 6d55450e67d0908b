"""How the arguments of a pair are cut by rows, found out by running the programs again on some of the rows.

- Which tensors of the context are cut with the data: the choice under which a datum's density on a subset is its
  density
  on the whole.
- Whether the programs can be run on some of the data alone. If a datum's density under the *model* depends on the other
  data, the unit is the data set.
- Whether missing values (NaN) reach a density.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ppvae.errors import DataError, PpvaeError

from .agreement import equal
from .arguments import Arguments, first_bad_row, name_of
from .contract import ContractError, random_densities
from .discovery import ROWS, evenly_spread, structure_of
from .pair import FEW, Densities, Pair
from .same_sites import same_sites
from .sites import Plates, Values
from .traces import FAILURES, plain_traces

# Context tensors of which any may be shared by all data.
MOST_LEAVES = 6
# Data that are run at once to see whether all have the same sites.
PIECE = 1024


def with_rows(pair: Pair) -> Pair:
    """The pair with what is known of cutting its arguments."""
    if pair.unit == "data set":
        _demand_repeatable(pair)
        return replace(pair, divisible=False)
    if pair.arguments.num_rows == 1:
        _demand_repeatable(pair)
        return pair
    for shared in _choices(pair.arguments):
        tried = replace(pair, arguments=pair.arguments.shared(shared))
        try:
            if _same_on_rows(tried):
                return tried
        except FAILURES as error:
            if isinstance(error, PpvaeError) and not isinstance(error, DataError):  # these rows together are no data
                raise
    alone_in_model, alone_in_guide = _alone(pair)
    if not alone_in_model:
        return _whole_data_set(pair)
    return replace(pair, divisible=False, coupled=not alone_in_guide)


def _choices(arguments: Arguments) -> Iterator[frozenset[int]]:
    """Which leaves may be shared by all data: none first, then few; x itself never is."""
    leaves = [i for i, own in enumerate(arguments.by_row) if own][1:]
    for count in range(len(leaves) + 1 if len(leaves) <= MOST_LEAVES else 2):
        yield from map(frozenset, itertools.combinations(leaves, count))


def _same_on_rows(pair: Pair) -> bool:
    """Whether log p and log q of the same latents are the same on a subset.

    Raises:
        ContractError: they differ even when nothing is changed.
    """
    whole = pair.rows(evenly_spread(pair.num_units, ROWS))
    z, first = _demand_repeatable(whole)
    last = whole.num_units - 1
    if not all(_same_sites(whole.rows(index)) for index in (slice(0, 1), slice(0, FEW), slice(last, None))):
        return False
    for index in (torch.tensor([last]), torch.tensor([last, 0])):
        if len(index):
            part = whole.rows(index).densities({name: value[:, index] for name, value in z.items()})
            assert first.log_q is not None
            if not (equal(first.log_p[:, index], part.log_p, z) and equal(first.log_q[:, index], part.log_q, z)):
                return False
    return True


def same_sites_everywhere(pair: Pair) -> bool:
    """Whether all data, so many at a time that a run on them is small, have the sites of the structure."""
    pieces = (pair.rows(slice(start, start + PIECE)) for start in range(0, pair.num_units, PIECE))
    return all(map(_same_sites, pieces))


def _same_sites(pair: Pair) -> bool:
    return same_sites(pair.model, pair.guide, pair.batch, pair.structure)


def _alone(pair: Pair) -> tuple[bool, bool]:
    """Whether log p and log q of a datum stay the same when all other data and latents become copies of it."""
    z, first = _demand_repeatable(pair)
    alone_in_model = alone_in_guide = True
    for n in {0, pair.num_units - 1}:
        copies = torch.full((pair.num_units,), n)
        copied = replace(pair, arguments=pair.arguments.rows(copies))
        found = copied.densities({name: value[:, copies] for name, value in z.items()})
        assert first.log_q is not None
        assert found.log_q is not None
        alone_in_model &= equal(first.log_p[:, n], found.log_p[:, n], z)
        alone_in_guide &= equal(first.log_q[:, n], found.log_q[:, n], z)
    return alone_in_model, alone_in_guide


def _demand_repeatable(pair: Pair) -> tuple[Values, Densities]:
    """Draws of the guide and their densities.

    Raises:
        ContractError: the densities differ when the pair runs again at the same draws.
    """
    z = pair.guide_values(1)
    first, again = pair.densities(z), pair.densities(z)
    if not (equal(first.log_p, again.log_p, z) and equal(first.log_q, again.log_q, z)):
        raise ContractError(random_densities())
    return z, first


def _whole_data_set(pair: Pair) -> Pair:
    """The pair with the data set as its unit."""
    nesting = pair.structure.plates.nesting
    plates = Plates(None, 0, 0, nesting)
    traces = plain_traces(pair.model, pair.guide, pair.batch)
    structure = structure_of(pair.model, pair.guide, pair.arguments, plates, traces)
    return replace(pair, programs=replace(pair.programs, structure=structure), divisible=False, coupled=True)


def without_nan(pair: Pair) -> Pair:
    """The pair, once it is known that missing values (NaN) reach no density.

    They do not if every density is finite as it is, and then it is known where they stand; or if it is the same
    whatever stands in their place, and then they are filled.

    Raises:
        DataError: a missing value reaches a density.
    """
    batch = pair.batch
    holds = [isinstance(b, Tensor) and b.is_floating_point() and bool(b.isnan().any()) for b in batch]
    if not any(holds):
        return pair
    z = pair.guide_values(1)
    own = pair.densities(z)
    if bool(own.log_p.isfinite().all()) and own.log_q is not None and bool(own.log_q.isfinite().all()):
        return _with_missing(pair)
    filled = [_refilled(pair, lambda b, v=value: b.nan_to_num(nan=v)) for value in (0.0, 1.0)]
    z = filled[0].guide_values(1)
    others = [one.densities(z) for one in filled]
    if equal(others[0].log_p, others[1].log_p, z) and equal(others[0].log_q, others[1].log_q, z):
        return filled[0]
    where = holds.index(True)
    bad = batch[where].isnan()
    raise DataError(
        f"{name_of(where)} holds {int(bad.sum())} values that are NaN or infinite, first in datum "
        f"{first_bad_row(batch[where], bad)}, and they reach a density: remove or impute them, or leave missing values "
        "out of the likelihood with poutine.mask."
    )


def _with_missing(pair: Pair) -> Pair:
    trace, _ = plain_traces(pair.model, pair.guide, pair.batch)
    values = {name: trace.nodes[name]["value"] for name in pair.structure.observed}
    missing = frozenset(name for name, value in values.items() if torch.as_tensor(value).isnan().any())
    return replace(pair, programs=replace(pair.programs, structure=replace(pair.structure, missing=missing)))


def _refilled(pair: Pair, change: Any) -> Pair:
    leaves = [
        change(leaf) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf
        for leaf in pair.arguments.leaves
    ]
    return replace(pair, arguments=replace(pair.arguments, leaves=tuple(leaves)))
