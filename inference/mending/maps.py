"""Invertible maps of a site's draws, with the density of what they give: how a guide's family is made richer.

A draw z of a site, in the coordinates u of the real line that belong to its support (z = T(u)), has a centre c and a
spread s under the guide that is there. The map is f in standardised coordinates,

    ε = (u − c)/s,    u' = c + s f(ε),    z' = T(u'),    log q'(z') = log q(z) − log |dz'/dz|,

with f = A ∘ C ∘ S, each the identity at first:

    A   affine: f(ε) = L ε + b, L lower triangular with a positive diagonal (all Gaussians of any covariance);
    S   sinh-arcsinh: ε_i ↦ sinh((arcsinh ε_i + a_i) e^{t_i}), the skewness and the tails of each coordinate;
    C   coupling layers: one half is scaled and shifted by a small network of the other half.

The numbers b, L, a and t, and what a coupling layer reads, are given from outside: by :mod:`.networks_of_guides`.

References:
    Sinh-arcsinh distributions (Jones & Pewsey, 2009), Biometrika 96(4).
    Density Estimation Using Real NVP (Dinh, Sohl-Dickstein & Bengio, 2017), arXiv:1605.08803.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.util import sum_rightmost
from torch import Tensor
from torch.distributions import Transform

from ..pair import bijection_to

# A coupling layer: the half that stays ↦ log scale and shift of the half that moves.
Coupling = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class MapNumbers:
    """The numbers of a map, of shapes ``(*batch, d)``; ``lower`` is ``(*batch, d, d)``.

    Attributes:
        shift: b.
        log_scale: the logarithm of L's diagonal.
        lower: L below its diagonal; other entries are not read.
        skew: a; None leaves S out.
        tail: t.
        couplings: the coupling layers, which move the halves in turn.
    """

    shift: Tensor
    log_scale: Tensor
    lower: Tensor
    skew: Tensor | None = None
    tail: Tensor | None = None
    couplings: tuple[Coupling, ...] = ()

    def forward(self, eps: Tensor) -> tuple[Tensor, Tensor]:
        """f(ε), and log |det ∂f/∂ε| without the last dim."""
        log_det = torch.zeros_like(eps)
        if self.skew is not None and self.tail is not None:
            log_det = _bent_log_det(eps, self.skew, self.tail)
            eps = _bent(eps, self.skew, self.tail)
        for layer, coupling in enumerate(self.couplings):
            still, moving = _halves(eps, layer)
            log_scale, shift = coupling(still)
            eps = _joined(still, moving * log_scale.exp() + shift, layer)
            log_det = log_det + _joined(torch.zeros_like(still), log_scale.expand_as(moving), layer)
        out = (self._scale_tril @ eps.unsqueeze(-1)).squeeze(-1) + self.shift
        return out, (log_det + self.log_scale).sum(-1)

    def inverse(self, out: Tensor) -> Tensor:
        """ε = f⁻¹(out)."""
        scale_tril, moved = torch.broadcast_tensors(self._scale_tril, (out - self.shift).unsqueeze(-1))
        eps = torch.linalg.solve_triangular(scale_tril, moved[..., :1], upper=False).squeeze(-1)
        for layer, coupling in reversed(list(enumerate(self.couplings))):
            still, moving = _halves(eps, layer)
            log_scale, shift = coupling(still)
            eps = _joined(still, (moving - shift) * (-log_scale).exp(), layer)
        if self.skew is not None and self.tail is not None:
            eps = torch.sinh(torch.arcsinh(eps) * (-self.tail).exp() - self.skew)
        return eps

    @property
    def _scale_tril(self) -> Tensor:
        return self.lower.tril(-1) + self.log_scale.exp().diag_embed()


def _bent(eps: Tensor, skew: Tensor, tail: Tensor) -> Tensor:
    return torch.sinh((torch.arcsinh(eps) + skew) * tail.exp())


def _bent_log_det(eps: Tensor, skew: Tensor, tail: Tensor) -> Tensor:
    inner = (torch.arcsinh(eps) + skew) * tail.exp()
    log_cosh = inner.abs() + torch.log1p((-2 * inner.abs()).exp()) - math.log(2)
    return log_cosh + tail - torch.log1p(eps.square()) / 2


def _halves(eps: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """The coordinates that a layer leaves, and those that it moves."""
    half = (eps.shape[-1] + 1) // 2
    first, second = eps[..., :half], eps[..., half:]
    return (first, second) if layer % 2 == 0 else (second, first)


def _joined(still: Tensor, moved: Tensor, layer: int) -> Tensor:
    return torch.cat([still, moved] if layer % 2 == 0 else [moved, still], -1)


class SiteMap(Transform):
    """A map of the draws of a site onto its own support, z ↦ z'.

    Args:
        fn: the distribution that the site has without the map.
        numbers: of the map.
    """

    bijective = True

    def __init__(self, fn: Any, numbers: MapNumbers) -> None:
        super().__init__(cache_size=1)
        self.domain = self.codomain = fn.support
        self.numbers, self.event_dims = numbers, fn.event_dim
        self.place = StandardisedSite.of(fn)
        self._log_det: tuple[Tensor, Tensor] | None = None  # of the last draw

    def with_cache(self, cache_size: int = 1) -> SiteMap:
        """Itself, which keeps its last pair of values always."""
        return self

    def _call(self, z: Tensor) -> Tensor:
        eps, log_det = self.numbers.forward(self.place.standardised(z))
        self._log_det = z, log_det
        return self.place.constrained(eps)

    def _inverse(self, z: Tensor) -> Tensor:
        return self.place.constrained(self.numbers.inverse(self.place.standardised(z)))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log |dz'/dz| by batch place."""
        if self._log_det is None or self._log_det[0] is not x:
            self._call(x)
        assert self._log_det is not None
        return self._log_det[1] + self.place.log_slope(y) - self.place.log_slope(x)


