"""Published figures, and ours by the same protocol: the rows of the ledger, one family of them a file."""

from .record import RESULTS, read_records, reproduce
from .registry import find_row, rows
from .row import Effort, Figure, Outcome, Published, Row, verdict

__all__ = [
    "RESULTS",
    "Effort",
    "Figure",
    "Outcome",
    "Published",
    "Row",
    "find_row",
    "read_records",
    "reproduce",
    "rows",
    "verdict",
]
