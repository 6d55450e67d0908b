"""The growth rate of a column of a linear VAE's W that has collapsed to zero.

At a stationary point of the evidence for a fixed noise variance σ², with the other columns at their optimum and the
last at zero, a small column ε u along the eigenvector u of a left-out eigenvalue λ changes the mean evidence by

    ½ ε² (λ − σ²) / σ⁴,

so that it grows in the gradient flow if and only if σ² < λ. The ELBO of a guide that has collapsed with it,
v = 0 and S_ii = 1, has the second derivatives

    [ −1/σ²   λ/σ² ]
    [ λ/σ²    −λ   ]        along (w, v),

whose larger eigenvalue has the sign of λ − σ² too: the ELBO makes no column collapse that the likelihood does not.
Here the rates are second derivatives of a pair's own evidence and ELBO; the closed form they must agree with is
`ppvae.inference.latents.stability`'s.

"Don't Blame the ELBO! A Linear VAE Perspective on Posterior Collapse" (Lucas, Tucker, Grosse & Norouzi, 2019),
arXiv:1911.02469, theorem 1 and section 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ppvae.models import LinearGaussian


def spectrum(x: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues of the data's covariance (divided by N), falling, and the eigenvectors ``(D, D)`` in columns."""
    r = x - x.mean(0)
    eigenvalues, directions = torch.linalg.eigh(r.T @ r / len(x))
    return eigenvalues.flip(0).clamp(min=0), directions.flip(1)


def left_out(x: Tensor, latent_dim: int) -> float:
    """λ_d, the largest eigenvalue that is left out when the last of d columns has collapsed."""
    return float(spectrum(x)[0][latent_dim - 1])


def growth_rates(x: Tensor, latent_dim: int, ratio: float) -> tuple[float, float]:
    """How fast a collapsed column of W grows or dies in the gradient flow of the mean evidence, and of the mean ELBO.

    The stationary point has σ² fixed at `ratio` λ_d, d − 1 columns at their optimum and the last at zero. The rate is
    the second derivative along the eigenvector of λ_d, by automatic differentiation; for the ELBO the largest
    eigenvalue of the two by two matrix of those along W's column and V's row.

    Args:
        x: the data.
        latent_dim: d.
        ratio: σ² over λ_d.

    Returns:
        The two rates, in nats per squared unit of x; zero to first order at ratio 1.
    """
    pair = _collapsed(x, latent_dim, ratio * left_out(x, latent_dim))
    last = torch.zeros(latent_dim, dtype=x.dtype)
    last[-1] = 1
    along = torch.outer(spectrum(x)[1][:, latent_dim - 1], last)
    (evidence,) = _curvature(pair.log_evidence(x).mean(), [pair.weight], [along])
    elbo = _curvature(pair.exact_elbo(x).mean(), [pair.weight, pair.guide_weight], [along, along.T])
    return float(evidence), float(torch.linalg.eigvalsh(elbo)[-1])


def _collapsed(x: Tensor, latent_dim: int, noise: float) -> LinearGaussian:
    """The stationary point for a fixed σ² at which the last column of W, and the guide of it, have collapsed."""
    eigenvalues, directions = spectrum(x)
    pair = LinearGaussian.for_data(x, latent_dim)
    with torch.no_grad():
        columns = directions[:, :latent_dim] * (eigenvalues[:latent_dim] - noise).clamp(min=0).sqrt()
        columns[:, -1] = 0
        pair.weight.copy_(columns)
        pair.log_noise_scale.fill_(math.log(noise) / 2)
    return pair.set_exact_guide()


def _curvature(value: Tensor, parameters: Sequence[Tensor], directions: Sequence[Tensor]) -> Tensor:
    """The second derivatives of a value along directions, the i-th in the space of the i-th parameter."""
    gradients = torch.autograd.grad(value, parameters, create_graph=True)
    rows = []
    for gradient, direction in zip(gradients, directions, strict=True):
        second = torch.autograd.grad((gradient * direction).sum(), parameters, retain_graph=True)
        rows.append(torch.stack([(s * other).sum() for s, other in zip(second, directions, strict=True)]))
    return torch.stack(rows)
