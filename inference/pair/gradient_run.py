"""One run of both programs in which it is recorded what every density depends on.

Draws of latents and the numbers of the data are leaves of torch's graph in it, so that the leaves of a log density are
what it depends on: data, draws, and parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.utils._pytree import tree_flatten

from .arguments import Batch, map_tensors
from .randomness import generator_kept
from .traces import FAILURES, Program, sample_sites

# Operations that change the shape of a tensor alone, by the names of their nodes.
SHAPES = (
    *("Alias", "Clone", "Expand", "Gather", "Index", "IndexSelect", "Narrow", "Permute", "Repeat", "ReshapeAlias"),
    *("Select", "Slice", "Split", "SplitWithSizes", "Squeeze", "T", "ToCopy", "Transpose", "Unbind", "UnsafeSplit"),
    *("UnsafeView", "Unsqueeze", "View"),
)


# Operations with a constant that keep the sign of a positive number.
FACTORS = ("Mul", "Div")


class _DrawsAsLeaves(Messenger):
    """Every draw becomes a leaf of the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.leaves: dict[str, Tensor] = {}

    def _pyro_post_sample(self, msg: Any) -> None:
        value = msg["value"]
        if msg["is_observed"] or not isinstance(value, Tensor) or not value.is_floating_point():
            return
        msg["value"] = self.leaves[msg["name"]] = value.detach().clone().requires_grad_()


@dataclass(frozen=True)
class GradientRun:
    """Traces of a run whose graph is kept.

    Attributes:
        model_trace: of the model.
        guide_trace: of the guide.
        batch: the arguments, whose floating-point tensors are leaves.
        drawn: the latents of the model by name, leaves.
        data: ids of the leaves of the batch.
        given: ids of all leaves that are no parameters: draws and data.
        reached: ids of the leaves of every site's log density, by ``(program, name)``; and those leaves.
    """

    model_trace: Trace
    guide_trace: Trace
    batch: Batch
    drawn: dict[str, Tensor]
    data: frozenset[int]
    given: frozenset[int]
    reached: dict[tuple[str, str], dict[int, Tensor]]

    def sites(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """All sample sites: program, name and site."""
        for program, trace in (("model", self.model_trace), ("guide", self.guide_trace)):
            for name, site in sample_sites(trace):
                yield program, name, site

    def parameters(self, reached: dict[int, Tensor]) -> dict[int, Tensor]:
        """Those of some leaves that are parameters."""
        return {key: leaf for key, leaf in reached.items() if key not in self.given}


def gradient_run(model: Program, guide: Program, batch: Batch) -> GradientRun | None:
    """Such a run; None of programs that cannot be run so (they change their data in place, or leave torch)."""

    def leaf(value: Tensor) -> Tensor:
        return value.detach().clone().requires_grad_() if value.is_floating_point() else value

    try:
        with torch.enable_grad(), generator_kept(0):
            batch = map_tensors(leaf, batch)
            with _DrawsAsLeaves() as guides:
                guide_trace = poutine.trace(guide).get_trace(*batch)
            with _DrawsAsLeaves() as models:
                model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*batch)
            reached = {
                (program, name): leaves(_log_prob(site))
                for program, trace in (("model", model_trace), ("guide", guide_trace))
                for name, site in sample_sites(trace)
            }
    except FAILURES:
        return None
    data = frozenset(id(leaf) for leaf in tree_flatten(batch)[0])
    draws = frozenset(map(id, [*guides.leaves.values(), *models.leaves.values()]))
    return GradientRun(model_trace, guide_trace, batch, models.leaves, data, data | draws, reached)


def _log_prob(site: dict[str, Any]) -> Tensor:
    log_prob: Tensor = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    return log_prob


def leaves(*tensors: Tensor) -> dict[int, Tensor]:
    """The leaves that tensors are computed from, and that require a gradient, by id."""
    found = {id(one): one for one in tensors if one.requires_grad and one.grad_fn is None}
    pending = [one.grad_fn for one in tensors if one.grad_fn is not None]
    seen: set[Any] = set()
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found[id(node.variable)] = node.variable
        pending += [below for below, _ in node.next_functions if below is not None]
    return found


def operation(tensor: Tensor) -> tuple[str, Any]:
    """The name of the operation that made a tensor's values, up to shapes and constant factors, and its node.

    "" where they are constants, and "AccumulateGrad" where they are a leaf's.

    Example:
        >>> import torch
        >>> s = torch.ones(2, requires_grad=True)
        >>> operation((2 * s.exp()).expand(3, 2))[0], operation(s)[0], operation(torch.ones(2))[0]
        ('Exp', 'AccumulateGrad', '')
    """
    if tensor.grad_fn is None:
        return ("AccumulateGrad", None) if tensor.requires_grad else ("", None)
    return below(tensor.grad_fn, FACTORS)


def below(node: Any, constants: tuple[str, ...] = ()) -> tuple[str, Any]:
    """The first operation from a node on that changes values; of ``constants``, those with a constant are passed by."""
    while True:
        name = node.name().rstrip("0123456789").removesuffix("Backward")
        inputs = [one for one, _ in node.next_functions if one is not None]
        if len(inputs) != 1 or not (name in SHAPES or name in constants):
            return name.rpartition("::")[2], node
        node = inputs[0]


def first_input(node: Any) -> Any:
    """The node of an operation's first argument; None where that is a constant."""
    return node.next_functions[0][0] if node.next_functions else None
