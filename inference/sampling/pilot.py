"""The pilot of an annealing: it finds temperatures, step sizes and scales with chains of its own.

The pilot walks the bridge for each datum at its own pace. The speed of the path at β is the standard deviation σ(β) of
log p(x, u) − log π₀(u) under π_β; each step of the pilot covers about one unit of thermodynamic length Λ = ∫ σ dβ.
Steps of equal length are the best schedule, and with perfect mixing give Var[log w] ≈ Λ²/T and a bias of about Λ²/2T.

References:
    Annealing between distributions by averaging moments (Grosse, Maddison & Salakhutdinov, 2013), NIPS: Λ and T.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..option_records import LEAPFROG_STEPS, Schedule, Start
from ..pair import Point, Terms, evaluate
from .hmc import TARGET_ACCEPTANCE, Follow, leapfrog, transition
from .mixture_start import AnnealingPath

PILOT_CHAINS = 8
# Thermodynamic length that a step of the pilot covers, in nats.
PILOT_STRIDE = 1.0
# However far the end is, a step of the pilot leads to at least this temperature, or this factor beyond the last.
LEAST_BETA, LEAST_FACTOR = 1e-8, 1.1
# So little of the bridge remains that one step covers it.
LAST_REMAINDER = 0.02
# How fast log ε follows the acceptance, and how many draws the last scale counts for when a new one is estimated.
STEP_RATE, SCALE_PRIOR = 0.7, 16
# ε at the start, in units of the start's own standard deviations.
FIRST_STEP = 0.5
# A quarter of the period of a Gaussian of scale s: beyond it a trajectory turns back.
LONGEST = math.pi / 2
# Of the sigmoid schedule: σ(4(2t/T − 1)), rescaled to [0, 1] (Wu et al., 2017, §4.1).
SIGMOID_SLOPE = 4.0


class Pace(NamedTuple):
    """How fast a pilot walks a bridge.

    Attributes:
        most_share: of what remains of the bridge, the most that a step may cover, however short it seems: a bridge from
            a narrow guide widens only shortly before its end.
        num_transitions: at every temperature.
        warm_up: transitions before it leaves the start.
    """

    most_share: float
    num_transitions: int
    warm_up: int


# Where its tuning is that of the chains that count; where it only looks for the posterior.
SLOW, QUICK = Pace(0.3, 4, 12), Pace(0.6, 2, 8)


@dataclass(frozen=True)
class Tuning:
    """All that a run along the bridge needs to know beforehand, frozen.

    Attributes:
        betas: ``(T + 1, num_data)``, from 0 to 1.
        node_betas: temperatures at which the pilot tuned, ``(num_nodes, num_data)``, ascending.
        log_step: log ε there, ``(num_nodes, num_data)``.
        log_scale: log s there, ``(num_nodes, num_data, dim)``.
        node_lengths: thermodynamic length from the start to each node, ``(num_nodes, num_data)``, in nats.
        follow: how trajectories are followed.
    """

    betas: Tensor
    node_betas: Tensor
    log_step: Tensor
    log_scale: Tensor
    node_lengths: Tensor
    follow: Follow = leapfrog

    @property
    def length(self) -> Tensor:
        """Thermodynamic length Λ of the whole bridge, ``(num_data,)``, in nats."""
        return self.node_lengths[-1]

    def at(self, beta: Tensor) -> tuple[Tensor, Tensor]:
        """Step size ``(num_data,)`` and scale ``(num_data, dim)`` at a temperature ``(num_data,)``."""
        low, share = _between(self.node_betas, beta[None])
        step = _mix(self.log_step, low, share)[0].exp()
        scale = _mix(self.log_scale, low[..., None].expand(-1, -1, self.log_scale.shape[-1]), share[..., None])[0].exp()
        return step, scale

    def rows(self, index: Any) -> Tuning:
        """The tuning of some of the data."""
        parts: dict[str, Any] = {name: x[:, index] for name, x in vars(self).items() if isinstance(x, Tensor)}
        return replace(self, **parts)

    def with_distributions(self, num_distributions: int, schedule: Schedule = "adaptive") -> Tuning:
        """The same bridge in another number of steps."""
        return replace(self, betas=_betas(self.node_betas, self.node_lengths, num_distributions, schedule))


def tune(
    pair: AnnealingPath,
    start: Start,
    num_distributions: int,
    schedule: Schedule = "adaptive",
    num_steps: int = LEAPFROG_STEPS,
) -> Tuning:
    """Walk the bridge once with chains that are thrown away; see :func:`explore`."""
    return explore(pair, start, num_distributions, schedule, num_steps)[0]


def explore(
    pair: AnnealingPath,
    start: Start,
    num_distributions: int,
    schedule: Schedule = "adaptive",
    num_steps: int = LEAPFROG_STEPS,
    pace: Pace = SLOW,
    follow: Follow = leapfrog,
) -> tuple[Tuning, Point]:
    """Walk the bridge once with chains of which no weight is taken.

    Args:
        pair: the pair on the data.
        start: ``"guide"`` or ``"prior"``.
        num_distributions: T.
        schedule: ``"adaptive"`` (equal thermodynamic length, per datum), ``"sigmoid"`` or ``"linear"``.
        num_steps: leapfrog steps of a transition.
        pace: how fast.
        follow: how trajectories are followed.

    Returns:
        The tuning, and where the chains stand at the end.
    """
    terms = pair.path(start)
    point = evaluate(terms, pair.draw(start, PILOT_CHAINS))
    log_scale = _variance(pair.draw(start, 8 * PILOT_CHAINS)).clamp(min=1e-16).log() / 2
    beta = torch.zeros_like(point.values[0, 0])
    length, log_step = torch.zeros_like(beta), torch.full_like(beta, FIRST_STEP).log()
    nodes: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    while True:
        count = pace.num_transitions if nodes else pace.warm_up
        point, log_step, log_scale, speed = _linger(terms, point, beta, log_step, log_scale, count, num_steps, follow)
        nodes.append((beta, log_step, log_scale, length))
        if bool((beta >= 1).all()):
            break
        further = _next_beta(beta, speed, pace.most_share)
        length = length + (further - beta) * speed
        beta = further
    node_betas, log_steps, log_scales, lengths = (torch.stack(list(part)) for part in zip(*nodes, strict=True))
    betas = _betas(node_betas, lengths, num_distributions, schedule)
    return Tuning(betas, node_betas, log_steps, log_scales, lengths, follow), point


def _linger(
    terms: Terms,
    point: Point,
    beta: Tensor,
    log_step: Tensor,
    log_scale: Tensor,
    count: int,
    num_steps: int,
    follow: Follow,
) -> tuple[Point, Tensor, Tensor, Tensor]:
    """The pilot at one temperature: move, follow the acceptance, estimate the scale and the speed σ(β)."""
    coefficients = torch.stack([1 - beta, beta])
    places, increments = [], []
    for _ in range(count):
        point, info = transition(terms, point, coefficients, log_step.exp(), log_scale.exp(), num_steps, follow)
        log_step = log_step + STEP_RATE * (info.acceptance.mean(0) - TARGET_ACCEPTANCE)
        log_step = log_step.clamp(max=math.log(LONGEST / num_steps))
        places.append(point.u)
        increments.append(point.values[1] - point.values[0])
    variance = _variance(torch.cat(places))
    n = count * PILOT_CHAINS / 2  # successive states are not independent
    blended = (n * variance + SCALE_PRIOR * (2 * log_scale).exp()) / (n + SCALE_PRIOR)
    new_scale = blended.clamp(min=1e-16).log() / 2
    # ε was tuned with the old scale: what a step covers stays the same on average.
    log_step = log_step - (new_scale - log_scale).sum(-1) / max(log_scale.shape[-1], 1)
    log_step = log_step.clamp(max=math.log(LONGEST / num_steps))
    speed = torch.cat(increments).std(0).nan_to_num(1e-8, 1e-8, 1e-8).clamp(min=1e-8)
    return point, log_step, new_scale, speed


def _variance(u: Tensor) -> Tensor:
    """Over the first dim, in float64; there may be no latents at all."""
    u = u.double()
    return (u - u.mean(0)).square().mean(0)


def _next_beta(beta: Tensor, speed: Tensor, most_share: float) -> Tensor:
    """Where the pilot goes next."""
    least = (beta * LEAST_FACTOR).clamp(min=LEAST_BETA)
    remains = 1 - beta
    most = torch.where(remains > LAST_REMAINDER, beta + most_share * remains, 1.0)
    return torch.minimum(torch.maximum(beta + PILOT_STRIDE / speed, least), most).clamp(max=1.0)


def _betas(node_betas: Tensor, lengths: Tensor, num_distributions: int, schedule: Schedule) -> Tensor:
    """The temperatures of a schedule, ``(T + 1, num_data)``."""
    share = torch.linspace(0, 1, num_distributions + 1, dtype=torch.float64, device=lengths.device)
    if schedule == "adaptive":
        wanted = share[:, None] * lengths[-1]
        betas = _mix(node_betas, *_between(lengths, wanted))
    else:
        bent = torch.sigmoid(SIGMOID_SLOPE * (2 * share - 1))
        even = (bent - bent[0]) / (bent[-1] - bent[0]) if schedule == "sigmoid" else share
        betas = even[:, None].expand(-1, node_betas.shape[1]).clone()
    betas[0], betas[-1] = 0.0, 1.0
    return betas


def _between(nodes: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """For ``(n, num_data)`` values: the node below each, and how far it is to the next, in [0, 1]."""
    low = torch.searchsorted(nodes.T.contiguous(), values.T.contiguous(), right=True).T - 1
    low = low.clamp(0, max(len(nodes) - 2, 0))
    high = (low + 1).clamp(max=len(nodes) - 1)
    width = nodes.gather(0, high) - nodes.gather(0, low)
    share = torch.where(width > 0, (values - nodes.gather(0, low)) / width, 1.0)
    return low, share.clamp(0, 1)


def _mix(nodes: Tensor, low: Tensor, share: Tensor) -> Tensor:
    """Linear between the nodes ``low`` and ``low + 1``."""
    high = (low + 1).clamp(max=len(nodes) - 1)
    return nodes.gather(0, low) * (1 - share) + nodes.gather(0, high) * share
