"""A recorded step, compiled by torch's inductor, and the trial that it must pass before it is trusted."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from ..graphs import NoGraph, inductor
from ..pair import Batch, buffers_kept, generator_kept, reachable_modules
from .graph import Graph, batch_tensors, record_step
from .loss import Loss

# More operations take minutes to compile: loops over time steps or data, written out.
MOST_OPERATIONS = 5000
# How far compiled and eager may be apart, relative to the loss and to a gradient's norm: rounding in another order.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
LOW_PRECISION = 3e-2
# A gradient far smaller than the others is what is left of larger terms; it is held to this share of the largest.
SMALL = 1e-2


class Compiled:
    """The compiled step for batches of one shape.

    Args:
        loss: the loss of the training.
        batch: a batch of that shape.

    Raises:
        NoGraph: the step cannot be recorded or compiled.
    """

    def __init__(self, loss: Loss, batch: Batch) -> None:
        self._loss = loss
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._graph: Graph = record_step(loss, batch)
        size = len(self._graph.module.graph.nodes)
        if size > MOST_OPERATIONS:
            raise NoGraph(f"a step has {size} operations, which would take minutes to compile")
        self._trained = [p for p, used in zip(loss.parameters, self._graph.used, strict=True) if used]
        with generator_kept():
            self._run = inductor(self._graph.module, [t.detach() for t in self._inputs(batch)], reuse_results=True)
        self._unlike: list[int] = []
        self._news: list[Tensor] = []
        with buffers_kept(loss.model, loss.guide), generator_kept():
            self(batch)
        self._unlike = self._laid_out_otherwise()
        for parameter in loss.parameters:
            parameter.grad = None

    def __call__(self, batch: Batch) -> tuple[float, Tensor, bool, bool]:
        """The loss, the gradients' norm, whether both are finite, and whether all checks came out as when recorded.

        The gradients are left in the parameters; what the step writes into buffers waits for :meth:`keep`. The device
        is waited for once.
        """
        with torch.no_grad():
            stats, *found = self._run(*self._inputs(batch))
            for i in self._unlike:
                found[i] = torch.empty_like(self._trained[i]).copy_(found[i])
        for parameter, gradient in zip(self._trained, found, strict=False):
            parameter.grad = gradient
        self._news = found[len(self._trained) :]
        loss, norm, passed = stats.tolist()
        return loss, stats[1], math.isfinite(loss) and math.isfinite(norm), passed == 1.0

    def keep(self) -> None:
        """Write what the last step wrote into buffers."""
        if not self._news:
            return
        with torch.no_grad():
            for place, value in zip(self._graph.written, self._news, strict=True):
                place.copy_(value)

    def disagrees(self, batch: Batch, seed: int | None = None, nudge: float = 0.0) -> str | None:
        """What differs between the compiled and the eager step on a batch, or None; nothing is changed by asking.

        Args:
            batch: the batch.
            seed: of the noise; None takes the generators as they are.
            nudge: how far to move every parameter for the trial, so that a value taken from one shows.
        """
        with self._moved(nudge):
            eager, buffers = self._trial(lambda: self._loss.backward(batch), seed)
            compiled, untouched = self._trial(lambda: self(batch), seed)
        (value, _, _, passed), *gradients = compiled
        if not passed:
            return "a check of a distribution"
        news = {id(place): new for place, new in zip(self._graph.written, self._news, strict=True)}
        buffers_compiled = [news.get(id(place), now) for place, now in zip(self._buffers(), untouched, strict=True)]
        return self._difference([value, *gradients], eager) or self._written_otherwise(buffers_compiled, buffers)

    @contextmanager
    def _moved(self, nudge: float) -> Iterator[None]:
        """Inside, every parameter is moved; afterwards all have their values and no gradient."""
        before = [parameter.detach().clone() for parameter in self._loss.parameters]
        try:
            with torch.no_grad():
                for parameter in self._loss.parameters if nudge else ():
                    parameter.add_(nudge * (1 + parameter.abs()))
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(self._loss.parameters, before, strict=True):
                    parameter.copy_(value)
                    parameter.grad = None

    def _trial(self, step: Callable[[], Any], seed: int | None) -> tuple[list[Any], list[Tensor]]:
        """What a step returns and its gradients, and the buffers after it, which are then put back."""
        for parameter in self._loss.parameters:
            parameter.grad = None
        with buffers_kept(self._loss.model, self._loss.guide), generator_kept(seed):
            value = step()
            return [value, *(p.grad for p in self._loss.parameters)], [buffer.clone() for buffer in self._buffers()]

    def _buffers(self) -> list[Tensor]:
        modules = reachable_modules(self._loss.model, self._loss.guide)
        return [buffer for module in modules for buffer in module.buffers()]

    def _difference(self, compiled: list[Any], eager: list[Any]) -> str | None:
        if not abs(compiled[0] - eager[0]) <= self._tolerance * (1 + abs(eager[0])):
            return "the loss"
        largest = max((float(g.double().norm()) for g in eager[1:] if g is not None), default=0.0)
        for one, other in zip(compiled[1:], eager[1:], strict=True):
            if (one is None) != (other is None):
                return "which parameters have a gradient"
            if one is not None and not _apart(one, other) <= self._tolerance * max(_norm(other), SMALL * largest):
                return "a gradient"
        return None

    def _written_otherwise(self, compiled: list[Tensor], eager: list[Tensor]) -> str | None:
        near = [
            _apart(one, other) <= self._tolerance * (1 + _norm(other))
            for one, other in zip(compiled, eager, strict=True)
        ]
        return None if all(near) else "a buffer"

    @property
    def _tolerance(self) -> float:
        """Rounding in another order, by the type that is computed in."""
        known = str(self._loss.fabric._precision.precision) in {"32-true", "64-true"}
        return TOLERANCE.get(self._loss.parameters[0].dtype, LOW_PRECISION) if known else LOW_PRECISION

    def _laid_out_otherwise(self) -> list[int]:
        """Which gradients must be copied: those laid out in memory otherwise than their parameter, or sharing memory.

        A fused optimiser reads them as they lie in memory, and clipping changes them in place.
        """
        found, taken = [], set()
        for i, parameter in enumerate(self._trained):
            gradient: Any = parameter.grad
            place = gradient.untyped_storage().data_ptr()
            if gradient.stride() != parameter.stride() or place in taken:
                found.append(i)
            taken.add(place)
        return found

    def _inputs(self, batch: Batch) -> list[Tensor]:
        return [*self._loss.parameters, *self._graph.held, *batch_tensors(batch)]


def _norm(tensor: Tensor) -> float:
    return float(tensor.double().norm())


def _apart(one: Tensor, other: Tensor) -> float:
    return _norm(one.double() - other.double())


def shape_of(batch: Batch) -> tuple[Any, ...]:
    """What two batches must share for one compiled step: layout and type of tensors, and all that is no tensor."""
    if all(type(leaf) is Tensor for leaf in batch):  # asked before every step: the common case is fast
        return tuple([(leaf.shape, leaf.stride(), leaf.dtype, leaf.device) for leaf in batch])
    leaves, spec = tree_flatten(batch)
    return (
        str(spec),
        *((t.shape, t.stride(), t.dtype, t.device) if isinstance(t, Tensor) else (type(t), repr(t)) for t in leaves),
    )
