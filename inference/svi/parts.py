"""The objects that a training is made of: programs, loss, optimiser, scheduler and loggers, each of its kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyro.infer import ELBO

from ppvae.errors import OptionError

from ..options import callable_of, instance_of


def check_parts(model: Any, guide: Any, loss: Any, optimizer: Any, scheduler: Any) -> None:
    """Raise OptionError unless these are what a training can be made of."""
    for name, program in (("model", model), ("guide", guide)):
        callable_of(name, program, f"a program, {name}(x, *context)")
    if loss is not None:
        instance_of("loss", loss, ELBO, "an ELBO object of Pyro, such as Trace_ELBO(), or None")
    callable_of("optimizer", optimizer, "a torch optimiser class, or a function of (params, lr=...)")
    if scheduler is not None:
        callable_of("scheduler", scheduler, "a function of the optimiser, or None")


def save_logs(loggers: Sequence[Any]) -> None:
    """Let the loggers that keep rows back write them."""
    for logger in loggers:
        if callable(save := getattr(logger, "save", None)):
            save()


def checked_loggers(loggers: Any) -> tuple[Any, ...]:
    """The loggers; OptionError where one cannot log."""
    if hasattr(loggers, "log_metrics"):
        loggers = (loggers,)
    if not isinstance(loggers, Sequence) or any(not callable(getattr(one, "log_metrics", None)) for one in loggers):
        raise OptionError(
            "loggers must be objects with log_metrics(metrics, step=...), such as lightning_fabric.loggers.CSVLogger("
            f'"logs"); got {loggers!r}.'
        )
    return tuple(loggers)
