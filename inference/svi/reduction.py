"""The step of a training on several processes: the loss and the gradients of a whole batch, from each one's share."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..pair import Batch

# What is carried with the gradients: the loss, and how many processes have failed or were interrupted.
NUM_TOLD = 3


def step_of_all(training: Any, batch: Batch) -> tuple[float, Tensor, bool]:
    """The loss of the whole batch, the global norm of its gradients, and whether both are finite.

    The gradients of the whole batch are left in the parameters of every process, and process 0's buffers in its
    buffers. Alone, a process does what its step does.

    Args:
        training: with its step, its processes, its parameters and its place in the data.
        batch: this process's share; it may be empty.

    Raises:
        Exception: what the step raises on any process.
        ProcessError: another process has ended.
    """
    team = training.team
    if team.size == 1:
        return training.step(batch)
    loss, error = 0.0, None
    if len(batch[0]):
        try:
            loss, _, finite = training.step(batch)
            if finite:
                training.step.keep()
        except Exception as caught:  # the others must hear of it
            error = caught
    weight = len(batch[0]) / training.source.size(training.batch_number)
    told = [loss * weight, float(error is not None), float(team.interrupted.is_set())]
    loss, failed, interrupted = _summed(training, told, weight)
    if failed:
        raise team.failures(error) from error
    team.stop = interrupted > 0
    norm = torch.nn.utils.get_total_norm([p.grad for p in training.parameters.values() if p.grad is not None])
    return loss, norm, math.isfinite(loss) and math.isfinite(norm)


def _summed(training: Any, told: list[float], weight: float) -> list[float]:
    """Sum what is told, the weighted gradients and process 0's buffers over all processes, by one operation."""
    leaves, buffers = list(training.parameters.values()), _buffers(training)
    kind, device = leaves[0].dtype, leaves[0].device
    for one in (*leaves, torch.zeros((), dtype=torch.float32)):
        kind = torch.promote_types(kind, one.dtype)
    used = [float(leaf.grad is not None) for leaf in leaves]
    gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad * weight for leaf in leaves]
    shown = [buffer if training.team.first else torch.zeros_like(buffer) for buffer in buffers]
    start = torch.tensor([*told, *used], dtype=kind, device=device)
    flat = torch.cat([start, *(one.detach().to(device, kind).reshape(-1) for one in (*gradients, *shown))])
    training.team.sum(flat)
    head, *rest = flat.split([len(start), *(one.numel() for one in (*gradients, *shown))])
    numbers = head.tolist()
    if not numbers[1]:
        _put(leaves, buffers, rest, numbers[NUM_TOLD:])
    return numbers[:NUM_TOLD]


def _put(leaves: list[Tensor], buffers: list[Tensor], values: list[Tensor], used: list[float]) -> None:
    """Leave the sums in the gradients of the parameters that any process uses, and in the buffers."""
    with torch.no_grad():
        for leaf, value, count in zip(leaves, values, used, strict=False):
            if count:
                leaf.grad = torch.empty_like(leaf) if leaf.grad is None else leaf.grad
                leaf.grad.copy_(value.view(leaf.shape))
        for buffer, value in zip(buffers, values[len(leaves) :], strict=True):
            buffer.copy_(value.view(buffer.shape))


def _buffers(training: Any) -> list[Tensor]:
    """The buffers of the programs' modules that hold real numbers, each once."""
    found = {id(b): b for module in training.modules for b in module.buffers() if b.is_floating_point()}
    return list(found.values())
