"""Reweighted wake-sleep: the model by IWAE's gradient, the guide by one of two gradients of KL(p ‖ q).

Both programs learn from the data in the two wake phases,

    ∇_θ = E Σ_k w̃_k ∇_θ log p_θ(x, z_k),        ∇_φ = E Σ_k w̃_k ∇_φ log q_φ(z_k|x),        w̃_k = w_k/Σ_j w_j,

with z_k ~ q_φ(z|x) held fixed: no draw need be differentiable, and more particles make both better. The weights are
normalised for each datum, so that a mini-batch only scales the sum; Pyro's ``ReweightedWakeSleep`` normalises one
weight for the whole batch. Both gradients are consistent as K grows. In the sleep phase the guide learns from data that
the model draws, one for each datum of the batch,

    ∇_φ = E_{p_θ(x*, z*)} ∇_φ log q_φ(z*|x*),

without bias, but where the model's data are and not where the given ones are. :class:`WakeWake` has the wake phases
alone, which Le et al. find the better ones, and :class:`WakeSleep` the guide's sleep phase, with or without its wake
phase.

References:
    Reweighted Wake-Sleep (Bornschein & Bengio, 2015), arXiv:1406.2751.
    Revisiting Reweighted Wake-Sleep for Models with Stochastic Control Flow (Le et al., 2019), arXiv:1805.10469.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ppvae.errors import PairError

from ...calibration import drawn, on_drawn
from ...pair import Batch, Pair
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


class WakeSleep(ParticleObjective):
    """Minus the importance-weighted bound; the guide learns from data that the model draws: see the module.

    The value is the bound on the given data; the guide's sleep phase adds a gradient to it and no value. Each datum
    drawn takes the context of one of the batch, and its gaps (NaN). A guide with parameters for each datum learns
    nothing of use. Steps are eager.

    Args:
        num_particles: K, for the wake phases.
        wake: whether the guide follows its wake phase too, the sum of both gradients.

    Example:
        >>> import torch
        >>> from ppvae.inference import fit
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair, x = LinearGaussian(num_features=3, latent_dim=1), torch.randn(20, 3)
        >>> fit(pair.model, pair.guide, x, loss=WakeSleep(num_particles=10), epochs=2, progress=False).steps
        2
    """

    through_draws = False
    sums_guide = False

    def __init__(self, num_particles: int, wake: bool = False) -> None:
        """Make the objective; the class says what its arguments are."""
        super().__init__(num_particles)
        self.wake = wake

    def bound(self, particles: Particles) -> Tensor:
        """log (1/K) Σ_k w_k of every unit."""
        log_p, log_q = particles.log_densities()
        log_w = (log_p - log_q).detach()
        followed = log_p + log_q if self.wake else log_p + log_q.detach()
        return valued(log_mean(log_w), (log_w.softmax(0) * followed).sum(0) + _asleep(particles.pair))

    def _demand(self, pair: Pair, args: Batch) -> None:
        """Raise PairError unless the model draws data of its own, whose latents have a density under the guide."""
        super()._demand(pair, args)
        if pair.structure.auxiliary:
            names = ", ".join(sorted(pair.structure.auxiliary))
            raise PairError(
                f"the guide draws {names} beside the latents, so that log q(z|x) of given latents is not known, which "
                "WakeSleep needs: train with WakeWake."
            )
        try:
            with torch.no_grad():
                drawn(pair)
        except PairError as error:
            raise PairError(f"WakeSleep has no sleep phase for this pair, train with WakeWake: {error}") from error
        _asleep(pair)


def _asleep(pair: Pair) -> Tensor:
    """log q(z*|x*) of every unit at data and latents drawn from the model, which are held fixed."""
    with torch.no_grad():
        values = pair.prior_values(1, predictive=True)
        asleep = on_drawn(pair, values)
    return asleep.log_guide({name: values[name] for name in pair.sites}, 1)[0]
