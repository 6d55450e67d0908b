"""One step of SVI as a graph of torch's operations: programs, ELBO and the backward pass, without Python.

The step is run once while torch records what it computes (``make_fx``). The parameters and the batch are inputs of the
graph, and so is every other tensor that the programs read: buffers, and tensors that they hold. What the step writes
into such tensors (batch norm's statistics) becomes an output. Random numbers come from torch's global generator, in the
order in which the programs draw them, so that graph and programs see the same noise.

The recording itself is by :mod:`ppvae.inference.graphs`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.utils._pytree import tree_flatten

from ..graphs import Checks, NoGraph, recorded
from ..pair import Batch, buffers_kept, generator_kept, reachable_modules
from .loss import Loss


@dataclass(frozen=True)
class Graph:
    """A recorded step.

    Attributes:
        module: from ``(*parameters, *held, *batch)`` to ``(stats, *gradients, *new values)``, where ``stats`` holds
            the loss, the gradients' global norm, and 1 if all checks came out as they did when it was recorded, else 0.
        held: tensors that the programs read beside the parameters and the batch.
        used: for each parameter, whether it has a gradient.
        written: the tensors that the step writes into.
    """

    module: GraphModule
    held: list[Tensor]
    used: list[bool]
    written: list[Tensor]


def record_step(loss: Loss, batch: Batch) -> Graph:
    """The step on a batch as a graph; generators, buffers and gradients are left as they were.

    Raises:
        NoGraph: the step cannot be recorded.
    """
    tensors = batch_tensors(batch)
    used: list[bool] = []

    def step(*_: Tensor) -> tuple[Tensor, ...]:
        # The tensors themselves are what torch tracks: the programs find them where they always are.
        with Checks(tensors[0].device) as checks:
            value, gradients = loss.gradients(batch)
        used[:] = [gradient is not None for gradient in gradients]
        present = [gradient for gradient in gradients if gradient is not None]
        return (_stats(value, present, checks.passed), *present)

    with buffers_kept(loss.model, loss.guide), generator_kept():
        found = recorded(step, list(loss.parameters), tensors)
    buffers = {id(buffer) for one in reachable_modules(loss.model, loss.guide) for buffer in one.buffers()}
    if not all(id(found.inputs[i]) in buffers for i in found.written):
        raise NoGraph("the programs write into a tensor that is no buffer of a module of theirs")
    return Graph(found.module, found.held, used, [found.inputs[i] for i in found.written])


def batch_tensors(batch: Batch) -> list[Tensor]:
    """The tensors of a batch, in their order in the graph's arguments."""
    if all(type(leaf) is Tensor for leaf in batch):
        return list(batch)
    return [leaf for leaf in tree_flatten(batch)[0] if isinstance(leaf, Tensor)]


def _stats(value: Tensor, gradients: list[Tensor], passed: Tensor) -> Tensor:
    """Loss, norm and checks in one tensor, so that a step waits for the device once."""
    kind = torch.promote_types(value.dtype, torch.float32)
    norms = [torch.linalg.vector_norm(gradient).to(kind) for gradient in gradients]
    norm = torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros_like(value, dtype=kind)
    return torch.stack((value.to(kind).reshape(()), norm, passed.to(kind)))