@dataclass(frozen=True)
class StandardisedSite:
    """The standardised unconstrained coordinates ε of a site's values, ``(*batch, d)``.

    Attributes:
        support: of the values.
        event_dim: of the values.
        centre: c.
        spread: s; where the distribution does not know its moments, c = 0 and s = 1.
        u_event: the shape of the event in unconstrained coordinates.
    """

    support: Any
    event_dim: int
    centre: Tensor
    spread: Tensor
    u_event: tuple[int, ...]

    @staticmethod
    def of(fn: Any) -> StandardisedSite:
        """Those of a distribution; of a mapped one, those of what was mapped."""
        while isinstance(fn, dist.TransformedDistribution) and isinstance(fn.transforms[-1], SiteMap):
            fn = fn.base_dist
        bijection = bijection_to(fn.support)
        try:
            mean, spread = fn.mean, fn.stddev
        except (NotImplementedError, AttributeError):
            mean = bijection(torch.zeros(bijection.inverse_shape(fn.batch_shape + fn.event_shape)))
            spread = torch.ones_like(mean)
        u = bijection.inv(mean)
        if bijection.domain.event_dim == 0:  # the spread of u to first order
            spread = spread * (-bijection.log_abs_det_jacobian(u, mean)).exp()
        else:
            spread = torch.ones_like(u)
        centre = torch.where(u.isfinite(), u, 0.0)
        spread = torch.where(spread.isfinite() & (spread > 0), spread, 1.0)
        batch, event = tuple(fn.batch_shape), tuple(u.shape[len(fn.batch_shape) :])
        flat = (*batch, math.prod(event))
        return StandardisedSite(fn.support, fn.event_dim, centre.reshape(flat), spread.reshape(flat), event)

    def standardised(self, z: Tensor) -> Tensor:
        """ε of values."""
        u = bijection_to(self.support).inv(z)
        return (u.reshape((*u.shape[: u.dim() - len(self.u_event)], -1)) - self.centre) / self.spread

    def constrained(self, eps: Tensor) -> Tensor:
        """The values at ε."""
        u = self.centre + self.spread * eps
        return bijection_to(self.support)(u.reshape((*u.shape[:-1], *self.u_event)))

    def log_slope(self, z: Tensor) -> Tensor:
        """log |dz/du| at values, by batch place."""
        bijection = bijection_to(self.support)
        own = bijection.log_abs_det_jacobian(bijection.inv(z), z)
        return sum_rightmost(own, self.event_dim - bijection.codomain.event_dim)
