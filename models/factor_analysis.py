"""Factor analysis: linear-Gaussian, with a noise variance for each feature; its evidence is known exactly.

    model   z ~ N(0, I_d),   x ~ N(W z + b, diag ψ)
    guide   q(z | x) = N(V x + c, S)                  the posterior's own form, S full or diagonal
    evidence    log p(x) = log N(x; b, W Wᵀ + diag ψ)

Maximum likelihood has no closed form; EM has. With S the data's covariance and β = Wᵀ (W Wᵀ + diag ψ)⁻¹, a step is

    W ← S βᵀ (I − β W + β S βᵀ)⁻¹,      ψ ← diag(S − W β S),

"EM Algorithms for ML Factor Analysis" (Rubin & Thayer, 1982), Psychometrika 47.
"""

from typing import Any, Self

import torch
from torch import Tensor

from .linear import LinearGaussian

# No noise variance falls below this part of the feature's: at ψ = 0 (a Heywood case) the likelihood has no gradient.
_LEAST_NOISE = 1e-3


class FactorAnalysis(LinearGaussian):
    """Factor analysis with a linear Gaussian guide; its evidence and posterior are known exactly.

    Sites: the latent `z`, event shape `(latent_dim,)`, and the observation `x`, event shape `(num_features,)`, both in
    the plate `data` at dim −1.

    Args:
        num_features: D, the length of x.
        latent_dim: d, the number of factors.
        full_covariance: S is any covariance; otherwise it is diagonal.

    Raises:
        OptionError: a size is not a positive whole number.

    Example:
        >>> from ppvae.datasets import load_dataset
        >>> x = load_dataset("breast_cancer").train
        >>> pair = FactorAnalysis.for_data(x, latent_dim=5)
        >>> bool(torch.allclose(pair.exact_elbo(x), pair.log_evidence(x), atol=1e-3))
        True
    """

    def __init__(self, num_features: int, latent_dim: int = 5, full_covariance: bool = True):
        """Make the pair; the class says what its arguments are."""
        super().__init__(num_features, latent_dim, diagonal_noise=True, full_covariance=full_covariance)

    @classmethod
    def for_data(cls, x: Tensor, latent_dim: int = 5, num_steps: int = 100, **options: Any) -> Self:
        """A pair that starts after some steps of EM, with the best guide of its family.

        Args:
            x: the data, `(num_data, D)`.
            latent_dim: d < D.
            num_steps: of EM, which start from probabilistic PCA on features in units of their standard deviations.
            **options: further arguments of the constructor.

        Returns:
            The pair, on the device and in the floating-point type of x.

        Raises:
            DataError: x is not finite, or d directions explain it without noise.
            OptionError: latent_dim is not a whole number in 1 … D − 1.
        """
        mean, scale = x.double().mean(0), x.double().std(0, correction=0)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        units = (x.double() - mean) / scale
        weight, noise = _em(units, LinearGaussian.maximum_likelihood(units, latent_dim).weight.detach(), num_steps)
        pair = cls(x.shape[1], latent_dim, **options).to(x)
        with torch.no_grad():
            pair.bias.copy_(mean)
            pair.weight.copy_(weight * scale[:, None])
            pair.log_noise_scale.copy_(noise.log() / 2 + scale.log())
        return pair.set_best_guide()


def _em(x: Tensor, weight: Tensor, num_steps: int) -> tuple[Tensor, Tensor]:
    """W and ψ after steps of EM from W; the features of x have mean 0 and variance 1."""
    S = x.T @ x / len(x)
    noise = (1 - weight.square().sum(1)).clamp(min=_LEAST_NOISE)
    for _ in range(num_steps):
        beta = torch.linalg.solve(weight @ weight.T + torch.diag(noise), weight).T
        second = torch.eye(weight.shape[1]).to(S) - beta @ weight + beta @ S @ beta.T
        weight = torch.linalg.solve(second, beta @ S).T
        noise = (S.diagonal() - (weight * (beta @ S).T).sum(1)).clamp(min=_LEAST_NOISE)
    return weight, noise
