"""The peak of the memory that this process takes beyond what it had.

Linux keeps the peak of a process and forgets it when told to (``/proc/self/clear_refs``). Elsewhere the peak of
``getrusage`` is taken, which never falls: there a process can measure one piece of work, its largest.
"""

from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Peaks above the memory that the process has now, which should do nothing else meanwhile."""

    def __init__(self) -> None:
        self._linux = STATUS.is_file() and os.access(CLEAR, os.W_OK)
        self._before = _status("VmRSS") if self._linux else _rusage()

    def of(self, work: Callable[[], object]) -> float:
        """The peak in MiB while the work is done, above the memory when this object was made."""
        if self._linux:
            CLEAR.write_text("5")  # forget the peak so far
        work()
        return max(0.0, (_status("VmHWM") if self._linux else _rusage()) - self._before)


def _status(name: str) -> float:
    """A line of the process's status, in MiB."""
    found = re.search(rf"^{name}:\s+(\d+) kB", STATUS.read_text(), flags=re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def _rusage() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)
