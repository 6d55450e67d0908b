"""The tables of a run of the bench: medians with quartiles, ratios, and shares of the machine's rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from rich.table import Table

from .bench_record import Tasks, base
from .side_by_side import Spread, Timed

COLUMNS = ("task", "by", "ms, median", "quartiles", "ratio", "of the rate")


@dataclass(frozen=True)
class TaskRow:
    """A contender's row.

    Attributes:
        task: what is done.
        by: who does it.
        spread: of its seconds.
        ratio: of its median to plain torch's, or else to Pyro's own SVI; None where neither does the task.
        share: of the rate of float32 products that the task's matrix products come to; None where they are not counted.
    """

    task: str
    by: str
    spread: Spread
    ratio: float | None
    share: float | None

    @property
    def cells(self) -> tuple[str, ...]:
        """The row in words, in the order of :data:`COLUMNS`."""
        quartiles = f"{milliseconds(self.spread.lower)} – {milliseconds(self.spread.upper)}"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        share = "" if self.share is None else f"{self.share:.0%}"
        return (self.task, self.by, milliseconds(self.spread.median), quartiles, ratio, share)


def task_rows(tasks: Tasks) -> Iterator[TaskRow]:
    """A row for each contender of each task."""
    rate = matrix_rate(tasks)
    for name, task in tasks.items():
        known = base(task)
        for by, spread in task.seconds.items():
            ratio = None if known is None else spread.median / known
            share = task.flops / spread.median / rate if task.flops and rate else None
            yield TaskRow(name, by, spread, ratio, share)


def matrix_rate(tasks: Tasks) -> float | None:
    """Operations a second of the product of large float32 matrices; None where it was not measured."""
    products = [task for name, task in tasks.items() if name.startswith("float32 product")]
    return _rate(products[0]) if products else None


def _rate(task: Timed) -> float:
    return task.flops / min(spread.median for spread in task.seconds.values())


def task_tables(tasks: Tasks, threads: int) -> Iterator[Table]:
    """A table for each task, for the terminal."""
    for name, rows in groupby(task_rows(tasks), key=lambda row: row.task):
        out = Table(title=f"{name}, threads: {threads}")
        for column in COLUMNS[1:]:
            out.add_column(column, justify="left" if column == "by" else "right")
        for row in rows:
            out.add_row(*row.cells[1:])
        yield out


def milliseconds(seconds: float) -> str:
    """With three digits."""
    value = 1000 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
