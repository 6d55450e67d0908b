"""The step of a training on several processes: the loss and the gradients of a whole batch, from each one's share."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..pair import Batch
from .processes import Team

# What is carried behind the gradients: the loss, and how many processes have failed or were interrupted.
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
    (loss, failed, interrupted), norm = training.carried.sum(team, _buffers(training), told, weight)
    if failed:
        raise team.failures(error) from error
    team.stop = interrupted > 0
    return loss, norm, math.isfinite(loss) and math.isfinite(norm)


class Carried:
    """What one all-reduce a step carries, in one tensor that is kept: gradients, buffers, and a few numbers.

    The gradients of the whole batch are views of it, so that nothing is copied back after the sum.

    Args:
        leaves: the unconstrained parameters.
    """

    def __init__(self, leaves: list[Tensor]) -> None:
        self._leaves = leaves
        kind = torch.float32
        for leaf in leaves:
            kind = torch.promote_types(kind, leaf.dtype)
        self._flat = torch.zeros(0, dtype=kind, device=leaves[0].device)
        self._shapes: list[torch.Size] = []
        self._views: list[Tensor] = []

    @torch.no_grad()
    def sum(self, team: Team, buffers: list[Tensor], told: list[float], weight: float) -> tuple[list[float], Tensor]:
        """Sum what is told, the weighted gradients and process 0's buffers over all processes, by one operation.

        Unless a process has failed, the sums are left in the gradients of the parameters that any process uses, and in
        the buffers.

        Args:
            team: the processes.
            buffers: of the programs' modules.
            told: numbers of this process, as many as :data:`NUM_TOLD`, of which the second counts failures.
            weight: of this process's gradients.

        Returns:
            The sums of what is told, and the global norm of the gradients' sums.
        """
        self._make_room([*self._leaves, *buffers])
        gradients, shown = self._views[: len(self._leaves)], self._views[len(self._leaves) :]
        for view, leaf in zip(gradients, self._leaves, strict=True):
            if leaf.grad is None:
                view.zero_()
            else:
                torch.mul(leaf.grad.to(view), weight, out=view)
        for view, buffer in zip(shown, buffers, strict=True):
            view.copy_(buffer) if team.first else view.zero_()
        used = [float(leaf.grad is not None) for leaf in self._leaves]
        self._numbers.copy_(torch.tensor([*told, *used], dtype=self._flat.dtype))
        team.sum(self._flat)
        norm = torch.linalg.vector_norm(self._flat[: sum(view.numel() for view in gradients)])
        sums: list[float] = self._numbers.tolist()
        if not sums[1]:
            for leaf, view, count in zip(self._leaves, gradients, sums[NUM_TOLD:], strict=True):
                leaf.grad = _laid_out(view, leaf) if count else None
            for view, buffer in zip(shown, buffers, strict=True):
                buffer.copy_(view)
        return sums[:NUM_TOLD], norm

    def _make_room(self, things: list[Tensor]) -> None:
        """The tensor and its views, again where a program has given a buffer another shape."""
        shapes = [one.shape for one in things]
        if shapes == self._shapes:
            return
        sizes = [one.numel() for one in things]
        self._flat = self._flat.new_zeros(sum(sizes) + NUM_TOLD + len(self._leaves))
        *parts, self._numbers = self._flat.split([*sizes, NUM_TOLD + len(self._leaves)])
        self._views = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
        self._shapes = shapes


def _laid_out(view: Tensor, leaf: Tensor) -> Tensor:
    """A gradient in the type of its parameter, and as that lies in memory: a fused optimiser reads both as they lie."""
    if view.dtype == leaf.dtype and view.device == leaf.device and view.stride() == leaf.stride():
        return view
    return torch.empty_like(leaf).copy_(view)


def _buffers(training: Any) -> list[Tensor]:
    """The buffers of the programs' modules that hold real numbers, each once."""
    found = {id(b): b for module in training.modules for b in module.buffers() if b.is_floating_point()}
    return list(found.values())
