"""What the command line prints: tables and paths on stdout, remarks and errors on stderr."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console


def first_sentence(documented: Any) -> str:
    """The first line of a docstring, without its full stop."""
    return (documented.__doc__ or "").strip().partition("\n")[0].rstrip(".:")


def show(what: Any) -> None:
    """Print a rich table; on a narrow terminal it folds, in a file or a pipe it keeps its width."""
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(what, highlight=False)


def show_result(result: Any) -> int:
    """Print the table, the remarks and the run directory of what a command has found; the exit code 0."""
    show(result.table())
    for remark in result.summary["remarks"]:
        say(f"Note: {remark}")
    print(result.directory.path)
    return 0


def say(line: str) -> None:
    """Print a line that is not a result."""
    print(line, file=sys.stderr)


def fail(sentence: str, code: int) -> int:
    """Print an error in one sentence; the exit code."""
    say(f"ppvae: {sentence}")
    return code
