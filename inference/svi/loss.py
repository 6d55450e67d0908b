"""The loss of a training: the per-datum mean of what a Pyro ELBO gives, and its gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..pair import Batch, Program

if TYPE_CHECKING:
    from lightning_fabric import Fabric  # which is slow to import


@dataclass
class Loss:
    """The per-datum mean loss of a pair, in nats, as a function of a batch.

    Attributes:
        model: the model.
        guide: the guide.
        elbo: a Pyro ELBO object; its base class does not declare what its ELBOs have.
        fabric: for the precision and the backward pass.
        parameters: the unconstrained leaves.
        num_units: how many units the loss sums, where these are not the rows of the batch.
    """

    model: Program
    guide: Program
    elbo: Any
    fabric: Fabric
    parameters: list[Tensor]
    num_units: int | None = None

    @property
    def name(self) -> str:
        """What minus the loss is: "ELBO" for Pyro's ELBOs, else the name of the objective."""
        name = type(self.elbo).__name__
        return "ELBO" if name.endswith("_ELBO") else name

    def backward(self, batch: Batch) -> float:
        """The loss of a batch; its gradients are left in the parameters."""
        if not hasattr(self.elbo, "differentiable_loss"):
            return float(self._loss_and_grads(batch))
        loss = self._differentiable(batch)
        self.fabric.backward(loss)
        return loss.item()

    def gradients(self, batch: Batch) -> tuple[Tensor, list[Tensor | None]]:
        """The loss of a batch as a tensor, and its gradient in every parameter; None where the loss does not use it.

        All of it is made of torch's operations, so that it can be traced.
        """
        if hasattr(self.elbo, "differentiable_loss"):
            loss = self._differentiable(batch)
            return loss.detach(), list(torch.autograd.grad(loss, self.parameters, allow_unused=True))
        loss = torch.as_tensor(self._loss_and_grads(batch))
        found = [parameter.grad for parameter in self.parameters]
        for parameter in self.parameters:
            parameter.grad = None
        return loss.detach(), found

    def _differentiable(self, batch: Batch) -> Tensor:
        with self.fabric.autocast():
            return self.elbo.differentiable_loss(self.model, self.guide, *batch) / self._size(batch)

    def _loss_and_grads(self, batch: Batch) -> Any:
        """For ELBOs that only leave gradients behind, of the sum over the data (RenyiELBO, TraceGraph_ELBO)."""
        with self.fabric.autocast():
            loss = self.elbo.loss_and_grads(self.model, self.guide, *batch)
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad.div_(self._size(batch))
        return loss / self._size(batch)

    def _size(self, batch: Batch) -> int:
        return self.num_units or len(batch[0])


def precision_dtype(fabric: Fabric) -> torch.dtype | None:
    """The dtype that a ``*-true`` precision other than 32 converts data to; None where data stay as they are."""
    return {"64-true": torch.float64, "16-true": torch.float16, "bf16-true": torch.bfloat16}.get(
        str(fabric._precision.precision)
    )
