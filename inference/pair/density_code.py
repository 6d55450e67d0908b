"""Compiled code of one log density and its gradient, in blocks of one size.

Chains and units do not touch each other, so that whatever is asked for, C chains of N units, is cut into blocks of one
size, of which the last is filled up; one graph serves them all. Where data can be cut and do not depend on each other
a block is so many pairs of a chain and a datum, whose rows of the arguments are repeated; else it is so many chains of
all units. What does not depend on u (the guide's network) is computed once for each set of data.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..graphs import Checks, NoGraph, Runner, inductor, recorded, split
from .arguments import Arguments
from .log_terms import Term, log_terms
from .randomness import generator_kept

if TYPE_CHECKING:
    from .pair import Pair  # which evaluates by this file

# More operations take minutes to compile: loops over time steps or data, written out.
MOST_OPERATIONS = 3000
# Bytes of a block, so that a core's cache holds what one operation hands the next.
BLOCK_BYTES = 2**24


class Prepared(NamedTuple):
    """Some data made ready for the code.

    Attributes:
        arguments: of the programs on these data.
        num_chains: C.
        blocks: of each block, what the code needs beside u.
    """

    arguments: Arguments
    num_chains: int
    blocks: list[list[Tensor]]


class Evaluated(NamedTuple):
    """A log density ``(num_chains, num_units)`` and its gradient ``(num_chains, num_units, dim)``."""

    value: Tensor
    gradient: Tensor


class DensityCode:
    """Compiled code of one term of a pair.

    Args:
        pair: the pair on data.
        name: of the term.

    Raises:
        NoGraph: the term cannot be recorded or compiled; the sentence says why.
    """

    def __init__(self, pair: Pair, name: Term, u: Tensor) -> None:
        self._by_row = by_row(pair)
        self._size = block_size(pair, len(u))
        self._kind = _kind(pair.arguments)
        arguments = self._block(pair, 0, len(u))
        example = self._cut(u)[0].detach()
        tensors = [leaf for leaf in arguments.leaves if isinstance(leaf, Tensor)]
        one = replace(pair, arguments=arguments)
        if self._by_row:
            one = replace(one, model_layout="loop", guide_layout="loop")
        with warnings.catch_warnings(), generator_kept():
            warnings.simplefilter("ignore")
            found = recorded(_value_and_gradient(one, name, self._by_row), [example], tensors)
            if found.written:
                raise NoGraph("the programs write into a tensor that they read")
            _refuse_what_varies(found.module)
            once, each = split(found.module, {0})
            size = len(each.graph.nodes)
            if size > MOST_OPERATIONS:
                raise NoGraph(f"a log density has {size} operations, which would take minutes to compile")
            self._once, self._held = once, [tensor.detach() for tensor in found.held]
            self._run: Runner = inductor(each, [example, *self._fixed(arguments)], reuse_results=False)

    def prepare(self, pair: Pair, num_chains: int) -> Prepared | None:
        """A pair's data for so many chains; None where they are of another kind than those it was compiled for."""
        if _kind(pair.arguments) != self._kind:
            return None
        count = -(-num_chains * (pair.num_units if self._by_row else 1) // self._size)
        if not self._by_row:
            return Prepared(pair.arguments, num_chains, [self._fixed(pair.arguments)] * count)
        blocks = [self._fixed(self._block(pair, i, num_chains)) for i in range(count)]
        return Prepared(pair.arguments, num_chains, blocks)

    def __call__(self, u: Tensor, prepared: Prepared) -> Evaluated | None:
        """Value and gradient at ``(num_chains, num_units, dim)``; None where a check comes out as it did not before."""
        parts = []
        with torch.no_grad():
            for block, fixed in zip(self._cut(u.detach()), prepared.blocks, strict=True):
                value, gradient, passed = self._run(block, *fixed)
                if not bool(passed):
                    return None
                parts.append((value, gradient))
            value, gradient = (torch.cat(part) for part in zip(*parts, strict=True))
        count = u.shape[0] * u.shape[1] if self._by_row else len(u)
        return Evaluated(value[:count].reshape(u.shape[:2]), gradient[:count].reshape(u.shape))

    def _cut(self, u: Tensor) -> list[Tensor]:
        """The blocks of u, the last filled up with its own last row."""
        flat = u.reshape(-1, u.shape[-1]) if self._by_row else u
        missing = -len(flat) % self._size
        if missing:
            flat = torch.cat([flat, flat[-1:].expand(missing, *flat.shape[1:])])
        return [block.contiguous() for block in flat.split(self._size)]

    def _block(self, pair: Pair, i: int, num_chains: int) -> Arguments:
        """The arguments of a block of pairs of a chain and a datum, filled up with the last."""
        if not self._by_row:
            return pair.arguments
        last = num_chains * pair.num_units - 1
        rows = torch.arange(i * self._size, (i + 1) * self._size, device=pair.device).clamp(max=last)
        return pair.arguments.rows(rows % pair.num_units)

    def _fixed(self, arguments: Arguments) -> list[Tensor]:
        """What the code needs beside u."""
        tensors = [leaf for leaf in arguments.leaves if isinstance(leaf, Tensor)]
        with torch.no_grad():
            return [one.detach() for one in self._once(*self._held, *tensors)]


def by_row(pair: Pair) -> bool:
    """Whether a block is of pairs of a chain and a datum."""
    return pair.divisible and not pair.coupled and pair.unit == "datum"


def block_size(pair: Pair, num_chains: int) -> int:
    """How many pairs of a chain and a datum, or chains, a block has.

    As many whole chains as a core's cache holds, a power of two, since numbers of chains are multiples of such: then no
    block, or the last alone, is filled up in vain.

    Args:
        pair: the pair on data, as many as will be evaluated most.
        num_chains: of the first evaluation.
    """
    if "loop" in (pair.model_layout, pair.guide_layout) and not by_row(pair):
        return 1
    width = pair.num_units
    most = max(BLOCK_BYTES // (pair.bytes_each * width), 1)
    chains = 2 ** (min(most, num_chains).bit_length() - 1)
    if not by_row(pair):
        return chains
    return chains * width if most > 1 else math.ceil(width / math.ceil(width * pair.bytes_each / BLOCK_BYTES))


def _value_and_gradient(pair: Pair, name: Term, flat: bool) -> Callable[..., tuple[Tensor, ...]]:
    """The function that is recorded, of u and the tensors of the arguments, which the programs find where they are."""

    def evaluate(u: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with Checks(u.device) as checks, torch.enable_grad():
            u = u.detach().requires_grad_()
            (term,) = log_terms(pair, (name,), u[None] if flat else u)
            value = (term[0] if flat else term) + 0 * u.sum(-1)  # a term may not depend on u
            (gradient,) = torch.autograd.grad(value.sum(), u)
        return value.detach(), gradient, checks.passed

    return evaluate


def _refuse_what_varies(module: torch.fx.GraphModule) -> None:
    """Raise NoGraph where an operation draws, or has a result whose shape depends on numbers."""
    for node in module.graph.nodes:
        tags = getattr(node.target, "tags", ())
        if torch.Tag.nondeterministic_seeded in tags:
            raise NoGraph("the programs draw random numbers where a density is asked for")
        masked = any(getattr(one.meta.get("val"), "dtype", None) in (torch.bool, torch.uint8) for one in _indices(node))
        if torch.Tag.dynamic_output_shape in tags and (masked or not _indices(node)):
            raise NoGraph("the programs choose entries by their values (a mask as an index), which a graph cannot")


def _indices(node: torch.fx.Node) -> list[torch.fx.Node]:
    """The indices of an operation that looks up entries."""
    if not str(node.target).startswith("aten.index"):
        return []
    return [one for one in node.all_input_nodes if one is not node.args[0]]


def _kind(arguments: Arguments) -> tuple[object, ...]:
    """What arguments must share to be given to the same code."""
    kinds: list[object] = []
    for leaf, own in zip(arguments.leaves, arguments.by_row, strict=True):
        if not isinstance(leaf, Tensor):
            kinds.append((type(leaf), repr(leaf)))
        else:
            kinds.append((leaf.shape[1:] if own else leaf.shape, leaf.dtype, leaf.device, own))
    return (str(arguments.spec), *kinds)
