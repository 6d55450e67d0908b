"""The output of the command line: tables and paths on stdout, remarks and errors on stderr."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console


def first_sentence(documented: Any) -> str:
    """The first line of a docstring, without its full stop."""
    return (documented.__doc__ or "").strip().partition("\n")[0].rstrip(".:")


def show(content: Any) -> None:
    """Print a rich table; on a narrow terminal it folds, in a file or a pipe it keeps its width."""
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(content, highlight=False)


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
