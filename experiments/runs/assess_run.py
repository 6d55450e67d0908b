"""The guide of an earlier run assessed as a posterior, in three steps from the cheapest on.

Which latent units it uses (:func:`ppvae.inference.latent_units`), whether it is calibrated on data drawn from the model
(:func:`ppvae.inference.calibrate`, :func:`ppvae.inference.discriminative_calibration`), and how it differs from
reference draws of the posterior, datum by datum (:func:`ppvae.inference.guide_quality`). Each adds a file, figures and
a section to the run directory; the reference draws stay there too, for ArviZ.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import torch
from matplotlib.figure import Figure

from ppvae.errors import PairError
from ppvae.inference import (
    DrawsFrom,
    LatentUnits,
    calibrate,
    column_stability,
    discriminative_calibration,
    guide_quality,
    latent_units,
    sample_posterior,
    to_datatree,
)
from ppvae.inference.pair import Pair
from ppvae.inference.posterior.faults import CANNOT_TELL, GOOD, WORDS
from ppvae.models import LinearGaussian
from ppvae.storage import RunDirectory
from ppvae.with_errors import with_error

from ..figures import calibration_figures, latent_space, posterior_figures
from ..figures.guide_quality import latent_unit_bars
from ..figures.reference_comparison import comparison_figures
from .command_options import AssessOptions
from .posterior_draws import draw_sets
from .saved_run import SavedRun, load_run
from .section import Section, check_evaluated, write_section
from .sharded import computed

DOES_NOT_APPLY = "does not apply to this pair"
WORDS_OF = {
    "latent_units": "latent units cannot be told apart",
    "calibration": "calibration cannot be assessed",
    "quality": "there is no reference to compare the guide with",
}
NUM_MAPPED = 200  # data on the latent map


def assess_run(directory: RunDirectory, options: AssessOptions, *, command: str = "") -> Section:
    """Assess the guide of an earlier run as a posterior.

    Args:
        directory: of the run.
        options: which data, how many of them and of simulations.
        command: the command line, for the summary.

    Raises:
        PpvaeError: the run, its data or its pair cannot be had, or the pair cannot be assessed in this way.
        KeyboardInterrupt: Ctrl-C; its message says what is kept.
    """
    options.check()
    check_evaluated(directory)
    run = load_run(
        directory, split=options.split, max_eval=max(options.num_data, options.num_unit_data), seed=options.seed
    )
    common = {"split": run.split, "unit": run.data.unit, "seed": run.settings.seed, "command": command}
    started = time.monotonic()
    steps: dict[str, Callable[[], dict[str, Any]]] = {
        "latent_units": lambda: _assess_units(run, options.num_unit_data, common),
        "calibration": lambda: _assess_calibration(run, options, common),
        "quality": lambda: _assess_quality(run, options, common, started),
    }
    try:
        units, calibration, quality = _all_that_apply(run, steps, common)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; what was finished stands in {directory.path}, and the same command begins again."
        ) from None
    active = f"{units['active']} of {units['num_units']}" if "active" in units else ""
    judged = f"{quality['num_judged']} of {quality['num_data']}" if "num_judged" in quality else ""
    shared = run.data.unit == "data set"
    nats = "nats" if shared else "nats per datum"
    rows = [
        ("latent units", active, "active" if active else units["verdict"]),
        ("calibration", "", str(calibration["verdict"])),
        ("guide against reference", "" if shared else judged, quality["verdict"]),
        ("  KL(q ‖ p), the gap", with_error(quality, "kl_guide"), nats),
        ("  KL(p ‖ q)", with_error(quality, "kl_posterior"), nats),
    ]
    remarks = [
        *run.remarks("num_data", options.num_data),
        *units["remarks"],
        *calibration["remarks"],
        *quality["remarks"],
    ]
    summary = {"remarks": remarks, "unit": run.data.unit}
    return Section(directory, "q(z|x) assessed as a posterior", rows, summary, heading="")


def _all_that_apply(
    run: SavedRun, steps: dict[str, Callable[[], dict[str, Any]]], common: dict[str, Any]
) -> list[dict[str, Any]]:
    """The sections of all steps; of a step that does not apply to the pair, one that says why.

    Raises:
        PairError: none applies.
    """
    found, errors = [], []
    for name, step in steps.items():
        try:
            found.append(step())
        except PairError as error:
            errors.append(error)
            found.append({"verdict": DOES_NOT_APPLY, "remarks": [f"{WORDS_OF[name]}: {error}"], **common})
            write_section(run, name, None, found[-1], {})
    if len(errors) == len(steps):
        raise errors[-1]
    return found


def _assess_units(run: SavedRun, num_data: int, common: dict[str, Any]) -> dict[str, Any]:
    model, guide, seed = run.pair.model, run.pair.guide, run.settings.seed
    units = latent_units(model, guide, run.some(num_data), seed=seed, progress=True)
    numbers = units.summary()
    section = {
        **numbers,
        "verdict": f"{numbers['active']} of {numbers['num_units']} latent units are active, "
        f"{numbers['collapsed']} collapsed",
        "remarks": [*units.remarks(), *_collapse_reasons(run, units)],
        **common,
    }
    tree = to_datatree(model, guide, run.some(NUM_MAPPED), draws=DrawsFrom(num_draws=25), predictive=False, seed=seed)
    figures = {
        "latent_units": latent_unit_bars(units),
        "latent_units_map": latent_space.latent_map(tree, _labels(run, NUM_MAPPED)),
    }
    write_section(run, "latent_units", units.to_dataset(), section, _without_none(figures))
    return section


def _labels(run: SavedRun, most: int) -> list[str] | None:
    """The labels of so many data, in words; None where there are none, or the data share their latents."""
    labels = run.labels()
    if labels is None or run.data.unit == "data set":
        return None
    (numbers,) = run.data.some((torch.arange(len(run.x)),), most)
    return [labels[i] for i in numbers.tolist()]


def _collapse_reasons(run: SavedRun, units: LatentUnits) -> list[str]:
    """For a linear decoder, whose columns have a closed form: a sentence for each collapsed unit."""
    pair = run.pair
    if not isinstance(pair, LinearGaussian):
        return []
    stability = column_stability(pair.weight, (2 * pair.log_noise_scale).exp(), run.data.data.some().to(pair.weight))
    collapsed = [j for j, verdict in enumerate(units.verdict) if verdict == "collapsed"]
    return [f"{units.label[j]} has collapsed: {stability.reason(j)}" for j in collapsed]


def _assess_calibration(run: SavedRun, options: AssessOptions, common: dict[str, Any]) -> dict[str, Any]:
    model, guide, seed = run.pair.model, run.pair.guide, run.settings.seed
    if not run.data.data.divided:
        raise PairError("the guide was fitted to these data alone, and need not be right on data that are simulated.")
    x, num_simulations = run.some(options.num_unit_data), options.num_simulations
    with Pair.on(model, guide, x) as pair:
        summed = sorted(pair.summed)  # simulations near the data cannot be drawn there
    anchor: Literal["prior", "both"] = "prior" if summed else "both"
    found = calibrate(model, guide, x, anchor=anchor, num_simulations=num_simulations, seed=seed, progress=True)
    told = discriminative_calibration(
        model, guide, x, num_simulations=max(num_simulations, 100), seed=seed, progress=True
    )
    remarks = [*found.remarks(), *(f"by a classifier, {remark}" for remark in told.remarks())]
    if summed:
        remarks.append(f"simulations near the data cannot be drawn, since {', '.join(summed)} is summed out.")
    by_classifier = {f"classifier_{name}": value for name, value in told.summary().items()}
    section = {**found.summary(), **by_classifier, "remarks": remarks, **common}
    write_section(run, "calibration", found.to_dataset(), section, calibration_figures.calibrations(found))
    return section


def _assess_quality(run: SavedRun, options: AssessOptions, common: dict[str, Any], started: float) -> dict[str, Any]:
    model, guide, seed = run.pair.model, run.pair.guide, run.settings.seed
    x, numbers = run.some(options.num_data), _data_numbers(run, options.num_data)
    steps: dict[str, Any] = {"num_draws": options.num_draws, "warm_up": options.warm_up}
    reference = computed(run, options, sample_posterior, x, **steps)
    quality = guide_quality(model, guide, x, reference, seed=seed, progress=True)
    draws = draw_sets(run, x, reference, numbers)
    run.directory.write_netcdf("reference", draws.reference)
    section = {
        **quality.summary(),
        "verdict": _verdict_sentence(quality.verdicts, run.data.unit),
        "remarks": [*quality.remarks(), *reference.remarks()],
        **common,
        "seconds": time.monotonic() - started,
    }
    figures = comparison_figures(quality, reference, draws, numbers) | _without_none(
        {
            "quality_exact": latent_space.exact_posteriors(run.pair, x, reference.coordinates, numbers, seed),
            "ppc_posterior": posterior_figures.predictive(draws.guide, "posterior_predictive"),
            "ppc_prior": posterior_figures.predictive(draws.guide, "prior_predictive"),
        }
    )
    write_section(run, "quality", quality.to_dataset(), section, figures)
    return section


def _data_numbers(run: SavedRun, num_data: int) -> list[int] | None:
    """The row numbers, in their part of the data, of the data that are compared with reference draws.

    None where the data set is the unit.
    """
    if run.data.unit == "data set":
        return None
    (numbers,) = run.data.some((run.data.numbers(run.split, run.settings.max_eval),), num_data)
    return numbers.tolist()


def _without_none(figures: dict[str, Figure | None]) -> dict[str, Figure]:
    return {name: figure for name, figure in figures.items() if figure is not None}


def _verdict_sentence(verdicts: tuple[tuple[str, ...], ...], unit: str = "datum") -> str:
    """For how many of the data with a reference the guide is wrong, and its most frequent first fault."""
    if unit == "data set":
        return ", ".join(verdicts[0])
    first = Counter(words[0] for words in verdicts)
    unclear, good = first.pop(CANNOT_TELL, 0), first.pop(GOOD, 0)
    wrong = first.total()
    found = []
    if wrong:
        most = max((word for word in WORDS if word in first), key=lambda word: first[word])
        judged = "data that could be judged" if unclear else "data"
        found.append(f"wrong for {wrong} of {wrong + good} {judged}, most often {most} ({first[most]})")
    elif good:
        found.append(f"good for {good} of {good} data")
    if unclear:
        found.append(f"cannot tell for {unclear} of {len(verdicts)} data")
    return "; ".join(found)
