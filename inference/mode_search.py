"""Search for modes of the posterior that the guide misses, before log p(x) is estimated.

Draws of the guide say nothing about places where the guide never looks. A search with a small share of the estimator's
budget does, for each datum:

1. Draws of the guide and of the prior, and images of the best of the guide's draws under moves that leave many models
   as they are: coordinates reflected about the prior's mean, one at a time and all together, and blocks of coordinates
   exchanged. All are weighed.
2. The most promising of them, and some of the prior's draws whatever their weight, are climbed to a mode of
   log p(x, u) (:mod:`ppvae.inference.quasi_newton`).
3. A mode is *apart* if log p(x, u) falls by more than a nat on the straight line from the guide's best draw to it.
4. Modes that are apart become the components r of a mixture of Student t distributions, and draws of it give

    m = E_r[p(x, u)/r(u); p(x, u)/q(u|x) > τ p̂],

   the mass p(x) in places near these modes where the guide's draws do not come: of K ≤ τ draws of q, fewer than
   m/p̂ are expected there. Since m is unbiased and not negative, a mass m is taken for 1/δ times as much with
   probability δ at most (Markov), which bounds false alarms. The same is asked of the draws of the prior and of the
   guide's draws moved away from their mean, which see a part of the posterior that is broad and has no mode.

What this cannot see: a mode into which none of the climbs leads.

References:
    Adaptive Multiple Importance Sampling (Cornuet, Marin, Mira & Robert, 2012), arXiv:0907.1254.
    Layered Adaptive Importance Sampling (Martino, Elvira, Luengo & Corander, 2017), arXiv:1505.04732.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .density import Density
from .quasi_newton import climb
from .student import StudentMixture

# Evaluations per datum below which no search is worth while.
LEAST_BUDGET = 100
# A share of p(x) that the guide misses and that is worth a word: 0.1 nats.
MISSED = 0.1
# How often a mode's places must outweigh the mean of the guide's weights to count as places where it does not come.
OUTWEIGHED = 1000.0
# By how many nats log p(x, u) must fall between two modes.
DIP = 1.0
# How far the guide's draws are moved away from their mean.
_WIDENED = (1.5, 3.0)
# Places on the line from the guide to a mode.
_ON_THE_LINE = 5


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
        climbs = self.num_climbs * (2 * (self.num_steps + 1) + _ON_THE_LINE + 1)
        return 2 * self.num_guide + self.num_prior + self.num_images + climbs + self.num_tests


class Search(NamedTuple):
    """What was found, per datum.

    Attributes:
        components: of the modes that are apart from the guide.
        log_missed: log m of the places near them, ``(num_data,)``, in nats.
        log_missed_outside: the same of the prior's draws and the guide's draws moved away, ``(num_data,)``.
        log_guide: log p̂ by the few draws of the guide, ``(num_data,)``.
        cost: evaluations per datum.
    """

    components: StudentMixture
    log_missed: Tensor
    log_missed_outside: Tensor
    log_guide: Tensor
    cost: int


def plan(budget: int) -> Plan:
    """How to spend a budget of evaluations per datum, at least :data:`LEAST_BUDGET`."""
    budget = min(budget, 3000)
    steps = 8 if budget < 300 else 12 if budget < 1500 else 20
    climbs = max(int(0.5 * budget / (2 * (steps + 1) + _ON_THE_LINE + 1)), 2)
    guide = min(max(budget // 20, 6), 64)
    images = min(budget // 10, 64)
    tests = min(max(budget // 10, 8), 128)
    prior = max(budget - 2 * guide - images - tests - climbs * (2 * (steps + 1) + _ON_THE_LINE + 1), 8)
    return Plan(guide, prior, images, climbs, steps, tests)


def search(density: Density, budget: int, *, apart_only: bool = False) -> Search:
    """Search for modes that the guide misses.

    Args:
        density: the pair on the data; all of it is evaluated at once.
        budget: evaluations per datum.
        apart_only: leave out modes to which no valley leads from the guide, as chains find them by themselves.
    """
    how = plan(budget)
    with torch.no_grad():
        drawn, prior = density.draw("guide", how.num_guide), density.draw("prior", how.num_prior)
        at_drawn, at_prior = density.ends(drawn), density.ends(prior)
        log_guide = _log_mean(at_drawn[2] - at_drawn[0])
        best = _pick(drawn, at_drawn[2].nan_to_num(-math.inf, -math.inf).argmax(0, keepdim=True))
        threshold = log_guide + math.log(OUTWEIGHED)
        outside = _outside(density, drawn, at_drawn, at_prior, threshold)
        images = _images(best[0], prior.mean(0), how.num_images)
        starts = _starts(images, density.joint(images)[0], prior, at_prior[2], how.num_climbs)
    scale = drawn.std(0).nan_to_num(1.0).clamp(min=1e-6)
    climbed = climb(density.joint, starts, scale, prior.std(0).nan_to_num(1.0).clamp(min=1e-6), how.num_steps)
    with torch.no_grad():
        accepted = _apart(density, best, climbed.u, climbed.values)
        if not apart_only:
            log_q, _, log_joint = density.ends(climbed.u)
            accepted |= log_joint - log_q > threshold
        log_mass = climbed.values + torch.linalg.slogdet(climbed.inverse_curvature)[1] / 2
        components = StudentMixture.at(climbed.u, climbed.inverse_curvature, log_mass.where(accepted, -math.inf))
        tested = components.draw(how.num_tests)
        log_q, _, log_joint = density.ends(tested)
        missed = (log_joint - log_q > threshold) & components.known
        log_missed = _log_mean((log_joint - components.log_prob(tested)).where(missed, -math.inf))
    return Search(components, log_missed, outside, log_guide, how.cost)


def _outside(density: Density, drawn: Tensor, at_drawn: Tensor, at_prior: Tensor, threshold: Tensor) -> Tensor:
    """log m, the larger of what the prior's draws and the guide's draws moved away find."""
    log_q, log_prior, log_joint = at_prior
    by_prior = _log_mean((log_joint - log_prior).where(log_joint - log_q > threshold, -math.inf))
    factor = torch.tensor(_WIDENED, dtype=drawn.dtype).repeat(len(drawn))[: len(drawn), None, None].to(drawn.device)
    centre = drawn.mean(0)
    log_q, _, log_joint = density.ends(centre + factor * (drawn - centre))
    log_proposal = at_drawn[0] - drawn.shape[-1] * factor[..., 0].double().log()
    by_widened = _log_mean((log_joint - log_proposal).where(log_joint - log_q > threshold, -math.inf))
    return torch.maximum(by_prior, by_widened)


def _images(u: Tensor, centre: Tensor, count: int) -> Tensor:
    """Images of u ``(num_data, dim)`` under reflections about the centre and exchanges of blocks of coordinates."""
    dim = u.shape[-1]
    signs = torch.cat([-torch.ones(1, dim), 1 - 2 * torch.eye(dim)] if dim > 1 else [-torch.ones(1, dim)]).to(u)
    reflected = centre + signs[:, None] * (u - centre)
    order = torch.tensor(_exchanges(dim), dtype=torch.long).reshape(-1, dim)
    order = order[torch.randperm(len(order))[: max(count - len(reflected), count // 2)]]
    exchanged = u[:, order].movedim(1, 0) if len(order) else u.new_empty(0, *u.shape)
    kept = torch.randperm(max(len(reflected) - 1, 0))[: max(count - len(exchanged) - 1, 0)] + 1
    return torch.cat([reflected[:1], reflected[kept], exchanged])[: max(count, 1)]


def _exchanges(dim: int) -> list[list[int]]:
    """Orders of coordinates in which two blocks of equal length have changed places."""
    orders = []
    for length in (n for n in range(1, dim // 2 + 1) if dim % n == 0):
        starts = range(0, dim, length)
        for a, b in ((a, b) for a in starts for b in starts if a < b):
            order = list(range(dim))
            order[a : a + length], order[b : b + length] = order[b : b + length], order[a : a + length]
            orders.append(order)
    return orders


def _starts(images: Tensor, at_images: Tensor, prior: Tensor, at_prior: Tensor, count: int) -> Tensor:
    """Where climbs start: the best images, the best of the prior's draws, and others of these whatever they weigh."""
    by_image = min(count // 3, len(images))
    first = _best(images, at_images, by_image)
    others = (count - by_image) // 2
    return torch.cat([first, _best(prior[others:], at_prior[others:], count - by_image - others), prior[:others]])


def _best(places: Tensor, values: Tensor, count: int) -> Tensor:
    return _pick(places, values.nan_to_num(-math.inf, -math.inf).topk(min(count, len(places)), dim=0).indices)


def _pick(places: Tensor, index: Tensor) -> Tensor:
    """The places ``(num, num_data, dim)`` that an index ``(count, num_data)`` names."""
    return places.gather(0, index[..., None].expand(-1, -1, places.shape[-1]))


def _apart(density: Density, best: Tensor, u: Tensor, values: Tensor) -> Tensor:
    """Whether log p(x, u) falls on the way from the guide's best draw to each place, ``(num_places, num_data)``."""
    shares = torch.linspace(0, 1, _ON_THE_LINE + 2)[1:-1].to(u)
    line = best + shares[:, None, None, None] * (u - best)
    low = density.joint(line.flatten(0, 1))[0].reshape(_ON_THE_LINE, *values.shape).nan_to_num(-math.inf).amin(0)
    return (low < torch.minimum(density.joint(best)[0], values) - DIP) & values.isfinite()


def _log_mean(log_w: Tensor) -> Tensor:
    return torch.logsumexp(log_w.nan_to_num(-math.inf), 0) - math.log(len(log_w))
