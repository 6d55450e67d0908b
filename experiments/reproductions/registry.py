"""All rows of the ledger."""

from __future__ import annotations

from ppvae.errors import OptionError, suggestion

from . import (
    eight_schools_k_hat,
    exact_likelihoods,
    few_labels,
    gradient_quality,
    imputation,
    known_targets,
    mnist_likelihood,
    open_rows,
    suboptimality,
)
from .row import Row

FAMILIES = (
    exact_likelihoods,
    known_targets,
    gradient_quality,
    eight_schools_k_hat,
    imputation,
    mnist_likelihood,
    suboptimality,
    few_labels,
    open_rows,
)


def rows() -> dict[str, Row]:
    """The rows by name, in the order of the ledger."""
    return {row.name: row for family in FAMILIES for row in family.ROWS}


def find_row(name: str) -> Row:
    """The row of a name.

    Raises:
        OptionError: there is none.
    """
    known = rows()
    if name not in known:
        raise OptionError(f"there is no row {name!r}{suggestion(name, known)}: give one of {', '.join(known)}.")
    return known[name]
