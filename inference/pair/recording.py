"""Densities with their gradients, recorded once as tensor operations and played back without the programs.

A chain evaluates the same two programs at the same shapes thousands of times, and for small tensors nearly all of that
is Python: handlers, distributions, the tape of autograd. After a few evaluations the operations are therefore recorded,
values and gradients together, with all that does not depend on u (an encoder's outputs, log n!) computed once.

What is played must be what the programs say. A program whose course depends on the value of a latent cannot be
recorded: torch refuses to turn a recorded tensor into a Python number. One that draws is not recorded. And a recording
is used only if it gives the same bits as the programs, values and gradients, at two places.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from .randomness import generator_kept

# Log densities that are functions of u: (num_chains, num_units, dim) ↦ (num_terms, num_chains, num_units).
Terms = Callable[[Tensor], Tensor]

# A recording costs as much as about a hundred evaluations, and saves a third to a half of each that it stands for.
RECORD_AFTER = 500


class Recordings:
    """How often one pair on data was evaluated, and the recording in use: the latest, since it holds tensors."""

    def __init__(self) -> None:
        self._evaluations: Counter[Hashable] = Counter()
        self._key: Hashable = None
        self._latest: GraphModule | None = None

    def values(self, name: str, terms: Terms, u: Tensor) -> Tensor:
        """``terms(u)``, played where a gradient is wanted and it has been wanted often.

        Args:
            name: of the terms among those of the pair.
            terms: what the programs say.
            u: ``(num_chains, num_units, dim)``.
        """
        if not (torch.is_grad_enabled() and u.requires_grad):
            return terms(u)
        key = name, u.shape, u.dtype
        self._evaluations[key] += 1
        if self._evaluations[key] < RECORD_AFTER:
            return terms(u)
        if self._evaluations[key] == RECORD_AFTER:
            self._key, self._latest = key, recorded(terms, u)
        if self._key != key or self._latest is None:
            return terms(u)
        return _Played.apply(u, self._latest)


def recorded(terms: Terms, u: Tensor) -> GraphModule | None:
    """The operations of values and gradients at places of this shape; None where they cannot be recorded."""

    def both(u: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            values = terms(u) + 0 * u.sum(-1)  # a term may not depend on u
            gradients = [torch.autograd.grad(v.sum(), u, retain_graph=True)[0] for v in values]
        return values.detach(), torch.stack(gradients)

    places = u.detach(), u.detach() / 2
    try:
        with generator_kept(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = _cleaned(make_fx(both)(places[0]))
            same = all(_same(graph(place), both(place)) for place in places)
    except Exception:  # whatever the programs do that cannot be recorded, they can still be run
        return None
    return graph if same else None


def _same(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    """Whether these are the same bits, NaN included."""
    return all(torch.allclose(a, b, rtol=0.0, atol=0.0, equal_nan=True) for a, b in zip(one, other, strict=True))


def _cleaned(module: GraphModule) -> GraphModule:
    """The recording without what only the tape of autograd needs.

    Raises:
        ValueError: it draws random numbers.
    """
    graph: Graph = module.graph
    for node in list(graph.nodes):
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise ValueError("random numbers are drawn")
        if node.target in (torch.ops.aten.detach.default, torch.ops.aten.alias.default):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    graph.eliminate_dead_code()
    module.recompile()
    return module


class _Played(torch.autograd.Function):
    """A recording as a differentiable function of u."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, graph: GraphModule) -> Tensor:
        values, gradients = graph.forward(u)
        ctx.save_for_backward(gradients)
        return values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor, None]:
        (gradients,) = ctx.saved_tensors
        weights = weights[..., None].to(gradients)
        return torch.where(weights == 0, 0.0, weights * gradients).sum(0), None
