"""One trial of a sweep: train with its options, and estimate log p(x) of the validation data."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppvae.errors import OptionError
from ppvae.inference import fit
from ppvae.storage import RunDirectory, Settings, atomic_path

from ..runs.estimate import Estimation, measure
from ..runs.make_pair import with_data
from ..runs.preparation import device_of, training_options
from ..runs.run_data import load_pair_and_data
from ..runs.saved_run import SavedRun, like_parameters, training_summary

PART = "validation"


@dataclass(frozen=True)
class ValidationLogger:
    """A logger of ``fit`` that passes on the validation ELBO of each epoch.

    Attributes:
        report: takes the ELBO and the epoch, and raises where the trial is to be given up.
    """

    report: Callable[[float, int], None]

    def log_metrics(self, row: dict[str, float], step: int) -> None:
        """Pass on the validation ELBO of an epoch."""
        self.report(row["validation_elbo"], step)


def measured_trial(settings: Settings, report: Callable[[float, int], None], file: Path) -> dict[str, Any]:
    """Train, and estimate log p(x) of the validation data; its values by datum are written to a file.

    Args:
        settings: of the trial.
        report: takes the validation ELBO and the epoch; what it raises ends the trial.
        file: for log p(x) of each datum with its Monte Carlo error, and the rows of the data.

    Returns:
        The means over the data, in nats, with their errors; and what the trial took.

    Raises:
        OptionError: there are no validation data.
        PpvaeError: the trial cannot be trained or measured.
        KeyboardInterrupt: Ctrl-C.
    """
    began = time.monotonic()
    settings = with_data(settings)
    pair, data = load_pair_and_data(settings)
    if not data.data.divided:
        raise OptionError(
            "this pair holds no data out, so there is no validation log p(x) to sweep by: give a pair whose data "
            "can be divided."
        )
    trained = fit(
        pair.model,
        pair.guide,
        data.data,
        **training_options(settings, data),
        loggers=[ValidationLogger(report)],
        progress=False,
    )
    if trained.stopped == "interrupted":
        raise KeyboardInterrupt
    training_seconds = time.monotonic() - began
    batch = like_parameters(data.batch(PART, settings.max_eval), trained.parameters, device_of(settings))
    training = training_summary(trained.history, trained.steps, trained.seconds, trained.stopped)
    run = SavedRun(RunDirectory(file.parent), settings, data, pair, PART, batch, training)
    found = measure(run, Estimation(settings.method, settings.num_particles, settings.tolerance, None)).evidence
    numbers = found.summary()
    with atomic_path(file) as temporary, temporary.open("wb") as out:
        np.savez(
            out,
            log_evidence=found.log_evidence.cpu().numpy(),
            standard_error=found.standard_error.cpu().numpy(),
            row=data.numbers(PART, settings.max_eval).numpy(),
        )
    kept = ("log_evidence", "elbo", "gap")
    return {
        **{key: numbers[key] for name in kept for key in (name, f"{name}_standard_error", f"{name}_monte_carlo_error")},
        "num_data": int(numbers["num_data"]),
        "num_doubtful": int((~found.trusted).sum()),
        "epochs": len(trained.history),
        "training_seconds": training_seconds,
        "seconds": time.monotonic() - began,
    }
