"""The section that a command adds to a run: a file of values by datum, figures, numbers in `summary.json`, the page.

Later evaluations of the run leave the sections there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import xarray as xr
from matplotlib.figure import Figure
from rich.table import Table

from ppvae.errors import RunError
from ppvae.printed import Printed, table_in_lines
from ppvae.report import write_report
from ppvae.storage import RunDirectory

from .saved_run import SavedRun, saved_summary


@dataclass(frozen=True, repr=False)
class Section(Printed):
    """The result of a command that adds a section to a run.

    Attributes:
        directory: where it was written.
        title: of the table.
        rows: of the table: a label, a number, a note.
        summary: the section of ``summary.json``.
        heading: of the numbers; None where they are in nats.
    """

    directory: RunDirectory
    title: str
    rows: list[tuple[str, str, str]]
    summary: dict[str, Any]
    heading: str | None = None

    def __repr__(self) -> str:
        return table_in_lines(self.table(), [str(self.directory.path)])

    def table(self) -> Table:
        """The numbers, to be printed by rich."""
        table = Table(title=self.title)
        nats = "nats" if self.summary.get("unit") == "data set" else "nats per datum"
        heading = nats if self.heading is None else self.heading
        for column, justify in (("", "left"), (heading, "right"), ("", "left")):
            table.add_column(column, justify=justify, no_wrap=justify == "right")  # type: ignore[arg-type]
        for row in self.rows:
            table.add_row(*row)
        return table


def check_evaluated(directory: RunDirectory) -> None:
    """Raise RunError unless the run has been evaluated: a section is added to the summary that is there."""
    if "evidence" not in saved_summary(directory):
        raise RunError(f"{directory.path} was not evaluated yet: `ppvae evaluate {directory.path}` does it.")


def write_section(
    run: SavedRun, name: str, dataset: xr.Dataset | None, section: dict[str, Any], figures: Mapping[str, Figure]
) -> None:
    """Write ``<name>.nc``, if there is anything, the figures, the section of the summary, and the page.

    The section's old figures are removed.
    """
    if dataset is not None:
        dataset.attrs |= {"pair": run.settings.pair, "data": run.data.data.name, "seed": run.settings.seed}
        dataset.attrs |= {"unit": run.data.unit}
        run.directory.write_netcdf(name, dataset)
    for figure_name, figure in figures.items():
        run.directory.write_figure(figure_name, figure)
    run.directory.remove_figures(name, keep=figures)
    run.directory.write_summary(saved_summary(run.directory) | {name: section})
    write_report(run.directory)
