"""A better guide for an earlier run: `mended.pt`, `mended.nc`, a figure, and a section of its summary."""

from __future__ import annotations

import math
import time
from typing import Any

import xarray as xr

from ppvae.inference import GapAttribution, Mended, Optimiser, attribute_gap, estimate_evidence, mend
from ppvae.storage import RunDirectory
from ppvae.with_errors import with_error

from ..figures.mended_waterfall import mended_waterfall
from .attribute_run import SECTION as ATTRIBUTION
from .attribute_run import write_gap
from .command_options import MendOptions
from .saved_run import SavedRun, load_run, saved_summary
from .section import Section, check_evaluated, write_section

SECTION = "mended"


def mend_run(directory: RunDirectory, options: MendOptions, *, command: str = "") -> Section:
    """Mend the guide of an earlier run, and measure the gap before and after on the test data.

    The steps are chosen on the validation data. The model's parameters stay, unless ``train_model``. The gap before is
    that of the run: it becomes its section on the causes of the gap, unless there is one.

    Args:
        directory: of the run.
        options: how many data are measured, how exactly, with how many steps.
        command: the command line, for the summary.

    Raises:
        PpvaeError: the run, its data or its pair cannot be had, or its guide cannot be mended.
    """
    options.check()
    check_evaluated(directory)
    run = load_run(directory, max_eval=options.num_data, seed=options.seed)
    common: dict[str, Any] = {"seed": run.settings.seed, "progress": True}
    started = time.monotonic()
    mended = mend(
        run.pair.model, run.pair.guide, run.every, steps=options.steps, train_model=options.train_model, **common
    )
    mended.save(directory.path / f"{SECTION}.pt")
    optimiser = Optimiser(steps=options.attribution_steps)
    sides: dict[str, Any] = {}
    remarks: dict[str, list[str]] = {}
    seconds = 0.0  # of the attribution of the run's own gap
    for name, pair in (("before", run.pair), ("after", mended)):
        if name == "after" and not mended.summary()["num_kept"]:
            sides[name], remarks[name] = sides["before"], remarks["before"]  # the same guide
            continue
        begun = time.monotonic()
        evidence = estimate_evidence(pair.model, pair.guide, run.batch, tolerance=options.tolerance, **common)
        sides[name] = attribute_gap(pair.model, pair.guide, run.batch, evidence=evidence, optimiser=optimiser, **common)
        remarks[name] = [*evidence.remarks(), *sides[name].remarks()]
        seconds = seconds or time.monotonic() - begun
    section = _section(run, options, mended, sides, remarks)
    section |= {"seconds": time.monotonic() - started, "command": command}
    if ATTRIBUTION not in saved_summary(directory):
        said = [*run.remarks("num_data", options.num_data), *remarks["before"]]
        write_gap(run, sides["before"], said, seconds=seconds, command=command)
    figures = {SECTION: mended_waterfall(section["before"], section["after"])}
    write_section(run, SECTION, _dataset(sides), section, figures)
    over = f"mean over {section['num_data']} {run.split} data"
    title = f"the guide mended: {over if run.data.unit == 'datum' else 'of the data set'}"
    return Section(directory, title, _rows(section, mended), section)


def _section(
    run: SavedRun,
    options: MendOptions,
    mended: Mended,
    sides: dict[str, GapAttribution],
    remarks: dict[str, list[str]],
) -> dict[str, Any]:
    """What the summary holds."""
    before, after = sides["before"], sides["after"]
    elbo_errors = [side.refinement.members["amortised"].elbo_standard_error for side in (before, after)]
    gain, gain_error = _paired(after.elbo - before.elbo, *elbo_errors)
    difference, error = _paired(
        after.log_evidence - before.log_evidence,
        before.log_evidence_standard_error,
        after.log_evidence_standard_error,
    )
    kept = [step.name for step in mended.steps if step.kept]
    numbers = {name: side.summary() for name, side in sides.items()}
    gained = with_error({"gain": gain, "gain_standard_error": gain_error}, "gain", "+")
    gained += " nats" if run.data.unit == "data set" else f" nats per datum over {len(before.total)} {run.split} data"
    verdict = f"kept: {', '.join(kept)}" if kept else "no step gained enough: the guide is as it was"
    verdict += f"; ELBO {gained}" if kept else ""
    return {
        "verdict": f"{verdict} (the model {'was trained too' if mended.model_changed else 'stays as it was'})",
        "split": run.split,
        "unit": run.data.unit,
        "num_data": len(before.total),
        "gap_before": numbers["before"]["total"],
        "gap_before_standard_error": numbers["before"]["total_standard_error"],
        "gap_after": numbers["after"]["total"],
        "gap_after_standard_error": numbers["after"]["total_standard_error"],
        "elbo_gain": gain,
        "elbo_gain_standard_error": gain_error,
        "log_evidence_difference": difference,
        "log_evidence_difference_standard_error": error,
        "training_seconds": mended.seconds,
        "steps": {f"{i} {step.name}": _step(step) for i, step in enumerate(mended.steps, start=1)},
        **numbers,
        "remarks": [
            *run.remarks("num_data", options.num_data),
            *mended.remarks(),
            *(f"{name}: {remark}" for name in remarks for remark in remarks[name]),
            f"the mended guide is opened by ppvae.experiments.load({str(run.directory.path)!r}, mended=True).",
        ],
        "seed": run.settings.seed,
    }


def _step(step: Any) -> dict[str, Any]:
    return {
        "gain": step.gain,
        "gain_standard_error": step.standard_error,
        "seconds": step.seconds,
        "kept": step.kept,
        "reason": step.reason,
    }


def _paired(difference: Any, *errors: Any) -> tuple[float, float]:
    """The mean of differences by datum and its standard error; of one datum, that of the draws."""
    n = len(difference)
    drawn = math.sqrt(sum(float(error.square().sum()) for error in errors)) / n
    return float(difference.mean()), float(difference.std()) / math.sqrt(n) if n > 1 else drawn


def _dataset(sides: dict[str, GapAttribution]) -> xr.Dataset:
    """Values by datum, those of each side with its name before theirs."""
    named = [
        side.to_dataset().rename({variable: f"{name}_{variable}" for variable in side.to_dataset().data_vars})
        for name, side in sides.items()
    ]
    return xr.merge(named)


def _rows(section: dict[str, Any], mended: Mended) -> list[tuple[str, str, str]]:
    """The table that is printed."""
    steps = [
        (f"  {step.name}", "not tried" if step.note else with_error(_step(step), "gain", "+"), _word(step))
        for step in mended.steps
    ]
    of_model = "of another model" if mended.model_changed else "of the same model"
    return [
        *steps,
        ("gap before", with_error(section, "gap_before"), ""),
        ("gap after", with_error(section, "gap_after"), ""),
        ("ELBO, after − before", with_error(section, "elbo_gain", "+"), "paired"),
        ("log p(x), after − before", with_error(section, "log_evidence_difference", "+"), of_model),
    ]


def _word(step: Any) -> str:
    why = f"; {step.reason}" if step.reason else ""
    return f"{'kept' if step.kept else 'not kept'}, {step.seconds:.0f} s{why}"
