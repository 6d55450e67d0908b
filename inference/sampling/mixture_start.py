"""The start of annealed chains where the guide misses modes: a mixture of guide, or prior, and what a search found.

    π₀(u) = (1 − γ) q(u|x) + γ r(u),

with r fixed beforehand (:mod:`ppvae.inference.sampling.mode_search`). Of C chains, ⌊γC + U⌋ start from r, U ~
Uniform(0, 1), and the others from q; all are weighted with π₀, so that E[Σ_c w_c / C] = p(x). Chains that must be
independent of each other, each with E[w_c] = p(x), are drawn from π₀ one by one instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..option_records import Start
from ..pair import Pair, Terms
from .student import StudentMixture

# The share γ of the chains.
SHARE = 0.5


class AnnealingPath(Protocol):
    """What chains are annealed on: a start that can be drawn from, and the posterior.

    Attributes:
        dim: how many real numbers a datum's latents are.
        num_data: how many data there are.
    """

    @property
    def dim(self) -> int:
        """How many real numbers a datum's latents are."""
        ...

    @property
    def num_units(self) -> int:
        """How many data there are."""
        ...

    def portions(self, num_draws: int, memory_mb: float) -> Iterator[slice]:
        """Slices of the chains of all data that, with their gradients, fit the budget together."""
        ...

    def path(self, start: Start) -> Terms:
        """u ↦ log density of the start, and log p(x, u); ``(chains, data)`` each."""
        ...

    def draw(self, start: Start, num_chains: int) -> Tensor:
        """Independent draws of the start, ``(num_chains, num_data, dim)``."""
        ...


@dataclass(frozen=True)
class MixtureStart:
    """A pair whose chains start from a mixture.

    Attributes:
        pair: the pair on the data.
        proposal: r, with at least one component for each datum.
        independent: whether every chain starts from π₀ by itself, and not a fixed share of them from r.
    """

    pair: Pair
    proposal: StudentMixture
    independent: bool = False

    @property
    def dim(self) -> int:
        """How many real numbers a datum's latents are."""
        return self.pair.dim

    @property
    def num_units(self) -> int:
        """How many data there are."""
        return self.pair.num_units

    def portions(self, num_draws: int, memory_mb: float) -> Iterator[slice]:
        """See :meth:`ppvae.inference.pair.Pair.portions`."""
        return self.pair.portions(num_draws, memory_mb)

    def rows(self, index: Any) -> MixtureStart:
        """The same of some of the data."""
        return MixtureStart(self.pair.rows(index), self.proposal.rows(index), self.independent)

    def path(self, start: Start) -> Terms:
        """u ↦ log π₀(u), and log p(x, u); ``(num_chains, num_data)`` each."""
        given = self.pair.path(start)

        def terms(u: Tensor) -> tuple[Tensor, Tensor]:
            log_start, log_joint = given(u)
            others = self.proposal.log_prob(u) + math.log(SHARE)
            return torch.logaddexp(log_start + math.log(1 - SHARE), others), log_joint

        return terms

    def draw(self, start: Start, num_chains: int) -> Tensor:
        """Draws of the mixture, ``(num_chains, num_data, dim)``."""
        if self.independent:
            own, found = self.pair.draw(start, num_chains), self.proposal.draw(num_chains)
            return torch.where(torch.rand(own.shape[:2], device=own.device)[..., None] < SHARE, found, own)
        others = int(SHARE * num_chains + float(torch.rand(())))
        parts = [self.pair.draw(start, num_chains - others)] if others < num_chains else []
        return torch.cat([*parts, self.proposal.draw(others)] if others else parts)
