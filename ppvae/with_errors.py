"""Numbers with their standard errors as text: the same decimals on the terminal and on the page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def decimals(error: float | None) -> int:
    """How many decimals show two digits of a standard error: two, or three.

    Example:
        >>> decimals(0.17), decimals(0.026), decimals(0.0002), decimals(None)
        (2, 3, 3, 2)
    """
    known = error is not None and 0 < error < math.inf
    return min(max(1 - math.floor(math.log10(error)), 2), 3) if known else 2  # type: ignore[arg-type]


def with_error(numbers: Mapping[str, Any], name: str, sign: str = "") -> str:
    """A number and its standard error as plain text, with the decimals that the page shows.

    Args:
        numbers: a section of a summary.
        name: of the number; its error is ``<name>_standard_error``.
        sign: ``"+"`` shows the sign of a positive number too.

    Example:
        >>> with_error({"gap": 5.265, "gap_standard_error": 0.026}, "gap"), with_error({}, "gap")
        ('5.265 ± 0.026', 'not known')
        >>> with_error({"gap": -1e-9, "gap_standard_error": 0.01}, "gap")
        '0.000 ± 0.010'
    """
    value, error = numbers.get(name), numbers.get(f"{name}_standard_error")
    if value is None or not math.isfinite(value):
        return "not known"
    digits = decimals(error)
    value = round(value, digits) + 0.0  # not -0.00
    return f"{value:{sign}.{digits}f} ± " + ("not known" if error is None else f"{error:.{digits}f}")
