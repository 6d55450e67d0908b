"""Families richer than the guide's: maps, per datum, of draws of the refined guide.

A guide's draw is a vector u of unconstrained latents, with density q(u|x). With its mean c and standard deviations s
(read off draws, per datum) let ε = (u − c)/s. A map f of the standardised draw gives the member

    u' = c + s f(ε),      log q'(u'|x) = log q(u|x) − log |det ∂f/∂ε|,

and each family holds the one before it, at the f from which it starts:

    full   f(ε) = b + L ε,  L lower triangular with a positive diagonal; identity at first. Of a Gaussian guide these
           are the Gaussians of every covariance.
    flow   f(ε) = b + L g₂(g₁(ε)) with two coupling layers, identity at first: the coordinates of one half are scaled
           and shifted by a small network of the other half, ε_b ↦ ε_b exp(2 tanh(r/2)) + t with
           (r, t) = W₂ tanh(W₁ ε_a + w₁) + w₂, and in the second layer the halves change places. With one latent there
           is no other half, and the layers are affine.

A weight of u' costs one run of the pair on u', and one on u.

References:
    Density Estimation Using Real NVP (Dinh, Sohl-Dickstein & Bengio, 2017), arXiv:1605.08803.
    Sticking the Landing (Roeder, Wu & Duvenaud, 2017), arXiv:1703.09194.
"""

from __future__ import annotations

import math
from typing import Any

import pyro
import torch
from torch import Tensor

from ..pair import Pair, generator_kept
from .ascent import Parameters

# Coupling layers of a flow, and hidden units of their networks.
NUM_LAYERS = 2
HIDDEN = 32

# A network's weights take shorter steps than a mean or a scale.
_NETWORK_UNIT = 0.1

# Tensors of an affine map and of a coupling layer.
_AFFINE, _COUPLING = 3, 4


class MapFamily:
    """Maps of a guide's draws, one for each datum.

    Args:
        pair: the pair of the model and the refined guide, inside its context.
        centre: c, ``(num_data, dim)``.
        spread: s, ``(num_data, dim)``.
        poorer: parameters to begin with, of the same family or of *full* (coupling layers are then put on top);
            None begins at the identity.
        couplings: with coupling layers.
    """

    def __init__(
        self,
        pair: Pair,
        centre: Tensor,
        spread: Tensor,
        poorer: Parameters | None = None,
        couplings: bool = False,
    ) -> None:
        self.pair, self.centre, self.spread = pair, centre, spread
        self.start = poorer or _identity(centre)
        if couplings and len(self.start) == _AFFINE:
            for layer in range(NUM_LAYERS):
                self.start += _coupling(centre, layer)

    def log_weights(self, parameters: Parameters, index: Any, num_particles: int) -> Tensor:
        """log p(x, u') − log q'(u'|x), ``(num_particles, num_data)``.

        Its gradient leaves out what comes from log q' itself, whose mean is zero.
        """
        pair, centre, spread = self.pair.rows(index), self.centre[index], self.spread[index]
        with pyro.validation_enabled(False):
            u = pair.draw("guide", num_particles)
            mapped, log_det = forward(parameters, ((u - centre) / spread).movedim(0, 1))
            moved = centre + spread * mapped.movedim(1, 0)
            if torch.is_grad_enabled():
                # log q' as a function of u' alone: back along the map as it stands.
                still = tuple(p.detach() for p in parameters)
                back, log_det = inverse(still, mapped)
                u = centre + spread * back.movedim(1, 0)
            log_q = pair.path("guide")(u)[0] - log_det.movedim(1, 0)
            return pair.joint(moved)[0] - log_q

    def units(self, parameters: Parameters, index: Any, num_particles: int) -> Parameters:
        """ε is standardised already; networks are handled with more care."""
        return tuple(torch.full_like(p[index], 1.0 if i < _AFFINE else _NETWORK_UNIT) for i, p in enumerate(self.start))


def unmapped_latent(pair: Pair) -> str | None:
    """The first latent that depends on a site that the guide enumerates, so that its draws cannot be mapped, or None.

    Such a latent has a draw for each value of that site, and no one vector u per unit.
    """
    one = pair.few
    with torch.no_grad(), generator_kept():
        trace: Any = one.programs.trace(one.guide, one.frame, one.batch, enumerate_sites=True)
    for name in pair.structure.drawn:
        site = trace.nodes[name]
        if site["value"].dim() - site["fn"].event_dim > one.structure.plates.nesting:
            return name
    return None


