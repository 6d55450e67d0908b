"""The ELBO with the path derivative: its gradient has no variance where the guide is the posterior.

With z = z(ε, φ) the gradient of the ELBO's integrand in φ has two parts,

    ∇_φ [log p(x, z) − log q_φ(z|x)] = ∂_z [log p(x, z) − log q_φ(z|x)] ∇_φ z − ∂_φ log q_φ(z|x),

and the second, the score, has mean zero. Without it the estimate is unbiased as before, and at q(z|x) = p(z|x), where
log p(x, z) − log q(z|x) = log p(x) for every z, it is exactly zero for every draw. It costs one more run of the guide.

References:
    Sticking the Landing: Simple, Lower-Variance Gradient Estimators for Variational Inference (Roeder, Wu & Duvenaud,
    2017), arXiv:1703.09194.
"""

from __future__ import annotations

from torch import Tensor

from .particle_objective import ParticleObjective
from .particles import Particles


class STL(ParticleObjective):
    """Minus the ELBO, with the path derivative (sticking the landing): see the module.

    Args:
        num_particles: K, draws whose mean it is.

    Example:
        >>> import torch
        >>> from ppvae.models import LinearGaussian
        >>> pair, x = LinearGaussian(num_features=3, latent_dim=1).double(), torch.randn(20, 3).double()
        >>> _ = pair.set_exact_guide()
        >>> _ = STL().loss_and_grads(pair.model, pair.guide, x)
        >>> bool(pair.guide_weight.grad.abs().max() < 1e-10)  # the guide is the posterior
        True
    """

    path_derivative = True
    sums_guide = False

    def __init__(self, num_particles: int = 1) -> None:
        """Make the objective; the class says what its arguments are."""
        super().__init__(num_particles)

    def bound(self, particles: Particles) -> Tensor:
        """The mean over draws of log w, of every unit."""
        z, log_q = particles.draws()
        return (particles.log_joint(z) - particles.along_path(z, log_q)).mean(0)
