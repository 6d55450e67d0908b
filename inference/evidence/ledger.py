"""What is known of some data while their log p(x) is being settled, and what it has cost."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..sampling import HeavyDraws
from .estimates import NOTHING, AdaptiveEvidence, AnnealedEvidence
from .evidence import Evidence

# What every round of an estimator says anew.
READINGS = (
    "log_evidence",
    "standard_error",
    "batch_standard_error",
    "jackknife",
    "ess",
    "pareto_k",
    "num_draws",
    "spread",
)
CHAIN_READINGS = ("unreached", "diverged")
# A round of draws that takes the place of the last is a little larger than that one's error asks for, since that error
# is itself an estimate. Chains are added to those that there are.
SURPLUS = 1.25


class Goal(NamedTuple):
    """What is asked for; see :func:`ppvae.inference.evidence.adaptive.estimate_evidence`."""

    tolerance: float
    budget: int
    memory_mb: float


class Ledger:
    """What is known of some data, and what it has cost.

    Args:
        first: the record of their first draws from the guide.
        goal: what is asked for.

    Attributes:
        settled_by: as in :class:`~ppvae.inference.evidence.estimates.AdaptiveEvidence`, and so are the others.
        heaviest: of the draws of each datum's last round by the mixture; None without a mixture.
    """

    def __init__(self, first: Evidence, goal: Goal) -> None:
        n = len(first.log_evidence)
        self._goal = goal
        self.heaviest: HeavyDraws | None = None
        self._fields: dict[str, Any] = {f.name: getattr(first, f.name) for f in fields(Evidence)}
        self._fields = {k: v.clone() if isinstance(v, Tensor) else v for k, v in self._fields.items()}
        self._elbo_draws = torch.zeros(n, dtype=torch.long)
        self.settled_by = torch.full((n,), NOTHING)
        self.cost, self.num_distributions = (torch.zeros(n, dtype=torch.long) for _ in range(2))
        self.unreached, self.diverged = (torch.full((n,), math.nan, dtype=torch.float64) for _ in range(2))
        self.annealable, self.contradicted, self.confirmed = (torch.zeros(n, dtype=torch.bool) for _ in range(3))

    @property
    def log_evidence(self) -> Tensor:
        """The present estimate, ``(num_data,)``."""
        estimate: Tensor = self._fields["log_evidence"]
        return estimate

    def enter(self, index: Tensor, found: Evidence, which: Any = slice(None), num_distributions: int = 0) -> None:
        """Replace what is known of the data ``index`` by what was found for ``which`` of some."""
        for name in CHAIN_READINGS:
            moved = isinstance(found, AnnealedEvidence)  # of draws nothing is known
            getattr(self, name)[index] = getattr(found, name)[which] if moved else math.nan
        for name in READINGS:
            self._fields[name][index] = getattr(found, name)[which]
        error, elbo_error = self._fields["standard_error"][index], self._fields["elbo_standard_error"][index]
        self._fields["gap_standard_error"][index] = (error.square() + elbo_error.square()).sqrt()
        self.num_distributions[index] = num_distributions

    def add_to_elbo(self, index: Tensor, own: Evidence) -> None:
        """Pool the ELBO of the data ``index`` with that of further draws of the guide."""
        before, now = self._elbo_draws[index], own.num_draws
        share = before / (before + now)
        elbo = share * self._fields["elbo"][index] + (1 - share) * own.elbo
        # A draw outside the model's support makes the mean −inf, whatever its share.
        elbo = torch.where(before > 0, elbo, own.elbo)
        error = torch.where(before > 0, share * self._fields["elbo_standard_error"][index], 0.0)
        error = (error.square() + ((1 - share) * own.elbo_standard_error).square()).sqrt()
        self._elbo_draws[index] = before + now
        for name, value in (("elbo", elbo), ("elbo_standard_error", error)):
            self._fields[name][index] = value
            self._fields[name.replace("elbo", "bound")][0, index] = value

    def keep(self, index: Tensor, heaviest: HeavyDraws | None) -> None:
        """Keep the heaviest draws of the data ``index`` in the place of earlier ones."""
        if heaviest is not None:
            known = self.heaviest if self.heaviest is not None else HeavyDraws.none(len(self.cost), heaviest.u)
            self.heaviest = known.put(index, heaviest)

    def left(self, index: Tensor) -> Tensor:
        """Evaluations that the data ``index`` may still cost."""
        return self._goal.budget - self.cost[index]

    def evidence(self) -> AdaptiveEvidence:
        """The record."""
        names = ("settled_by", "cost", "num_distributions", "annealable", "contradicted", "confirmed")
        own: dict[str, Any] = {name: getattr(self, name).clone() for name in (*names, *CHAIN_READINGS)}
        return AdaptiveEvidence(**{**self._fields, **own}, too_coarse=torch.zeros_like(self.contradicted))


def half_width(found: Evidence) -> Tensor:
    """The longer arm of the 95 % interval of every datum, in nats."""
    lower, upper = found.interval(0.95)
    return torch.maximum(found.log_evidence - lower, upper - found.log_evidence).nan_to_num(math.inf)


def wanted(found: Evidence, tolerance: float) -> Tensor:
    """How many draws would bring the interval within the tolerance: a power of two times the present."""
    return found.num_draws * 2 ** (SURPLUS * excess(found, tolerance)).log2().ceil().clamp(min=0)


def excess(found: Evidence, tolerance: float) -> Tensor:
    """How many times as many draws, or chains, as there are would bring the interval within the tolerance."""
    return (half_width(found) / tolerance).square()
