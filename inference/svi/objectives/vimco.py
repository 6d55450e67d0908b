"""The importance-weighted bound by score functions, each particle against the others: for discrete latents.

    ∇L_K = E[Σ_k (L̂ − L̂_{−k}) ∇ log q_φ(z_k|x) + Σ_k w̃_k ∇ log w_k],      L̂ = log (1/K) Σ_k w_k,

where L̂_{−k} has the geometric mean of the other weights in the place of w_k: it does not depend on z_k, so that the
gradient stays unbiased, and it takes most of the variance away. No draw need be differentiable; those that could be
are treated the same.

References:
    Variational Inference for Monte Carlo Objectives (Mnih & Rezende, 2016), arXiv:1602.06725.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ppvae.errors import OptionError

from .particle_objective import ParticleObjective
from .particles import Particles, log_mean, valued


class VIMCO(ParticleObjective):
    """Minus the importance-weighted bound, with score-function gradients: see the module.

    Args:
        num_particles: K ≥ 2.

    Example:
        >>> import pyro, torch, pyro.distributions as dist
        >>> from ppvae.inference import fit
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Normal(pyro.sample("z", dist.Poisson(3.0)), 1.0), obs=x)
        >>> def guide(x):
        ...     slope = pyro.param("slope", torch.tensor(0.1))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Poisson((slope * x).exp()))
        >>> x = torch.tensor([0.0, 2.0, 5.0])
        >>> fit(model, guide, x, loss=VIMCO(num_particles=5), epochs=2, progress=False).steps
        2
    """

    through_draws = False
    sums_guide = False

    def __init__(self, num_particles: int) -> None:
        """Make the objective; the class says what its arguments are."""
        super().__init__(num_particles)
        if num_particles < 2:
            raise OptionError("num_particles is 1, and VIMCO compares each particle with the others: give 2 or more.")

    def bound(self, particles: Particles) -> Tensor:
        """log (1/K) Σ_k w_k of every unit."""
        log_p, log_q = particles.log_densities()
        log_w = (log_p - log_q).detach()
        signal = log_mean(log_w) - _without_each(log_w)
        return valued(log_mean(log_w), (log_w.softmax(0) * (log_p - log_q) + signal * log_q).sum(0))


def _without_each(log_w: Tensor) -> Tensor:
    """L̂_{−k} for each k, ``(K, num_units)``."""
    own = torch.eye(len(log_w), dtype=torch.bool, device=log_w.device).unsqueeze(
        -1
    )  # (K, K, 1): the k that is left out
    others = torch.where(own, 0.0, log_w.unsqueeze(0)).sum(1) / (len(log_w) - 1)
    return log_mean(torch.where(own, others.unsqueeze(1), log_w.unsqueeze(0)).movedim(1, 0))
