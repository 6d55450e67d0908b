"""The causes of the gap of an earlier run: `gap_attribution.nc`, a figure, and a section of its summary."""

from __future__ import annotations

import time
from typing import Any

from ppvae.inference import GapAttribution, Optimiser, attribute_gap, estimate_evidence
from ppvae.percent import percent
from ppvae.storage import RunDirectory
from ppvae.with_errors import with_error

from ..figures.waterfall import gap_waterfall
from .command_options import AttributeOptions
from .own_units import of_gap
from .saved_run import SavedRun, load_run
from .section import Section, check_evaluated, write_section

SECTION = "gap_attribution"
LABELS = {
    "elbo": "ELBO",
    "log_evidence": "log p(x)",
    "total": "gap",
    "amortisation": "  amortisation (better network)",
    "family": "  family (richer guide)",
    "covariance": "    by full covariance",
    "flow": "    by a flow, beyond that",
    "rest": "    the rest",
}


def attribute_run(directory: RunDirectory, options: AttributeOptions, *, command: str = "") -> Section:
    """Split the gap of an earlier run into the part of the guide's family and the part of its amortisation.

    Args:
        directory: of the run.
        options: which data, how exactly, with how many steps.
        command: the command line, for the summary.

    Raises:
        PpvaeError: the run, its data or its pair cannot be had, or the gap of the pair cannot be split.
    """
    options.check()
    check_evaluated(directory)
    run = load_run(directory, split=options.split, max_eval=options.num_data, seed=options.seed)
    model, guide = run.pair.model, run.pair.guide
    common: dict[str, Any] = {"seed": run.settings.seed, "progress": True}
    started = time.monotonic()
    evidence = estimate_evidence(model, guide, run.batch, tolerance=options.tolerance, **common)
    optimiser = Optimiser(steps=options.steps)
    gap = attribute_gap(model, guide, run.batch, evidence=evidence, optimiser=optimiser, **common)
    remarks = [*run.remarks("num_data", options.num_data), *evidence.remarks(), *gap.remarks()]
    section = write_gap(run, gap, remarks, seconds=time.monotonic() - started, command=command)
    known = {name: label for name, label in LABELS.items() if name in section}
    rows = [(label, with_error(section, name), _resolved(section, name)) for name, label in known.items()]
    over = f"mean over {section['num_data']} {run.split} data ± standard error"
    title = f"the causes of the gap: {over if run.data.unit == 'datum' else 'of the data set ± Monte Carlo error'}"
    return Section(directory, title, rows, section)


def write_gap(
    run: SavedRun, gap: GapAttribution, remarks: list[str], *, seconds: float, command: str
) -> dict[str, Any]:
    """Write the causes of the gap of some data of a run as a section of it.

    Args:
        run: on these data.
        gap: of them.
        remarks: what is to be said of the numbers.
        seconds: that they took.
        command: the command line.

    Returns:
        The section of ``summary.json``.
    """
    gap = of_gap(run.data, run.x, gap)
    section: dict[str, Any] = {"split": run.split, "unit": run.data.unit, **gap.summary(), "seed": run.settings.seed}
    section |= {"seconds": seconds, "remarks": remarks, "command": command}
    write_section(run, SECTION, gap.to_dataset(), section, {"waterfall": gap_waterfall(section)})
    return section


def _resolved(section: dict[str, Any], name: str) -> str:
    share = section.get(f"{name}_resolved")
    return "" if share is None else f"resolved for {percent(share)}"
