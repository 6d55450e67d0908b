"""Adam as one operation of torch's, for compiled steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer
from torch.optim import optimizer as hooks

_OPTIONS = ("lr", "weight_decay", "eps", "maximize", "amsgrad")


def fuse(optimizer: Optimizer) -> None:
    """Let Adam take a step as one operation, unless the user chose another way; its state loads both ways."""
    if type(optimizer) not in {Adam, AdamW}:
        return
    for group in optimizer.param_groups:
        chosen = any(group.get(option) for option in ("foreach", "capturable", "differentiable"))
        if group.get("fused") is None and not chosen and all(p.is_floating_point() for p in group["params"]):
            group["fused"] = True
    for held in optimizer.state.values():
        if isinstance(held.get("step"), Tensor):
            held["step"] = held["step"].float()  # as the fused operation has it


@torch.no_grad()
def adam_step(optimizer: Optimizer) -> None:
    """Take the step of an optimiser; on the CPU, that of a fused Adam without the Python that torch runs before it.

    That Python takes as long as half of the operation itself for a VAE 784-200-200-50. The result is that of
    ``optimizer.step()``, to the bit.
    """
    groups = optimizer.param_groups
    if type(optimizer) not in {Adam, AdamW} or _watched(optimizer) or not all(map(_simple, groups)):
        optimizer.step()
        return
    trained = [[p for p in group["params"] if p.grad is not None] for group in groups]
    states = [[optimizer.state[p] for p in parameters] for parameters in trained]
    if not all(state for one in states for state in one):  # a first step makes them
        optimizer.step()
        return
    for group, parameters, held in zip(groups, trained, states, strict=True):
        if not parameters:
            continue
        steps = _counted(held)
        operation = (
            torch._fused_adamw_ if group.get("decoupled_weight_decay", type(optimizer) is AdamW) else torch._fused_adam_
        )
        operation(
            parameters,
            [p.grad for p in parameters],
            [state["exp_avg"] for state in held],
            [state["exp_avg_sq"] for state in held],
            [],
            steps,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            **{name: group[name] for name in _OPTIONS},
        )


def _counted(held: list[dict[str, Any]]) -> list[Tensor]:
    """The numbers of steps, this one too: views of one tensor, since adding to each takes ten times as long."""
    base: Any = held[0]["step"]._base
    if base is None or len(base) != len(held) or any(state["step"]._base is not base for state in held):
        base = torch.stack([state["step"] for state in held])
        for state, step in zip(held, base, strict=True):
            state["step"] = step
    base.add_(1)
    return [state["step"] for state in held]


def _watched(optimizer: Optimizer) -> bool:
    """Whether somebody hears of its steps, or takes them otherwise: hooks, a scheduler, a method of the user's."""
    own = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    return bool(
        own or hooks._global_optimizer_pre_hooks or hooks._global_optimizer_post_hooks or "step" in vars(optimizer)
    )


def _simple(group: dict[str, Any]) -> bool:
    """Whether a group of parameters lies in one type on the CPU, and its options are numbers."""
    numbers = all(isinstance(one, float) for one in (group["lr"], *group["betas"]))
    kinds = {(p.dtype, p.is_cpu, p.is_complex()) for p in group["params"]}
    return (
        bool(group.get("fused"))
        and numbers
        and not group["amsgrad"]
        and len(kinds) == 1
        and kinds.pop()[1:] == (True, False)
    )
