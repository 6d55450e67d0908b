"""What is known of some data while their log p(x) is being settled, and what it has cost."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .evidence import Evidence
from .running import Running

IMPORTANCE, MIXTURE, ANNEALING, NOTHING = range(4)
# What every round of an estimator says anew.
READINGS = ("log_evidence", "standard_error", "batch_standard_error", "jackknife", "ess", "pareto_k")
# The next round is a little larger than the error of the last one asks for, since that error is itself an estimate.
SURPLUS = 1.25


class Goal(NamedTuple):
    """What is asked for; see :func:`ppvae.inference.adaptive.estimate_evidence`."""

    tolerance: float
    budget: int
    memory_mb: float


class Ledger:
    """What is known of some data, and what it has cost.

    Args:
        first: the record of their first draws from the guide.
        goal: what is asked for.
    """

    def __init__(self, first: Evidence, goal: Goal) -> None:
        n = len(first.log_evidence)
        self._goal = goal
        self._fields = {f.name: getattr(first, f.name) for f in fields(Evidence) if f.name != "details"}
        self._fields = {k: v.clone() if isinstance(v, Tensor) else v for k, v in self._fields.items()}
        kinds = {"cost": torch.long, "num_distributions": torch.long, "num_draws": torch.long, "spread": torch.float64}
        kinds |= dict.fromkeys(("annealable", "torn", "rounded"), torch.bool)
        self.details = {name: torch.zeros(n, dtype=kind) for name, kind in kinds.items()}
        self.settled_by = torch.full((n,), NOTHING)
        self.cost = self.details["cost"]

    def enter(self, index: Tensor, found: Evidence, which: Any = slice(None), num_distributions: int = 0) -> None:
        """Replace what is known of the data ``index`` by what was found for ``which`` of some."""
        for name in READINGS:
            self._fields[name][index] = getattr(found, name)[which]
        error, elbo_error = self._fields["standard_error"][index], self._fields["elbo_standard_error"][index]
        self._fields["gap_standard_error"][index] = (error.square() + elbo_error.square()).sqrt()
        self.details["num_distributions"][index] = num_distributions
        self.details["num_draws"][index] = found.num_draws[which].long()
        self.details["spread"][index] = found.spread[which]

    def left(self, index: Tensor) -> Tensor:
        """Evaluations that the data ``index`` may still cost."""
        return self._goal.budget - self.cost[index]

    def evidence(self) -> Evidence:
        """The record."""
        details = {"settled_by": self.settled_by, **self.details}
        return Evidence(**{**self._fields, "method": "adaptive"}, details=details)


def half_width(found: Evidence) -> Tensor:
    """The longer arm of the 95 % interval of every datum, in nats."""
    lower, upper = found.interval(0.95)
    return torch.maximum(found.log_evidence - lower, upper - found.log_evidence).nan_to_num(math.inf)


def wanted(found: Evidence, tolerance: float) -> Tensor:
    """How many draws, or chains, would bring the interval within the tolerance: a power of two times the present."""
    factor = SURPLUS * (half_width(found) / tolerance).square()
    return found.num_draws * 2 ** factor.log2().ceil().clamp(min=0)


def record(log_w: Tensor, method: str = "importance") -> Evidence:
    """What log weights ``(num_draws, num_data)`` say."""
    running = Running(*log_w.shape)
    running.add(log_w)
    return replace(running.evidence(), method=method)
