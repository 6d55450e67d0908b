"""Why latent units of an earlier run are unused: a figure, and a section of its summary."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from ppvae.inference import ExplainedCollapse, explain_collapse
from ppvae.storage import RunDirectory

from ..figures.collapse_trials import collapse_trials
from .command_options import CollapseOptions
from .saved_run import load_run
from .section import Section, check_evaluated, write_section

SECTION = "collapse"
# Rows of the table that is printed.
SHOWN = 12


def collapse_run(directory: RunDirectory, options: CollapseOptions, *, command: str = "") -> Section:
    """Find the cause of every unused latent unit of an earlier run, by short trainings on copies.

    Args:
        directory: of the run, which stays trained as it is.
        options: how long the trainings are.
        command: the command line, for the summary.

    Raises:
        PpvaeError: the run, its data or its pair cannot be had, or its data share the latents.
    """
    options.check()
    check_evaluated(directory)
    run = load_run(directory, seed=options.seed)
    started = time.monotonic()
    found = explain_collapse(
        run.pair.model,
        run.pair.guide,
        run.every,
        steps=options.steps,
        learning_rate=options.learning_rate,
        kl_weight=options.kl_weight,
        seed=run.settings.seed,
        progress=True,
    )
    section = {
        "verdict": _verdict(found),
        "unit": run.data.unit,
        **found.summary(),
        "causes": {row.unit: _numbers(asdict(row)) for row in found.rows if row.cause},
        "trials": {f"{i} {trial.name}": _numbers(asdict(trial)) for i, trial in enumerate(found.trials, start=1)},
        "remarks": [*run.data.remarks, *found.remarks()],
        "seed": run.settings.seed,
        "seconds": time.monotonic() - started,
        "command": command,
    }
    figures = {SECTION: collapse_trials(found)} if found.trials else {}
    write_section(run, SECTION, None, section, figures)
    return Section(directory, "why latent units are unused", _rows(found), section)


def _numbers(fields: dict[str, Any]) -> dict[str, Any]:
    """What of a row a page can show: its numbers, and its words as they are."""
    return {name: value for name, value in fields.items() if isinstance(value, (int, float)) or name == "cause"}


def _verdict(found: ExplainedCollapse) -> str:
    numbers = found.summary()
    first = f"{numbers['active']} of {numbers['num_units']} latent units are active"
    causes = {row.cause for row in found.rows if row.cause}
    parts = [f"{len(found.of_cause(cause))} by {cause}" for cause in sorted(causes)]
    return f"{first}; unused: {', '.join(parts)}" if parts else f"{first}; there is nothing to explain"


def _rows(found: ExplainedCollapse) -> list[tuple[str, str, str]]:
    """The table that is printed: the trials, then the units."""
    rows = [
        (f"trial: {trial.name}", f"{trial.gain:+.3f} ± {trial.standard_error:.3f}", f"{len(trial.woken)} units woken")
        for trial in found.trials
        if not trial.note
    ]
    unused = [row for row in found.rows if row.cause]
    rows += [
        (f"{row.unit}: {row.cause}", f"{row.nats:+.3f} ± {row.standard_error:.3f}", row.evidence)
        for row in unused[:SHOWN]
    ]
    return rows + ([(f"and {len(unused) - SHOWN} more", "", "")] if len(unused) > SHOWN else [])
