"""Reweighted wake-sleep by its two wake phases: the model by IWAE's gradient, the guide by that of KL(p ‖ q).

    ∇_θ = E Σ_k w̃_k ∇_θ log p_θ(x, z_k),        ∇_φ = E Σ_k w̃_k ∇_φ log q_φ(z_k|x),        w̃_k = w_k/Σ_j w_j,

with z_k ~ q_φ(z|x) held fixed: no draw need be differentiable, and more particles make both better. The weights are
normalised for each datum, so that a mini-batch only scales the sum; Pyro's ``ReweightedWakeSleep`` normalises one
weight for the whole batch. Both gradients are consistent as K grows. There is no sleep phase, on data drawn from the
model: Le et al. find the wake phase of the guide the better one.

References:
    Reweighted Wake-Sleep (Bornschein & Bengio, 2015), arXiv:1406.2751.
    Revisiting Reweighted Wake-Sleep for Models with Stochastic Control Flow (Le et al., 2019), arXiv:1805.10469.
"""

from __future__ import annotations

from torch import Tensor

from .particle_objective import ParticleObjective
from .particles import Particles, log_mean, valued


class WakeWake(ParticleObjective):
    """Minus the importance-weighted bound, with the gradients of reweighted wake-sleep: see the module.

    Args:
        num_particles: K.

    Example:
        >>> import torch
        >>> from ppvae.inference import fit
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair, x = LinearGaussian(num_features=3, latent_dim=1), torch.randn(20, 3)
        >>> fit(pair.model, pair.guide, x, loss=WakeWake(num_particles=10), epochs=2, progress=False).steps
        2
    """

    through_draws = False
    sums_guide = False

    def bound(self, particles: Particles) -> Tensor:
        """log (1/K) Σ_k w_k of every unit."""
        log_p, log_q = particles.log_densities()
        log_w = (log_p - log_q).detach()
        return valued(log_mean(log_w), (log_w.softmax(0) * (log_p + log_q)).sum(0))
