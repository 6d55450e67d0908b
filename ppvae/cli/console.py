"""The output of the command line: tables and paths on stdout, remarks and errors on stderr."""

from __future__ import annotations

import sys
from copy import copy
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

WIDTH = 80  # of tables where there is no terminal


def first_sentence(documented: Any) -> str:
    """The first line of a docstring, without its full stop."""
    return (documented.__doc__ or "").strip().partition("\n")[0].rstrip(".:")


def show(content: Any) -> None:
    """Print a rich table, as wide as the terminal; without one 80 columns, or as many as keep every word whole."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(WIDTH, _least_width(content)) if isinstance(content, Table) else WIDTH)
    console.print(content, highlight=False)


def _least_width(table: Table) -> int:
    """The width at which no word of a table is cut, but for those of columns that fold."""
    narrow = copy(table)
    narrow.columns = [replace(one, max_width=1) if one.overflow == "fold" else one for one in table.columns]
    wide = Console(width=10_000)
    return Measurement.get(wide, wide.options, narrow).minimum


def show_result(result: Any) -> int:
    """Print the table, the conclusion, the remarks and the run directory of a result; return the exit code 0."""
    show(result.table())
    if conclusion := result.summary.get("conclusion"):
        say(f"{conclusion}.")
    for remark in result.summary["remarks"]:
        say(f"Note: {remark}")
    print(result.directory.path)
    return 0


def say(line: str) -> None:
    """Print a line on stderr."""
    print(line, file=sys.stderr)


def fail(sentence: str, code: int) -> int:
    """Print an error in one sentence; return the exit code."""
    say(f"ppvae: {sentence}")
    return code
