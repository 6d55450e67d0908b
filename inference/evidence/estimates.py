"""The records of the three estimators of log p(x): :class:`Evidence`, and what each of them adds."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor

from ..records import of_data
from .chain_reach import chain_reasons, chain_remarks, incomplete
from .evidence import PARETO_K_LIMIT, Evidence

Record = TypeVar("Record", bound=Evidence)

# Fewer chains than this do not show their spread; chains that accept less than this have not moved.
LEAST_CHAINS, LEAST_ACCEPTANCE = 8, 0.1
# Fewer particles than this do not show the tail of the weights.
LEAST_PARTICLES = 25
# Chains whose log weights spread farther than this, in nats, need more distributions rather than more chains.
WIDE = 0.8
# What is said of the chains beside their weights.
MOVES = ("acceptance", "path_length", "unreached", "diverged")
# What settled a datum; see AdaptiveEvidence.
IMPORTANCE, MIXTURE, ANNEALING, NOTHING = range(4)


@dataclass(frozen=True, repr=False)
class ImportanceEvidence(Evidence):
    """log p(x) from draws of the guide or, where it misses a part of the posterior, of a mixture that covers it."""

    method: ClassVar[str] = "importance"

    def _remarks_on_weights(self, doubtful: Tensor) -> list[str]:
        if self.num_particles < LEAST_PARTICLES:
            return [
                f"{self.num_particles} particles are too few to judge the weights (k-hat needs {LEAST_PARTICLES}): the "
                "errors are not to be trusted."
            ]
        if not doubtful.any():
            return []
        return [
            f"k-hat is not below {PARETO_K_LIMIT} for {of_data(int((~self.reliable).sum()), len(doubtful))}: there "
            "log p(x) and its error are not to be trusted, and the true value is probably higher; use a wider guide or "
            "more particles."
        ]


@dataclass(frozen=True, repr=False)
class AnnealedEvidence(Evidence):
    """log p(x) from annealed chains.

    ``num_particles`` counts chains, and ``ess``, ``pareto_k``, ``bound`` and ``spread`` speak of their weights; the
    ELBO comes from draws of the guide.

    Attributes:
        acceptance: of the transitions, ``(num_data,)``.
        path_length: the thermodynamic length from the start to the posterior, in nats.
        unreached: the share of p(x) that draws found far out where the chains did not come, ``(num_data,)``.
        diverged: the share of the chains' trajectories whose energy was not kept, ``(num_data,)``.
    """

    method: ClassVar[str] = "annealing"

    acceptance: Tensor
    path_length: Tensor
    unreached: Tensor
    diverged: Tensor

    @classmethod
    def of(cls, weights: Evidence, **moves: Tensor) -> Self:
        """The record, from the readings of the chains' weights and of how they moved; what is not given is unknown."""
        readings: dict[str, Any] = {f.name: getattr(weights, f.name) for f in fields(Evidence)}
        readings["standard_error"] = weights.standard_error / weights.tail_factor
        unknown = torch.full_like(weights.log_evidence, torch.nan)
        readings |= {name: moves.get(name, unknown) for name in MOVES}
        return cls(**readings)

    @property
    def by_chains(self) -> Tensor:
        """True for every datum: all weights are those of chains."""
        return torch.ones_like(self.confirmed)

    def _reasons(self) -> list[tuple[Tensor, str]]:
        stuck = (self.acceptance < LEAST_ACCEPTANCE, "the chains hardly moved")
        return [*super()._reasons(), stuck, *chain_reasons(self.unreached, self.diverged)]

    def _remarks_on_weights(self, doubtful: Tensor) -> list[str]:
        found, n = [], len(doubtful)
        if self.num_particles < LEAST_CHAINS:
            found.append(
                f"{self.num_particles} chains are too few to judge their weights: take {LEAST_CHAINS} or more."
            )
        else:
            found += spread_remark(doubtful, self.spread_limit)
        stuck = self.acceptance < LEAST_ACCEPTANCE
        if stuck.any():
            found.append(
                f"the annealed chains hardly moved for {of_data(int(stuck.sum()), n)} (acceptance below "
                f"{LEAST_ACCEPTANCE}): the error is not to be trusted; anneal from the guide, or see whether the "
                "posterior is smooth."
            )
        return found + chain_remarks(self.unreached, self.diverged)


