"""A run directory opened as a trained pair, to be used from Python: the same object as a training returns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ppvae.errors import OptionError
from ppvae.inference import Fit, Mended
from ppvae.storage import RunDirectory, Settings

from .own_units import of_history
from .preparation import device_of
from .run_data import load_pair_and_data
from .saved_run import like_parameters, why_stopped

# Data that show what the programs take.
NUM_SHOWN = 100
# What these modules hold is no code of the user's, and does nothing but compute: torch.hub, for one, would fetch code.
TRUSTED = ("torch.nn:", "ppvae.models:")


def reopened(run: str | Path, pair: Any = None, run_code: bool = False, mended: bool = False) -> Fit | Mended:
    """See :func:`ppvae.experiments.load`."""
    directory = RunDirectory.open(run)
    settings = directory.read_settings().check()
    own = [] if pair is not None or run_code else _code_of(settings)
    if own:
        raise OptionError(
            f"the run at {directory.path} uses code of its own, {', '.join(own)}, which is not run unasked: give "
            "run_code=True if you trust it, or pair=, the pair itself."
        )
    device = device_of(settings)
    pair, data = load_pair_and_data(settings, pair)
    if isinstance(pair, torch.nn.Module):
        pair.to(device)
    part = data.part(None) if not data.data.divided else "train"
    x, *context = data.batch(part, NUM_SHOWN)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        batch = tuple(values.to(device) for values in (data.data.draw(x), *context))
    if mended:
        found = Mended.load(directory.path / "mended.pt", pair.model, pair.guide, batch)
        return replace(found, example=like_parameters(batch, found.guide.values.leaves, device))  # type: ignore[attr-defined]
    fit = Fit.load(directory.checkpoint, pair.model, pair.guide, batch)
    return replace(
        fit,
        history=of_history(data, fit.history),
        stopped=why_stopped(directory),
        units=data.data.standardisation,
        example=like_parameters(batch, fit.parameters, device),
    )


def _code_of(settings: Settings) -> list[str]:
    """What the settings name that is neither of this package nor of torch: files and modules that would be run."""
    args = [*settings.pair_args.values(), *settings.likelihood_args.values()]
    named = [settings.pair, settings.likelihood, *args]
    specs = [one for one in named if isinstance(one, str) and (":" in one or one.endswith(".py"))]
    return [one for one in specs if not one.startswith(TRUSTED)]
