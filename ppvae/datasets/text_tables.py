"""Text tables (``.csv``, ``.tsv``): separator, decimal comma, header and index column are read off the file itself.

- The separator is a tab, ``;``, ``,``, ``|`` or blanks: the first of these by which all lines have equally many cells,
  more than one, of which most are numbers.
- Numbers have a decimal comma where the separator is no comma and some number has one.
- The first line is a header unless it could stand further down: where a column holds numbers, so does its first cell.
- A first column whose name is empty, or that has no name where all others have one, is the index that pandas and R add.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ppvae.errors import DataError, DatasetError

if TYPE_CHECKING:
    from pandas import DataFrame

# Words for a missing value in a table, of those that pandas reads as one; an empty cell is one too.
MISSING = ("NA", "N/A", "n/a", "<NA>", "#N/A", "NULL", "null", "None", "NaN", "nan")
SEPARATORS = ("\t", ";", ",", "|", " ")
# The first of years that name columns.
YEARS = (1800, 2100)
# So many lines show how a file is written.
NUM_SHOWN = 200
_WITH_COMMA = re.compile(r"[-+]?\d*,\d+([eE][-+]?\d+)?")


@dataclass(frozen=True)
class Dialect:
    """How a text table is written.

    Attributes:
        separator: between cells.
        decimal: the sign before the fraction of a number.
        skipped: lines before the header, or before the first row.
        header: the names of the columns; None where the file has none.
        index: whether the first column holds names or numbers of the rows.
    """

    separator: str
    decimal: str
    skipped: int
    header: tuple[str, ...] | None
    index: bool


def read_text_table(path: Path) -> DataFrame:
    """The table that a file holds, without its index column.

    Raises:
        DataError: the file is empty, or has no row beneath its header.
        DatasetError: it is not UTF-8, or its rows have different lengths.
    """
    import pandas as pd

    dialect = dialect_of(path)
    rows = _demand_whole_rows(path, dialect)
    if not rows:
        return pd.DataFrame(columns=list(dialect.header or ()))
    separator = {"sep": r"\s+"} if dialect.separator == " " else {"sep": dialect.separator, "skipinitialspace": True}
    frame = pd.read_csv(
        path,
        **separator,
        header=None,
        skiprows=dialect.skipped + (dialect.header is not None),
        decimal=dialect.decimal,
        encoding="utf-8-sig",
        index_col=False,
    )
    if dialect.header is not None:
        frame.columns = pd.Index(dialect.header)
    return frame.iloc[:, 1:] if dialect.index else frame


def dialect_of(path: Path) -> Dialect:
    """How the file is written, from its first lines.

    Raises:
        DataError: it is empty.
        DatasetError: it is not UTF-8, two of its columns have one name, or its numbers have both points and commas.
    """
    with _opened(path) as file:
        try:
            lines = [line.rstrip("\r\n") for line, _ in zip(file, range(NUM_SHOWN), strict=False)]
        except UnicodeDecodeError as error:
            raise DatasetError(f"{path} cannot be read as UTF-8 ({error.reason}): save it as UTF-8.") from error
    skipped = next((i for i, line in enumerate(lines) if line.strip() and line.lstrip()[0] != "#"), len(lines))
    comment, lines = [one for one in lines[:skipped] if one.strip()], [one for one in lines[skipped:] if one.strip()]
    if not lines:
        raise DataError(f"{path} is empty: give at least 3 rows.")
    separator = _separator(lines)
    rows = list(_cells(lines, separator))
    decimal = _decimal(path, rows, separator)
    first, others = rows[0], rows[1:]
    named = _is_header(first, others, decimal)
    header = tuple(first) if named else None
    if comment and not named:  # numpy's savetxt puts the names into a comment
        words = next(_cells([comment[-1].lstrip("# ")], separator), [])
        if len(words) == len(first) > 1 and not any(_is_number(word, decimal) for word in words):
            header, skipped = tuple(words), skipped - 1
    index = header is not None and len(first) > 1 and header[0] == "" and "" not in header[1:]
    if (
        named
        and others
        and len(first) > 1
        and all(len(row) == len(first) + 1 for row in others)
        and _names_rows(others)
    ):
        header, index = ("", *first), True
    if header is not None and len(header) > 1 and "" in (header[1:] if index else header):
        raise DataError(f"a name in the first line of {path} is empty: give each column a name, or none of them.")
    if header is not None and len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise DatasetError(f"{path} has two columns called {twice!r}: give each a name of its own.")
    return Dialect(separator, decimal, skipped, header, index)


def _names_rows(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first cells are names of the rows, or count them, as R writes them."""
    names = [row[0] for row in rows]
    return not any(_is_number(name, ".") for name in names) or names == [str(i + 1) for i in range(len(names))]


