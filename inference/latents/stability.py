"""Why a column of a linear decoder has collapsed: whether the likelihood would let it grow.

    model   z ~ N(0, I_d),   x ~ N(W z + b, Ψ)        Ψ diagonal; σ² I is probabilistic PCA

Let column w_j be zero, the others be as they are, and u a unit vector of Ψ^{−½} x-space at right angles to all of
Ψ^{−½} W. With S = Ψ^{−½} Cov(x) Ψ^{−½} and ρ = uᵀ S u, the variance that the data have along u in units of the noise, a
small column w_j = ε Ψ^{½} u changes the mean evidence by

    ½ ε² (ρ − 1),

so that it grows in the gradient flow if and only if ρ > 1. The ELBO of a guide that has collapsed with the column, mean
zero and variance one, has the second derivatives

    [ −1    ρ ]
    [  ρ   −ρ ]        along (column, guide's row),

whose larger eigenvalue has the sign of ρ − 1 too: the ELBO makes no column collapse that the likelihood does not. The
largest ρ of all u decides; for Ψ = σ² I at a maximum with respect to the others it is λ/σ², with λ the largest
eigenvalue of the data's covariance that the others leave out. So a column has collapsed either because the noise hides
all that is left out (ρ ≤ 1), and a smaller or a learnt σ² frees it, or because of the training (ρ > 1).

References:
    Don't Blame the ELBO! A Linear VAE Perspective on Posterior Collapse (Lucas, Tucker, Grosse & Norouzi, 2019),
    arXiv:1911.02469, theorem 1 and section 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppvae.errors import DataError, OptionError

from ..options import real, shown
from ..records import Printed

# In standard deviations of the noise: shorter columns, which have collapsed themselves, leave their direction out.
SHORT = 0.1


@dataclass(frozen=True, repr=False)
class ColumnStability(Printed):
    """Whether each column of W would stay at zero. Tensors of shape ``(latent_dim,)``, float64.

    Attributes:
        ratio: ρ, the largest variance of the data, in units of the noise, in a direction that the other columns leave
            out; λ/σ² at a maximum of probabilistic PCA. Zero when they leave out none.
        length: ``|Ψ^{−½} w_j|``, the column's present length in standard deviations of the noise.
        evidence_rate: ρ − 1, how fast a small column grows under the mean evidence, nats per squared length.
        elbo_rate: the same under the mean ELBO, column and guide together.
    """

    ratio: Tensor
    length: Tensor
    evidence_rate: Tensor
    elbo_rate: Tensor

    @property
    def stable(self) -> Tensor:
        """Whether a zero column stays at zero, ``(latent_dim,)`` bool."""
        return self.ratio <= 1

    def __repr__(self) -> str:
        stay, most = int(self.stable.sum()), float(self.ratio.max())
        return f"ColumnStability: {stay} of {len(self.ratio)} columns would stay at zero; largest ratio {most:.3g}"

    def reason(self, column: int) -> str:
        """Why this column, if it has collapsed, is where it is: a sentence."""
        ratio = float(self.ratio[column])
        if self.stable[column]:
            return (
                f"no direction that the other columns leave out varies more than the noise (at most {ratio:.3g} times "
                "its variance), so that the likelihood itself holds the column at zero: learn the noise variance, or "
                "set it lower, or do without the unit."
            )
        return (
            f"the other columns leave out a direction whose variance is {ratio:.3g} times the noise, so that "
            "likelihood and ELBO would both let the column grow: train longer, or from another start."
        )


def column_stability(weight: Tensor, noise_variance: Tensor | float, x: Tensor) -> ColumnStability:
    """Whether the likelihood itself keeps the collapsed columns of a linear-Gaussian decoder at zero.

    Args:
        weight: W, ``(num_features, latent_dim)``.
        noise_variance: σ², or the diagonal of Ψ ``(num_features,)``.
        x: the data ``(num_data, num_features)``; b is taken for their mean.

    Returns:
        ColumnStability: for every column, also for those that have not collapsed.

    Raises:
        OptionError: ``weight`` is not a matrix with a row per feature, or ``noise_variance`` is not positive.
        DataError: ``x`` is not a finite matrix of at least one datum.

    Example:
        Two directions vary, one column holds the first, and the noise is between what is left and nothing:

        >>> x = torch.tensor([[2.0, 1.0], [-2.0, 1.0], [2.0, -1.0], [-2.0, -1.0]])
        >>> W = torch.tensor([[1.9, 0.0], [0.0, 0.0]])
        >>> column_stability(W, 0.5, x).stable.tolist(), column_stability(W, 1.5, x).stable.tolist()
        ([False, False], [False, True])
    """
    if not _is_dense(x) or x.dim() != 2 or not len(x) or not torch.isfinite(x).all():
        raise DataError(f"x must be a finite matrix with a row per datum; it is {shown(x)}.")
    if not _is_dense(weight) or weight.dim() != 2 or len(weight) != x.shape[1] or not torch.isfinite(weight).all():
        raise OptionError(f"weight must have a row for each of the {x.shape[1]} features; it is {shown(weight)}.")
    W = weight.detach().double()
    noise = _noise(noise_variance, len(W))
    root = noise.expand(len(W)).sqrt() if noise.numel() == 1 else noise.sqrt()
    W = W / root[:, None]
    r = (x.detach().double() - x.detach().double().mean(0)) / root
    covariance = r.T @ r / len(r)
    ratio = torch.stack([_largest_left_out(covariance, _without(W, j)) for j in range(W.shape[1])])
    rates = [column_growth(float(rho), 1.0) for rho in ratio]
    evidence_rate, elbo_rate = torch.tensor(rates, dtype=torch.float64).T
    return ColumnStability(ratio, W.norm(dim=0), evidence_rate, elbo_rate)


def _is_dense(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_complex()


def _noise(value: Any, num_features: int) -> Tensor:
    """The noise variances, if they are one positive number or one for each feature.

    Raises:
        OptionError: they are not.
    """
    number = real(value)
    noise = torch.tensor(number) if number is not None else value.detach() if _is_dense(value) else torch.tensor(-1.0)
    noise = noise.double()
    if noise.numel() not in (1, num_features) or not ((noise > 0) & noise.isfinite()).all():
        raise OptionError(
            f"noise_variance must be one positive number, or one for each of the {num_features} features; it is "
            f"{shown(value)}."
        )
    return noise


def column_growth(eigenvalue: float, noise: float) -> tuple[float, float]:
    """How fast a small column along an eigenvector that is left out grows: by the mean evidence, by the mean ELBO.

        (λ − σ²)/σ⁴,   and the larger eigenvalue of [[−1/σ², λ/σ²], [λ/σ², −λ]]

    Args:
        eigenvalue: λ of the data's covariance.
        noise: σ².

    Returns:
        Two rates in nats per squared unit of x; both have the sign of λ − σ² where λ > 0.

    Example:
        >>> evidence, elbo = column_growth(eigenvalue=3.0, noise=1.0)
        >>> evidence, round(elbo, 4)  # √10 − 2
        (2.0, 1.1623)
    """
    middle, product = -(1 / noise + eigenvalue) / 2, eigenvalue / noise * (1 - eigenvalue / noise)
    smaller = middle - math.sqrt(middle**2 - product)
    return (eigenvalue - noise) / noise**2, product / smaller


def _without(W: Tensor, j: int) -> Tensor:
    """W without its column j."""
    return torch.cat([W[:, :j], W[:, j + 1 :]], 1)


def _largest_left_out(covariance: Tensor, W: Tensor) -> Tensor:
    """The largest eigenvalue of a covariance within the directions at right angles to the columns of W."""
    directions, lengths, _ = torch.linalg.svd(W, full_matrices=True)
    rest = directions[:, int((lengths > SHORT).sum()) :]
    if not rest.shape[1]:
        return covariance.new_zeros(())
    return torch.linalg.eigvalsh(rest.T @ covariance @ rest)[-1].clamp(min=0)
