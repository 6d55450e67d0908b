"""The checks before a run: the contract of the pair, and the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning_fabric import Fabric

from ppvae.datasets import Dataset
from ppvae.errors import OptionError, PairError
from ppvae.inference import Finding, check
from ppvae.storage import Settings

Say = Callable[[str], None]

# The contract is checked on so many data; the likelihood's support on all of them.
NUM_CHECKED = 200


def check_pair(pair: Any, data: Dataset, seed: int = 0) -> list[Finding]:
    """The findings of a pair on some training data, as they enter a step."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return check(pair.model, pair.guide, data.draw(data.train[:NUM_CHECKED]))


def report(findings: list[Finding], settings: Settings, say: Say) -> None:
    """Print the findings, and stop where log p(x) would have no meaning.

    Raises:
        PairError: some finding is fatal.
    """
    fatal = [finding for finding in findings if finding.fatal]
    for finding in findings:
        if finding not in fatal[:1]:
            say(str(finding))
    if fatal:
        raise PairError(
            f"{settings.pair} breaks the contract of a pair in {len(fatal)} way{'s' * (len(fatal) > 1)}, the first: "
            f"{fatal[0]}"
        )


def device_of(settings: Settings) -> torch.device:
    """The device that the settings name.

    Raises:
        OptionError: there is no such accelerator here, or no such precision.
    """
    try:
        return Fabric(accelerator=settings.accelerator, devices=1, precision=settings.precision).device  # type: ignore[arg-type]
    except (ValueError, RuntimeError) as error:
        raise OptionError(
            f"accelerator {settings.accelerator!r} with precision {settings.precision!r} cannot be used here: give "
            "auto or cpu, and 32-true or 64-true."
        ) from error