@dataclass(frozen=True, repr=False)
class AdaptiveEvidence(Evidence):
    """log p(x) from draws or from chains, whichever settled the datum.

    ``num_particles``, the ELBO and ``bound`` are those of the first draws of the guide.

    Attributes:
        settled_by: 0 importance sampling, 1 defensive mixture, 2 annealing, 3 nothing: the budget is spent, or see
            ``remarks()``.
        cost: in evaluations of the pair; a gradient counts as two.
        num_distributions: of the annealing; 0 where ``log_evidence`` comes from draws.
        annealable: whether chains could have been used.
        contradicted: whether draws found a part of the posterior that the annealed chains missed.
        too_coarse: whether the pair's floating-point type rounds by more than the tolerance.
        unreached: the share of p(x) that draws found far out where the chains did not come; NaN where there are none.
        diverged: the share of the chains' trajectories whose energy was not kept; NaN where there are none.
    """

    method: ClassVar[str] = "adaptive"
    # Chains that spread farther are given more distributions: where they do, the budget is spent.
    spread_limit: ClassVar[float] = WIDE

    settled_by: Tensor
    cost: Tensor
    num_distributions: Tensor
    annealable: Tensor
    contradicted: Tensor
    too_coarse: Tensor
    unreached: Tensor
    diverged: Tensor

    @property
    def by_chains(self) -> Tensor:
        """Whether the weights are those of annealed chains, ``(num_data,)`` bool."""
        return self.num_distributions > 0

    @property
    def settled(self) -> Tensor:
        """Whether log p(x) is known to within the tolerance, ``(num_data,)`` bool."""
        return self.settled_by != NOTHING

    def summary(self) -> dict[str, float]:
        """As :meth:`Evidence.summary`, and ``settled_share``."""
        return super().summary() | {"settled_share": float(self.settled.double().mean())}

    def _reasons(self) -> list[tuple[Tensor, str]]:
        contradicted = (self.contradicted, "draws find a part of the posterior that the annealed chains miss")
        return [*super()._reasons(), contradicted, *chain_reasons(self.unreached, self.diverged)]

    def _remarks_on_weights(self, doubtful: Tensor) -> list[str]:
        found, n = spread_remark(doubtful & self.by_chains, self.spread_limit), len(doubtful)
        found += chain_remarks(self.unreached, self.diverged)
        still_open = ~self.settled & self.log_evidence.isfinite()
        coarse = still_open & self.too_coarse
        contradicted = still_open & self.contradicted
        rest = still_open & ~coarse & ~contradicted & ~incomplete(self.unreached, self.diverged)
        if coarse.any():
            found.append(
                f"log p(x) of {of_data(int(coarse.sum()), n)} is so far from zero that single precision rounds it by "
                "more than the tolerance: run the pair in double precision."
            )
        if contradicted.any():
            found.append(
                f"draws of the prior find a part of the posterior that the guide and the annealed chains miss for "
                f"{of_data(int(contradicted.sum()), n)}: the estimate is that of the draws; give a guide that covers "
                "it."
            )
        if rest.any():
            found.append(
                f"log p(x) of {of_data(int(rest.sum()), n)} is not known to within the tolerance: the budget is spent; "
                "their intervals are wider."
            )
        if not self.annealable.all():
            found.append(
                "chains cannot be annealed from the prior of this pair (annealed_evidence says why, asked with "
                "Annealing(start='prior')): log p(x) comes from draws of the guide alone."
            )
        return found


def with_elbo(evidence: Record, draws: Evidence) -> Record:
    """The record with the ELBO of other, independent draws of the guide."""
    return replace(
        evidence,
        elbo=draws.elbo,
        elbo_standard_error=draws.elbo_standard_error,
        gap_standard_error=(evidence.standard_error.square() + draws.elbo_standard_error.square()).sqrt(),
    )


def shifted(evidence: Record, by: Tensor) -> Record:
    """The record of a density that is another by a known factor for each datum, such as a Jacobian.

    Args:
        evidence: of the one density.
        by: the log of the factor, ``(num_data,)``, in nats.
    """
    moved = {
        name: getattr(evidence, name) + by.to(evidence.elbo) for name in ("log_evidence", "jackknife", "elbo", "bound")
    }
    return replace(evidence, **moved)


def spread_remark(doubtful: Tensor, limit: float) -> list[str]:
    """The remark on chains whose weights differ too much, ``(num_data,)`` bool."""
    if not doubtful.any():
        return []
    return [
        f"the log weights of the annealed chains spread over {limit} nats or more for "
        f"{of_data(int(doubtful.sum()), len(doubtful))}: there log p(x) is probably higher; use more distributions "
        "(a larger budget)."
    ]
