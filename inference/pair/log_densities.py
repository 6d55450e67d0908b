"""Log densities of a pair as functions of a unit's unconstrained latents, which may know their gradients themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor

from .density_code import Evaluated
from .evaluations import Names

if TYPE_CHECKING:
    from .pair import Pair  # which makes these


@runtime_checkable
class KnowsGradients(Protocol):
    """Functions of u that can give their gradients at once, without autograd's graph of operations."""

    def with_gradients(self, u: Tensor) -> Evaluated | None:
        """Values and gradients at u; None where only autograd finds them."""
        ...


@dataclass(frozen=True)
class LogDensities:
    """Some terms of a pair (:mod:`.log_terms`) as a function of u ``(num_chains, num_units, dim)``.

    Attributes:
        pair: the pair on data.
        names: of the terms.
    """

    pair: Pair
    names: Names

    def __call__(self, u: Tensor) -> Tensor | tuple[Tensor, ...]:
        """``(num_chains, num_units)`` each; of one term, ``(1, num_chains, num_units)``."""
        found = self.pair.evaluations.at(self.pair, self.names, u)
        return found if len(found) > 1 else found[0][None]

    def with_gradients(self, u: Tensor) -> Evaluated | None:
        """By compiled code; None where there is none."""
        return self.pair.evaluations.with_gradients(self.pair, self.names, u)
