"""The settings of a certificate, chosen by a pilot whose draws are used for nothing else.

Importance weights first, then those of annealed chains over 32, 64, 128, … distributions, until the mean's interval is
as narrow as is wanted or the budget is spent. A bound that is read off the same draws by which it was chosen has lost
its confidence, so that the pilot's draws are thrown away. For simulated data this includes the data: each comes with a
single exact posterior draw, so that choosing by what they show would use that up.

The same holds of the tail of the weights, which decides whether data that were given get an upper end at all: a sample
shows a light tail above all where it happens to hold none of the large weights, and there the upper end is too low.
Judged on the pilot's draws, the tail says nothing about the luck of those that make the bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ppvae.errors import PairError

from ..calibration import Simulation, simulations
from ..evidence import SEARCH_SHARE, search_all, tail_shape
from ..option_records import Sampling
from ..pair import Batch, Pair
from ..sampling import Search
from .bidirectional import BidirectionalWeights, Effort, Weights, gather
from .markov import Groups, Sandwich, below, best_groups, concatenate, margin, sandwich
from .tangent import mean_upper, pooled_tail, tangent

# Draws per datum of the first, cheapest attempt, and distributions of the second.
IMPORTANCE_DRAWS = 1024
FIRST_DISTRIBUTIONS = 32
# Annealed chains per datum, where ``Sampling`` does not say: of drawn data; of data that were given, and of all these
# together at least.
CHAINS_OF_DRAWN, CHAINS_OF_GIVEN, CHAINS_IN_ALL = 16, 32, 256
# Data of the pilot that chooses the settings; the context of x is repeated where x has fewer. Where the unit is the
# data set, each is annealed by itself.
NUM_PILOT, NUM_PILOT_SETS = 32, 8
# Where the margins alone are wider than what is wanted, refinement ends at this multiple of them.
REACHABLE = 1.5
# Standard errors of a pilot's distance between the sides that are added to it.
RESERVE = 1.5
# k-hat, the median of the data and that of all weights together, from which on there is no upper end.
TAIL_LIMIT = 0.5
# The same of all weights of the certificate itself. It lies higher: these are the luckier the lighter their tail seems.
OWN_TAIL_LIMIT = 0.7


class Certification(NamedTuple):
    """What was asked for; ``risk`` is that of one side."""

    bridge: BidirectionalWeights
    risk: float
    width: float
    sampling: Sampling

    def num_chains(self, num_data: int, *, real: bool) -> int:
        """Annealed chains per datum."""
        default = max(CHAINS_OF_GIVEN, -(-CHAINS_IN_ALL // num_data)) if real else CHAINS_OF_DRAWN
        return self.sampling.num_chains or default

    def least_width(self, num_data: int, *, real: bool) -> float:
        """The margins that remain when all weights are equal."""
        above = 0.0 if real else margin(self.risk, num_data)
        return above + margin(self.risk, self.num_chains(num_data, real=real) * num_data)

    def simulate(self, like: Batch, count: int | None = None) -> list[Simulation]:
        """Data drawn from the model: ``count`` units, or as many as ``like`` has."""
        with Pair.on(self.bridge.model, self.bridge.guide, like) as pair, torch.no_grad():
            return simulations(pair, pair.num_units if count is None else count)

    def weights(self, drawn: list[Simulation], effort: Effort, title: str) -> Iterator[Weights]:
        """The weights of data that were drawn with their latents."""
        for one in drawn:
            yield from self.bridge.weights(one.batch, one.latents, effort, title)

    def search(self, pair: Pair) -> Search | None:
        """Modes that the guide misses, found with a share of the cheapest attempt's evaluations."""
        steps = self.bridge.num_steps * (FIRST_DISTRIBUTIONS - 1) + 1
        alone = self.sampling.max_distributions < FIRST_DISTRIBUTIONS
        draws = IMPORTANCE_DRAWS if alone else steps * self.num_chains(pair.num_units, real=True)
        return search_all(pair, int(SEARCH_SHARE * 2 * draws), self.bridge.memory_mb)


class Choice(NamedTuple):
    """The settings that a pilot chose.

    Attributes:
        effort: of the chains.
        groups: into which the weights are split for the lower side.
        spent: transitions of the pilot.
        doubt: why the weights allow no upper end on given data; empty where they do.
    """

    effort: Effort
    groups: Groups
    spent: int
    doubt: str = ""

    def sandwich(self, weights: Iterable[Weights]) -> Sandwich:
        """The two sides of what the weights are of."""
        return concatenate([sandwich(*part, self.groups) for part in weights])


