"""Can q(z|x) of an earlier run be trusted as a posterior? Three looks at it, from the cheapest on.

Which latent units it uses (:func:`ppvae.inference.latent_units`), whether it is calibrated on data that the model makes
(:func:`ppvae.inference.calibrate`), and how it differs from reference draws of the posterior, datum by datum
(:func:`ppvae.inference.guide_quality`). Each adds a file, a figure and a section to the run directory.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from ppvae.inference import calibrate, guide_quality, latent_units
from ppvae.rundir import RunDirectory

from . import trust_figures
from .examine import Examination, write_section
from .reopened import reopen
from .views import spread


def trust_run(
    directory: RunDirectory,
    *,
    split: str = "test",
    num_data: int = 20,
    num_simulations: int = 1000,
    num_units_data: int = 500,
    seed: int | None = None,
    command: str = "",
) -> Examination:
    """Look at the guide of an earlier run as a posterior.

    Args:
        directory: of the run.
        split: ``"test"`` or ``"validation"``.
        num_data: data whose posterior is drawn from for reference, evenly spread over all.
        num_simulations: data that the model makes, for calibration.
        num_units_data: data over which the latent units are examined.
        seed: of all draws; that of the run by default.
        command: the command line, for the summary.

    Raises:
        PpvaeError: the run, its data or its pair cannot be had, or the pair cannot be looked at in this way.
    """
    run = reopen(directory, split=split, max_eval=num_units_data, seed=seed)
    pair, seed = run.pair, run.settings.seed
    common: dict[str, Any] = {"seed": seed, "progress": True}
    told = {"split": split, "seed": seed, "command": command}
    started = time.monotonic()
    units = latent_units(pair.model, pair.guide, run.x, **common)
    section: dict[str, Any] = {
        **units.summary(),
        "verdict": _units_in_words(units.summary()),
        "remarks": units.remarks(),
        **told,
    }
    write_section(run, "latent_units", units.to_dataset(), trust_figures.units(units), section)
    calibration = calibrate(pair.model, pair.guide, run.x, num_simulations=num_simulations, **common)
    calibrated: dict[str, Any] = {**calibration.summary(), "remarks": calibration.remarks(), **told}
    write_section(run, "calibration", calibration.to_dataset(), trust_figures.calibration(calibration), calibrated)
    quality = guide_quality(pair.model, pair.guide, spread(run.x, num_data), **common)
    judged: dict[str, Any] = {
        **quality.summary(),
        "verdict": _quality_in_words(quality.verdicts),
        "remarks": quality.remarks(),
        **told,
    }
    judged["seconds"] = time.monotonic() - started
    write_section(run, "quality", quality.to_dataset(), trust_figures.quality(quality), judged)
    rows = [
        ("latent units", f"{section['active']} of {section['num_units']}", "active"),
        ("calibration", "", str(calibrated["verdict"])),
        ("guide against reference", f"{judged['num_judged']} of {judged['num_data']}", judged["verdict"]),
        ("  KL(q ‖ p), the gap", _with_error(judged, "kl_guide"), "nats"),
        ("  KL(p ‖ q)", _with_error(judged, "kl_posterior"), "nats"),
    ]
    remarks = [*section["remarks"], *calibrated["remarks"], *judged["remarks"]]
    return Examination(directory, "can q(z|x) be trusted as a posterior?", rows, {"remarks": remarks})


def _units_in_words(summary: dict[str, float]) -> str:
    return f"{summary['active']} of {summary['num_units']} latent units are active, {summary['collapsed']} collapsed"


def _quality_in_words(verdicts: tuple[tuple[str, ...], ...]) -> str:
    """The first fault of most data, and of how many."""
    first = [words[0] for words in verdicts]
    most = max(set(first), key=first.count)
    return f"{most} for {first.count(most)} of {len(first)} data"


def _with_error(numbers: dict[str, Any], name: str) -> str:
    value = torch.tensor(numbers[name])
    return f"{value:.2f} ± {numbers[name + '_standard_error']:.2f}" if value.isfinite() else "not known"
