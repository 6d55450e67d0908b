"""How far compiled numbers may be from those of the programs: by rounding, and no more."""

from __future__ import annotations

import torch
from torch import Tensor

from ppvae.errors import OptionError

from ..graphs import NoGraph

# Relative to the largest number of a trial.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
# Larger than rounding by so much, a difference is one of meaning.
WRONG = 100


def demand_same(what: str, by_code: Tensor, by_programs: Tensor, dtype: torch.dtype, *, late: bool) -> None:
    """Raise unless numbers by compiled code are those of the programs, up to rounding.

    Args:
        what: is compared.
        by_code: numbers by compiled code.
        by_programs: the same by the programs.
        dtype: in which they were computed.
        late: whether numbers may have been made of wrong ones before this trial.

    Raises:
        NoGraph: they differ.
        OptionError: they do so late, by more than rounding.
    """
    share = _apart(by_code, by_programs) / TOLERANCE.get(dtype, 1e-2)
    if late and share > WRONG:
        raise OptionError(
            f"the compiled {what} is not that of the programs any more: they read something that changes and cannot be "
            "seen. Call with compile=False."
        )
    if not share <= 1:
        raise NoGraph(f"compiled and eager numbers differ ({what})")


def _apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative to the largest number; infinite where one is finite and the other is not."""
    one, other = one.double(), other.double()
    finite = other.isfinite()
    if not torch.equal(finite, one.isfinite()):
        return torch.inf
    if not bool(finite.any()):
        return 0.0
    return float((one - other)[finite].abs().max() / (1 + other[finite].abs().max()))
