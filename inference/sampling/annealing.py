"""Annealed importance sampling: a bridge of distributions from the guide, or the prior, to the posterior.

With a start π₀ that can be drawn from (q(u|x) or p(u)) and temperatures 0 = β_0 < β_1 < … < β_T = 1, the bridge is

    log π_t(u) = (1 − β_t) log π₀(u) + β_t log p(x, u).

A chain starts at u_0 ~ π₀, moves by an HMC transition that leaves π_t invariant, u_{t−1} → u_t, and gathers

    log w = Σ_{t=1}^T (β_t − β_{t−1}) [log p(x, u_{t−1}) − log π₀(u_{t−1})].

Forward, E[w] = p(x), so that E[log w] ≤ log p(x). Backward, from an exact posterior draw u_{T−1} through the same
transitions in the opposite order, E[1/w] = 1/p(x), so that E[log w] ≥ log p(x). Both hold exactly for any number of
steps, but only while nothing in the transitions depends on the chains that are weighted. Therefore temperatures, step
sizes and scales come from a *pilot* with chains of its own, and are then frozen.

The pilot is in :mod:`.pilot`.

References:
    Annealed importance sampling (Neal, 2001), Statistics and Computing 11, arXiv:physics/9803008.
    Sandwiching the marginal likelihood using bidirectional Monte Carlo (Grosse, Ghahramani & Adams, 2015),
    arXiv:1511.02543.
    On the Quantitative Analysis of Decoder-Based Generative Models (Wu et al., 2017), arXiv:1611.04273.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..option_records import LEAPFROG_STEPS, Start
from ..pair import Point, Terms, evaluate
from .hmc import Info, transition
from .mixture_start import AnnealingPath
from .pilot import Tuning

# A trajectory whose energy changes by more than this, in nats, has left the path that it should follow.
DIVERGED = 20.0


class Annealed(NamedTuple):
    """Chains that were annealed.

    Attributes:
        log_w: log weights, ``(num_chains, num_data)``, E[w] = p(x).
        point: the last states.
        acceptance: the mean of the transitions, ``(num_data,)``.
        diverged: the share of the trajectories whose energy rose by more than 20 nats, ``(num_data,)``; those that
            ended where there is no density do not count.
    """

    log_w: Tensor
    point: Point
    acceptance: Tensor
    diverged: Tensor


def forward(
    pair: AnnealingPath,
    tuning: Tuning,
    start: Start,
    num_chains: int,
    num_steps: int = LEAPFROG_STEPS,
    after_each: Callable[[], None] = lambda: None,
) -> Annealed:
    """Chains from the start to the posterior.

    Args:
        pair: the pair on the data.
        tuning: from :func:`tune`.
        start: as in the tuning.
        num_chains: C.
        num_steps: leapfrog steps of a transition.
        after_each: called after each of the T − 1 transitions.

    Returns:
        Their weights, their last states, and how they moved.
    """
    terms, betas = pair.path(start), tuning.betas
    point = evaluate(terms, pair.draw(start, num_chains))
    log_w = torch.zeros_like(point.values[0])
    accepted, diverged = (torch.zeros_like(point.values[0, 0]) for _ in range(2))
    for t in range(1, len(betas)):
        log_w = log_w + _increment(point, betas[t - 1], betas[t])
        if t < len(betas) - 1:
            point, info = _move(terms, point, tuning, betas[t], num_steps)
            accepted += info.acceptance.mean(0) / max(len(betas) - 2, 1)
            far = (info.energy_error > DIVERGED) & info.energy_error.isfinite()
            diverged += far.double().mean(0) / max(len(betas) - 2, 1)
            after_each()
    return Annealed(log_w, point, accepted, diverged)


class Chains(NamedTuple):
    """Chains that were annealed in portions.

    Attributes:
        log_w: log weights, ``(num_chains, num_data)``, on the CPU.
        ends: where they ended, ``(num_chains, num_data, dim)``.
        last: the ends of the last portion, as many as the memory allows with gradients.
        acceptance: the mean of the transitions, ``(num_data,)``.
        diverged: the share of the trajectories that diverged, ``(num_data,)``.
    """

    log_w: Tensor
    ends: Tensor
    last: Tensor
    acceptance: Tensor
    diverged: Tensor


def forward_in_portions(
    pair: AnnealingPath,
    tuning: Tuning,
    start: Start,
    num_chains: int,
    memory_mb: float,
    num_steps: int = LEAPFROG_STEPS,
    after_each: Callable[[int], None] = lambda count: None,
) -> Chains:
    """As many chains at a time as the memory holds; as :func:`forward`.

    Args:
        pair: as there, as those that are not named here.
        tuning: see there.
        start: see there.
        num_chains: of all portions.
        memory_mb: budget in MiB for one pass of the pair.
        num_steps: see there.
        after_each: called after each transition with the number of transitions of all data that it was.
    """
    parts = []
    for chains in pair.portions(num_chains, memory_mb):
        count = chains.stop - chains.start
        moved = partial(after_each, count * pair.num_units)
        parts.append(forward(pair, tuning, start, count, num_steps, moved))
    acceptance, diverged = (
        torch.stack([getattr(part, name) * len(part.log_w) / num_chains for part in parts]).sum(0).cpu()
        for name in ("acceptance", "diverged")
    )
    ends = [part.point.u for part in parts]
    log_w = torch.cat([part.log_w for part in parts]).cpu()
    return Chains(log_w, torch.cat(ends), ends[-1], acceptance, diverged)


def backward(
    pair: AnnealingPath,
    tuning: Tuning,
    start: Start,
    u: Tensor,
    num_steps: int = LEAPFROG_STEPS,
    after_each: Callable[[], None] = lambda: None,
) -> Tensor:
    """Chains from exact posterior draws back to the start.

    Args:
        pair: the pair on the data.
        tuning: from :func:`tune`.
        start: as in the tuning.
        u: draws of p(u|x), ``(num_chains, num_data, dim)``.
        num_steps: leapfrog steps of a transition.
        after_each: called after each of the T − 1 transitions.

    Returns:
        log w, ``(num_chains, num_data)``, E[1/w] = 1/p(x).
    """
    terms, betas = pair.path(start), tuning.betas
    point = evaluate(terms, u)
    log_w = torch.zeros_like(point.values[0])
    for t in range(len(betas) - 1, 0, -1):
        log_w = log_w + _increment(point, betas[t - 1], betas[t])
        if t > 1:
            point, _ = _move(terms, point, tuning, betas[t - 1], num_steps)
            after_each()
    return log_w


def _increment(point: Point, before: Tensor, after: Tensor) -> Tensor:
    """(β_t − β_{t−1}) [log p(x, u) − log π₀(u)]."""
    log_start, log_joint = point.values
    return torch.where(after > before, (after - before) * (log_joint - log_start), 0.0)


def _move(terms: Terms, point: Point, tuning: Tuning, beta: Tensor, num_steps: int) -> tuple[Point, Info]:
    step, scale = tuning.at(beta)
    return transition(terms, point, torch.stack([1 - beta, beta]), step, scale, num_steps, tuning.follow)
