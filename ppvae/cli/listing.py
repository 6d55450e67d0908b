"""The command `ppvae list`."""

from __future__ import annotations

from rich.table import Table

from ppvae.storage import all_runs

from . import catalogue
from .console import show


def list_(out: str = "runs") -> int:
    """Show pairs, likelihoods, data sets, experiments and runs.

    Args:
        out: folder that holds the run directories.
    """
    lists = {
        "pairs": catalogue.pairs(),
        "likelihoods": catalogue.likelihoods(),
        "data sets": catalogue.data_sets(),
        "experiments": catalogue.experiments(),
    }
    for title, rows in lists.items():
        table = Table(title=title, title_justify="left", show_header=False, min_width=60)
        for name, what in rows.items():
            table.add_row(name, what)
        show(table)
    table = Table(title=f"runs in {out}", title_justify="left")
    for column in ("run", "pair", "data"):
        table.add_column(column, overflow="fold")  # a name that is too long goes on in the next line, uncut
    for column in ("log p(x)", "gap"):
        table.add_column(column, no_wrap=True)
    for directory in all_runs(out):
        table.add_row(directory.path.name, *catalogue.numbers_of(directory))
    show(table if table.row_count else f"no runs in {out}")
    return 0
