"""Progress of long work: a bar with speed and the time that remains, or plain lines where there is no terminal."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

# Without a terminal a line is written this often, in seconds.
LINE_EVERY = 15.0
# Characters of a bar, and of all beside title and text: bar, per cent, time that remains, and what separates them.
BAR, BESIDE = 12, 33


class Progress:
    """A context that shows the progress of some work.

    Args:
        title: of the work.
        total: how many units there are.
        unit: the name of a unit, for the speed (``"steps"``).
        enabled: False shows nothing.
        warning: what is said once, before the work; empty says nothing.
    """

    def __init__(self, title: str, total: int, unit: str, enabled: bool = True, warning: str = "") -> None:
        self._title, self._total, self._unit, self._enabled = title, total, unit, enabled
        self._warning = warning
        self._console = Console(stderr=True)
        self._done = self._start_done = 0
        self._bar: RichProgress | None = None

    def __enter__(self) -> Progress:
        self._start = self._last_line = time.monotonic()
        if self._enabled and self._warning:
            self._console.print(f"{self._title}: {self._warning}.", highlight=False, markup=False)
        if self._enabled and self._console.is_terminal:
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=BAR),
                TextColumn("{task.percentage:3.0f} %"),
                TextColumn("{task.fields[text]}", markup=False),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=self._total, text="")
        return self

    def begin_at(self, done: int) -> None:
        """Set how many units were done before this run; the speed does not count them."""
        self._done = self._start_done = done
        self.advance(0)

    def extend(self, units: int) -> None:
        """Add units that turned out to be needed to those that are to be done."""
        self._total += units
        if self._bar is not None:
            self._bar.update(self._task, total=self._total)

    def advance(self, units: int, note: str = "") -> None:
        """Add ``units`` that are done, with a short note."""
        self._done += units
        if not self._enabled:
            return
        now = time.monotonic()
        rate = (self._done - self._start_done) / max(now - self._start, 1e-9)
        speed = f"{rate:,.0f} {self._unit}/s" if rate >= 1 else f"{60 * rate:,.0f} {self._unit}/min"
        if self._bar is not None:
            text = self._fitting(f"{speed} · {note}" if note else speed)
            self._bar.update(self._task, completed=self._done, text=text)
        elif now - self._last_line > LINE_EVERY and rate > 0:
            self._last_line = now
            left = time.strftime("%H:%M:%S", time.gmtime((self._total - self._done) / rate))
            parts = [f"{self._done / self._total:.0%}", speed, *([note] if note else []), f"{left} left"]
            line = f"{self._title}: {' · '.join(parts)}"
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)  # a line of a log stays one

    def _fitting(self, text: str) -> str:
        """The text, cut where the line would be wider than the terminal."""
        room = max(self._console.width - len(self._title) - BESIDE, 1)
        return text if len(text) <= room else text[: room - 1] + "…"

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
