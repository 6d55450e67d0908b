"""Two closer looks at an earlier run: between which numbers log p(x) lies, and whose fault the gap is.

Each reads the trained pair from the run directory, writes what it finds as `certificate.nc` or `gap_attribution.nc`
with a figure, and adds a section to `summary.json`, which later evaluations leave there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import xarray as xr
from matplotlib.figure import Figure
from rich.table import Table

from ppvae.errors import OptionError, RunError
from ppvae.inference import Certificate, GapAttribution, attribute_gap, certify, estimate_evidence
from ppvae.report import write_report
from ppvae.storage import RunDirectory

from ..figures import waterfall
from .saved_run import Reopened, earlier_summary, reopen

# Of the model: data are drawn from it.
MODEL = "model"


@dataclass(frozen=True)
class Examination:
    """What a closer look found.

    Attributes:
        directory: where it was written.
        title: of the table.
        rows: of the table: a label, a number, a note.
        summary: the section of ``summary.json``.
    """

    directory: RunDirectory
    title: str
    rows: list[tuple[str, str, str]]
    summary: dict[str, Any]

    def table(self) -> Table:
        """The numbers, to be printed by rich."""
        table = Table(title=self.title)
        for column, justify in (("", "left"), ("nats per datum", "right"), ("", "left")):
            table.add_column(column, justify=justify)  # type: ignore[arg-type]
        for row in self.rows:
            table.add_row(*row)
        return table


def certify_run(
    directory: RunDirectory,
    *,
    split: str = "test",
    num_data: int = 100,
    seed: int | None = None,
    command: str = "",
    **options: Any,
) -> Examination:
    """Bound log p(x) from both sides, on the data of an earlier run or on data drawn from its model.

    Args:
        directory: of the run.
        split: ``"test"``, ``"validation"``, or ``"model"`` for data drawn from the model, where both sides are certain.
        num_data: how many data, evenly spread over all.
        seed: of all draws; that of the run by default.
        command: the command line, for the summary.
        options: of :func:`ppvae.inference.certify`.

    Raises:
        PpvaeError: the run, its data or its pair cannot be had, or the pair cannot be certified.
    """
    check_counts(num_data=(num_data, 1))
    check_evaluated(directory)
    run = reopen(directory, split="test" if split == MODEL else split, max_eval=num_data, seed=seed)
    data: dict[str, Any] = {"like": run.x} if split == MODEL else {"x": run.x}
    started = time.monotonic()
    certificate: Certificate = certify(
        run.pair.model, run.pair.guide, **data, seed=run.settings.seed, progress=True, **options
    )
    seconds = time.monotonic() - started
    section = {"split": split, **certificate.summary(), "seed": run.settings.seed, "seconds": seconds}
    section |= {"remarks": certificate.remarks(), "command": command}
    figures = {"certificate": waterfall.certificate_intervals(certificate)}
    write_section(run, "certificate", certificate.to_dataset(), section, figures)
    confidence, n = f"{certificate.confidence:.0%}", len(certificate.lower)
    rows = [
        ("lower bound of the mean", f"{certificate.mean_lower:.3f}", f"certified with {confidence}"),
        ("estimate", f"{section['log_evidence']:.3f}", f"± {section['log_evidence_monte_carlo_error']:.3f}"),
        ("upper bound of the mean", f"{certificate.mean_upper:.3f}", _upper_note(certificate, confidence)),
        (
            "width",
            f"{section['mean_width']:.3f}",
            "reached" if certificate.reached else f"{section['width']} was asked",
        ),
    ]
    title = f"log p(x), mean over {n} {'simulated' if split == MODEL else split} data: {certificate.kind} certificate"
    return Examination(directory, title, rows, section)


def _upper_note(certificate: Certificate, confidence: str) -> str:
    return "estimated" if certificate.kind == "real" else f"certified with {confidence}"


def attribute_run(
    directory: RunDirectory,
    *,
    split: str = "test",
    num_data: int = 100,
    tolerance: float = 0.1,
    steps: int = 2000,
    seed: int | None = None,
    command: str = "",
) -> Examination:
    """Split the gap of an earlier run into what the guide's family costs and what its amortisation costs.

    Args:
        directory: of the run.
        split: ``"test"`` or ``"validation"``.
        num_data: how many data, evenly spread over all.
        tolerance: to which log p(x) is estimated, in nats.
        steps: the budget of the local optimisation of a datum, in each family.
        seed: of all draws; that of the run by default.
        command: the command line, for the summary.

    Raises:
        PpvaeError: the run, its data or its pair cannot be had, or the gap of the pair cannot be split.
    """
    check_counts(num_data=(num_data, 1))
    check_evaluated(directory)
    run = reopen(directory, split=split, max_eval=num_data, seed=seed)
    started = time.monotonic()
    common: dict[str, Any] = {"seed": run.settings.seed, "progress": True}
    evidence = estimate_evidence(run.pair.model, run.pair.guide, run.x, tolerance=tolerance, **common)
    gap: GapAttribution = attribute_gap(run.pair.model, run.pair.guide, run.x, evidence=evidence, steps=steps, **common)
    seconds = time.monotonic() - started
    section = {"split": split, **gap.summary(), "seed": run.settings.seed, "seconds": seconds}
    section |= {"remarks": [*evidence.remarks(), *gap.remarks()], "command": command}
    figures = {"waterfall": waterfall.gap_waterfall(section)}
    write_section(run, "gap_attribution", gap.to_dataset(), section, figures)
    rows = [
        (label, f"{section[name]:.2f} ± {section[name + '_standard_error']:.2f}", _resolved(section, name))
        for name, label in LABELS.items()
    ]
    title = f"whose fault the gap is: mean over {section['num_data']} {split} data ± standard error"
    return Examination(directory, title, rows, section)


LABELS = {
    "elbo": "ELBO",
    "log_evidence": "log p(x)",
    "total": "gap",
    "amortisation": "  amortisation: what a better network could win",
    "family": "  family: what a richer guide could win",
    "covariance": "    of which full covariance",
    "flow": "    of which a flow, beyond that",
    "rest": "    the rest",
}


def _resolved(section: dict[str, Any], name: str) -> str:
    share = section.get(f"{name}_resolved")
    return "" if share is None else f"resolved for {share:.0%}"


def check_counts(**counts: tuple[int, int]) -> None:
    """Raise OptionError unless each option, given with the least it may be, is such a number: before any work."""
    for name, (value, least) in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise OptionError(f"{name} must be a whole number of at least {least}; it is {value!r}.")


def check_evaluated(directory: RunDirectory) -> None:
    """Raise RunError unless the run has been evaluated: a closer look is added to what is there."""
    if "evidence" not in earlier_summary(directory):
        raise RunError(f"{directory.path} was not evaluated yet: `ppvae evaluate {directory.path}` does it.")


def write_section(
    run: Reopened, name: str, dataset: xr.Dataset, section: dict[str, Any], figures: Mapping[str, Figure]
) -> None:
    """The file, the figures, the section of the summary, and the page; what a section drew earlier goes."""
    dataset.attrs |= {"pair": run.settings.pair, "data": run.data.name, "seed": run.settings.seed}
    run.directory.write_netcdf(name, dataset)
    for picture, figure in figures.items():
        run.directory.write_figure(picture, figure)
    run.directory.remove_figures(name, keep=figures)
    run.directory.write_summary(earlier_summary(run.directory) | {name: section})
    write_report(run.directory)
