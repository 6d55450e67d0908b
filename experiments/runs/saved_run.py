"""An earlier run, opened again: its settings, its data, its pair with the trained values in place."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ppvae.datasets import Dataset, load_dataset
from ppvae.errors import OptionError, RunError
from ppvae.inference.checkpoint import load_parameters
from .make_pair import make_pair
from ppvae.storage import RunDirectory, Settings

from .preparation import device_of
from .samples import spread


@dataclass(frozen=True)
class Reopened:
    """What there is of a run.

    Attributes:
        directory: where it stands.
        settings: of the run, with what was asked for anew.
        data: the data set.
        pair: the trained pair.
        split: which part of the data ``x`` is.
        x: the data to evaluate on, ``(num_data, ...)``, in the type and place of the trained parameters.
        training: what is known of the training, as ``summary.json`` holds it, and its ``history``.
    """

    directory: RunDirectory
    settings: Settings
    data: Dataset
    pair: Any
    split: str
    x: Tensor
    training: dict[str, Any]


def reopen(directory: RunDirectory, *, split: str = "test", **asked: Any) -> Reopened:
    """Open an earlier run.

    Args:
        directory: of the run; its settings and its checkpoint give the pair.
        split: ``"test"`` or ``"validation"``.
        asked: settings to be used instead of the run's own, by name; None keeps the run's.

    Raises:
        PpvaeError: the run, its data or its pair cannot be had.
    """
    settings = directory.read_settings()
    settings = replace(settings, **{name: value for name, value in asked.items() if value is not None}).check()
    if split not in ("test", "validation"):
        raise OptionError(f"split must be test or validation; it is {split!r}.")
    device = device_of(settings)
    data = load_dataset(settings.data, data_dir=settings.data_dir)
    pair = make_pair(settings, data)
    if isinstance(pair, torch.nn.Module):
        pair.to(device)
    known = load_parameters(directory.checkpoint, pair.model, pair.guide, data.validation[:2].to(device))
    earlier = earlier_summary(directory).get("training", {})
    training = told_of(known["history"], known["steps"], known["seconds"], earlier.get("stopped", "unfinished"))
    x = as_trained(data.validation if split == "validation" else data.test, known["parameters"], device)
    return Reopened(directory, settings, data, pair, split, spread(x, settings.max_eval), training)


def earlier_summary(directory: RunDirectory) -> dict[str, Any]:
    """What the summary of a run says; nothing where there is none, or a damaged one that will be written anew."""
    try:
        return directory.read_summary() or {}
    except RunError:
        return {}


def as_trained(x: Tensor, parameters: dict[str, Tensor], device: torch.device) -> Tensor:
    """Data in the type and the place of the trained parameters."""
    dtypes = {p.dtype for p in parameters.values() if p.is_floating_point()}
    return x.to(device=device, dtype=dtypes.pop() if len(dtypes) == 1 else x.dtype)


def told_of(history: list[dict[str, float]], steps: int, seconds: float, stopped: str) -> dict[str, Any]:
    """What the summary says of a training."""
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
