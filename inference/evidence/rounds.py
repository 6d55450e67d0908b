"""Rounds of draws that settle log p(x) of each datum, or say that draws will not do.

The first round only says which estimator the next is for, and how many draws that needs, n·(half width/tolerance)²; a
later round reports, with that estimator and fresh draws. Weights with a heavy tail look good in just those samples that
miss the tail, so that an estimate that is kept when its own error looks small lies too low. A round that is not good
enough says what the next needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..sampling import ENOUGH, LARGE_PRIOR_SHARE, PRIOR_SHARE, HeavyDraws, Search
from .estimates import IMPORTANCE, MIXTURE
from .evidence import MISSED_LIMIT, Evidence
from .ledger import Goal, Ledger, half_width, wanted

# Draws of the first round, which reports nothing; the fewest of one that does; and the most that a round may have where
# chains can take over.
FIRST_DRAWS, LEAST_DRAWS, MOST_DRAWS = 200, 450, 16_000
# From so many effective draws in the search on, draws of the prior are worth while where modes were found.
CAPABLE = 4.0
# Below this k-hat the weights have a variance, and draws of the guide alone may report.
FINITE_VARIANCE = 0.5
# The guide's draws alone report unless they need so many times as many draws as the mixture.
MUCH_DEARER = 1.5
# Standard errors in half of a 95 % interval.
NORMAL_95 = 1.96
# Effective draws below which their standard error means nothing.
FEW = 10


class Sample(NamedTuple):
    """Estimates of some data by draws of the guide and of the mixture, and whether draws of the prior confirm them.

    Beside them the mixture's heaviest draws, if there is a mixture.
    """

    own: Evidence
    mixed: Evidence
    confirmed: Tensor
    heaviest: HeavyDraws | None


# Data, number of draws, share of the prior ↦ what the draws say.
Sampler = Callable[[Tensor, int, float], Sample]


def draw_rounds(
    sample: Sampler, num_data: int, goal: Goal, most: int, found: Search | None = None, *, chains: bool = False
) -> tuple[Ledger, Evidence]:
    """Take rounds of draws; return the estimates, and those of each datum's last round by the mixture.

    Args:
        sample: data, number of draws, share of the prior ↦ what the draws say.
        num_data: how many data there are.
        goal: what is asked for.
        most: draws that a round may have.
        found: what a search found.
        chains: whether chains take over where draws will not do.
    """
    search_cost = 0 if found is None else found.cost
    index, count = torch.arange(num_data), min(FIRST_DRAWS, goal.budget - search_cost)
    first = _grouped(sample, index, count, PRIOR_SHARE, found)
    own, mixed = (_gathered([(i, getattr(s, name)) for i, s in first]) for name in ("own", "mixed"))
    ledger, last = Ledger(own, goal), Ledger(mixed, goal)
    ledger.cost[:] = search_cost
    # Of the next round of each datum: draws, the prior's share of them, and whether the guide's alone report.
    plan = torch.zeros(num_data, 3, dtype=torch.float64)
    parts = [(index, count, False, False, drawn) for index, drawn in first]
    while parts:
        plan[:] = 0
        for index, count, by_own, reports, drawn in parts:
            chosen, which = drawn.own if by_own else drawn.mixed, by_own
            ledger.cost[index] += count
            ledger.add_to_elbo(index, drawn.own)
            ledger.enter(index, chosen)
            ledger.confirmed[index] = drawn.confirmed
            last.enter(index, drawn.mixed)
            ledger.keep(index, drawn.heaviest)
            missed = _misses(drawn, goal.tolerance)
            good = (half_width(chosen) <= goal.tolerance) & reports
            good &= ~(missed | ~(chosen.pareto_k < FINITE_VARIANCE)) if which else torch.ones_like(good)
            ledger.settled_by[index[good]] = IMPORTANCE if by_own else MIXTURE
            few = torch.zeros_like(good) if found is None else found.found[index] & (found.prior_ess[index] < CAPABLE)
            following = _next_round(drawn, goal.tolerance, count, reports, few)
            if chains and not reports:
                following[:, 0] = following[:, 0].where(~_hopeless(drawn, goal.tolerance, most), math.inf)
            following[:, 0] = torch.maximum(following[:, 0], _to_confirm(found, index, following[:, 1]))
            needed = following[:, 0]
            more = ~good & (needed <= most) & (needed <= ledger.left(index)) & drawn.mixed.log_evidence.isfinite()
            plan[index] = torch.where(more[:, None], following, 0.0)
        parts = []
        for count, share, by_own in plan[plan[:, 0] > 0].unique(dim=0).tolist():
            index = (plan == torch.tensor([count, share, by_own], dtype=plan.dtype)).all(1).nonzero()[:, 0]
            drawn_parts = _grouped(sample, index, int(count), share, found)
            parts += [(i, int(count), bool(by_own), True, drawn) for i, drawn in drawn_parts]
    return ledger, last.evidence()


def _grouped(
    sample: Sampler, index: Tensor, count: int, share: float, found: Search | None
) -> list[tuple[Tensor, Sample]]:
    """Draws for some data: by themselves for those of which the search found modes, since they are drawn from too."""
    flags = torch.zeros(len(index), dtype=torch.bool) if found is None else found.found[index]
    groups = [index[flags == flag] for flag in (False, True)]
    return [(group, sample(group, count, share)) for group in groups if len(group)]


def _gathered(parts: list[tuple[Tensor, Evidence]]) -> Evidence:
    order = torch.cat([index for index, _ in parts]).argsort()
    return type(parts[0][1]).concatenate([found for _, found in parts]).rows(order)


def _misses(drawn: Sample, tolerance: float) -> Tensor:
    """Where the mixture finds more than the guide's draws do, ``(num_data,)`` bool."""
    return ~(drawn.mixed.log_evidence - drawn.own.log_evidence <= tolerance)


