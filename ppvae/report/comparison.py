"""Two runs side by side, their differences paired by datum (see :mod:`ppvae.report.pairing`)."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.markup import escape
from rich.table import Table

from ppvae.errors import RunError
from ppvae.printed import Printed, table_in_lines
from ppvae.storage import RunDirectory, write_text
from ppvae.with_errors import with_error

from .claims import verdict_of
from .numbers import WRITTEN_BY, Numbers, shown
from .page import SECTIONS, check_sections, options, remarks, render
from .pairing import on_the_same, paired, read_rows, read_values
from .record import Picture, Record, read_record

QUANTITIES = {"log_evidence": "log p(x)", "elbo": "ELBO", "gap": "gap"}
ERRORS = {"log_evidence": "standard_error", "elbo": "elbo_standard_error", "gap": "gap_standard_error"}
# Figures of a datum that each run chose for itself.
OF_ONE_DATUM = ("quality_forest", "quality_pair", "quality_ranks", "quality_traces", "quality_refused")
# The values by datum that a section has in a file of its name, with their labels.
PAIRED = {
    "gap_attribution": {"total": "gap", "amortisation": "amortisation", "family": "family"},
    "quality": {"kl_guide": "KL(q ‖ p)", "kl_posterior": "KL(p ‖ q)", "total_variation": "total variation"},
}
# Two runs were evaluated on the same data where these agree.
SAME = {"data_sha256": "other data", "split": "another part of the data"}


@dataclass(frozen=True, repr=False)
class Comparison(Printed):
    """Two runs on the same data.

    Attributes:
        a: one run.
        b: the other.
        difference: for each of ``log_evidence``, ``elbo`` and ``gap`` the mean of b − a over the data, in nats, its
            ``*_standard_error``, paired by datum, the ``*_monte_carlo_error`` in that, and ``*_share_higher``, the
            share of data for which b's is higher; ``num_data``, and ``num_left_out``, data for which a value of either
            run is not finite.
        values: log p(x) of every datum, ``(2, num_data)``.
        sections: the same as ``difference`` for the sections that both runs have, on the same data.
    """

    a: Record
    b: Record
    difference: dict[str, Any]
    values: np.ndarray
    sections: dict[str, dict[str, Any]]

    @property
    def shared(self) -> bool:
        """Whether the data set is the unit of both."""
        return self.a.summary.get("unit") == "data set"

    @property
    def _rows(self) -> int:
        return int(self.a.summary.get("num_rows", 0))

    def __repr__(self) -> str:
        return table_in_lines(self.table(), [self.conclusion()])

    def table(self) -> Table:
        """The numbers, to be printed by rich."""
        over = f"b − a, paired by datum: nats per datum, mean over {self.difference['num_data']} data"
        of = f"b − a: nats, log p(x) of the same {self._rows} data" if self.shared else over
        table = Table(title=f"a: {escape(self.a.name)}\nb: {escape(self.b.name)}\n{of}")
        columns = ["", "a", "b", "b − a", "b higher for"]
        for column in columns[:-1] if self.shared else columns:
            table.add_column(column, justify="right" if column else "left")
        for name, label in QUANTITIES.items():
            means = [with_error(record.summary["evidence"], name) for record in (self.a, self.b)]
            d = Numbers({"d": self.difference})
            paired = with_error(self.difference, name, "+")
            share = [] if self.shared else [d.text(f"d.{name}_share_higher", ".0%")]
            table.add_row(label, *means, paired, *share)
        return table

    def conclusion(self) -> str:
        """Which of the two has the higher log p(x), in a sentence."""
        value, error = self.difference["log_evidence"], self.difference["log_evidence_standard_error"]
        if value is None:
            return "The difference is not known: no datum has finite values in both runs."
        if self.shared and abs(value) > 2 * error:
            better = "b" if value > 0 else "a"
            return f"By log p(x) of the data set, {better} is better, by {shown(abs(value), '.2f')} nats."
        if abs(value) <= 2 * error:
            return "The difference in log p(x) cannot be told from zero: it is within two standard errors."
        times = f", by {shown(abs(value) / error, '.1f')} standard errors" if error else ""
        return f"By log p(x), {'b' if value > 0 else 'a'} is better{times}."

    def remarks(self) -> list[str]:
        """The limits of the comparison, and the remarks of both runs, a sentence each."""
        found = []
        methods = [record.summary.get("method", "importance") for record in (self.a, self.b)]
        if methods[0] != methods[1]:
            found.append(
                f"log p(x) was estimated in two ways ({methods[0]} and {methods[1]}): part of the difference may be "
                "the estimators'."
            )
        if self.difference["num_apart"]:
            found.append(
                f"{self.difference['num_apart']} data are left out of the differences: only one of the runs measured "
                "them."
            )
        if self.difference["num_left_out"]:
            found.append(
                f"{self.difference['num_left_out']} data are left out: a value of one of the runs is not finite."
            )
        for letter, record in (("a", self.a), ("b", self.b)):
            found += [f"{letter}: {remark}" for remark in remarks(record)]
        return found

    def write(self, path: str | Path) -> Path:
        """Write the page.

        Raises:
            RunError: it cannot be written.
        """
        write_text(path, comparison_page(self))
        return Path(path)

    @property
    def file_name(self) -> str:
        """``compare-A-B.html``, by the names of the runs."""
        return f"compare-{self.a.name[:80]}-{self.b.name[:80]}.html"


def compare(a: RunDirectory, b: RunDirectory) -> Comparison:
    """Compare two runs, datum by datum.

    Raises:
        RunError: a run was not evaluated, a file is damaged, or the two were evaluated on different data.
    """
    records = read_record(a), read_record(b)
    for record in records:
        if not record.summary:
            raise RunError(
                f"{record.directory.path} was not evaluated yet: `ppvae run --resume {record.directory.path}` does it."
            )
        check_sections(record)
    files = [directory.path / "evidence.nc" for directory in (a, b)]
    measured = [read_values(f, ERRORS, f"ppvae evaluate {f.parent}") for f in files]
    _same_data(*records)
    evidence = on_the_same(measured, [read_rows(f) for f in files])
    if evidence is None:
        counts = " and ".join(str(len(e["log_evidence"])) for e in measured)
        raise RunError(
            f"{a.path} and {b.path} cannot be paired by datum: they were evaluated on {counts} data: "
            "`ppvae evaluate` one with the other's --max_eval."
        )
    difference = paired(evidence[0], evidence[1], ERRORS)
    difference["num_apart"] = sum(len(e["log_evidence"]) for e in measured) - 2 * len(evidence[0]["log_evidence"])
    values = np.stack([e["log_evidence"] for e in evidence])
    return Comparison(*records, difference=difference, values=values, sections=_paired_sections(*records))


def _paired_sections(a: Record, b: Record) -> dict[str, dict[str, Any]]:
    """The differences of the sections that both runs have on the same data, paired by datum."""
    found = {}
    for section, labels in PAIRED.items():
        both = [record.summary.get(section, {}) for record in (a, b)]
        if not all(both) or any(both[0].get(key) != both[1].get(key) for key in ("split", "num_data")):
            continue
        errors = {name: f"{name}_standard_error" for name in labels}
        values = [
            read_values(record.directory.path / f"{section}.nc", errors, f"ppvae {WRITTEN_BY[section]} {record.word}")
            for record in (a, b)
        ]
        if len({len(v) for each in values for v in each.values()}) == 1:
            found[section] = paired(values[0], values[1], errors)
    return found


def _same_data(a: Record, b: Record) -> None:
    both = f"{a.directory.path} and {b.directory.path}"
    for key, other in SAME.items():
        if a.summary.get(key) is None or a.summary.get(key) != b.summary.get(key):
            if key == "data_sha256" and a.settings.standardise != b.settings.standardise:
                raise RunError(f"{both} cannot be paired by datum: give two runs with the same --standardise.")
            raise RunError(
                f"{both} cannot be paired by datum: they were evaluated on {other} ({a.summary.get(key)} and "
                f"{b.summary.get(key)}): give two runs on the same data, or `ppvae evaluate` one with --split."
            )
    if a.summary.get("unit", "datum") != b.summary.get("unit", "datum"):
        raise RunError(f"{both} cannot be compared: the unit of one is the datum, of the other the data set.")


def scatter(values: np.ndarray) -> Figure:
    """log p(x) under b against that under a, a point a datum; and the differences.

    Args:
        values: ``(2, num_data)``, in nats.
    """
    a, b = values[:, np.isfinite(values).all(0)]
    figure = Figure(figsize=(6.5, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    if len(a):
        ends = min(a.min(), b.min()), max(a.max(), b.max())
        left.plot(ends, ends, color="0.5", linewidth=1)
        left.scatter(a, b, s=9, color="#0072B2", alpha=0.6, linewidths=0)
        left.set_aspect("equal")
        d = b - a
        right.hist(d, bins=min(40, max(5, len(d) // 8)), color="#0072B2")
        right.axvline(0, color="0.5", linewidth=1)
        right.axvline(d.mean(), color="#D55E00", linestyle="--", label=f"mean {d.mean():.2f}".replace("-", "−"))
        right.legend(fontsize=8)
    left.set(xlabel="log p(x) under a (nats)", ylabel="log p(x) under b (nats)")
    right.set(xlabel="b − a (nats)", ylabel="number of data")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def comparison_page(comparison: Comparison) -> str:
    """The page of two runs, as HTML."""
    a, b = comparison.a, comparison.b
    file = io.BytesIO()
    scatter(comparison.values).savefig(file, format="png", dpi=150)
    picture = Picture("data:image/png;base64," + base64.b64encode(file.getvalue()).decode(), 975, 510)
    both = {name: (options(a)[name], options(b)[name]) for name in options(a)}
    return render(
        "compare.html.j2",
        shared=comparison.shared,
        a=a,
        b=b,
        number_a=a.numbers("a."),
        number_b=b.numbers("b."),
        number=Numbers({"difference": comparison.difference, **comparison.sections}),
        quantities=QUANTITIES,
        paired={section: PAIRED[section] for section in comparison.sections},
        plain_sections=SECTIONS,
        of_one_datum=OF_ONE_DATUM,
        verdict_of=verdict_of,
        conclusion=comparison.conclusion(),
        remarks=comparison.remarks(),
        scatter=picture,
        different={name: values for name, values in both.items() if values[0] != values[1]},
    )
