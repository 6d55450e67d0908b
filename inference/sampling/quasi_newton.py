"""Maximise log p(x, u) from several places of every datum at once, by the BFGS method.

Each climber has a matrix H, an estimate of the inverse of −∇∇ log p(x, u), and moves along H∇ log p. A move that does
not raise log p is undone and tried again at a quarter of its length. From the change s of u and the change −y of the
gradient,

    H ← (I − ρ s yᵀ) H (I − ρ y sᵀ) + ρ s sᵀ,    ρ = 1/sᵀy,

where sᵀy > 0. At the top, H is an estimate of the covariance of the normal distribution with the curvature of log p.

References:
    Numerical Optimization (Nocedal & Wright, 2006), §6.1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..pair import Terms, evaluate

# The share of the rise that the gradient promises that a move must bring, and how a move that does not is shortened.
_LEAST_RISE, _SHORTER = 1e-4, 0.25
# Above this many latents H stays diagonal.
DENSE_LIMIT = 64


class Climbed(NamedTuple):
    """The places that the climbs have reached.

    Attributes:
        u: ``(num_climbers, num_data, dim)``.
        values: log p(x, u), ``(num_climbers, num_data)``.
        inverse_curvature: H, ``(num_climbers, num_data, dim, dim)``, float64, positive definite.
    """

    u: Tensor
    values: Tensor
    inverse_curvature: Tensor


def climb(log_density: Terms, u: Tensor, scale: Tensor, farthest: Tensor, num_steps: int) -> Climbed:
    """Climb a log density.

    Args:
        log_density: u ↦ ``(1, num_climbers, num_data)``.
        u: where to start, ``(num_climbers, num_data, dim)``.
        scale: standard deviations that H starts from, ``(num_data, dim)``.
        farthest: how far a move may go in each coordinate, ``(num_data, dim)``.
        num_steps: gradients that each climber may ask for, beside the first.
    """
    point = evaluate(log_density, u)
    u, values, gradient = point.u.double(), point.values[0], point.gradients[0].double()
    inverse = torch.diag_embed(scale.double().square()).expand(len(u), -1, -1, -1).clone()
    length = torch.ones_like(values)
    for _ in range(num_steps):
        move = torch.einsum("rnij,rnj->rni", inverse, gradient)
        excess = (move.abs() / farthest).amax(-1, keepdim=True) if move.shape[-1] else move.new_ones(*values.shape, 1)
        move = length[..., None] * move / excess.clamp(min=1.0)
        tried = evaluate(log_density, (u + move).to(point.u))
        rise = _LEAST_RISE * (gradient * move).sum(-1)
        better = tried.values[0] >= values + rise
        if u.shape[-1] <= DENSE_LIMIT:
            _update(inverse, move, gradient - tried.gradients[0].double(), better)
        u = torch.where(better[..., None], u + move, u)
        gradient = torch.where(better[..., None], tried.gradients[0].double(), gradient)
        values = torch.where(better, tried.values[0], values)
        length = torch.where(better, 1.0, length * _SHORTER)
    return Climbed(u.to(point.u), values, inverse)


def _update(inverse: Tensor, s: Tensor, y: Tensor, better: Tensor) -> None:
    """The BFGS update of H in place, where the move was better and sᵀy is clearly positive.

    It is H + s vᵀ + v sᵀ with v = ½ (ρ² yᵀHy + ρ) s − ρ Hy: one pass over the matrices.
    """
    product = (s * y).sum(-1)
    hy = torch.einsum("rnij,rnj->rni", inverse, y)
    sound = better & (product > 1e-10 * s.norm(dim=-1) * y.norm(dim=-1))
    rho = torch.where(sound, 1 / product, 0.0)[..., None]
    v = (rho.square() * (y * hy).sum(-1, keepdim=True) + rho) / 2 * s - rho * hy
    sound &= (s.norm(dim=-1) * v.norm(dim=-1)).isfinite()
    s, v = (part.where(sound[..., None], 0.0).flatten(0, 1) for part in (s, v))
    inverse.flatten(0, 1).baddbmm_(torch.stack([s, v], -1), torch.stack([v, s], -2))
