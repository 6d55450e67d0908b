"""The page of a sweep: its conclusion, the best trial against the others, all trials, and which options mattered."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ppvae.storage import write_text

from .numbers import Numbers
from .page import render
from .record import Picture

# Trials that are compared in the table; all are in the picture.
NEAREST = 10


def write_sweep_page(folder: Path, summary: dict[str, Any]) -> Path:
    """Write ``report.html`` into the folder of a sweep.

    Args:
        folder: of the sweep.
        summary: the content of its ``sweep.json``.

    Raises:
        RunError: it cannot be written.
    """
    place = {trial["number"]: i for i, trial in enumerate(summary["trials"])}
    differences = summary.get("differences", [])
    nearest = [i for i, one in enumerate(differences) if i < NEAREST or one["default"]]
    page = render(
        "sweep.html.j2",
        name=folder.name,
        summary=summary,
        number=Numbers(summary, "sweep.json", str(folder)),
        place=place,
        nearest=nearest,
        trials=_picture(_trials(summary)) if summary["num_measured"] else None,
        importances=_picture(_importances(summary["importances"])) if summary["importances"] else None,
        told=_told,
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def _told(value: Any) -> str:
    """The value of an option, in short."""
    return f"{value:.3g}".replace("-", "−") if isinstance(value, float) else str(value)


def _trials(summary: dict[str, Any]) -> Figure:
    """log p(x) of each measured trial with its standard error, against the number of the trial."""
    rows = [trial for trial in summary["trials"] if trial["state"] == "measured"]
    figure = Figure(figsize=(6.5, 2.8), layout="constrained")
    axes = figure.subplots()
    for colour, label, some in (
        ("#0072B2", "trial", [t for t in rows if not t["default"]]),
        ("#D55E00", "default", [t for t in rows if t["default"]]),
    ):
        axes.errorbar(
            [t["number"] for t in some],
            [t["log_evidence"] for t in some],
            yerr=[t["log_evidence_standard_error"] for t in some],
            fmt="o",
            markersize=4,
            linewidth=1,
            color=colour,
            label=label,
        )
    axes.set(xlabel="trial", ylabel="log p(x) (nats per datum)")
    axes.legend(fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _importances(shares: dict[str, float]) -> Figure:
    names = sorted(shares, key=lambda name: shares[name])
    figure = Figure(figsize=(6.5, 0.8 + 0.35 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.barh(names, [shares[name] for name in names], color="#0072B2")
    axes.set(xlabel="share of the spread of log p(x) over trials", xlim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _picture(figure: Figure) -> Picture:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    width, height = figure.get_size_inches() * 150
    return Picture("data:image/png;base64," + base64.b64encode(file.getvalue()).decode(), round(width), round(height))
