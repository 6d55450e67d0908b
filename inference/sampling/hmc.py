"""One transition of Hamiltonian Monte Carlo, for every chain and datum at once.

The target is a density that is linear in given terms, log π(u) = Σ_j c_j ℓ_j(u): a single term for a posterior, the two
ends of a path for annealing. With momenta p ~ N(0, M), M = diag(1/s²), and H(u, p) = −log π(u) + Σ s² p²/2, a
trajectory of L leapfrog steps of size ε,

    p ← p + ε/2 · ∇log π(u),    u ← u + ε s² p,    p ← p + ε/2 · ∇log π(u),

is reversible and keeps volume, so that accepting its end with probability min(1, exp(H − H')) leaves π invariant. A
step size per datum, since each datum has a posterior of its own; it is drawn anew in ε·[0.8, 1.2] for each trajectory,
independently of the state, so that no trajectory closes on itself.

References:
    MCMC using Hamiltonian dynamics (Neal, 2011), arXiv:1206.1901.
    Hybrid Monte Carlo (Duane, Kennedy, Pendleton & Roweth, 1987), Physics Letters B 195.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..pair import Point, Terms, evaluate

# The acceptance at which a trajectory of given cost moves farthest in many dimensions (Neal, 2011, §4.4).
TARGET_ACCEPTANCE = 0.65
JITTER = 0.2


class Info(NamedTuple):
    """What a transition did, each ``(num_chains, num_data)``.

    Attributes:
        acceptance: min(1, exp(−energy_error)); 0 where the energy is not a number.
        accepted: whether the end of the trajectory was taken.
        energy_error: H at the end − H at the beginning, in nats.
        energy: H at the beginning, with its fresh momentum, in nats.
    """

    acceptance: Tensor
    accepted: Tensor
    energy_error: Tensor
    energy: Tensor


def log_density(point: Point, coefficients: Tensor) -> Tensor:
    """log π = Σ_j c_j ℓ_j, ``(num_chains, num_data)``; a term of coefficient 0 counts as 0 even where it is −inf."""
    c = _columns(coefficients)
    return torch.where(c == 0, 0.0, c * point.values).sum(0)


def gradient(point: Point, coefficients: Tensor) -> Tensor:
    """∇log π, ``(num_chains, num_data, dim)``."""
    first, *others = _columns(coefficients)[..., None].to(point.gradients)
    total = first * point.gradients[0]
    for c, term in zip(others, point.gradients[1:], strict=True):
        total = torch.addcmul(total, c, term)
    return total


def _columns(coefficients: Tensor) -> Tensor:
    """Coefficients as ``(num_terms, 1, num_data or 1)``."""
    return coefficients.reshape(len(coefficients), 1, -1)


def leapfrog(
    terms: Terms, point: Point, momentum: Tensor, coefficients: Tensor, step_size: Tensor, scale: Tensor, num_steps: int
) -> tuple[Point, Tensor]:
    """Follow the dynamics for ``num_steps`` steps.

    Args:
        terms: u ↦ ``(num_terms, num_chains, num_data)``.
        point: where the trajectories begin.
        momentum: ``(num_chains, num_data, dim)``.
        coefficients: of the terms, ``(num_terms,)`` or ``(num_terms, num_data)``.
        step_size: ε, broadcast against ``(num_chains, num_data)``.
        scale: s, ``(num_data, dim)`` or broadcast against it.
        num_steps: L.

    Returns:
        Where they end, and the momentum there.
    """
    epsilon = step_size[..., None].to(momentum)
    half, stride = epsilon / 2, epsilon * scale**2
    kick = half * gradient(point, coefficients)
    for _ in range(num_steps):
        momentum = momentum + kick
        point = evaluate(terms, point.u + stride * momentum)
        kick = half * gradient(point, coefficients)
        momentum = momentum + kick
    return point, momentum


def rotate(
    terms: Terms, point: Point, momentum: Tensor, coefficients: Tensor, angle: Tensor, scale: Tensor, num_steps: int
) -> tuple[Point, Tensor]:
    """Follow the dynamics of a target near N(0, diag(s²)): as :func:`leapfrog`, with an angle in place of a step.

    The normal's own trajectories are circles and are followed exactly; only what the target adds to its force is
    left to the kicks, whose size is that at which a normal of another mean is followed exactly too.
    """
    angle = angle[..., None].to(momentum)
    cosine, sine, size = angle.cos(), angle.sin(), (angle / 2).tan()
    square = scale**2
    stride, pull = sine * square, point.u / square
    kick = size * (gradient(point, coefficients) + pull)
    for _ in range(num_steps):
        momentum = momentum + kick
        turned = cosine * point.u + stride * momentum
        momentum = cosine * momentum - sine * pull
        point = evaluate(terms, turned)
        pull = point.u / square
        kick = size * (gradient(point, coefficients) + pull)
        momentum = momentum + kick
    return point, momentum


# How a trajectory is followed, with the arguments of :func:`leapfrog`.
Follow = Callable[[Terms, Point, Tensor, Tensor, Tensor, Tensor, int], tuple[Point, Tensor]]


def transition(
    terms: Terms,
    point: Point,
    coefficients: Tensor,
    step_size: Tensor,
    scale: Tensor,
    num_steps: int,
    follow: Follow = leapfrog,
) -> tuple[Point, Info]:
    """One transition that leaves π invariant.

    Args:
        terms: u ↦ ``(num_terms, num_chains, num_data)``.
        point: the state of every chain.
        coefficients: of the terms in log π, ``(num_terms,)`` or ``(num_terms, num_data)``.
        step_size: ε, or the angle of a rotation, ``(num_data,)``; must not depend on the state.
        scale: s, the square root of the inverse mass, ``(num_data, dim)``; must not depend on the state.
        num_steps: L.
        follow: :func:`leapfrog` or :func:`rotate`.

    Returns:
        The next state, and what happened.

    Example:
        A standard normal, from far out:

        >>> import torch
        >>> from ppvae.inference.pair import evaluate
        >>> def terms(u):
        ...     return -u.square().sum(-1)[None] / 2
        >>> _ = torch.manual_seed(0)
        >>> point = evaluate(terms, torch.full((200, 1, 1), 5.0))
        >>> for _ in range(10):
        ...     point, info = transition(terms, point, torch.ones(1), torch.tensor([0.5]), torch.ones(1, 1), 4)
        >>> bool(point.u.mean().abs() < 0.3), bool(info.acceptance.mean() > 0.9)
        (True, True)
    """
    scale = scale.to(point.u)
    jitter = 1 + JITTER * (2 * torch.rand(point.u.shape[:2], dtype=torch.float64, device=point.u.device) - 1)
    momentum = torch.randn_like(point.u) / scale
    before = _energy(point, momentum, coefficients, scale)
    end, final = follow(terms, point, momentum, coefficients, step_size * jitter, scale, num_steps)
    after = _energy(end, final, coefficients, scale)
    error = after - before
    # From a place without a density, H = +inf, any place with one is taken, and no other such place.
    acceptance = (-error).exp().clamp(max=1.0).nan_to_num(0.0)
    accepted = torch.rand_like(acceptance) < acceptance
    return _choose(accepted, end, point), Info(acceptance, accepted, error, before)


def _energy(point: Point, momentum: Tensor, coefficients: Tensor, scale: Tensor) -> Tensor:
    energy = (momentum * scale).double().square().sum(-1) / 2 - log_density(point, coefficients)
    # An infinite density is an underflow (Gamma(½) at eᵘ = 0), which would hold a chain for ever.
    return torch.where(energy > -torch.inf, energy, torch.inf)


def _choose(accepted: Tensor, new: Point, old: Point) -> Point:
    return Point(
        torch.where(accepted[..., None], new.u, old.u),
        torch.where(accepted, new.values, old.values),
        torch.where(accepted[..., None], new.gradients, old.gradients),
    )
