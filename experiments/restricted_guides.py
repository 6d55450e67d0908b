"""Linear pairs whose guide is restricted to a family without the posterior, and their optima in closed form.

With W the decoder's weight, M = I + WᵀW/σ² and t = 1/σ:

- a diagonal covariance leaves at least the gap ½ (Σ_i log M_ii − log|M|);
- a covariance held at the prior's, S = I, has with A = Σ_{i≤d} √λ_i and L = Σ_{j>d} λ_j the best ELBO
  −½ [D log 2π − 2 D log t + 2 A t + L t² − d], at t = (√(A² + 4 L D) − A) / (2 L) and |w_i|² = σ √λ_i − σ².
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppvae.models import LinearGaussian

from .collapsed_column import spectrum


class PriorScale(LinearGaussian):
    """A pair whose guide has the covariance of the prior for every x, q(z|x) = N(V x + c, I): the wrong family."""

    def guide(self, x: Tensor) -> Tensor:
        """The proposal; the scales of the parent stay where they start, at one."""
        pyro.module("linear_gaussian", self)
        with pyro.plate("data", len(x)):
            loc = x @ self.guide_weight.T + self.guide_bias
            return pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))


@torch.no_grad()
def best_with_prior_scale(x: Tensor, latent_dim: int) -> PriorScale:
    """The pair of the highest ELBO whose guide is held at S = I, in closed form; see the module's docstring.

    Each direction i ≤ d has the expected loss λ_i t² / (1 + a) + a, a = |w_i|² / σ², which is least at 1 + a = t √λ_i.
    """
    eigenvalues, directions = spectrum(x)
    D, kept, rest = x.shape[1], eigenvalues[:latent_dim].sqrt(), eigenvalues[latent_dim:].sum()
    t = ((kept.sum() ** 2 + 4 * rest * D).sqrt() - kept.sum()) / (2 * rest)
    pair = PriorScale.for_data(x, latent_dim, full_covariance=False)
    pair.weight.copy_(directions[:, :latent_dim] * (kept * t - 1).clamp(min=0).sqrt() / t)
    pair.log_noise_scale.fill_(-t.log())
    pair.set_best_guide().guide_log_scale.zero_()
    return pair


@torch.no_grad()
def rotated(pair: LinearGaussian, rotation: Tensor) -> LinearGaussian:
    """A pair of the same evidence, with W Q for W, and the best guide of diagonal covariance.

    Args:
        pair: the pair, which stays as it is.
        rotation: Q, orthogonal ``(d, d)``.
    """
    out = LinearGaussian(pair.num_features, pair.latent_dim, full_covariance=False).to(pair.weight)
    out.weight.copy_(pair.weight @ rotation)
    out.bias.copy_(pair.bias)
    out.log_noise_scale.copy_(pair.log_noise_scale)
    return out.set_best_guide()


@torch.no_grad()
def family_gap(pair: LinearGaussian) -> float:
    """½ (Σ_i log M_ii − log|M|): the least gap of any guide with a diagonal covariance, in nats."""
    M = torch.eye(pair.latent_dim, dtype=torch.float64) + pair.weight.T @ pair.weight / (2 * pair.log_noise_scale).exp()
    return float(M.diagonal().log().sum() - torch.logdet(M)) / 2
