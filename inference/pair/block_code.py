"""Compiled code of functions of a pair's data, in blocks of one size.

Chains, draws and units do not touch each other, so that whatever is asked for, C draws of N units, is cut into blocks
of one size, of which the last is filled up; one graph serves them all. Where data can be cut and do not depend on each
other a block is so many pairs of a draw and a datum, whose rows of the arguments are repeated; else it is so many draws
of all units. What is the same for all draws (the guide's network) is computed once for each set of data.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..graphs import NoGraph, Runner, inductor, recorded, split
from .arguments import Arguments
from .randomness import generator_kept

if TYPE_CHECKING:
    from .pair import Pair  # which evaluates by this file

# More operations take minutes to compile: loops over time steps or data, written out.
MOST_OPERATIONS = 3000
# Bytes of a block, so that a core's cache holds what one operation hands the next.
BLOCK_BYTES = 2**24

# From a pair on the data of a block: the function that is recorded.
Body = Callable[["Pair"], Callable[..., tuple[Tensor, ...]]]


class Prepared(NamedTuple):
    """Some data made ready for the code.

    Attributes:
        arguments: of the programs on these data.
        num_draws: C.
        blocks: of each block, what the code needs beside what is cut into blocks.
    """

    arguments: Arguments
    num_draws: int
    blocks: list[list[Tensor]]


class BlockCode:
    """A function of a pair's data, compiled for blocks of one size.

    Args:
        pair: the pair on data.
        num_draws: how many draws, or chains, are wanted first.
        body: from the pair on the data of a block to the function.
        whole: the first argument of the function for all draws and units; None where it has none.

    Raises:
        NoGraph: the function cannot be recorded or compiled; the sentence says why.
    """

    def __init__(self, pair: Pair, num_draws: int, body: Body, whole: Tensor | None = None) -> None:
        self.by_row = by_row(pair)
        self.size = block_size(pair, num_draws)
        self._kind = _kind(pair.arguments)
        one = self.on_block(pair, 0, num_draws)
        varying = [] if whole is None else [self.cut(whole)[0].detach()]
        tensors = [leaf for leaf in one.arguments.leaves if isinstance(leaf, Tensor)]
        with warnings.catch_warnings(), generator_kept():
            warnings.simplefilter("ignore")
            found = recorded(body(one), varying, tensors)
            if found.written:
                raise NoGraph("the programs write into a tensor that they read")
            _refuse_what_varies(found.module, draws=whole is None)
            once, each = split(found.module, set(range(len(varying))))
            size = len(each.graph.nodes)
            if size > MOST_OPERATIONS:
                raise NoGraph(f"a log density has {size} operations, which would take minutes to compile")
            self._once, self._held = once, [tensor.detach() for tensor in found.held]
            examples = [*varying, *self._fixed(one.arguments)]
            self._run: Runner = inductor(each, examples, reuse_results=False)

    def prepare(self, pair: Pair, num_draws: int) -> Prepared | None:
        """A pair's data for so many draws; None where they are of another kind than those it was compiled for."""
        if _kind(pair.arguments) != self._kind:
            return None
        count = -(-num_draws * (pair.num_units if self.by_row else 1) // self.size)
        if not self.by_row:
            return Prepared(pair.arguments, num_draws, [self._fixed(pair.arguments)] * count)
        # Blocks that begin with the same datum are the same; but for the last, which may be filled up otherwise.
        known = {i * self.size % pair.num_units: i for i in reversed(range(count - 1))}
        ready = {at: self._fixed(self._block(pair, i, num_draws)) for at, i in known.items()}
        blocks = [ready[i * self.size % pair.num_units] for i in range(count - 1)]
        return Prepared(pair.arguments, num_draws, [*blocks, self._fixed(self._block(pair, count - 1, num_draws))])

    def run(self, prepared: Prepared, whole: Tensor | None = None) -> list[list[Tensor]] | None:
        """What the function returns for every block, but for its checks; None where one comes out as never before."""
        found = []
        cut = [[]] * len(prepared.blocks) if whole is None else [[block] for block in self.cut(whole.detach())]
        with torch.no_grad():
            for varying, fixed in zip(cut, prepared.blocks, strict=True):
                *results, passed = self._run(*varying, *fixed)
                if not bool(passed):
                    return None
                found.append(results)
        return found

    def cut(self, whole: Tensor) -> list[Tensor]:
        """The blocks of a tensor ``(num_draws, num_units, ...)``, the last filled up with its own last row."""
        flat = whole.reshape(-1, *whole.shape[2:]) if self.by_row else whole
        missing = -len(flat) % self.size
        if missing:
            flat = torch.cat([flat, flat[-1:].expand(missing, *flat.shape[1:])])
        return [block.contiguous() for block in flat.split(self.size)]

    def on_block(self, pair: Pair, i: int, num_draws: int) -> Pair:
        """The pair on the data of a block, one draw a row."""
        one = replace(pair, arguments=self._block(pair, i, num_draws))
        return replace(one, model_layout="loop", guide_layout="loop") if self.by_row else one

    def _block(self, pair: Pair, i: int, num_draws: int) -> Arguments:
        """The arguments of a block of pairs of a draw and a datum, filled up with the last."""
        if not self.by_row:
            return pair.arguments
        last = num_draws * pair.num_units - 1
        rows = torch.arange(i * self.size, (i + 1) * self.size, device=pair.device).clamp(max=last)
        return pair.arguments.rows(rows % pair.num_units)

    def _fixed(self, arguments: Arguments) -> list[Tensor]:
        """What the code needs beside what is cut into blocks."""
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


def _refuse_what_varies(module: torch.fx.GraphModule, *, draws: bool) -> None:
    """Raise NoGraph where a result's shape depends on numbers, or, unless draws are wanted, an operation draws."""
    for node in module.graph.nodes:
        tags = getattr(node.target, "tags", ())
        if torch.Tag.nondeterministic_seeded in tags and not draws:
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
