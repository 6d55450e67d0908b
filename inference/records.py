"""How results are printed: in a few lines, the numbers of their summary with errors, and remarks."""

from __future__ import annotations

from typing import Any, ClassVar

from ppvae.errors import OptionError
from ppvae.printed import Printed


class Summarised(Printed):
    """A result. Its printed form has a line for each number of ``printed``, and one for each remark; never a tensor.

    Attributes:
        printed: names of the numbers that are printed, if the summary has them, with spaces between them.
    """

    printed: ClassVar[str] = ""

    def summary(self) -> dict[str, Any]:
        """Its numbers by name; errors are ``*_monte_carlo_error`` or ``*_standard_error``."""
        return {}

    def remarks(self) -> list[str]:
        """Remarks on the numbers, a sentence each; empty when there are none."""
        return []

    def __repr__(self) -> str:
        found = self.summary()
        rows = [row(name, found[name], error_of(found, name)) for name in self.printed.split() if name in found]
        return "\n".join([f"{type(self).__name__} (densities in nats):", *rows, *(f"  {r}" for r in self.remarks())])


def error_of(found: dict[str, Any], name: str) -> float | None:
    """The error of a number of a summary, that of the draws alone where it is known."""
    return found.get(f"{name}_monte_carlo_error", found.get(f"{name}_standard_error"))


def row(name: str, value: Any, error: float | None = None) -> str:
    """A line of a printed result.

    Example:
        >>> row("elbo", -94.1868, 0.0041)
        '  elbo               -94.19 ± 0.0041'
    """
    shown = value if isinstance(value, str) else f"{value:.4g}"
    return f"  {name:18} {shown}" + ("" if error is None else f" ± {error:.2g}")


def of_data(count: int, total: int) -> str:
    """How many of the data something is true of; of a single unit, a datum or the data set, "all data".

    Example:
        >>> of_data(3, 10), of_data(1, 1)
        ('3 of 10 data', 'all data')
    """
    return f"{count} of {total} data" if total > 1 or count < total else "all data"


def demand_as_many(given: int, *wanted: int) -> None:
    """Raise OptionError unless an evidence is of as many units as the data."""
    if given not in wanted:
        raise OptionError(
            f"evidence is of {given} data and x holds {wanted[0]}: give the evidence of the same data, in the same "
            "order."
        )
