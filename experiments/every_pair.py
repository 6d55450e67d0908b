"""Every pair of models/, or some, measured by all commands with their default options: one row a pair, one table.

    python -m ppvae.experiments.every_pair VAE FlowVAE --out runs/every_pair     # runs these two, a line of JSON each
    python -m ppvae.experiments.every_pair --out runs/every_pair --table         # the table of all rows that are there

For each pair: `ppvae run`, `gap`, `posterior` (which writes the draws for ArviZ too) and `report`. A step that does not
apply to a pair says why in the row, and the others go on. Rows stay in the folder as NAME.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import xarray as xr

from ppvae.errors import PpvaeError, first_line
from ppvae.percent import percent
from ppvae.report import write_report
from ppvae.storage import RunDirectory, Settings, write_json
from ppvae.with_errors import with_error

from .runs import main_job
from .runs.assess_run import assess_run
from .runs.attribute_run import attribute_run
from .runs.command_options import AssessOptions, AttributeOptions

# The options of a trial: whether all steps come to an end, in about a minute.
SHORT_RUN: dict[str, Any] = {"epochs": 2, "max_eval": 8, "num_particles": 100, "eval_minutes": 0.3}
SHORT_GAP = AttributeOptions(num_data=3, tolerance=1.0, steps=40)
SHORT_POSTERIOR = AssessOptions(num_data=2, num_simulations=40)


def measure(name: str, out: Path, short: bool = False, num_data: int | None = None) -> dict[str, Any]:
    """The row of a pair: what the commands find of it on its default data.

    Args:
        name: of the pair.
        out: folder for the run directory ``NAME`` and for the row.
        short: with little training and few data, to see whether it comes to the end.
        num_data: data of the gap's parts and of the posterior; None takes those of the commands.

    Returns:
        Numbers in nats per datum, and under ``"failed"`` a sentence for each step that has none.
    """
    started, failed = time.monotonic(), dict[str, str]()
    gap_options = SHORT_GAP if short else AttributeOptions()
    posterior_options = SHORT_POSTERIOR if short else AssessOptions()
    if num_data is not None:
        gap_options = replace(gap_options, num_data=num_data)
        posterior_options = replace(posterior_options, num_data=num_data)
    out.mkdir(parents=True, exist_ok=True)
    directory = RunDirectory(out / name)

    def step(title: str, work: Callable[[], object]) -> None:
        try:
            work()
        except PpvaeError as error:
            failed[title] = str(error)
        except Exception as error:  # a defect: the row says so, and the other steps are still tried
            traceback.print_exc()
            failed[title] = f"{type(error).__name__}: {first_line(error)}"

    settings = Settings(pair=name, name=name, out=str(out), **(SHORT_RUN if short else {}))
    step("run", lambda: main_job.run(settings, say=lambda line: print(line, file=sys.stderr)))
    if "run" not in failed:
        step("gap", lambda: attribute_run(directory, gap_options))
        step("posterior", lambda: assess_run(directory, posterior_options))
        step("page", lambda: write_report(directory))
    row = {"pair": name, **_row(directory), "seconds": time.monotonic() - started, "failed": failed}
    write_json(out / f"{name}.json", row)
    return row


def _row(directory: RunDirectory) -> dict[str, Any]:
    found = directory.read_summary() or {}
    evidence, gap = found.get("evidence", {}), found.get("gap_attribution", {})
    units, quality = found.get("latent_units", {}), found.get("quality", {})
    parts = {part: gap.get(part) for part in ("amortisation", "family")}
    errors = {f"{part}_standard_error": gap.get(f"{part}_standard_error") for part in parts}
    names = ("log_evidence", "log_evidence_standard_error", "elbo", "elbo_standard_error", "gap", "gap_standard_error")
    return {
        "data": found.get("data"),
        "unit": found.get("unit"),
        "num_data": evidence.get("num_data"),
        **{name: evidence.get(name) for name in names},
        **parts,
        **errors,
        "pareto_k_share_above_0_7": found.get("draws", {}).get("pareto_k_share_above_0_7"),
        "active_units": units.get("active"),
        "num_units": units.get("num_units"),
        "calibration": found.get("calibration", {}).get("verdict"),
        "posterior": quality.get("verdict"),
        "arviz": _groups(directory),
        "page": directory.report.is_file(),
        "conclusion": found.get("conclusion"),
    }


def _groups(directory: RunDirectory) -> list[str]:
    """The groups of the ArviZ objects that were written."""
    files = [directory.path / f"{name}.nc" for name in ("posterior", "reference")]
    found: set[str] = set()
    for file in files:
        if file.is_file():
            with xr.open_datatree(file, engine="h5netcdf") as tree:
                found |= set(tree.children)
    return sorted(found)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    columns = ("pair", "data", "log p(x)", "ELBO", "gap", "amortisation", "family", "k-hat ≥ 0.7", "active", "q(z\\|x)")
    lines = [f"| {' | '.join(columns)} | seconds |", f"|{'---|' * (len(columns) + 1)}"]
    for row in sorted(rows, key=lambda one: one["pair"]):
        names = ("log_evidence", "elbo", "gap", "amortisation", "family")
        share, units = row["pareto_k_share_above_0_7"], row["active_units"]
        cells = [
            row["pair"],
            row["data"] or "–",
            *("–" if row[name] is None else with_error(row, name) for name in names),
        ]
        cells += ["–" if share is None else percent(share), "–" if units is None else f"{units}/{row['num_units']}"]
        cells += [row["posterior"] or "–", f"{row['seconds']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    notes = [f"- `{row['pair']}`, {step}: {why}" for row in rows for step, why in row["failed"].items()]
    return "\n".join([*lines, "", *notes])


def main() -> None:
    """Run the pairs that are named, or print the table of those that were."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="*", help="names from `ppvae list`")
    parser.add_argument("--out", default="runs/every_pair", type=Path, help="folder of the run directories and rows")
    parser.add_argument("--short", action="store_true", help="little training and few data, as a trial")
    parser.add_argument("--num-data", type=int, help="data of the gap's parts and of the posterior")
    parser.add_argument("--table", action="store_true", help="print the table of all rows in the folder")
    options = parser.parse_args()
    for name in options.pairs:
        print(json.dumps(measure(name, options.out, options.short, options.num_data)), flush=True)
    if options.table:
        print(table([json.loads(file.read_text()) for file in sorted(options.out.glob("*.json"))]))


if __name__ == "__main__":
    main()
