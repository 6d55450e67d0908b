"""Many Markov chains per datum: where they start, how they are tuned, and what they visit.

Chains move in v, where u = Lv and LLᵀ = Σ̂ is the covariance of what the chains of the datum have visited lately: one
matrix for each datum, so that all directions of a roughly Gaussian posterior are alike to the leapfrog steps whatever
its correlations. The covariance is pooled over chains and shrunk to its diagonal, as n states estimate d(d + 1)/2
numbers, of which successive ones say nearly the same.

Step sizes follow the acceptance a_t by stochastic approximation,

    log ε ← log ε + (a_t − a*)/√t,

and are then the average of log ε over the second half of the window: one for each chain while they are on their way
into the bulk, and afterwards one for each datum, from the mean acceptance of its chains. Unless their number is given,
there are L = (π/2)/ε leapfrog steps, for the datum of median ε: a quarter of the period of a Gaussian of covariance Σ̂,
after which the state has forgotten where it was.

References:
    The No-U-Turn Sampler (Hoffman & Gelman, 2014), arXiv:1111.4246, §3.2: step sizes by stochastic approximation.
    Stan's reference manual, "HMC algorithm parameters": windows for the covariance, shrunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..pair import Pair, Point, Terms, evaluate
from .hmc import Info, transition

# The guide's deviations from its mean are multiplied by this where chains start from it.
WIDENING = 2.0
# Shares of the warm-up after which Σ̂ is estimated anew; in the first, chains have steps of their own. The rest is for
# the step sizes.
WINDOWS = 0.15, 0.2, 0.35
# Successive states that count for one when Σ̂ is shrunk.
STATES_PER_DRAW = 2
# Above so many coordinates Σ̂ is diagonal.
DENSE_LIMIT = 200
# Draws of the guide for its mean and its scale.
GUIDE_DRAWS = 128
# A trajectory takes no more leapfrog steps than these.
MOST_STEPS = 16
# An energy error above this, in nats, is a divergence: the trajectory has left the level set (Stan's limit).
DIVERGENCE = 1000.0

AfterEach = Callable[[], None]


class Kernel(NamedTuple):
    """How the chains move.

    Attributes:
        log_step: log ε, ``(num_chains, num_data)``, or ``(1, num_data)`` if the chains of a datum share it.
        factor: L, ``(num_data, dim, dim)``.
        num_steps: leapfrog steps of a transition; None for a quarter of a period.
    """

    log_step: Tensor
    factor: Tensor
    num_steps: int | None

    @property
    def length(self) -> int:
        """L, the leapfrog steps of a transition."""
        wanted = math.pi / 2 / float(self.log_step.median().exp())
        return self.num_steps or min(max(round(wanted), 1), MOST_STEPS)

    def rows(self, index: Tensor) -> Kernel:
        """The kernel of some data."""
        return self._replace(log_step=self.log_step[:, index], factor=self.factor[index])


class Walk(NamedTuple):
    """The states that the chains visited.

    Attributes:
        u: ``(num_chains, num_draws, num_data, dim)``.
        log_joint: log p(x, u) there, ``(num_chains, num_draws, num_data)``.
        energy: H at the beginning of every transition, ``(num_chains, num_transitions, num_data)``.
        acceptance: mean over chains and transitions, ``(num_data,)``.
        divergences: their number, ``(num_data,)``.
    """

    u: Tensor
    log_joint: Tensor
    energy: Tensor
    acceptance: Tensor
    divergences: Tensor


def starts(pair: Pair, num_chains: int, num_steps: int | None) -> tuple[Tensor, Kernel]:
    """Over-dispersed places for the chains: half from the prior, half from the guide, widened about its mean.

    All are the guide's where the prior is improper.

    Returns:
        u, ``(num_chains, num_data, dim)``; and a kernel with the guide's scales.
    """
    guide = pair.draw("guide", max(GUIDE_DRAWS, num_chains))
    from_prior = 0 if pair.structure.improper else num_chains // 2
    u = guide.mean(0) + WIDENING * (guide[: num_chains - from_prior] - guide.mean(0))
    if from_prior:
        u = torch.cat([pair.draw("prior", from_prior), u])
    log_step = torch.full((num_chains, pair.num_units), -1.0, dtype=torch.float64, device=u.device)
    return u, Kernel(log_step, torch.diag_embed(guide.std(0).clamp(min=1e-6)), num_steps)


def warm_up(
    pair: Pair, u: Tensor, kernel: Kernel, count: int, target: float, after_each: AfterEach
) -> tuple[Tensor, Kernel]:
    """Bring chains from their starts into the bulk and tune the kernel; all that is visited is thrown away.

    Args:
        pair: the pair on the data.
        u: where the chains are.
        kernel: where to begin.
        count: transitions.
        target: the acceptance to aim at, a*.
        after_each: called after each transition.
    """
    for share in WINDOWS:
        alone = share == WINDOWS[0]
        places, u, kernel = tune_steps(pair, u, kernel, max(round(share * count), 2), target, after_each, alone)
        kernel = kernel._replace(factor=covariance_factor(places).to(u))
    return settle(pair, u, kernel, max(round((1 - sum(WINDOWS)) * count), 4), target, after_each)


def settle(
    pair: Pair, u: Tensor, kernel: Kernel, count: int, target: float, after_each: AfterEach
) -> tuple[Tensor, Kernel]:
    """Tune the step sizes to a Σ̂ that is final: once, and once more with the number of steps that this leads to."""
    _, u, kernel = tune_steps(pair, u, kernel, count // 2, target, after_each)
    kernel = kernel._replace(num_steps=kernel.length)
    _, u, kernel = tune_steps(pair, u, kernel, count - count // 2, target, after_each)
    return u, kernel


def tune_steps(
    pair: Pair,
    u: Tensor,
    kernel: Kernel,
    count: int,
    target: float,
    after_each: AfterEach,
    alone: bool = False,
) -> tuple[Tensor, Tensor, Kernel]:
    """Let the step sizes follow the acceptance.

    Args:
        pair: the pair on the data.
        u: where the chains are.
        kernel: where to begin.
        count: transitions.
        target: the acceptance to aim at, a*.
        after_each: called after each transition.
        alone: whether each chain has a step size of its own.

    Returns:
        What was visited in the second half, ``(states, num_data, dim)``; where the chains are; the kernel.
    """
    log_step = kernel.log_step if alone else kernel.log_step.mean(0, keepdim=True)
    places, averaged = [], torch.zeros_like(log_step)
    terms, point = _whitened(pair, u, kernel.factor)
    for t in range(1, count + 1):
        point, info = _transition(terms, point, log_step, kernel.length)
        acceptance = info.acceptance if alone else info.acceptance.mean(0, keepdim=True)
        log_step = log_step + (acceptance - target) / t**0.5
        if t > count // 2:
            places.append(_u(point, kernel.factor))
            averaged += log_step / (count - count // 2)
        after_each()
    return torch.cat(places), places[-1], kernel._replace(log_step=averaged)


def walk(pair: Pair, u: Tensor, kernel: Kernel, num_draws: int, every: int, after_each: AfterEach) -> Walk:
    """Follow the chains with a kernel that is frozen, and keep every few states.

    Args:
        pair: the pair on the data.
        u: where the chains are.
        kernel: how they move.
        num_draws: states to keep.
        every: transitions from one to the next.
        after_each: called after each transition.
    """
    terms, point = _whitened(pair, u, kernel.factor)
    places, log_joint, energy = [], [], []
    acceptance, divergences = (torch.zeros(pair.num_units, dtype=torch.float64) for _ in range(2))
    for t in range(1, num_draws * every + 1):
        point, info = _transition(terms, point, kernel.log_step, kernel.length)
        energy.append(info.energy.cpu())
        acceptance += info.acceptance.mean(0).cpu() / (num_draws * every)
        divergences += (~(info.energy_error <= DIVERGENCE)).sum(0).cpu()
        if t % every == 0:
            places.append(_u(point, kernel.factor).cpu())
            log_joint.append(point.values[0].cpu())
        after_each()
    u, at_u, energies = (torch.stack(part, 1) for part in (places, log_joint, energy))
    return Walk(u, at_u, energies, acceptance, divergences.long())


def covariance_factor(u: Tensor) -> Tensor:
    """L with LLᵀ = Σ̂ of states ``(num_states, num_data, dim)``; ``(num_data, dim, dim)``, float64."""
    u = u.double()
    centred, dim = u - u.mean(0), u.shape[-1]
    variance = centred.square().mean(0).clamp(1e-12, 1e100)
    if dim > DENSE_LIMIT:
        return torch.diag_embed(variance.sqrt())
    n = len(u) / STATES_PER_DRAW
    covariance = torch.einsum("kni,knj->nij", centred, centred) / len(u)
    covariance = n / (n + dim) * covariance + torch.diag_embed(dim / (n + dim) * variance)
    factor, failed = torch.linalg.cholesky_ex(covariance)
    return torch.where((failed == 0)[:, None, None], factor, torch.diag_embed(variance.sqrt()))  # of chains astray


def _whitened(pair: Pair, u: Tensor, factor: Tensor) -> tuple[Terms, Point]:
    """log p(x, Lv) as a function of v, and where it stands."""

    def terms(v: Tensor) -> Tensor:
        return pair.joint(torch.einsum("cnj,nij->cni", v, factor))[0][None]

    v = torch.linalg.solve_triangular(factor, u.movedim(0, -1), upper=False).movedim(-1, 0)
    return terms, evaluate(terms, v)


def _u(point: Point, factor: Tensor) -> Tensor:
    return torch.einsum("cnj,nij->cni", point.u, factor)


def _transition(terms: Terms, point: Point, log_step: Tensor, num_steps: int) -> tuple[Point, Info]:
    one = torch.ones(1, dtype=torch.float64, device=point.u.device)
    return transition(terms, point, one, log_step.exp(), one, num_steps)
