"""The thermodynamic variational objective: a Riemann sum on the path from the guide to the posterior.

Between q and p(x, z) lie π_β ∝ q^(1−β) p(x, z)^β, and log p(x) = ∫₀¹ E_{π_β}[log w] dβ with a rising integrand. The sum
at the left ends of a partition 0 = β_0 < … < β_T = 1 is a lower bound, and with T = 1 the ELBO. Each term is estimated
by the same K draws of the guide,

    L = Σ_t (β_{t+1} − β_t) Σ_k softmax_k(β_t log w) log w_k.

That term is the derivative of log (1/K) Σ_k w_k^β at β_t, a convex function of β. So for any draws

    (1/K) Σ_k log w_k ≤ L ≤ log (1/K) Σ_k w_k,

with L = IWAE's value for T → ∞, and E[L] ≤ log p(x). The gradient goes through the draws: it is that of E[L] for any K,
where the paper's covariance estimator, made for discrete latents, is exact for K → ∞.

References:
    The Thermodynamic Variational Objective (Masrani, Le & Wood, 2019), arXiv:1907.00031.
"""

from __future__ import annotations

from torch import Tensor

from ...options import number_between, whole_number
from .particle_objective import ParticleObjective
from .particles import Particles


class TVO(ParticleObjective):
    """Minus the thermodynamic variational objective, a left Riemann sum, in nats: see the module.

    One particle makes it ``Trace_ELBO``, to the bit.

    Args:
        num_particles: K.
        num_partitions: T; 1 is the ELBO.
        smallest: β_1; from there to 1 the partition is evenly spaced in log β.

    Example:
        >>> import torch
        >>> from ppvae.inference import fit
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair, x = LinearGaussian(num_features=3, latent_dim=1), torch.randn(20, 3)
        >>> trained = fit(pair.model, pair.guide, x, loss=TVO(num_particles=10), epochs=2, progress=False)
        >>> trained.steps
        2
    """

    elbo_of_one = True

    def __init__(self, num_particles: int, num_partitions: int = 5, smallest: float = 0.025) -> None:
        """Make the objective; the class says what its arguments are."""
        super().__init__(num_particles)
        count = whole_number("num_partitions", num_partitions)
        first = number_between("smallest", smallest, 0.0, 1.0)
        self.partition = (0.0, *(first ** (1 - t / (count - 1)) for t in range(count - 1)), 1.0)

    def bound(self, particles: Particles) -> Tensor:
        """The sum for every unit."""
        log_w = particles.log_weights()
        ends = zip(self.partition, self.partition[1:], strict=False)
        return sum((right - left) * ((left * log_w).softmax(0) * log_w).sum(0) for left, right in ends)