def moments(pair: Pair, num_draws: int, num_at_once: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the guide's draws, each ``(num_data, dim)``."""
    pieces = [pair.draw("guide", min(num_at_once, num_draws - k)) for k in range(0, num_draws, num_at_once)]
    u = torch.cat(pieces)
    spread = u.std(0)
    usable = torch.isfinite(spread) & (spread > 0)
    return u.mean(0), torch.where(usable, spread, 1.0)


def forward(parameters: Parameters, eps: Tensor) -> tuple[Tensor, Tensor]:
    """f(ε) and log |det ∂f/∂ε| of ``(num_data, num_particles, dim)``; the latter float64 and without the last dim."""
    log_det = torch.zeros(eps.shape[:-1], dtype=torch.float64, device=eps.device)
    for layer, weights in enumerate(_couplings(parameters)):
        moving, log_scale, shift = _transform(weights, eps, layer)
        eps = _replaced(eps, moving * log_scale.exp() + shift, layer)
        log_det = log_det + log_scale.double().sum(-1)
    shift, log_scale, _ = parameters[:_AFFINE]
    mapped = eps @ _scale_tril(parameters).mT + shift.unsqueeze(1)
    return mapped, log_det + log_scale.double().sum(-1, keepdim=True)


def inverse(parameters: Parameters, mapped: Tensor) -> tuple[Tensor, Tensor]:
    """ε = f⁻¹(mapped), and log |det ∂f/∂ε| there."""
    shift, log_scale, _ = parameters[:_AFFINE]
    eps = torch.linalg.solve_triangular(_scale_tril(parameters), (mapped - shift.unsqueeze(1)).mT, upper=False).mT
    log_det = log_scale.double().sum(-1, keepdim=True).expand(eps.shape[:-1])
    for layer, weights in reversed(list(enumerate(_couplings(parameters)))):
        moving, coupled_log_scale, coupled_shift = _transform(weights, eps, layer)
        eps = _replaced(eps, (moving - coupled_shift) * (-coupled_log_scale).exp(), layer)
        log_det = log_det + coupled_log_scale.double().sum(-1)
    return eps, log_det


def _identity(like: Tensor) -> Parameters:
    """b, log diag L, and L below its diagonal."""
    n, d = like.shape
    return torch.zeros_like(like), torch.zeros_like(like), like.new_zeros(n, d, d)


def _scale_tril(parameters: Parameters) -> Tensor:
    _, log_scale, lower = parameters[:_AFFINE]
    return lower.tril(-1) + log_scale.exp().diag_embed()


def _coupling(like: Tensor, layer: int) -> Parameters:
    """W₁, w₁, W₂, w₂: a random first layer, the same for every datum, and a second one of zeros."""
    n, d = like.shape
    still = len(range(d)[layer % 2 :: 2])
    moving = d - still
    weight = torch.randn(HIDDEN, still, dtype=like.dtype) / math.sqrt(max(still, 1))
    bias = 2 * torch.rand(HIDDEN, dtype=like.dtype) - 1
    return (
        weight.to(like.device).expand(n, -1, -1).clone(),
        bias.to(like.device).expand(n, -1).clone(),
        like.new_zeros(n, 2 * moving, HIDDEN),
        like.new_zeros(n, 2 * moving),
    )


def _couplings(parameters: Parameters) -> list[Parameters]:
    rest = parameters[_AFFINE:]
    return [rest[i : i + _COUPLING] for i in range(0, len(rest), _COUPLING)]


def _transform(weights: Parameters, eps: Tensor, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """The half that a layer moves, and the log scale and shift that the other half, which it leaves, gives it."""
    W1, w1, W2, w2 = weights
    still, moving = eps[..., layer % 2 :: 2], eps[..., 1 - layer % 2 :: 2]
    hidden = torch.tanh(still @ W1.mT + w1.unsqueeze(1))
    raw, shift = (hidden @ W2.mT + w2.unsqueeze(1)).chunk(2, -1)
    return moving, 2 * torch.tanh(raw / 2), shift


def _replaced(eps: Tensor, moved: Tensor, layer: int) -> Tensor:
    """ε with its moving half replaced."""
    still = eps[..., layer % 2 :: 2]
    even, odd = (still, moved) if layer % 2 == 0 else (moved, still)
    woven = torch.stack([even[..., : odd.shape[-1]], odd], -1).flatten(-2)
    return torch.cat([woven, even[..., odd.shape[-1] :]], -1)
