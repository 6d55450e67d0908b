"""The printed form of results: a few lines, in a terminal and in a notebook."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


class Printed:
    """A result that prints itself in a few lines; a notebook shows the same lines."""

    def _repr_html_(self) -> str:
        return f'<pre style="white-space: pre-wrap">{html.escape(str(self))}</pre>'


def table_in_lines(table: Table, sentences: Sequence[str] = (), width: int = 100) -> str:
    """A table of rich and sentences below it, as plain text."""
    from rich.console import Console

    text = io.StringIO()
    Console(file=text, width=width).print(table, highlight=False)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    return "\n".join([*lines, *sentences])
