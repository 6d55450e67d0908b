"""The importance-weighted bound with doubly reparameterised gradients.

The bound is that of :class:`~ppvae.inference.svi.objectives.IWAE`. Its gradient in φ holds score terms, whose noise
falls more slowly than the signal when K grows. Reparameterised a second time it is, with w̃_k = w_k/Σ_j w_j,

    ∇_φ L_K = E Σ_k w̃_k² ∂_{z_k} [log p_θ(x, z_k) − log q_φ(z_k|x)] ∇_φ z_k,
    ∇_θ L_K = E Σ_k w̃_k ∇_θ log p_θ(x, z_k):

the same expectation, a signal-to-noise ratio that grows as K^(1/2), and no variance at q(z|x) = p(z|x). The model is
run once: the gradient of log p(x, z_k) in z_k is multiplied by w̃_k on its way back. The guide is run once more.

References:
    Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives (Tucker, Lawson, Gu & Maddison, 2019),
    arXiv:1810.04152.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...pair import Values
from .particle_objective import ParticleObjective
from .particles import Particles, log_mean, valued


class DReG(ParticleObjective):
    """Minus the importance-weighted bound, with doubly reparameterised gradients: see the module.

    Args:
        num_particles: K.

    Example:
        >>> import torch
        >>> from ppvae.inference import fit
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair, x = LinearGaussian(num_features=3, latent_dim=1), torch.randn(20, 3)
        >>> trained = fit(pair.model, pair.guide, x, loss=DReG(num_particles=8), epochs=2, progress=False)
        >>> trained.steps
        2
    """

    path_derivative = True
    sums_guide = False

    def bound(self, particles: Particles) -> Tensor:
        """log (1/K) Σ_k w_k of every unit."""
        z, log_q = particles.draws()
        factor: list[Tensor] = []
        log_p = particles.log_joint(_multiplied(z, factor))
        log_w = log_p.detach() - log_q.detach()
        weights = log_w.softmax(0)
        factor.append(weights)
        surrogate = (weights * log_p - weights**2 * particles.along_path(z, log_q)).sum(0)
        return valued(log_mean(log_w), surrogate)


def _multiplied(z: Values, factor: list[Tensor]) -> Values:
    """The draws, whose gradients are multiplied by a factor ``(K, num_units)`` that is known when they are taken."""

    def copy(value: Tensor) -> Tensor:
        if not value.requires_grad:
            return value
        one = value.view_as(value)
        one.register_hook(lambda gradient: gradient * _beside(factor[0], gradient))
        return one

    return {name: copy(value) for name, value in z.items()}


def _beside(factor: Tensor, gradient: Any) -> Tensor:
    return factor.to(gradient.dtype).reshape(*factor.shape, *(1,) * (gradient.dim() - factor.dim()))
