"""Published figures, and ours by the same protocol: the rows of the ledger, one family of them a file."""

from .registry import find_row, rows
from .result_files import RESULTS, read_records, reproduce
from .row import Figure, Published, Row, RowEffort, RowOutcome, verdict

__all__ = [
    "RESULTS",
    "Figure",
    "Published",
    "Row",
    "RowEffort",
    "RowOutcome",
    "find_row",
    "read_records",
    "reproduce",
    "rows",
    "verdict",
]
