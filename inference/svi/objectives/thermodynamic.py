"""The thermodynamic variational objective: a Riemann sum on the path from the guide to the posterior.

Between q and p(x, z) lie π_β ∝ q^(1−β) p(x, z)^β, and log p(x) = ∫₀¹ E_{π_β}[log w] dβ with a rising integrand. The sum
at the left ends of a partition 0 = β_0 < … < β_T = 1 is a lower bound, and with T = 1 the ELBO. Each term is estimated
by the same K draws of the guide,

    L = Σ_t (β_{t+1} − β_t) Σ_k softmax_k(β_t log w) log w_k.

That term is the derivative of log (1/K) Σ_k w_k^β at β_t, a convex function of β. So for any draws

    (1/K) Σ_k log w_k ≤ L ≤ log (1/K) Σ_k w_k,

with L = IWAE's value for T → ∞, and E[L] ≤ log p(x). Where every latent is reparameterised the gradient goes through
the draws, and is that of E[L] for any K. Elsewhere (discrete latents) it is the paper's, a covariance in each term,

    ∇ E_{π_β}[log w] = E_{π_β}[∇ log w] + Cov_{π_β}[∇ ((1 − β) log q + β log p), log w],

with the same weights softmax(β log w) in all means: biased by O(1/K), so that K should be tens rather than two.

References:
    The Thermodynamic Variational Objective (Masrani, Le & Wood, 2019), arXiv:1907.00031.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from ...options import number_between, whole_number
from ...pair import Batch, Pair, plain_traces, sample_sites
from .particle_objective import ParticleObjective
from .particles import Particles, valued


class TVO(ParticleObjective):
    """Minus the thermodynamic variational objective, a left Riemann sum, in nats: see the module.

    One particle makes it ``Trace_ELBO``, to the bit. Which of the two gradients it has is found out from the guide.

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
        if not self.through_draws:
            return self._by_covariance(*particles.log_densities())
        log_w = particles.log_weights()
        terms = [width * ((left * log_w).softmax(0) * log_w).sum(0) for left, width in self._terms()]
        return torch.stack(terms).sum(0)

    def _by_covariance(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """The same value, with the gradient that needs no path through the draws."""
        log_w = (log_p - log_q).detach()
        value, surrogate = torch.zeros_like(log_w[0]), torch.zeros_like(log_w[0])
        for left, width in self._terms():
            share = (left * log_w).softmax(0)
            mean = (share * log_w).sum(0)
            along = (log_w - mean) * ((1 - left) * log_q + left * log_p)
            value = value + width * mean
            surrogate = surrogate + width * (share * (log_p - log_q + along)).sum(0)
        return valued(value, surrogate)

    def _terms(self) -> Iterator[tuple[float, float]]:
        """The left end and the width of every part."""
        return ((left, right - left) for left, right in pairwise(self.partition))

    def _demand(self, pair: Pair, args: Batch) -> None:
        """Find out which gradient the pair has, and raise PairError where it has neither."""
        _, guide_trace = plain_traces(pair.model, pair.guide, args)
        drawn = {name: node["fn"] for name, node in sample_sites(guide_trace) if name in pair.structure.drawn}
        self.through_draws = self.sums_guide = all(fn.has_rsample for fn in drawn.values())
        super()._demand(pair, args)
