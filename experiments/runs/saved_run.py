"""An earlier run, loaded again: its settings, its data, and its pair with the trained parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ppvae.datasets import Dataset, evenly_spaced, load_dataset
from ppvae.errors import OptionError, RunError
from ppvae.inference.svi.checkpoint import load_parameters
from ppvae.storage import RunDirectory, Settings

from .make_pair import make_pair
from .preparation import device_of


@dataclass(frozen=True)
class SavedRun:
    """A trained pair with its data.

    Attributes:
        directory: the run directory.
        settings: of the run, with those that were given anew.
        data: the data set.
        pair: the trained pair.
        split: which part of the data ``x`` is.
        x: the data to evaluate on, ``(num_data, ...)``, with the type and device of the trained parameters.
        training: the section ``training`` of ``summary.json``, and its ``history``.
    """

    directory: RunDirectory
    settings: Settings
    data: Dataset
    pair: Any
    split: str
    x: Tensor
    training: dict[str, Any]


def load_run(directory: RunDirectory, *, split: str = "test", **overrides: Any) -> SavedRun:
    """Load an earlier run.

    Args:
        directory: of the run; its settings and its checkpoint give the pair.
        split: ``"test"`` or ``"validation"``.
        overrides: settings that replace the run's own, by name; None keeps the run's.

    Raises:
        PpvaeError: the run, its data or its pair cannot be had.
    """
    settings = directory.read_settings()
    settings = replace(settings, **{name: value for name, value in overrides.items() if value is not None}).check()
    if split not in ("test", "validation"):
        raise OptionError(f"split must be test or validation; it is {split!r}.")
    device = device_of(settings)
    data = load_dataset(settings.data, data_dir=settings.data_dir)
    pair = make_pair(settings, data)
    if isinstance(pair, torch.nn.Module):
        pair.to(device)
    checkpoint = load_parameters(directory.checkpoint, pair.model, pair.guide, data.train.to(device))
    stopped = saved_summary(directory).get("training", {}).get("stopped", "unfinished")
    training = training_summary(checkpoint["history"], checkpoint["steps"], checkpoint["seconds"], stopped)
    x = like_parameters(data.validation if split == "validation" else data.test, checkpoint["parameters"], device)
    return SavedRun(directory, settings, data, pair, split, evenly_spaced(x, settings.max_eval), training)


def saved_summary(directory: RunDirectory) -> dict[str, Any]:
    """The summary of a run; empty where there is none, or a damaged one that will be written anew."""
    try:
        return directory.read_summary() or {}
    except RunError:
        return {}


def like_parameters(x: Tensor, parameters: dict[str, Tensor], device: torch.device) -> Tensor:
    """Data with the type of the trained parameters, on a device."""
    dtypes = {p.dtype for p in parameters.values() if p.is_floating_point()}
    return x.to(device=device, dtype=dtypes.pop() if len(dtypes) == 1 else x.dtype)


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
