"""How results are printed: in a few lines, the numbers of their summary with errors, and what a reader must be told."""

from __future__ import annotations

from typing import Any, ClassVar


class Summarised:
    """A result. Its printed form has a line for each number of ``printed``, and one for each remark; never a tensor.

    Attributes:
        printed: names of the numbers of the summary that are printed, with spaces between them.
    """

    printed: ClassVar[str] = ""

    def summary(self) -> dict[str, Any]:
        """Its numbers by name; errors are ``*_monte_carlo_error`` or ``*_standard_error``."""
        return {}

    def remarks(self) -> list[str]:
        """What a reader of the numbers must be told, a sentence each; empty when there is nothing."""
        return []

    def __repr__(self) -> str:
        found = self.summary()
        rows = [row(name, found[name], error_of(found, name)) for name in self.printed.split()]
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