def efforts(job: Certification, num_chains: int) -> Iterator[Effort]:
    """All that the budget allows, the cheapest first."""
    yield Effort(IMPORTANCE_DRAWS, 1)
    distributions = FIRST_DISTRIBUTIONS
    while distributions <= job.sampling.max_distributions:
        yield Effort(num_chains, distributions)
        distributions *= 2


def chosen_for_drawn(job: Certification, like: Batch, num_data: int, *, by_datum: bool) -> Choice:
    """The cheapest settings that promise the width on data drawn from the model.

    Args:
        job: what was asked for.
        like: data that show the shape.
        num_data: how many are drawn.
        by_datum: whether the unit is the datum.
    """
    num_pilot = NUM_PILOT if by_datum else NUM_PILOT_SETS
    drawn, spent = job.simulate(like, num_pilot), 0
    for effort in efforts(job, job.num_chains(num_data, real=False)):
        log_w, exact = gather(job.weights(drawn, effort, f"pilot of {effort.num_distributions}"))
        spent += effort.transitions(num_pilot, num_pilot)
        groups = best_groups(log_w, job.risk, num_data)
        sides = sandwich(log_w, exact, groups)
        expected = _between(sides.above - sides.below_mean, num_data) + margin(job.risk, num_data)
        if _enough(job, expected, groups, num_data, real=False):
            break
    return Choice(effort, groups, spent)


def chosen_for_given(job: Certification, pair: Pair, found: Search | None) -> Choice:
    """The cheapest settings that promise the width, and weights with a light tail, on data that were given.

    Args:
        job: what was asked for.
        pair: the pair on the data.
        found: what a search for modes that the guide misses has found.
    """
    index, num_data, spent = spread(pair), pair.num_units, 0
    some, places = pair.rows(index), None if found is None else found.rows(index)
    for effort in efforts(job, job.num_chains(num_data, real=True)):
        title = f"pilot of {effort.num_distributions}"
        log_w, _ = gather(job.bridge.of(some, None, effort, title, places))
        spent += effort.transitions(len(index), 0)
        groups, k_hat = best_groups(log_w, job.risk, num_data), tail_shape(log_w)
        above = tangent(log_w)
        noise = mean_upper(log_w, job.risk, k_hat) - float(above.mean())
        expected = _between(above - below(log_w, groups.mean), num_data) + noise * math.sqrt(len(index) / num_data)
        doubt = _doubt(k_hat, pooled_tail(log_w))
        if not doubt and _enough(job, expected, groups, num_data, real=True):
            break
    return Choice(effort, groups, spent, doubt)


def doubt_of_own(log_w: Tensor) -> str:
    """Why the certificate's own weights allow no upper end, though the pilot's did; empty where they do."""
    pooled = pooled_tail(log_w)
    if pooled < OWN_TAIL_LIMIT:
        return ""
    return (
        f"there is no upper end: k-hat of all weights together is {pooled:.2f}, though the pilot's was smaller; give "
        "more distributions (max_distributions) or more chains (num_chains)."
    )


def spread(pair: Pair) -> Tensor:
    """Indices of at most :data:`NUM_PILOT` units, from all over the data."""
    return torch.linspace(0, pair.num_units - 1, min(NUM_PILOT, pair.num_units)).long()


def twins(job: Certification, like: Batch, count: int) -> list[Simulation]:
    """Data drawn from the model, and none where none can be drawn from it."""
    try:
        return job.simulate(like, count) if count else []
    except PairError:
        return []


def _between(distances: Tensor, num_data: int) -> float:
    """The distance of the sides to expect of other data; its noise is added, so that the width is seldom missed."""
    spread_of = float(distances.std()) if len(distances) > 1 else 0.0
    return float(distances.mean()) + RESERVE * spread_of * math.sqrt(1 / len(distances) + 1 / num_data)


def _enough(job: Certification, expected: float, groups: Groups, num_data: int, *, real: bool) -> bool:
    """Whether the width, or what can be had of it, is to be expected."""
    least = job.least_width(num_data, real=real)
    return expected + margin(job.risk, groups.mean * num_data) <= max(job.width, REACHABLE * least)


def _doubt(k_hat: Tensor, pooled: float) -> str:
    median = float(k_hat.nan_to_num(math.inf).median())
    if median < TAIL_LIMIT and pooled < TAIL_LIMIT:
        return ""
    shown = "unknown, as it is of fewer than 25 weights" if math.isinf(median) else f"{median:.2f}"
    return (
        f"there is no upper end: the median k-hat of the data is {shown}, that of all weights together {pooled:.2f}, "
        f"and from {TAIL_LIMIT} on their mean has no error that can be trusted; give more distributions "
        "(max_distributions), more chains (num_chains), or a guide that is wider."
    )
