"""Annealing from the normal distribution nearest to the posterior: a much shorter bridge than one from the guide.

A few *pilot chains* walk from the guide to the posterior (:mod:`ppvae.inference.sampling.pilot`), stay there, and are
thrown away. Their places and gradients give a normal close to the posterior
(:mod:`ppvae.inference.sampling.preconditioning`); from it chains are annealed whose weights count. The normal was fixed
before these chains were drawn, so that E[w] = p(x) whatever the pilot chains found. Where the log weights still spread
too far, the ends of the chains take the place of the pilot chains, and the next bridge has four times as many
distributions.

Where the guide misses modes no normal is near the posterior: there chains start from a mixture of the guide and these
modes (:mod:`ppvae.inference.sampling.mixture_start`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..option_records import LEAPFROG_STEPS
from ..pair import Pair, evaluate
from ..sampling import (
    FAR_SHARE,
    PILOT_CHAINS,
    QUICK,
    SLOW,
    Chains,
    HeavyDraws,
    MixtureStart,
    Pace,
    Standardised,
    StudentMixture,
    Tuning,
    explore,
    forward_in_portions,
    leapfrog,
    num_far_draws,
    rotate,
    standardised,
    transition,
    unreached,
)
from .chain_reach import incomplete
from .estimates import ANNEALING, WIDE, AnnealedEvidence
from .ledger import Goal, Ledger, excess, half_width
from .streaming import evidence_of

Mapped = Standardised | MixtureStart

# Evaluations that a gradient costs.
GRADIENT = 2
# Places at which the posterior is seen for a fit, from all chains together.
PLACES = 192
# The first round of chains that count, and by how much a round may exceed the one before.
FIRST_CHAINS, FIRST_DISTRIBUTIONS, GROWTH = 64, 16, 4
# Chains are added in multiples of this, so that data that need about as many are run together.
STEP_CHAINS = 32
# Evaluations below which it is not worth while to begin: tuning, pilot chains and a first round cost about as much.
FEWEST_FOR_CHAINS = 15_000


def anneal(pair: Pair, index: Tensor, ledger: Ledger, goal: Goal, proposal: StudentMixture | None = None) -> None:
    """Anneal the data of a piece that draws did not settle.

    Args:
        pair: the pair on these data.
        index: where the ledger keeps them.
        ledger: what is known; it is changed.
        goal: what is asked for.
        proposal: distributions at modes that the guide misses, to start from too.
    """
    rich = ledger.left(index) >= FEWEST_FOR_CHAINS
    pair, index = pair.rows(rich), index[rich]
    if not len(index):
        return
    view: Mapped
    if proposal is not None:
        view = MixtureStart(pair, proposal.rows(rich))
    else:
        tuning, ends = explore(pair, "guide", FIRST_DISTRIBUTIONS, pace=QUICK)
        ledger.cost[index] += _pilot_price(tuning, QUICK) + _stay_price(PILOT_CHAINS)
        view = _fit(pair, ends.u, tuning)
    num_distributions = FIRST_DISTRIBUTIONS
    while True:
        affordable = _affordable(ledger.left(index), _chain_price(num_distributions)) >= 2 * FIRST_CHAINS
        index, view = index[affordable], view.rows(affordable)
        if not len(index):
            return
        tuning = _tuned(view, index, ledger, num_distributions)
        v, wide = _chains(view, tuning, index, ledger, goal)
        index, view, tuning, v = index[wide], view.rows(wide), tuning.rows(wide), v[:, wide]
        if not len(index):
            return
        if isinstance(view, Standardised):
            ledger.cost[index] += _stay_price(len(v))
            view = _fit(view, v, tuning)
        num_distributions *= 4


def _tuned(view: Mapped, index: Tensor, ledger: Ledger, num_distributions: int) -> Tuning:
    """The bridge of so many distributions, by a pilot unless it is the first from a normal."""
    if isinstance(view, Standardised) and num_distributions == FIRST_DISTRIBUTIONS:
        return view.even_bridge(num_distributions)
    follow = rotate if isinstance(view, Standardised) else leapfrog
    tuning, _ = explore(view, "guide", num_distributions, follow=follow)
    ledger.cost[index] += _pilot_price(tuning, SLOW)
    return tuning


class Gathered(NamedTuple):
    """Chains that count, of data that may have different numbers of them.

    Attributes:
        log_w: of each datum, ``(num_chains,)``.
        ends: of each datum, ``(num_chains, dim)``.
        diverged: the share of the trajectories that diverged, ``(num_data,)``.
    """

    log_w: list[Tensor]
    ends: list[Tensor]
    diverged: Tensor

    def add(self, at: Tensor, found: Chains) -> tuple[Tensor, Tensor]:
        """Add to those of the data ``at``; return all weights and ends of these, the chains first."""
        for k, i in enumerate(at.tolist()):
            before, count = len(self.log_w[i]), len(found.log_w)
            self.log_w[i] = torch.cat([self.log_w[i].to(found.log_w), found.log_w[:, k]])
            self.ends[i] = torch.cat([self.ends[i].to(found.ends), found.ends[:, k]])
            self.diverged[i] = (before * self.diverged[i] + count * found.diverged[k]) / (before + count)
        log_w, ends = (torch.stack([part[i] for i in at.tolist()], 1) for part in (self.log_w, self.ends))
        return log_w, ends


def _chains(view: Mapped, tuning: Tuning, index: Tensor, ledger: Ledger, goal: Goal) -> tuple[Tensor, Tensor]:
    """Rounds of chains, until their number is enough or their weights are found to spread too far.

    A round says how many chains are enough, and the next adds them: all count.

    Returns:
        Where the chains of the first round ended, ``(num_chains, num_data, dim)``, and which data need more
        distributions, ``(num_data,)`` bool.
    """
    n, v = len(index), torch.empty(0)
    none = torch.zeros(n, dtype=torch.float64)
    chains = Gathered([none[:0]] * n, [torch.empty(0, view.dim)] * n, none.clone())
    wide = none > 0
    # Of each datum: how many chains there are, and how many the next round adds.
    plan = torch.tensor([0, FIRST_CHAINS]).repeat(n, 1)
    while (plan[:, 1] > 0).any():
        following = torch.zeros_like(plan)
        for before, count in plan[plan[:, 1] > 0].unique(dim=0).tolist():
            at = (plan == torch.tensor([before, count])).all(1).nonzero()[:, 0]
            some, own = view.rows(at), tuning.rows(at)
            found = forward_in_portions(some, own, "guide", count, goal.memory_mb)
            v = v if before else found.last
            log_w, ends = chains.add(at, found)
            price = _chain_price(len(tuning.betas) - 1)
            far = num_far_draws(len(log_w) * price)
            heavy = None if ledger.heaviest is None else _seen_in(some, ledger.heaviest.rows(index[at]))
            missing = unreached(some, ends, log_w, far, goal.memory_mb, heavy)
            evidence = AnnealedEvidence.of(evidence_of(log_w), unreached=missing, diverged=chains.diverged[at])
            ledger.cost[index[at]] += count * price + far
            ledger.enter(index[at], evidence, num_distributions=len(tuning.betas) - 1)
            wide[at] = ~(evidence.spread <= WIDE)
            following[at, 0] = before + count
            following[at, 1] = _judged(evidence, wide[at], index[at], price, ledger, goal)
        plan = following
    return v, wide


def _seen_in(view: Mapped, heavy: HeavyDraws) -> HeavyDraws:
    """Draws of the pair in the coordinates of a view."""
    return heavy._replace(u=view.coordinates(heavy.u)) if isinstance(view, Standardised) else heavy


def _judged(found: AnnealedEvidence, wide: Tensor, index: Tensor, price: int, ledger: Ledger, goal: Goal) -> Tensor:
    """How many chains to add where they are not enough, ``(num_data,)``; data for which they are become settled."""
    short = incomplete(found.unreached, found.diverged)
    done = (half_width(found) <= goal.tolerance) & ~wide & ~short
    ledger.settled_by[index[done]] = ANNEALING
    enough = found.num_draws * torch.where(short, 2.0, excess(found, goal.tolerance))
    again = (FAR_SHARE * found.num_draws * price).floor()  # draws far from those that there are
    more = _more(enough, found.num_draws, _affordable(ledger.left(index) - again, price))
    return more.where(~done & ~wide, 0)


def _more(enough: Tensor, present: Tensor, affordable: Tensor) -> Tensor:
    """How many chains to add to those that are present, in steps of 32; 0 where not one step is affordable."""
    wanted = torch.minimum(enough, GROWTH * present) - present
    steps = torch.minimum((wanted / STEP_CHAINS).ceil().clamp(min=1), (affordable / STEP_CHAINS).floor())
    return (STEP_CHAINS * steps).clamp(min=0).long()


def _fit(view: Pair | Standardised, u: Tensor, tuning: Tuning) -> Standardised:
    """The pair in coordinates that fit the posterior, from chains that have arrived there."""
    step, scale = tuning.at(torch.ones_like(tuning.length))
    point, places, gradients = evaluate(view.joint, u), [], []
    for _ in range(_stay(len(u))):
        point, _ = transition(
            view.joint, point, torch.ones(1).to(point.values), step, scale, LEAPFROG_STEPS, tuning.follow
        )
        places.append(point.u)
        gradients.append(point.gradients[0])
    return standardised(view, torch.cat(places), torch.cat(gradients))


def _affordable(left: Tensor, price: int) -> Tensor:
    """Chains of a price, with draws far from them, for which so many evaluations suffice."""
    return ((left - num_far_draws(0)) / (price * (1 + FAR_SHARE))).floor()


def _chain_price(num_distributions: int) -> int:
    return GRADIENT * ((num_distributions - 1) * LEAPFROG_STEPS + 1)


def _stay(num_chains: int) -> int:
    """Transitions of so many chains at the posterior."""
    return math.ceil(PLACES / num_chains)


def _stay_price(num_chains: int) -> int:
    return GRADIENT * num_chains * (_stay(num_chains) * LEAPFROG_STEPS + 1)


def _pilot_price(tuning: Tuning, pace: Pace) -> int:
    transitions = pace.warm_up + pace.num_transitions * (len(tuning.node_betas) - 1)
    return PILOT_CHAINS * (GRADIENT * (transitions * LEAPFROG_STEPS + 1) + 9)
