"""Columns of a large Parquet file: those that are data, and those beside them, which are read whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ppvae.errors import DataError

from .arrangement import Roles, demand_there
from .label_columns import NO_LABEL, demand_measurements
from .tables import codes_of, column_values

if TYPE_CHECKING:
    from .rows import Stored

# Rows that are looked at for columns that may be no measurements: the first ones, and as many evenly spaced.
LOOKED_AT = 10_000


def data_columns(schema: Any, roles: Roles, what: str) -> tuple[list[str], tuple[str, ...]]:
    """The columns that are data, and which of them hold whole numbers.

    Args:
        schema: of pyarrow.
        roles: what the other columns are for.
        what: the file is called in messages.

    Raises:
        OptionError: a column that was named is not there.
        DataError: none is left as data, or one holds no numbers.
    """
    from pyarrow import types

    demand_there(schema.names, what, roles)
    columns = [name for name in schema.names if name not in roles.asked]
    if not columns:
        raise DataError(f"every column of {what} is named as something else, and none is left as data: leave some.")
    for name in columns:
        kind = schema.field(name).type
        if not (types.is_floating(kind) or types.is_integer(kind) or types.is_boolean(kind)):
            raise DataError(
                f"column {name!r} of {what} holds {kind}: name it with --label_column {name}, give it to the programs "
                f"with --context_columns {name}, or leave the column out with --drop_columns {name}."
            )
    return columns, tuple(name for name in columns if types.is_integer(schema.field(name).type))


def columns_beside(file: Any, roles: Roles) -> dict[str, tuple[np.ndarray, tuple[str, ...]]]:
    """The columns that are label, context, split or classes: numbers, or codes of words in alphabetic order, and these.

    Args:
        file: a ``ParquetFile`` of pyarrow.
        roles: what the columns are for.
    """
    names = file.schema_arrow.names
    wanted = [name for name in roles.asked if name in names and name not in roles.drop]
    return {name: _values(file.read(columns=[name]), name) for name in wanted}


def _values(table: Any, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    from pyarrow import types

    column = table.column(0)
    if types.is_string(column.type) or types.is_large_string(column.type):  # few words, of many rows
        column = column.fill_null("").combine_chunks().dictionary_encode()
        words = column.dictionary.to_pandas().to_numpy().astype(str)
        order = words.argsort()
        codes = order.argsort()[column.indices.to_numpy()]
        return codes.astype(np.int64), tuple(words[order].tolist())
    values, names = codes_of(column_values(table.to_pandas(), name))
    return np.array(values), names  # a copy: what arrow holds cannot be written to


def demand_measured(stored: Stored, columns: tuple[str, ...], whole: tuple[str, ...], roles: Roles, what: str) -> None:
    """Ask about columns that look like labels or identities, as of a table that is read whole.

    Args:
        stored: the rows of the data.
        columns: their names.
        whole: those of them that hold whole numbers.
        roles: what the other columns are for.
        what: the file is called in messages.

    Raises:
        DataError: with the columns and the ways out.
    """
    import pandas as pd

    num = stored.shape[0]
    spaced = np.unique(np.linspace(0, num - 1, min(LOOKED_AT, num)).round().astype(np.int64))
    for rows in (slice(min(LOOKED_AT, num)), spaced):
        frame = pd.DataFrame(stored.read(rows), columns=list(columns))
        full = [name for name in whole if not frame[name].isna().any()]
        asked, none = roles.label is not None, roles.label == NO_LABEL
        demand_measurements(frame.astype(dict.fromkeys(full, np.int64)), what, asked, none)
