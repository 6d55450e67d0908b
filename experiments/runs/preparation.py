"""What comes before a training: the contract of the pair, the device, the arguments of ``fit``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from ppvae.errors import OptionError, PairError, suggestion
from ppvae.inference import Compute, Finding, check
from ppvae.inference.pair import Findings, Pair, why_slow
from ppvae.storage import Settings

from .run_data import RunData

Say = Callable[[str], None]

# The contract is checked on so many data; the likelihood's support on all of them.
NUM_CHECKED = 200


def check_pair(pair: Any, run_data: RunData, seed: int = 0) -> Findings:
    """The findings of a pair on some training data, or on all where it cannot be run on some, as they enter a step."""
    data = run_data.data
    x, *context = data.batch("train", slice(NUM_CHECKED) if data.divided else slice(None))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return check(pair.model, pair.guide, (data.draw(x), *context))


def training_options(settings: Settings, run_data: RunData) -> dict[str, Any]:
    """The arguments of ``fit`` that the settings of a run say."""
    return {
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "scheduler": partial(CosineAnnealingLR, T_max=settings.epochs) if settings.cosine else None,
        "patience": settings.patience if run_data.data.divided else None,  # there is nothing to validate on
        "seed": settings.seed,
        "accelerator": settings.accelerator,
        "precision": settings.precision,
    }


def description(pair: Pair | None, run_data: RunData) -> list[str]:
    """How a pair is measured on the data, a line each; nothing where it cannot be measured."""
    if pair is None:
        return []
    data = run_data.data
    held_out = f"{len(data.validation)} to validate, {len(data.test)} to test" if data.divided else "none held out"
    lines = [
        f"unit: {pair.unit}; layouts: model {pair.model_layout}, guide {pair.guide_layout}.",
        f"data: {len(data.train)} to train, {held_out}; x is {tuple(data.train.shape)}.",
    ]
    for one in data.context:
        cut = "cut with the data" if one.by_row and data.divided else "given whole"
        lines.append(f"context {one.name}: {tuple(one.values.shape)} of {str(one.values.dtype)[6:]}, {cut}.")
    slow = why_slow(pair)
    return [*lines, *([f"{slow}."] if slow else [])]


def report(findings: list[Finding], settings: Settings, say: Say) -> None:
    """Print the findings, and stop where log p(x) would have no meaning.

    Raises:
        PairError: some finding is fatal.
    """
    fatal = [finding for finding in findings if finding.fatal]
    for finding in findings:
        if finding not in fatal[:1]:
            say(str(finding))
    if [finding.code for finding in fatal] == ["point-mass"]:
        raise PairError(
            f"{settings.pair} has no log p(x) for `ppvae run` to estimate: {str(fatal[0]).rstrip('.')}. In Python, "
            "`ppvae.inference.fit` trains it."
        )
    if fatal:
        raise PairError(
            f"{settings.pair} breaks the contract of a pair in {len(fatal)} way{'s' * (len(fatal) > 1)}, the first: "
            f"{fatal[0]}"
        )


def compute_of(settings: Settings) -> Compute:
    """The processes that the settings ask for.

    Raises:
        OptionError: a name or a value among them is unknown.
    """
    known = [field.name for field in fields(Compute)]
    for name in settings.compute:
        if name not in known:
            raise OptionError(f"compute has no option {name!r}{suggestion(name, known)}: it takes {', '.join(known)}.")
    return Compute(**settings.compute)


def device_of(settings: Settings) -> torch.device:
    """The device that the settings name.

    Raises:
        OptionError: there is no such accelerator here, or no such precision.
    """
    from lightning_fabric import Fabric  # slow to import

    try:
        return Fabric(accelerator=settings.accelerator, devices=1, precision=settings.precision).device  # type: ignore[arg-type]
    except (ValueError, RuntimeError) as error:
        raise OptionError(
            f"accelerator {settings.accelerator!r} with precision {settings.precision!r} cannot be used here: give "
            "auto or cpu, and 32-true or 64-true."
        ) from error
