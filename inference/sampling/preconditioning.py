"""A pair seen in coordinates in which the posterior is nearly a standard normal.

With draws u of the posterior (or nearly) and the gradients g = ∇ log p(x, u) at them, the normal N(m, S) that is
nearest to the posterior in Fisher divergence, E|∇ log p(x, u) + S⁻¹(u − m)|² in the metric S, is

    S cov(g) S = cov(u),      m = mean(u) + S mean(g):

S is the geometric mean of cov(u) and cov(g)⁻¹. If the posterior is normal, then g is linear in u and the fit is exact
from any dim + 1 draws, wherever they lie; else it errs far less than cov(u) alone, since the gradients tell of the
posterior's width even where few draws do. Both covariances are drawn towards their diagonals where draws are few.

In v = L⁻¹(u − m), S = LLᵀ, all directions have one scale and no correlation, so that a bridge from N(0, I) is short
and even, and a transition at any temperature crosses it quickly: three rotations (:func:`.hmc.rotate`), which follow
the normal itself exactly, at an angle that needs no tuning. Integrals over v are integrals over u: nothing is lost
where the fit is poor but the shortness of the bridge.

References:
    Preconditioning Hamiltonian Monte Carlo by Minimizing Fisher Divergence (Seyboldt, Carlson & Carpenter, 2026),
    arXiv:2603.18845.
    Split Hamiltonian Monte Carlo (Shahbaba, Lan, Johnson & Neal, 2014), arXiv:1106.5941: rotations.
    Batch and match: black-box variational inference with a score-based divergence (Cai et al., 2024), arXiv:2402.14758.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..option_records import Start
from ..pair import Evaluated, Pair
from .hmc import rotate
from .pilot import Tuning

# How many draws a diagonal covariance counts for when a full one is estimated. Few: the two covariances make up for
# each other's errors, and a diagonal one widens the narrow directions of a correlated posterior.
DIAGONAL_DRAWS = 1
# Of a rotation: three of them, as a transition has, turn a chain by nearly a quarter of a circle.
ANGLE = 0.5
# A chain that has run away spoils the fit of its datum, but must not spoil the arithmetic of the others.
_FARTHEST = 1e12


@dataclass(frozen=True)
class Standardised:
    """A pair in the coordinates v. Chains start from N(0, I), whichever start is named.

    Attributes:
        pair: the pair on data, a function of u.
        loc: m, ``(num_units, dim)``.
        scale_tril: L, ``(num_units, dim, dim)``.
    """

    pair: Pair
    loc: Tensor
    scale_tril: Tensor

    @property
    def num_units(self) -> int:
        """How many units there are."""
        return self.pair.num_units

    @property
    def dim(self) -> int:
        """How many real numbers a unit's latents are."""
        return self.pair.dim

    def rows(self, index: Any) -> Standardised:
        """The same view of some of the units."""
        return Standardised(self.pair.rows(index), self.loc[index], self.scale_tril[index])

    def portions(self, num_draws: int, memory_mb: float) -> Iterator[slice]:
        """See :meth:`ppvae.inference.pair.Pair.portions`."""
        return self.pair.portions(num_draws, memory_mb)

    def place(self, v: Tensor) -> Tensor:
        """U = m + Lv, ``(num_chains, num_units, dim)``."""
        return self.loc.to(v) + torch.einsum("nij,cnj->cni", self.scale_tril.to(v), v)

    def coordinates(self, u: Tensor) -> Tensor:
        """V = L⁻¹(u − m), ``(num_draws, num_units, dim)``."""
        centred = (u - self.loc.to(u)).permute(1, 2, 0)
        return torch.linalg.solve_triangular(self.scale_tril.to(u), centred, upper=False).permute(2, 0, 1)

    @property
    def joint(self) -> StandardisedDensities:
        """v ↦ log p(x, v) = log p(x, u) + log |L|, ``(1, num_chains, num_units)``."""
        return StandardisedDensities(self, from_start=False)

    def path(self, start: Start) -> StandardisedDensities:
        """v ↦ log N(v; 0, I), and log p(x, v); ``(num_chains, num_units)`` each."""
        return StandardisedDensities(self, from_start=True)

    def draw(self, start: Start, num_chains: int) -> Tensor:
        """Draws of N(0, I), ``(num_chains, num_units, dim)``."""
        return torch.randn(num_chains, self.num_units, self.dim, dtype=self.loc.dtype, device=self.loc.device)

    def even_bridge(self, num_distributions: int) -> Tuning:
        """The way to a posterior near N(0, I), which needs no pilot: even temperatures, and rotations by one angle."""
        like: dict[str, Any] = {"dtype": torch.float64, "device": self.loc.device}
        ends = torch.tensor([[0.0], [1.0]], **like).expand(2, self.num_units)
        betas = torch.linspace(0, 1, num_distributions + 1, **like)[:, None].expand(-1, self.num_units)
        log_angle = torch.full_like(ends, math.log(ANGLE))
        return Tuning(betas, ends, log_angle, torch.zeros(2, self.num_units, self.dim, **like), ends, rotate)


