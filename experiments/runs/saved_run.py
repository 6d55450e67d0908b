"""An earlier run, loaded again: its settings, its data, and its pair with the trained parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ppvae.datasets import Dataset
from ppvae.errors import OptionError, RunError
from ppvae.inference.svi.checkpoint import load_parameters, training_ended
from ppvae.storage import RunDirectory, Settings

from .own_units import of_history
from .preparation import device_of
from .run_data import Batch, RunData, load_pair_and_data

# What a summary says of a training that has not ended.
UNFINISHED = "unfinished"


@dataclass(frozen=True)
class SavedRun:
    """A trained pair with its data.

    Attributes:
        directory: the run directory.
        settings: of the run, with those that were given anew.
        data: the data set, as the pair takes it.
        pair: the trained pair.
        split: which part of the data is evaluated on: ``"test"``, ``"validation"`` or, where all data were trained on,
            ``"training"``.
        batch: ``(x, *context)`` of the data to evaluate on, with the type and device of the trained parameters.
        training: the section ``training`` of ``summary.json``, and its ``history``.
    """

    directory: RunDirectory
    settings: Settings
    data: RunData
    pair: Any
    split: str
    batch: Batch
    training: dict[str, Any]

    @property
    def x(self) -> Tensor:
        """The data to evaluate on, ``(num_data, ...)``, without their context."""
        return self.batch[0]

    def remarks(self, option: str, most: int | None) -> list[str]:
        """Remarks on the data, a sentence each.

        Args:
            option: that asks for some of the data only.
            most: its value; None asks for all.
        """
        if self.data.data.divided or most is None or most >= len(self.x):
            return self.data.remarks
        whole = f"{option} = {most} has no effect: these data cannot be divided, and all {len(self.x)} are measured."
        return [*self.data.remarks, whole]

    def labels(self) -> list[str] | None:
        """The labels of the data to evaluate on, in words; None where there are none."""
        return self.data.labels(self.split, self.settings.max_eval)

    @property
    def every(self) -> Dataset | Batch:
        """All parts of the data, in the type of the trained parameters; the batch where they cannot be divided."""
        return typed(self.data.data, self.x.dtype) if self.data.data.divided else self.batch

    def some(self, most: int) -> Batch:
        """At most ``most`` of the data to evaluate on, evenly spaced, with their context."""
        return self.data.some(self.batch, most)


def typed(data: Dataset, dtype: torch.dtype) -> Dataset:
    """The data in the type of the trained parameters; whole numbers stay what they are. Of data that stream, some."""
    data = data.sampled()

    def cast(values: Tensor) -> Tensor:
        return values.to(dtype) if values.is_floating_point() else values

    context = tuple(replace(one, values=cast(one.values)) for one in data.context)
    return replace(
        data, train=cast(data.train), validation=cast(data.validation), test=cast(data.test), context=context
    )


def load_run(directory: RunDirectory, *, split: str | None = None, **overrides: Any) -> SavedRun:
    """Load an earlier run.

    Args:
        directory: of the run; its settings and its checkpoint give the pair.
        split: ``"test"`` or ``"validation"``; None takes the test data, or all where all were trained on.
        overrides: settings that replace the run's own, by name; None keeps the run's.

    Raises:
        PpvaeError: the run, its data or its pair cannot be had.
    """
    settings = directory.read_settings()
    settings = replace(settings, **{name: value for name, value in overrides.items() if value is not None}).check()
    if split not in (None, "test", "validation"):
        raise OptionError(f"split must be test or validation; it is {split!r}.")
    device = device_of(settings)
    pair, data = load_pair_and_data(settings)
    part = data.part(split)
    if isinstance(pair, torch.nn.Module):
        pair.to(device)
    checkpoint = load_parameters(directory.checkpoint, pair.model, pair.guide, _moved(data.example(), device))
    history = of_history(data, checkpoint["history"])
    training = training_summary(history, checkpoint["steps"], checkpoint["seconds"], why_stopped(directory))
    batch = like_parameters(data.batch(part, settings.max_eval), checkpoint["parameters"], device)
    return SavedRun(directory, settings, data, pair, part, batch, training)


def saved_summary(directory: RunDirectory) -> dict[str, Any]:
    """The summary of a run; empty where there is none, or a damaged one that will be written anew."""
    try:
        return directory.read_summary() or {}
    except RunError:
        return {}


def why_stopped(directory: RunDirectory) -> str:
    """Why the training of a run ended; ``"unfinished"`` where it has not ended."""
    said = saved_summary(directory).get("training", {}).get("stopped", UNFINISHED)
    return training_ended(directory.checkpoint) or UNFINISHED if said in (UNFINISHED, "interrupted") else str(said)


def like_parameters(batch: Batch, parameters: dict[str, Tensor], device: torch.device) -> Batch:
    """Data with the type of the trained parameters, on a device; whole numbers stay what they are."""
    dtypes = {p.dtype for p in parameters.values() if p.is_floating_point()}
    dtype = dtypes.pop() if len(dtypes) == 1 else batch[0].dtype
    return tuple(b.to(dtype) if b.is_floating_point() else b for b in _moved(batch, device))


def _moved(batch: Batch, device: torch.device) -> Batch:
    return tuple(part.to(device) for part in batch)


def training_summary(history: list[dict[str, float]], steps: int, seconds: float, stopped: str) -> dict[str, Any]:
    """The section ``training`` of ``summary.json``, and the history of the training."""
    last = history[-1] if history else {"elbo": math.nan, "validation_elbo": math.nan}
    return {
        "stopped": stopped,
        "epochs": len(history),
        "steps": steps,
        "seconds": seconds,
        "last_elbo": last["elbo"],
        "last_validation_elbo": last["validation_elbo"],
        "history": history,
    }
