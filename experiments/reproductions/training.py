"""A training for a given time, whose learning rate falls to nothing by the end of it.

    η(t) = η_0 · (1 + cos(π t/T)) / 2,      t/T the part of the time, or of the epochs, that is over: the larger one

A published training takes more steps than a small machine can make; its schedule ends with small steps, and so must one
that is cut short. Killed and started again with the same folder, the training goes on where its checkpoint was written;
so does one that has ended, if it is given more time, at the rate that the longer time has there.
"""

from __future__ import annotations

import json
import math
import signal
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pyro.infer import ELBO
from torch.optim.lr_scheduler import LambdaLR

from ppvae.errors import PpvaeError
from ppvae.inference import Fit, fit
from ppvae.storage import write_json

from .row import RowEffort

# Epochs of a training that its time ends.
ENDLESS = 1_000_000
# The learning rate of a training that is cut short does not fall below this share of its first value.
LEAST = 0.01


class TimeBudget:
    """The time that a training may take: a factor of the learning rate, and a logger of ``fit`` that ends it.

    Args:
        seconds: after how many the training ends.
        epochs: after how many it ends at the latest.
        least: the share of its first value below which the learning rate does not fall; 1 leaves it as it is.

    Attributes:
        spent: seconds so far; kept in the checkpoint, as the state of the scheduler.
    """

    # A checkpoint keeps the __dict__ of a factor and puts it back whole: what is asked for must not be in it, or a
    # training that is given more time would end when the time of the checkpoint is over.
    __slots__ = ("__dict__", "epochs", "least", "seconds")
    spent: float

    def __init__(self, seconds: float, epochs: int = ENDLESS, least: float = LEAST):
        self.seconds, self.epochs, self.least, self.spent = seconds, epochs, least, 0.0

    def __call__(self, epoch: int) -> float:
        """The factor of the learning rate, after so many epochs."""
        over = min(1.0, max(self.spent / self.seconds, epoch / self.epochs))
        return max(self.least, (1 + math.cos(math.pi * over)) / 2)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Take note of an epoch; once the time is over, end the training as Ctrl-C would."""
        self.spent += metrics["seconds"]
        if self.spent >= self.seconds:
            signal.raise_signal(signal.SIGINT)


def trained(
    name: str, make: Callable[[], Any], data: Any, loss: Callable[[], ELBO | None], effort: RowEffort, **options: Any
) -> tuple[Any, dict[str, Any]]:
    """A pair that was trained for ``effort.seconds``, on the device of the data, and how its training went.

    Args:
        name: of the checkpoint in ``effort.folder``.
        make: makes the pair; it is called with the generators at ``effort.seed``.
        data: as ``fit`` takes them.
        loss: makes the objective.
        effort: with a time.
        options: of ``fit``: the batch size, the learning rate; and ``epochs`` and ``least``, as the budget takes them.

    Returns:
        The pair, and a dictionary of its steps, epochs, seconds and the kind of its steps.
    """
    if effort.seconds is None:
        raise ValueError("effort.seconds is missing: give the seconds that the training may take")
    note = effort.folder / f"{name}.training.json"
    budget = TimeBudget(effort.seconds, options.pop("epochs", ENDLESS), options.pop("least", LEAST))
    told = _finished(note, budget)
    path = effort.folder / f"{name}.ckpt"
    take: Callable[..., Fit] = partial(
        fit,
        loggers=[budget],
        epochs=told["epochs"] if told else budget.epochs,
        seed=effort.seed,
        checkpoint=path,
        scheduler=lambda optimizer: LambdaLR(optimizer, budget),
        accelerator=effort.device,
        progress=False,
        **options,
    )
    pair = _made(make, effort.seed)
    try:
        done = take(
            pair.model, pair.guide, data, loss=loss(), resume=path.exists(), compile=False if told else effort.compile
        )
    except PpvaeError:
        raise
    except Exception:  # a compiler that fails on this device is no reason to have no figure
        if path.exists() or effort.compile is False:
            raise
        traceback.print_exc()
        pair, budget.spent = _made(make, effort.seed), 0.0
        done = take(pair.model, pair.guide, data, loss=loss(), compile=False)
    if told is None:
        if done.stopped == "interrupted" and budget.spent < budget.seconds:
            raise KeyboardInterrupt("interrupted: start it again with the same folder, and it goes on.")
        last = done.history[-1]
        told = {"steps": done.steps, "epochs": len(done.history), "seconds": done.seconds, "step": done.step}
        told |= {
            "objective": done.loss,
            "last_value": last["elbo"],
            "schedule": "cosine to 0" if budget.least < 1 else "constant",
        }
        told |= options | {"seconds_asked_for": effort.seconds}
        write_json(note, told)
    return pair, told


def _finished(note: Path, budget: TimeBudget) -> dict[str, Any] | None:
    """What a finished training told; None where there is none, or one that had less time than there is now."""
    told: dict[str, Any] | None = json.loads(note.read_text()) if note.exists() else None
    if told and told["seconds_asked_for"] < budget.seconds and told["epochs"] < budget.epochs:
        return None
    return told


def _made(make: Callable[[], Any], seed: int) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()
