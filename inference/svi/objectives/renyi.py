"""The variational Rényi bound by K draws, the VR-IWAE bound, for each datum.

    L_{α,K}(x) = 1/(1 − α) E log (1/K) Σ_k w_k^(1−α),     0 ≤ α ≤ 1.

α = 0 is the importance-weighted bound, α → 1 the ELBO, and between them it falls with α and rises with K: it is below
log p(x) all the way. The limit K → ∞ is the variational Rényi bound. As in all objectives here a mini-batch scales
the sum over data, outside the logarithm; the gradient goes through the draws.

References:
    Rényi Divergence Variational Inference (Li & Turner, 2016), arXiv:1602.02311.
    Alpha-divergence Variational Inference Meets Importance Weighted Auto-Encoders (Daudel, Benton, Shi & Doucet, 2023),
    arXiv:2210.06226.
"""

from __future__ import annotations

from torch import Tensor

from ppvae.errors import OptionError

from ...options import not_negative
from .particle_objective import ParticleObjective
from .particles import Particles, log_mean


class VRIWAE(ParticleObjective):
    """Minus the VR-IWAE bound, Σ_x 1/(1 − α) log (1/K) Σ_k w_k(x)^(1−α), in nats: see the module.

    One particle makes it ``Trace_ELBO``, to the bit.

    Args:
        alpha: α, from 0 (IWAE) to 1 (the ELBO, mean of K draws).
        num_particles: K.

    Example:
        >>> import torch
        >>> from ppvae.inference import fit
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair, x = LinearGaussian(num_features=3, latent_dim=1), torch.randn(20, 3)
        >>> trained = fit(pair.model, pair.guide, x, loss=VRIWAE(0.5, num_particles=5), epochs=2, progress=False)
        >>> trained.steps
        2
    """

    elbo_of_one = True

    def __init__(self, alpha: float, num_particles: int) -> None:
        """Make the objective; the class says what its arguments are."""
        super().__init__(num_particles)
        self.alpha = not_negative("alpha", alpha)
        if self.alpha > 1:
            raise OptionError(f"alpha must lie in [0, 1], where the bound is below log p(x); it is {alpha}.")

    def bound(self, particles: Particles) -> Tensor:
        """The bound of every unit."""
        log_w = particles.log_weights()
        return log_w.mean(0) if self.alpha == 1 else log_mean((1 - self.alpha) * log_w) / (1 - self.alpha)
