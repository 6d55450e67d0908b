"""The arguments of a pair's programs, ``(x, *context)``, and which of their tensors have a row for each datum.

A context may hold anything: tensors, numbers, tuples, dicts, a ``PackedSequence``. Tensors with as many rows as there
are data are cut and repeated with the data, unless a replay has shown (:mod:`.replay`) that all data share them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_iter, tree_map, tree_unflatten

from ppvae.datasets import program_arguments
from ppvae.errors import DataError

Batch = tuple[Any, ...]


def as_batch(x: Any, name: str = "x") -> Batch:
    """``x`` or ``(x, *context)`` as the tuple of arguments that both programs take.

    Arrays of numpy, tables of pandas and polars, lists of rows and torch data sets become tensors of torch's default
    floating-point type (:func:`ppvae.datasets.program_arguments`).

    Args:
        x: what was given.
        name: what the caller's argument is called.

    Raises:
        DataError: the first member is not a dense tensor of real numbers with at least one row.
    """
    batch = program_arguments(x, name)
    if not batch or not isinstance(batch[0], Tensor) or batch[0].dim() == 0:
        kind = type(batch[0]).__name__ if batch else "an empty tuple"
        raise DataError(
            f"{name} must be a tensor whose first dimension counts the data, or a tuple ({name}, *context); it is "
            f"{kind}: convert it with torch.as_tensor."
        )
    if any(isinstance(part, Tensor) and part.layout != torch.strided for part in tree_iter(batch)):
        raise DataError(f"{name} holds a sparse tensor, which cannot be cut by rows: give {name}.to_dense().")
    if batch[0].is_complex():
        raise DataError(
            f"{name} holds complex numbers, which have no density here: give their parts, torch.view_as_real({name})."
        )
    if len(batch[0]) == 0:
        raise DataError(f"{name} holds no data (its first dimension is 0): give at least one datum.")
    return batch


def map_tensors(change: Callable[[Tensor], Tensor], batch: Batch) -> Batch:
    """The batch with every tensor in it changed."""
    return tree_map(lambda leaf: change(leaf) if isinstance(leaf, Tensor) else leaf, batch)


def first_bad_row(values: Tensor, bad: Tensor) -> int:
    """The first row that holds a bad value; 0 for a scalar."""
    return int(bad.reshape(len(values), -1).any(-1).nonzero()[0]) if values.dim() else 0


def finite_batch(batch: Batch, name: str = "x") -> Batch:
    """The batch, if none of its numbers is infinite. NaN may be a missing value that the programs mask.

    Raises:
        DataError: some value is infinite; the first datum that holds one is named.
    """
    for i, part in enumerate(batch):
        if isinstance(part, Tensor) and part.is_floating_point() and bool(part.isinf().any()):
            raise DataError(
                f"{name_of(i, name)} holds {int(part.isinf().sum())} values that are NaN or infinite, first in datum "
                f"{first_bad_row(part, part.isinf())}: remove or impute them, or leave missing values out of the "
                "likelihood with poutine.mask."
            )
    return batch


def name_of(i: int, name: str = "x") -> str:
    """What the member i of a batch is called."""
    return name if i == 0 else f"context {i} of {name}"


def _rows(leaf: Tensor, index: Any) -> Tensor:
    """``leaf[index]``, by the operation that copies whole rows where there is one: three times as fast."""
    numbers = isinstance(index, Tensor) and index.dtype == torch.long and index.dim() == 1
    if numbers and leaf.is_contiguous() and index.device == leaf.device and not leaf.requires_grad:
        return leaf.index_select(0, index)
    return leaf[index]


@dataclass(frozen=True)
class Arguments:
    """The arguments of the programs, flattened.

    Attributes:
        leaves: everything that the arguments hold.
        spec: how the leaves make up the arguments.
        by_row: for each leaf, whether it has a row for each datum.
        num_rows: rows of x.
    """

    leaves: tuple[Any, ...]
    spec: TreeSpec
    by_row: tuple[bool, ...]
    num_rows: int

    @staticmethod
    def of(batch: Batch) -> Arguments:
        """The arguments ``(x, *context)``; every tensor with as many rows as x counts as data."""
        leaves, spec = tree_flatten(batch)
        n = len(batch[0])
        by_row = tuple(isinstance(leaf, Tensor) and leaf.dim() > 0 and len(leaf) == n for leaf in leaves)
        return Arguments(tuple(leaves), spec, by_row, n)

    @property
    def batch(self) -> Batch:
        """``(x, *context)``."""
        if self.spec.num_nodes == len(self.leaves) + 1:  # nothing inside the members: asked in every step
            return self.leaves
        return tree_unflatten(list(self.leaves), self.spec)

    @property
    def device(self) -> torch.device:
        """Where x is."""
        return self.leaves[0].device

    def shared(self, leaves: frozenset[int]) -> Arguments:
        """The same arguments, of which these leaves belong to all data."""
        return replace(self, by_row=tuple(own and i not in leaves for i, own in enumerate(self.by_row)))

    def rows(self, index: Any) -> Arguments:
        """The arguments of some data."""
        leaves = self._map(lambda leaf: _rows(leaf, index))
        return Arguments(leaves, self.spec, self.by_row, len(leaves[0]))  # asked in every step: replace takes longer

    def repeated(self, times: int) -> Arguments:
        """All rows ``times`` over: row k·N + n is row n."""
        leaves = self._map(lambda leaf: leaf.expand(times, *leaf.shape).reshape(-1, *leaf.shape[1:]))
        return replace(self, leaves=leaves, num_rows=times * self.num_rows)

    def _map(self, change: Callable[[Tensor], Tensor]) -> tuple[Any, ...]:
        return tuple(change(leaf) if own else leaf for leaf, own in zip(self.leaves, self.by_row, strict=True))