def _hopeless(drawn: Sample, tolerance: float, most: int) -> Tensor:
    """Where a first round says that even the most draws would not do, ``(num_data,)`` bool.

    The share of its draws that are effective is, where weights have a heavy tail, more than that of a larger round.
    """
    needed = drawn.mixed.num_draws / drawn.mixed.ess * (NORMAL_95 / tolerance) ** 2
    return (needed > most) & ~_misses(drawn, tolerance)


def _next_round(drawn: Sample, tolerance: float, count: int, reports: bool, few: Tensor) -> Tensor:
    """Draws that the next round needs, the prior's share of them, and whether it is the guide's alone that report.

    Columns of ``(num_data, 3)``, float64.

    Args:
        drawn: what the last round says.
        tolerance: in nats.
        count: its draws.
        reports: whether it was one that reports.
        few: where modes were found and draws of the prior do not reach them.
    """
    own, mixed, missed = drawn.own, drawn.mixed, _misses(drawn, tolerance)
    sound = (own.pareto_k < FINITE_VARIANCE) & ~missed
    by_own = torch.where(sound, mixed.num_draws / own.num_draws * wanted(own, tolerance), math.inf)
    by_mixture = wanted(mixed, tolerance)
    # Where the mixture finds what the guide misses, few of its draws carry much weight: more of them, whatever k̂ says.
    found = missed & (mixed.ess > FEW)
    by_mixture = torch.where(found, by_mixture.clamp(max=4 * mixed.num_draws), by_mixture)
    # The first round is too small for k̂: where it is unknown or large, ask again before chains are called.
    if not reports:
        by_mixture = by_mixture.clamp(max=4 * mixed.num_draws)
    share = torch.where(missed & ~few, LARGE_PRIOR_SHARE, PRIOR_SHARE).double()
    alone = by_own <= (MUCH_DEARER * by_mixture).clamp(min=LEAST_DRAWS)
    needed = torch.where(alone, by_own, by_mixture)
    least = 2 * count if reports else LEAST_DRAWS
    return torch.stack([needed.clamp(min=least).round(), share, alone.double()], 1)


def _to_confirm(found: Search | None, index: Tensor, share: Tensor) -> Tensor:
    """Draws after which enough of the prior's carry weight to confirm an estimate, where modes were found."""
    if found is None:
        return torch.zeros(len(index), dtype=torch.float64)
    some = found.rows(index)
    needed = 1.5 * ENOUGH * some.num_prior / some.prior_ess.clamp(min=1e-3) / share
    needed = 2 ** needed.log2().ceil()
    misses = (some.missed(some.log_guide) > MISSED_LIMIT) & (needed <= MOST_DRAWS / 2)
    return torch.where(misses, needed, 0.0)
