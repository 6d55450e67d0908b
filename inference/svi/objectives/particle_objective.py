"""What every objective over particles is: a loss of Pyro's kind, from a bound on log p(x) by unit."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import ELBO
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ppvae.errors import PairError

from ...options import whole_number
from ...pair import Batch, Pair, Program, buffers_kept, elbo_for, generator_kept, plain_traces, sample_sites
from .particles import Particles, held

# By how much the guide's density may differ between two runs at the same draws, relative.
ROUNDING = 1e-3


class ParticleObjective(ELBO):
    """A loss over K particles of each unit, for ``fit`` and for Pyro's ``SVI``: −s Σ_n bound_n.

    Both programs are looked at in the first call, and what is found is kept as long as the object is given the same
    two. A subclass says what :meth:`bound` is.

    Args:
        num_particles: K, draws of the guide per unit and step.
    """

    # Whether gradients go through the draws, so that every latent must be reparameterised.
    through_draws = True
    # Whether the guide is evaluated a second time, at its own draws.
    path_derivative = False
    # Whether the guide's enumerated sites may be summed out.
    sums_guide = True
    # Whether one particle makes it the ELBO, in value and gradient.
    elbo_of_one = False

    def __init__(self, num_particles: int) -> None:
        """Make the objective; the class says what its arguments are."""
        super().__init__(num_particles=whole_number("num_particles", num_particles))
        self._programs: tuple[Program, Program] | None = None
        self._pair: Pair | None = None
        self._elbo: Any = None

    @abstractmethod
    def bound(self, particles: Particles) -> Tensor:
        """The bound of every unit, ``(num_units,)``, in nats; its gradient is the estimator's."""

    def differentiable_loss(self, model: Program, guide: Program, *args: Any) -> Tensor:
        """The loss as a tensor, in nats, summed over units; its gradient is that of the objective.

        Raises:
            PairError: the pair breaks the contract, or has latents or scales that the objective cannot handle.
        """
        self._look_at(model, guide, args)
        if self._pair is None:
            return self._elbo.differentiable_loss(model, guide, *args)
        particles = Particles.of(self._pair, args, self.num_particles)
        total = self.bound(particles).sum()
        return -particles.scales.common * total

    def loss(self, model: Program, guide: Program, *args: Any) -> float:
        """The loss, a number."""
        with torch.no_grad():
            return float(self.differentiable_loss(model, guide, *args))

    def loss_and_grads(self, model: Program, guide: Program, *args: Any) -> float:
        """The loss, with its gradients added to those of the parameters."""
        loss = self.differentiable_loss(model, guide, *args)
        if loss.requires_grad:
            loss.backward()
        return float(loss.detach())

    def _get_trace(self, model: Program, guide: Program, args: Batch, kwargs: Any) -> Any:
        """What Pyro's ELBOs are made of, and this one is not; its base class asks for the method."""
        raise NotImplementedError(f"{type(self).__name__} is made of log weights, not of traces")

    def _look_at(self, model: Program, guide: Program, args: Batch) -> None:
        """Find out what the programs are, once."""
        if self._programs == (model, guide):
            return
        with poutine.block():  # no parameter or site of these runs is one of a step
            if self.elbo_of_one and self.num_particles == 1:
                self._pair, self._elbo = None, elbo_for(*plain_traces(model, guide, args))
            else:
                with Pair.on(model, guide, args) as pair:
                    pass
                self._demand(pair, args)
                self._pair = pair
        self._programs = model, guide

    def _demand(self, pair: Pair, args: Batch) -> None:
        """Raise PairError unless the objective has a gradient for this pair."""
        name = type(self).__name__
        if not self.sums_guide and pair.structure.guide_summed:
            raise PairError(f"the guide sums a site out, of which {name} has no draws: train with TraceEnum_ELBO.")
        if self.through_draws:
            _, guide_trace = plain_traces(pair.model, pair.guide, args)
            for site, node in sample_sites(guide_trace):
                if site in pair.structure.drawn and not node["fn"].has_rsample:
                    raise PairError(
                        f"site {site!r} of the guide has no reparameterised draw, through which {name} differentiates: "
                        "train with VIMCO or WakeWake, or mark the site for enumeration."
                    )
        if self.path_derivative:
            with buffers_kept(pair.model, pair.guide), generator_kept():
                _demand_path(pair, args, name)


def _demand_path(pair: Pair, args: Batch, name: str) -> None:
    """Raise PairError where a second run of the guide at its own draws does not have the score of the first."""
    with torch.enable_grad(), pyro.validation_enabled(False):
        particles = Particles.of(pair, args, 1)
        z, log_q = particles.draws()
        again = particles.log_guide(held(z))
        trace: Any = poutine.trace(_Held()(pair.guide)).get_trace(*args)
    if bool(((again - log_q).abs() > ROUNDING * (1 + log_q.abs())).any()):
        raise PairError(
            "the guide's density is another in a second run at the same draws (dropout in training mode, perhaps), and "
            f"{name} needs two runs: call eval() on what is random in it, or train with IWAE."
        )
    for site in pair.structure.points:
        fn = trace.nodes[site]["fn"]
        if any(isinstance(t, Tensor) and t.requires_grad for t in (trace.nodes[site]["value"], fn.log_prob(fn.mean))):
            raise PairError(
                f"the guide puts {site!r} at a function of other draws that has parameters, of which {name} knows no "
                "path derivative: give the flow as a TransformedDistribution, or train with IWAE."
            )


class _Held(Messenger):
    """Every draw of a distribution is a constant to what follows; a point (Delta) is what it is."""

    def _pyro_post_sample(self, msg: Any) -> None:
        if getattr(msg["fn"], "has_rsample", False) and not hasattr(msg["fn"], "v"):
            msg["value"] = msg["value"].detach()
