"""The ELBO by turns: several steps of the guide for each of the model, while the guide lags behind.

Early in a training the guide's posterior lags behind the model's, and the model learns to do without the latents before
the guide tells it anything. For the first steps of a training, therefore, the same ELBO is followed by one program at a
time: ``guide_steps`` steps of the guide, then one of the model, and so on; after that by both. A parameter whose turn
it is not has no gradient at all, so that optimisers with momentum leave it as it is. (The paper ends the guide's turn
when its loss no longer falls, and the phase when the mutual information no longer rises; here both are numbers of
steps, so that a resumed training is the same.) Steps are eager.

References:
    Lagging Inference Networks and Posterior Collapse in Variational Autoencoders (He et al., 2019), arXiv:1901.05534.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...options import whole_number
from ...pair import Program, Values
from .particle_objective import ParticleObjective
from .particles import Particles, held, valued


class ByTurns(ParticleObjective):
    """Minus the ELBO, followed by guide and model in turns during the first steps: see the module.

    Args:
        num_steps: how many steps are taken by turns, before both programs are trained at once.
        guide_steps: steps of the guide before each step of the model.
        num_particles: K, draws whose mean it is.

    Attributes:
        steps: steps that Pyro's ``SVI`` has taken; to be set when its training goes on from a checkpoint.

    Example:
        >>> import torch
        >>> from ppvae.inference import fit
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair, x = LinearGaussian(num_features=3, latent_dim=1), torch.randn(20, 3)
        >>> before = pair.weight.detach().clone()
        >>> loss = ByTurns(num_steps=100, guide_steps=5)
        >>> trained = fit(pair.model, pair.guide, x, loss=loss, epochs=5, progress=False)
        >>> bool((pair.weight == before).all())  # five steps, all of the guide
        True
    """

    sums_guide = False

    def __init__(self, num_steps: int, guide_steps: int = 10, num_particles: int = 1) -> None:
        """Make the objective; the class says what its arguments are."""
        super().__init__(num_particles)
        self.num_steps = whole_number("num_steps", num_steps)
        self.guide_steps = whole_number("guide_steps", guide_steps)
        self.steps = 0
        self.turn = "both"
        self.at_step(0)

    def at_step(self, step: int) -> None:
        """Take the turn of a step: ``"guide"``, ``"model"`` or ``"both"``."""
        if step >= self.num_steps:
            self.turn = "both"
        else:
            self.turn = "model" if step % (self.guide_steps + 1) == self.guide_steps else "guide"

    def loss_and_grads(self, model: Program, guide: Program, *args: Any) -> float:
        """The loss of the next step of Pyro's ``SVI``, with the gradients of the program whose turn it is."""
        self.at_step(self.steps)
        self.steps += 1
        return super().loss_and_grads(model, guide, *args)

    def bound(self, particles: Particles) -> Tensor:
        """The mean over draws of log w, of every unit."""
        z, log_q = particles.draws()
        if self.turn == "model":
            return (particles.log_joint(held(z)) - log_q.detach()).mean(0)
        log_p = particles.log_joint(z)
        if self.turn == "guide" and log_p.requires_grad:
            log_p = valued(log_p, _through_draws(log_p, z))
        return (log_p - log_q).mean(0)


def _through_draws(log_p: Tensor, z: Values) -> Tensor:
    """A term whose gradient is that of Σ log p through the draws alone, by unit."""
    draws = [value for value in z.values() if value.requires_grad]
    slopes = torch.autograd.grad(log_p.sum(), draws, allow_unused=True)
    term = torch.zeros_like(log_p)
    for value, slope in zip(draws, slopes, strict=True):
        if slope is not None:
            term = term + (value * slope).reshape(*log_p.shape, -1).double().sum(-1)
    return term
