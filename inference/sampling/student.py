"""A mixture of multivariate Student t distributions for every datum: a proposal with heavy tails at given places."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Degrees of freedom: few, so that the weights of a normal mode are bounded.
FREEDOM = 5.0


@dataclass(frozen=True)
class StudentMixture:
    """Components with weights, per datum.

    Attributes:
        loc: ``(num_components, num_data, dim)``, float64.
        scale_tril: Cholesky factors of the scales, ``(num_components, num_data, dim, dim)``.
        log_shares: log weights, ``(num_components, num_data)``; −inf for a component that a datum does not have.
        dtype: of the draws.
    """

    loc: Tensor
    scale_tril: Tensor
    log_shares: Tensor
    dtype: torch.dtype

    @staticmethod
    def at(loc: Tensor, scale: Tensor, log_mass: Tensor) -> StudentMixture:
        """Components with scale matrices, and weights between equal ones and those of their masses.

        Args:
            loc: ``(num_components, num_data, dim)``.
            scale: ``(num_components, num_data, dim, dim)``.
            log_mass: ``(num_components, num_data)``, −inf for a component that is not to be used.
        """
        tril, failed = torch.linalg.cholesky_ex((scale + scale.mT) / 2)
        log_mass = log_mass.where((failed == 0) & log_mass.isfinite(), -math.inf)
        equal = log_mass.isfinite().double()
        equal = equal / equal.sum(0).clamp(min=1.0)
        shares = (log_mass.softmax(0).nan_to_num(0.0) + equal) / 2
        tril = tril.where((failed == 0)[..., None, None], torch.eye(tril.shape[-1]).to(tril))
        return StudentMixture(loc.double(), tril, shares.log(), loc.dtype)

    @property
    def known(self) -> Tensor:
        """Which data have a component at all, ``(num_data,)`` bool."""
        return self.log_shares.isfinite().any(0)

    def joined(self, other: StudentMixture) -> StudentMixture:
        """The components of both; those of the other have a third of the shares, or all if there are no others."""
        mine = torch.where(self.known, math.log(2 / 3), 0.0) + self.log_shares
        theirs = torch.where(self.known, math.log(1 / 3), 0.0) + other.log_shares
        return StudentMixture(
            torch.cat([self.loc, other.loc]),
            torch.cat([self.scale_tril, other.scale_tril]),
            torch.cat([mine, theirs]),
            self.dtype,
        )

    @staticmethod
    def concatenate(parts: list[StudentMixture]) -> StudentMixture:
        """The mixtures of the data of several, in order."""
        count = max(len(part.loc) for part in parts)
        padded = [part._padded(count - len(part.loc)) for part in parts]
        loc, tril, log_shares = (
            torch.cat([getattr(p, name) for p in padded], 1) for name in ("loc", "scale_tril", "log_shares")
        )
        return StudentMixture(loc, tril, log_shares, parts[0].dtype)

    def _padded(self, count: int) -> StudentMixture:
        """With further components, which have no share."""
        loc, tril = (t[:1].expand(count, *t.shape[1:]) for t in (self.loc, self.scale_tril))
        none = torch.full_like(self.log_shares[:1].expand(count, -1), -math.inf)
        return StudentMixture(
            torch.cat([self.loc, loc]),
            torch.cat([self.scale_tril, tril]),
            torch.cat([self.log_shares, none]),
            self.dtype,
        )

    def rows(self, index: Any) -> StudentMixture:
        """The mixtures of some of the data."""
        return StudentMixture(self.loc[:, index], self.scale_tril[:, index], self.log_shares[:, index], self.dtype)

    def draw(self, count: int) -> Tensor:
        """Draws ``(count, num_data, dim)``; of a datum without components they mean nothing."""
        shares = self.log_shares.exp().T.where(self.known[:, None], 1.0)
        which = torch.multinomial(shares, count, replacement=True).T
        data = torch.arange(self.loc.shape[1], device=self.loc.device)
        loc = self.loc[which, data]
        normal = torch.randn_like(loc)
        chi = torch.distributions.Chi2(torch.full(loc.shape[:-1], FREEDOM, dtype=loc.dtype, device=loc.device)).sample()
        step = torch.zeros_like(normal)
        # Component by component: a matrix for every draw would take dim times the memory of the draws.
        for i, tril in enumerate(self.scale_tril):
            step = torch.where((which == i)[..., None], torch.einsum("nij,knj->kni", tril, normal), step)
        return (loc + step * (FREEDOM / chi).sqrt()[..., None]).to(self.dtype)

    def log_prob(self, u: Tensor) -> Tensor:
        """Log density ``(count, num_data)``; −inf of a datum without components."""
        dim = u.shape[-1]
        constant = math.lgamma((FREEDOM + dim) / 2) - math.lgamma(FREEDOM / 2) - dim / 2 * math.log(FREEDOM * math.pi)
        total = torch.full(u.shape[:-1], -math.inf, dtype=torch.float64, device=u.device)
        for loc, tril, log_share in zip(self.loc, self.scale_tril, self.log_shares, strict=True):
            away = torch.linalg.solve_triangular(tril, (u.double() - loc).movedim(0, -1), upper=False)
            distance = away.square().sum(1).T
            log_det = tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
            log_prob = constant - log_det - (FREEDOM + dim) / 2 * (distance / FREEDOM).log1p()
            total = torch.logaddexp(total, log_prob + log_share)
        return total
