"""Print the conformance table as markdown: ``python tests/conformance/table.py [FILE ...]``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conformance.measure import Row, examine, files, programs

LONG = 60  # a sentence that is longer is shown once in a row
COLUMNS = ("package", "program", "trained", "check", "unit", "log p(x) ± SE", "truth", "trusted", "ArviZ", "page")


def cells(row: Row) -> list[str]:
    """The row of the table; log p(x) is the mean over the units."""
    found = row.evidence
    if found is None:
        evidence, truth, trusted = row.failure, "–", "–"
    else:
        units = len(found.log_evidence)
        error = float(found.standard_error.square().sum().sqrt()) / units
        evidence = f"{float(found.log_evidence.mean()):.2f} ± {error:.2f}"
        truth = "–" if row.truth is None else f"{float(row.truth.mean()):.2f} ({row.error:.1f} SE at most)"
        trusted = f"{int(found.trusted.sum())} of {units}"
    checked = ", ".join(dict.fromkeys(row.codes)) or "keeps the contract"
    answers = (row.trained, checked, row.unit, evidence, truth, trusted, row.tree, row.page)
    shown: list[str] = []
    for answer in answers:
        again = any(len(other) > LONG and other in answer for other in shown)
        shown.append("the same" if again else answer)
    return [row.package, row.program, *shown]


def main() -> None:
    """Examine every program whose package is installed, or those of the files named."""
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for file, missing in files().items():
        if missing or (sys.argv[1:] and file not in sys.argv[1:]):
            continue
        for program in programs(file):
            row = examine(program, page=True)
            print(f"| {' | '.join(cell.replace('|', '/') for cell in cells(row))} |", flush=True)


if __name__ == "__main__":
    main()
