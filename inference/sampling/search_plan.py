"""How the search for missed modes spends its evaluations, and how many it has in memory at once."""

from __future__ import annotations

import math
from typing import NamedTuple

from ..pair import Pair
from .quasi_newton import DENSE_LIMIT

# Evaluations per datum below which no search is worth while.
LEAST_BUDGET = 100
# Places on the line from the guide to a mode.
ON_THE_LINE = 5


class Plan(NamedTuple):
    """How a budget of evaluations is spent; see :func:`plan`."""

    num_guide: int
    num_prior: int
    num_images: int
    num_climbs: int
    num_steps: int
    num_tests: int

    @property
    def cost(self) -> int:
        """Evaluations per datum; a gradient counts as two."""
        climbs = self.num_climbs * (2 * (self.num_steps + 1) + ON_THE_LINE + 1)
        return 2 * self.num_guide + self.num_prior + self.num_images + climbs + self.num_tests

    def draws_at_once(self, pair: Pair) -> int:
        """How many draws, with gradients, take the memory of the climbs of a datum and their matrices."""
        matrices = 3 * 8 * pair.dim**2 if pair.dim <= DENSE_LIMIT else 0
        return math.ceil(self.num_climbs * (1 + matrices / pair.bytes_each))


def plan(budget: int) -> Plan:
    """How to spend a budget of evaluations per datum, at least :data:`LEAST_BUDGET`."""
    budget = min(budget, 3000)
    steps = 8 if budget < 300 else 12 if budget < 1500 else 20
    climbs = max(int(0.5 * budget / (2 * (steps + 1) + ON_THE_LINE + 1)), 2)
    guide = min(max(budget // 20, 6), 64)
    images = min(budget // 10, 64)
    tests = min(max(budget // 10, 8), 128)
    prior = max(budget - 2 * guide - images - tests - climbs * (2 * (steps + 1) + ON_THE_LINE + 1), 8)
    return Plan(guide, prior, images, climbs, steps, tests)