@dataclass(frozen=True)
class StandardisedDensities:
    """log p(x, v), or the ends of a path to it, as a function of v.

    Attributes:
        view: the pair in the coordinates v.
        from_start: whether log N(v; 0, I) comes before it.
    """

    view: Standardised
    from_start: bool

    def __call__(self, v: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """``(num_chains, num_units)`` each; of one term, ``(1, num_chains, num_units)``."""
        log_joint = self.view.pair.joint(self.view.place(v))[0] + self._log_volume
        return (self._log_start(v), log_joint) if self.from_start else log_joint[None]

    def with_gradients(self, v: Tensor) -> Evaluated | None:
        """With gradients from those of the pair, ∇ log p(x, v) = Lᵀ ∇ log p(x, u)."""
        found = self.view.pair.joint.with_gradients(self.view.place(v))
        if found is None:
            return None
        log_joint = found.values + self._log_volume
        gradient = torch.einsum("nij,tcni->tcnj", self.view.scale_tril.to(v), found.gradients)
        if not self.from_start:
            return Evaluated(log_joint, gradient)
        return Evaluated(torch.cat([self._log_start(v)[None], log_joint]), torch.cat([-v[None], gradient]))

    def _log_start(self, v: Tensor) -> Tensor:
        return -v.double().square().sum(-1) / 2 - self.view.dim * math.log(2 * math.pi) / 2

    @property
    def _log_volume(self) -> Tensor:
        """log |L|, ``(num_units,)``."""
        return self.view.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def standardised(view: Pair | Standardised, u: Tensor, gradients: Tensor) -> Standardised:
    """The pair in the coordinates that fit some draws.

    Args:
        view: the pair on the data, or a view of it that was fitted before.
        u: places where the posterior is, ``(num_draws, num_units, dim)``, in the coordinates of the view.
        gradients: of its log joint density there.
    """
    loc, scale_tril = nearest_normal(u.double(), gradients.double())
    if isinstance(view, Pair):
        return Standardised(view, loc.to(u), scale_tril.to(u))
    # One map after the other is a map again.
    return Standardised(view.pair, view.place(loc[None])[0].to(u), (view.scale_tril.double() @ scale_tril).to(u))


def nearest_normal(u: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``(num_data, dim)`` and Cholesky factor ``(num_data, dim, dim)`` of the nearest normal.

    Args:
        u: draws, ``(num_draws, num_data, dim)``.
        gradients: of the log density at them.

    Example:
        From a handful of places, none of them drawn from it, a normal is found exactly but for the shrinkage:

        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> variance = torch.tensor([4.0, 0.25])
        >>> u = torch.randn(500, 1, 2)
        >>> loc, scale_tril = nearest_normal(u, -(u - 3.0) / variance)
        >>> [round(m, 2) for m in loc[0].tolist()], [round(s, 2) for s in scale_tril[0].diagonal().tolist()]
        ([3.0, 3.0], [2.0, 0.5])
    """
    u, gradients = u.clamp(-_FARTHEST, _FARTHEST), gradients.clamp(-_FARTHEST, _FARTHEST)
    spread, steepness = _covariance(u), _covariance(gradients)
    # In units in which both are of size one, so that no direction is lost to rounding.
    unit = (_diagonal(spread) / _diagonal(steepness)).clamp(1e-24, 1e24) ** 0.25
    over = unit[..., :, None] * unit[..., None, :]
    share = len(u) / (len(u) + DIAGONAL_DRAWS)
    a, b = (_shrunk(matrix, share) for matrix in (spread / over, steepness * over))
    root = _power(a, 0.5)
    s = root @ _power(root @ b @ root, -0.5) @ root * over
    loc = u.mean(0) + torch.einsum("nij,nj->ni", s, gradients.mean(0))
    return loc, torch.linalg.cholesky((s + s.mT) / 2)


def _covariance(values: Tensor) -> Tensor:
    """``(num_draws, num_data, dim)`` → ``(num_data, dim, dim)``; no direction is without width."""
    centred = values - values.mean(0)
    covariance = torch.einsum("kni,knj->nij", centred, centred) / len(values)
    floor = 1e-10 * _diagonal(covariance).clamp(min=1e-16)
    return covariance + torch.diag_embed(floor)


def _diagonal(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1)


def _shrunk(matrix: Tensor, share: float) -> Tensor:
    return share * matrix + (1 - share) * torch.diag_embed(_diagonal(matrix))


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """A power of symmetric positive matrices."""
    values, vectors = torch.linalg.eigh(matrix)
    least = 1e-10 * values[..., -1:].clamp(min=1e-200)
    return (vectors * values.clamp(min=least)[..., None, :] ** exponent) @ vectors.mT