def _opened(path: Path) -> TextIO:
    return path.open(newline="", encoding="utf-8-sig")


def _cells(lines: Sequence[str], separator: str) -> Iterator[list[str]]:
    if separator == " ":
        return (line.split() for line in lines)
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    return ([cell.strip() for cell in row] for row in reader)


def _separator(lines: Sequence[str]) -> str:
    """The separator by which all lines, or else most, have equally many cells; a comma where there is none."""
    found = []
    for separator in SEPARATORS:
        try:
            rows = list(_cells(lines, separator))
        except csv.Error:
            continue
        sizes = [len(row) for row in rows]
        usual = max(set(sizes), key=sizes.count)
        body = [cell for row in rows[1:] or rows for cell in row]
        numbers = sum(_is_number(cell, "." if separator == "," else ",") or cell in MISSING for cell in body)
        if usual > 1 and sizes.count(usual) > len(sizes) / 2:
            found.append((sizes.count(usual) == len(sizes), round(numbers / len(body), 1), separator))
    return max(found, key=lambda one: one[:2])[2] if found else ","  # the first of equals


def _decimal(path: Path, rows: Sequence[Sequence[str]], separator: str) -> str:
    if separator == ",":
        return "."
    cells = [cell for row in rows for cell in row]
    commas = [cell for cell in cells if _WITH_COMMA.fullmatch(cell)]
    points = [cell for cell in cells if "." in cell and _is_number(cell, ".")]
    if commas and points:
        raise DatasetError(
            f"{path} has numbers with a decimal comma, such as {commas[0]!r}, and with a point, such as {points[0]!r}: "
            "write all of one kind."
        )
    return "," if commas else "."


def _is_header(first: Sequence[str], others: Sequence[Sequence[str]], decimal: str) -> bool:
    """Whether the first line names the columns."""
    is_text = [bool(cell) and not _is_number(cell, decimal) and cell not in MISSING for cell in first]
    if not any(is_text) and first[0] and all(cell in MISSING for cell in first):
        return True
    if not any(is_text):
        return _counts_up(first, 0, 0) or (_counts_up(first, *YEARS) and not (others and _counts_up(others[0], *YEARS)))
    if all(text or not cell for text, cell in zip(is_text, first, strict=True)):
        return True
    below = [row for row in others if len(row) == len(first)]
    over_numbers = [
        (text and any(_is_number(row[j], decimal) for row in below)) or not below for j, text in enumerate(is_text)
    ]
    return any(over_numbers)


def _counts_up(line: Sequence[str], least: int, most: int) -> bool:
    """Whether the cells are consecutive whole numbers whose first is such: the names of pandas begin with 0."""
    if len(line) < 3 or not all(cell.isdigit() for cell in line) or not least <= int(line[0]) <= most:
        return False
    return [int(cell) - int(line[0]) for cell in line] == list(range(len(line)))


def _is_number(cell: str, decimal: str) -> bool:
    try:
        float(cell.replace(",", ".") if decimal == "," and cell.count(",") < 2 else cell)
    except ValueError:
        return False
    return cell.lower() not in ("nan", "-nan", "+nan")


def _demand_whole_rows(path: Path, dialect: Dialect) -> int:
    """How many rows there are, all of one length: pandas would fill one that is too short with missing values.

    Raises:
        DatasetError: one has another length, or the file is not UTF-8.
    """
    expected, count = None if dialect.header is None else len(dialect.header), 0
    try:
        for number, row in _rows_of(path, dialect):
            expected = len(row) if expected is None else expected
            count += 1
            if len(row) != expected:
                raise DatasetError(
                    f"{path} cannot be read: it has rows of different lengths (row {number} has {len(row)} cells, the "
                    f"first has {expected}): give each the same, with NA or nothing in a cell for a missing value."
                )
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} cannot be read as UTF-8 ({error.reason}): save it as UTF-8.") from error
    return count


def _rows_of(path: Path, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """The rows beneath the header, each with the number of its line."""
    start = dialect.skipped + (dialect.header is not None)
    with _opened(path) as file:
        for _ in range(start):
            next(file)
        if dialect.separator == " ":
            yield from ((start + i, line.split()) for i, line in enumerate(file, start=1) if line.strip())
            return
        reader = csv.reader(file, delimiter=dialect.separator, skipinitialspace=True)
        for row in reader:
            if len(row) > 1 or any(row):
                yield start + reader.line_num, row
