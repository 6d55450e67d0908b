"""What hinders a training: a loss that fails, parameters that no gradient reaches or that no program registers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from pyro.poutine import Trace
from torch import Tensor

from .arguments import Batch
from .contract import Finding
from .failures import described
from .gradient_run import GradientRun
from .modes import reachable_modules
from .objective import elbo_for
from .parameters import named_parameters
from .traces import Program

# Names that a sentence lists.
SHOWN = 3


def training_findings(
    model: Program, guide: Program, batch: Batch, traces: tuple[Trace, Trace], run: GradientRun | None
) -> Iterator[Finding]:
    """Findings where no gradient reaches a parameter, or densities depend on what is no parameter."""
    try:
        parameters = named_parameters(model, guide, batch)
    except Exception as error:
        yield failure("fails", "the pair fails when it is run again", error)
        return
    yield from _without_gradient(model, guide, batch, parameters, elbo_for(*traces))
    if run is not None and parameters:  # with none, a pair is given as it is, and not to be trained
        yield from _not_registered(model, guide, parameters, run)


def failure(code: str, what: str, error: BaseException) -> Finding:
    """The finding that something cannot be done, since a program raises an error."""
    message = f"{what} ({described(error)})"
    remedy = "run it by hand on a few data to see where"
    if "Shape mismatch inside plate" in message:
        remedy = (
            "the site has dimensions that no plate stands for, or the plate has another size than the data: make them "
            "its event, as with .to_event(1), and give the plate the size len(x)"
        )
    return Finding(code, "", message, remedy, cause=error)


def _without_gradient(
    model: Program, guide: Program, batch: Batch, parameters: dict[str, Tensor], loss: Any
) -> Iterator[Finding]:
    try:
        if not parameters:
            with torch.no_grad():
                loss.loss(model, guide, *batch)
            return
        value = loss.differentiable_loss(model, guide, *batch)
        reached: Any = [None] * len(parameters)
        if isinstance(value, Tensor) and value.requires_grad:
            reached = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
    except Exception as error:
        yield failure("loss", f"{type(loss).__name__} cannot be computed", error)
        return
    for name, gradient in zip(parameters, reached, strict=True):
        if gradient is None:
            yield Finding(
                "no-gradient",
                name,
                "no gradient of the ELBO reaches this parameter",
                "use it, remove it, or look for a detach() or no_grad() on its way",
                fatal=False,
            )


def _not_registered(
    model: Program, guide: Program, parameters: dict[str, Tensor], run: GradientRun
) -> Iterator[Finding]:
    known = set(map(id, parameters.values()))
    reached: dict[int, Tensor] = {}
    for one in run.reached.values():
        reached |= run.parameters(one)
    missing = {key: leaf for key, leaf in reached.items() if key not in known}
    if not missing:
        return
    names = {
        id(leaf): f"{type(module).__name__}.{name}"
        for module in reachable_modules(model, guide)
        for name, leaf in module.named_parameters()
    }
    shown = [names.get(key, f"a tensor of shape {tuple(leaf.shape)}") for key, leaf in missing.items()]
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    yield Finding(
        "not-trained",
        "",
        f"the densities depend on {', '.join(shown[:SHOWN])}{more}, which require a gradient and are registered by "
        "neither program, or under a name that is taken, so that no training changes them",
        "register them with pyro.module(name, network) or pyro.param(name, tensor), each under a name of its own; if "
        "they are fixed on purpose, say so with requires_grad_(False)",
        fatal=False,
    )
