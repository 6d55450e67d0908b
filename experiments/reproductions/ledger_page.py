"""The page of the ledger, made from the results that are kept beside this file.

``python -m ppvae.experiments.reproductions.ledger_page`` writes ``docs/ledger.md`` of a checkout anew.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ppvae.storage import write_text

from .registry import rows
from .result_files import figures_of, read_records
from .row import Figure, Published, Row, verdict

DECIDED = frozenset({"reproduced", "better", "not reproduced"})
PAGE = Path(__file__).parents[2] / "docs" / "ledger.md"

HEAD = """# Published figures, and ours

Figures that others have published, computed again with the pairs, objectives and estimators of this package.
`ppvae experiment reproduce NAME` runs a row, and writes its figures, with the configuration, the seed, the time, the
machine and the versions, to a small file; this page is made from the files in `experiments/reproductions/results/`.

| verdict | means |
|---|---|
| reproduced | ours is within two standard errors, or within what the paper says it varies by, or has the same digits |
| better | ours is beyond that, on the good side |
| not decided | the run itself says why it cannot tell, a training cut short most often, and ours is on no good side |
| not reproduced | ours is on the bad side or is another, and nothing about the run excuses it |
| open | there is no figure of ours; the reason is said |

The standard error is that of the *difference* to the published figure. Where both are means over the same test images
these images are no part of it, and only what differs is: the draws of zeros and ones from grey pixels, and Monte Carlo.
How much a figure varies from one training to another is in it only where several trainings were made, as the row says.
"""


def page(known: Mapping[str, Row], records: Mapping[str, Mapping[str, Any]]) -> str:
    """The page as Markdown.

    Args:
        known: the rows by name, in their order.
        records: their results by name, as :func:`read_records` reads them.
    """
    lines, details, verdicts, whole = [], [], Counter[str](), 0
    for row in known.values():
        figures = figures_of(row, records)
        found = [verdict(each, ours) for each, ours in zip(row.published, figures, strict=True)]
        verdicts.update(found)
        whole += DECIDED.issuperset(found)
        for each, ours, said in zip(row.published, figures, found, strict=True):
            cells = (f"[`{row.name}`](#{anchor(row.name)})", each.what, published_words(each), ours_words(each, ours))
            lines.append(f"| {' | '.join(cells)} | {said} |")
        details += _details(row, zip(figures, found, strict=True), records.get(row.name))
    decided = sum(verdicts[name] for name in DECIDED)
    counts = ", ".join(f"{verdicts[name]} {name}" for name in verdicts)
    total = (
        f"{len(known)} rows, {whole} of them decided in every figure; {verdicts.total()} figures, {decided} of them "
        f"decided: {counts}."
    )
    table = ["| row | figure | published | ours | verdict |", "|---|---|---|---|---|", *lines]
    return "\n".join([HEAD, total, "", *table, "", *details]).rstrip() + "\n"


def anchor(name: str) -> str:
    """The anchor of a row's section, whose title is its name."""
    return name.replace("_", "-")


def published_words(published: Published) -> str:
    """A published figure with the digits that were printed."""
    words = f"{published.value:.{_decimals(2 * published.half_digit)}f}" if published.value else "0"
    return f"{words} ± {published.spread:.2g}" if published.spread else words


def ours_words(published: Published, figure: Figure | None) -> str:
    """Our figure with two digits of its standard error; where it has none, with a digit more than was published."""
    if figure is None:
        return "–"
    if figure.standard_error > 0:
        digits = _decimals(figure.standard_error) + 1
        return f"{figure.value:.{digits}f} ± {figure.standard_error:.{digits}f}"
    small = 0 < abs(figure.value) < published.half_digit
    return f"{figure.value:.1e}" if small else f"{figure.value:.{_decimals(2 * published.half_digit) + 1}f}"


def _decimals(size: float) -> int:
    """How many decimals show the first digit of a number of this size."""
    return max(0, -math.floor(math.log10(size) + 1e-9))


def _details(row: Row, figures: Iterable[tuple[Figure | None, str]], record: Mapping[str, Any] | None) -> list[str]:
    lines = [f"## {anchor(row.name)}", "", f"{row.title}.", "", f"- *Source*: {row.source}."]
    lines += [f"- *Protocol*: {row.protocol}."] if row.protocol else []
    lines += [f"- *Differs*: {row.differences}."] if row.differences else []
    if record is None:
        why = row.open or f"not run to its end yet; `ppvae experiment reproduce {row.name}` does"
        lines.append(f"- *Open*: {why}.")
    said: dict[str, None] = {}  # in order, and each once
    for published, (figure, name) in zip(row.published, figures, strict=True):
        if name == "not decided" and figure is not None:
            said[f"- *Not decided*: {figure.undecided}."] = None
        if name == "not reproduced":
            said[f"- *Not reproduced*: {published.why or 'no reason was found'}."] = None
    lines += said
    if record is not None:
        where = f"{_duration(record['seconds'])} on {record['machine']['device']}, {record['date'][:10]}"
        what = f"torch {record['versions'].get('torch', '?')}, sources {record['commit'] or 'of no repository'}"
        lines.append(f"- *Run*: seed {record['seed']}, {where}, {what}.")
    return [*lines, ""]


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


if __name__ == "__main__":
    write_text(PAGE, page(rows(), read_records()))
