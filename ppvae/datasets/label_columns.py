"""Columns of a table that are no measurements: text, class labels, numbers of the rows. None is trained on silently.

A column of numbers is asked about where its name says that it is a label or an identity, where it counts the rows, or
where it is the only column of few whole numbers beside real ones, or the first or last of a table of whole numbers with
values 0 … k−1 that are all frequent. A column that is written with a fraction (1.0) is a measurement.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np

from ppvae.errors import DataError

if TYPE_CHECKING:
    from pandas import DataFrame, Series

# What `label_column` is where no column is a label or an identity, and all that are numbers are data.
NO_LABEL = "none"
LABELS = {"label", "labels", "class", "classes", "target", "targets", "category", "species", "cluster", "diagnosis"}
IDENTITIES = {"id", "ids", "uid", "uuid", "guid", "key", "idx", "index", "row", "rowid", "rownames", "unnamed: 0"}
# So many different values at most are classes, each in this share of an equal part of the rows.
MOST_CLASSES, LEAST_SHARE = 20, 0.25
LEAST_ROWS = 10


def demand_measurements(frame: DataFrame, what: str, asked: bool, all_numbers: bool) -> None:
    """Refuse columns that hold no numbers, and ask about those that look like labels or identities.

    Args:
        frame: the columns that are to be data.
        what: it is called in a message.
        asked: whether a label column was named: then only identities are asked about.
        all_numbers: whether it was said that no column of numbers is a label or an identity.

    Raises:
        DataError: with the columns and the ways out.
    """
    texts = {name: _text(name, frame[name]) for name in frame.columns.tolist()}
    numbers = frame[[name for name, text in texts.items() if not text]]
    found = {name: text for name, text in texts.items() if text}
    suspects = {} if all_numbers or not numbers.shape[1] else _suspects(numbers, asked or bool(found))
    if found or suspects:
        raise DataError(_question(what, [*found.values(), *suspects.values()], is_label=bool(found)))


def _question(what: str, columns: list[str], is_label: bool) -> str:
    listed = "; ".join(columns)
    none = "" if is_label else ", or --label_column none if it is data like the others"
    return (
        f"{what} has a column that may be no measurement ({listed}): is it a label? Name it with --label_column NAME "
        "(it then colours pictures), give it to the programs with --context_columns NAME, leave it out with "
        f"--drop_columns NAME{none}. From Python these are arguments of load_dataset."
    )


def _text(name: Hashable, column: Series) -> str:
    """What is wrong with a column that is not numbers; empty where it is."""
    from pandas.api.types import is_complex_dtype, is_numeric_dtype

    if is_complex_dtype(column.dtype):
        return f"column {name!r} holds complex numbers"
    if is_numeric_dtype(column.dtype):
        return ""
    there = column.dropna()
    example = str(there.iloc[0])[:40] if len(there) else ""
    words = [value for value in there if isinstance(value, str) and not _is_number(value)]
    if len(words) < len(there) / 2 and words and all(isinstance(value, str) for value in there):
        place = next(i for i, value in enumerate(column) if value == words[0])
        cells = f"{len(words)} cell{'s' * (len(words) > 1)}"
        return (
            f"column {name!r} does not hold numbers in {cells}, the first {words[0]!r} in row {place}, counted from 0: "
            "write NA or nothing where a value is missing"
        )
    what = f"{column.dtype}, {there.nunique()} different values such as {example!r}"
    return f"column {name!r} does not hold numbers, but {what}"


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _suspects(frame: DataFrame, asked: bool) -> dict[Hashable, str]:
    """Columns that look like labels or identities, each with what it looks like."""
    found: dict[Hashable, str] = {}
    names = frame.columns.tolist()
    whole = [name for name in names if _is_whole(frame[name])]
    for name in names:
        word = re.sub(r"[\s-]", "_", str(name).strip().lower().replace("unnamed: 0", "rowid"))
        if word in IDENTITIES or word.endswith("_id"):
            found[name] = f"column {name!r} is named like an identity"
        elif name in whole and len(names) > 1 and _counts_rows(frame[name].to_numpy()):
            found[name] = f"column {name!r} counts the rows"
        elif not asked and word in LABELS:
            found[name] = f"column {name!r} is named like a label"
    if not asked and not found and frame.shape[1] > 1:
        found = _few_values(frame, whole)
    return found


def _few_values(frame: DataFrame, whole: list[Hashable]) -> dict[Hashable, str]:
    """The one column of whole numbers beside real ones, or the first or last among whole numbers, if it has classes."""
    names = frame.columns.tolist()
    ends = [names[0], names[-1]]
    if len(whole) == 1:
        candidates, least = whole, 2
    elif len(whole) == frame.shape[1] >= LEAST_ROWS:
        candidates, least = ends, 3
    else:
        return {}
    largest = frame.to_numpy().max()
    for name in candidates:
        values, counts = np.unique(frame[name].to_numpy(), return_counts=True)
        k = len(values)
        steady = (np.diff(values) == 1).all() and values[0] in (0, 1)
        frequent = counts.min() >= LEAST_SHARE * len(frame) / k
        beside = len(whole) == 1 or largest > 2 * k
        if least <= k <= MOST_CLASSES and len(frame) >= 3 * k and steady and frequent and beside:
            return {name: f"column {name!r} holds {k} different whole numbers"}
    return {}


def _is_whole(column: Series) -> bool:
    from pandas.api.types import is_bool_dtype, is_integer_dtype

    return bool(is_integer_dtype(column.dtype) and not is_bool_dtype(column.dtype) and not column.isna().any())


def _counts_rows(values: np.ndarray) -> bool:
    return len(values) >= LEAST_ROWS and values[0] in (0, 1) and bool((np.diff(values.astype(np.int64)) == 1).all())
