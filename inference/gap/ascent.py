"""Maximise an ELBO for every datum at once, and say for each whether it has converged.

Each datum has parameters θ of its own, and its ELBO does not depend on those of the others. They are climbed together
by Adam, in rounds: within a round the step falls from its full length to zero by a cosine, so that the noise of the
gradient is averaged away; the next round starts at full length again. After a round the ELBO of its end is compared
with that of its start on the same random numbers, gain ± SE:

    the end is kept where its ELBO is the higher, else the datum goes back and its step is halved;
    a datum has **converged** when a whole round changed its ELBO by less than the tolerance, |gain| + 1.645 SE < tol,
    in a round that could have moved every parameter by one natural unit or more.

A round is never shorter than :data:`ROUND` steps when it is to prove convergence, so that a budget too small to move
cannot pass for arrival. Data that have converged rest; the others go on until their budget is spent. A step whose
gradient is not finite is left out for its datum alone.

References:
    Adam: A Method for Stochastic Optimization (Kingma & Ba, 2015), arXiv:1412.6980.
    SGDR: Stochastic Gradient Descent with Warm Restarts (Loshchilov & Hutter, 2017), arXiv:1608.03983.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..option_records import Optimiser
from ..pair import generator_kept

# Tensors whose first dimension counts the data.
Parameters = tuple[Tensor, ...]

# Steps of a round.
ROUND = 200
# Draws per datum on which a round's end is compared with its start.
CHECK_DRAWS = 512
# The quantile of the standard normal distribution that makes |gain| < tolerance a statement at 95 %.
_ONE_SIDED = 1.645
_BETA_1, _BETA_2 = 0.9, 0.99
# In nats per natural unit: a gradient as small as this is no reason for a full step.
_EPSILON = 1e-3


class Family(Protocol):
    """Distributions with parameters per datum.

    Attributes:
        start: the parameters to begin with.
    """

    start: Parameters

    def log_weights(self, parameters: Parameters, index: Any, num_particles: int) -> Tensor:
        """log p − log q of draws of a member for the data that ``index`` selects, with gradients."""
        ...

    def units(self, parameters: Parameters, index: Any, num_particles: int) -> Parameters:
        """The natural unit of each parameter."""
        ...


@dataclass(frozen=True)
class Ascent:
    """Where an ascent ended.

    Attributes:
        parameters: of every datum.
        converged: ``(num_data,)`` bool.
        steps: how many were made, ``(num_data,)``.
    """

    parameters: Parameters
    converged: Tensor
    steps: Tensor


def ascend(
    family: Family,
    optimiser: Optimiser,
    num_at_once: int,
    advance: Callable[[int], None] = lambda units: None,
) -> Ascent:
    """Maximise the ELBO of every datum by gradient steps from ``family.start``.

    Args:
        family: what is climbed.
        optimiser: steps and draws per datum; its learning rate is in natural units.
        num_at_once: draws per datum that may be weighed at once where no gradient is taken.
        advance: is told of every datum's steps, made or spared.
    """
    best = tuple(p.clone() for p in family.start)
    num_data, device = len(best[0]), best[0].device
    converged = torch.zeros(num_data, dtype=torch.bool, device=device)
    made = torch.zeros(num_data, dtype=torch.long, device=device)
    rate = torch.full((num_data,), optimiser.learning_rate, dtype=torch.float64, device=device)
    left = optimiser.steps
    while left > 0 and not converged.all():
        index = (~converged).nonzero()[:, 0]
        length = min(ROUND, left)
        start = tuple(p[index] for p in best)
        end = _round(family, start, index, rate[index], optimiser.num_particles, length)
        before, after = paired(family, start, end, index, CHECK_DRAWS, num_at_once)
        gain = (after - before).mean(0)
        error = (after - before).std(0) / math.sqrt(CHECK_DRAWS)
        higher = (gain > 0) | (torch.isfinite(after.mean(0)) & ~torch.isfinite(before.mean(0)))
        for p, new in zip(best, end, strict=True):
            p[index[higher]] = new[higher]
        could_move = (rate[index] * length / 2 >= 1) & (length >= ROUND)
        converged[index] = (gain.abs() + _ONE_SIDED * error < optimiser.tolerance) & could_move
        rate[index[~higher]] /= 2
        made[index] += length
        left -= length
        advance(length * len(index))
        advance(left * int(converged[index].sum()))
    return Ascent(best, converged, made)


def paired(
    family: Family, first: Parameters, second: Parameters, index: Any, num_draws: int, num_at_once: int
) -> tuple[Tensor, Tensor]:
    """Log weights of two members from the same random numbers, each ``(num_draws, num_data)``.

    Args:
        family: of both.
        first: parameters of the data that ``index`` selects, as is ``second``.
        second: see there.
        index: selects the data.
        num_draws: how many there are to be.
        num_at_once: how many to make at a time.
    """
    pieces: tuple[list[Tensor], list[Tensor]] = [], []
    with torch.no_grad():
        for k in range(0, num_draws, num_at_once):
            seed = int(torch.randint(2**31, ()))
            for member, out in zip((first, second), pieces, strict=True):
                with generator_kept(seed):
                    out.append(family.log_weights(member, index, min(num_at_once, num_draws - k)))
    return torch.cat(pieces[0]), torch.cat(pieces[1])


def _round(family: Family, start: Parameters, index: Any, rate: Tensor, num_particles: int, steps: int) -> Parameters:
    """One round of Adam with a step that falls to zero; the parameters of the data that ``index`` selects."""
    units = family.units(start, index, num_particles)
    at = [torch.zeros_like(p) for p in start]
    first, second = ([torch.zeros_like(p) for p in start] for _ in range(2))
    for t in range(1, steps + 1):
        gradients = _gradients(family, start, units, at, index, num_particles)
        step = rate * (1 + math.cos(math.pi * (t - 1) / steps)) / 2
        for d, m, v, g in zip(at, first, second, gradients, strict=True):
            m.lerp_(g, 1 - _BETA_1)
            v.lerp_(g.square(), 1 - _BETA_2)
            direction = m / (1 - _BETA_1**t) / ((v / (1 - _BETA_2**t)).sqrt() + _EPSILON)
            d += _over(step, direction) * direction
    return tuple(p + unit * d for p, unit, d in zip(start, units, at, strict=True))


def _gradients(
    family: Family, start: Parameters, units: Parameters, at: list[Tensor], index: Any, num_particles: int
) -> list[Tensor]:
    """Of each datum's ELBO in its parameters, in natural units; zero for a datum where one is not finite."""
    with torch.enable_grad():
        moving = [d.detach().requires_grad_() for d in at]
        parameters = tuple(p + unit * d for p, unit, d in zip(start, units, moving, strict=True))
        elbo = family.log_weights(parameters, index, num_particles).mean(0)
        gradients = torch.autograd.grad(elbo.sum(), moving)
    finite = torch.stack([torch.isfinite(g).reshape(len(g), -1).all(1) for g in gradients]).all(0)
    return [torch.where(_over(finite, g), g, 0.0) for g in gradients]


def _over(per_datum: Tensor, like: Tensor) -> Tensor:
    """A number per datum, shaped to multiply a parameter."""
    out = per_datum.reshape(-1, *(1,) * (like.dim() - 1))
    return out if out.dtype == torch.bool else out.to(like.dtype)
