"""The importance-weighted bound, right under mini-batches.

    L_K(x) = E log (1/K) Σ_k w_k,     w_k = p_θ(x, z_k)/q_φ(z_k|x),     z_k ~ q_φ(z|x),
    ELBO(x) = L_1(x) ≤ L_K(x) ≤ L_{K+1}(x) ≤ log p_θ(x),

with the logarithm taken for each datum, and the sum over data, with the scale N/B of a mini-batch, outside. The
gradient goes through the draws. That of φ has a signal-to-noise ratio that falls as K^(−1/2), so that a larger K trains
the guide worse: :class:`~ppvae.inference.svi.objectives.DReG` is the cure.

References:
    Importance Weighted Autoencoders (Burda, Grosse & Salakhutdinov, 2016), arXiv:1509.00519.
    Tighter Variational Bounds are Not Necessarily Better (Rainforth et al., 2018), arXiv:1802.04537.
"""

from __future__ import annotations

from torch import Tensor

from .particle_objective import ParticleObjective
from .particles import Particles, log_mean


class IWAE(ParticleObjective):
    """Minus the importance-weighted bound, Σ_x log (1/K) Σ_k w_k(x), in nats: see the module.

    One particle makes it ``Trace_ELBO``, to the bit; discrete latents must be enumerated where there are more.

    Args:
        num_particles: K.

    Example:
        >>> import torch
        >>> from ppvae.inference import fit
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair, x = LinearGaussian(num_features=3, latent_dim=1), torch.randn(20, 3)
        >>> trained = fit(pair.model, pair.guide, x, loss=IWAE(num_particles=5), epochs=2, progress=False)
        >>> trained.steps
        2
    """

    elbo_of_one = True

    def bound(self, particles: Particles) -> Tensor:
        """log (1/K) Σ_k w_k of every unit."""
        return log_mean(particles.log_weights())
