"""Semi-amortised inference: the guide's distribution of each datum is improved by gradient steps first.

The guide gives λ₀ = (μ, log σ) of independent normals for every datum. T steps of gradient ascent on that datum's ELBO,

    λ_{t+1} = λ_t + η ∇_λ ELBO_θ(x; λ_t),      bound(x) = ELBO_θ(x; λ_T),

with fresh draws in each, lead to λ_T; the loss is the ELBO there, and its gradient goes through the steps to the guide
and to the model. It is a bound on log p(x) whatever T is, T = 0 is the ELBO, and a guide is trained that starts well.
The guide that is measured afterwards is the amortised one, λ₀: ``refine`` betters it for given data.

References:
    Semi-Amortized Variational Autoencoders (Kim, Wiseman, Miller, Sontag & Rush, 2018), arXiv:1802.02550.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import Independent, Normal

from ppvae.errors import PairError

from ...options import positive_number, whole_number
from ...pair import Batch, Frame, Pair, Programs, Values, has_parents, is_masked, plain_traces
from .particle_objective import ParticleObjective
from .particles import Particles

LOC, LOG_SCALE = "loc", "log_scale"


class SemiAmortised(ParticleObjective):
    """Minus the ELBO after gradient steps on each datum's own normals, from the guide's: see the module.

    Every latent must be a normal of the guide's that depends on x alone.

    Args:
        num_steps: T.
        step_size: η.
        num_particles: K, draws whose mean each step and the bound take.

    Example:
        >>> import torch
        >>> from ppvae.inference import fit
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair, x = LinearGaussian(3, 2, full_covariance=False), torch.randn(20, 3)
        >>> options = {"epochs": 2, "progress": False}
        >>> fit(pair.model, pair.guide, x, loss=SemiAmortised(num_steps=2), **options).steps
        2
    """

    sums_guide = False

    def __init__(self, num_steps: int = 5, step_size: float = 0.1, num_particles: int = 1) -> None:
        """Make the objective; the class says what its arguments are."""
        super().__init__(num_particles)
        self.num_steps = whole_number("num_steps", num_steps, least=0)
        self.step_size = positive_number("step_size", step_size)

    def bound(self, particles: Particles) -> Tensor:
        """The ELBO of every unit after the steps."""
        pair = particles.pair
        graph = torch.is_grad_enabled()
        with torch.enable_grad():
            start = pair.run(partial(_normals, pair.programs), 1, {}, pair.guide_layout, random=True)
            own = {name: value if value.requires_grad else value.requires_grad_() for name, value in start.items()}
            for _ in range(self.num_steps):
                names, values = zip(*own.items(), strict=True)
                slopes = torch.autograd.grad(_elbo(particles, own).sum(), values, create_graph=graph)
                own = {n: v + self.step_size * s for n, v, s in zip(names, values, slopes, strict=True)}
        return _elbo(particles, own)

    def _demand(self, pair: Pair, args: Batch) -> None:
        """Raise PairError unless the guide is normals that depend on x alone."""
        super()._demand(pair, args)
        _, guide_trace = plain_traces(pair.model, pair.guide, args)
        nodes: dict[str, Any] = guide_trace.nodes
        for name in pair.structure.drawn:
            if not isinstance(_bare(nodes[name]["fn"]), Normal) or name in pair.structure.auxiliary:
                raise PairError(
                    f"site {name!r} of the guide is no independent normal latent, which SemiAmortised steps on: "
                    "train with STL."
                )
            if is_masked(pair, name) or has_parents(pair, "guide", name):
                raise PairError(
                    f"site {name!r} of the guide is masked or depends on another draw, and SemiAmortised steps on "
                    "normals of x alone: train with STL."
                )


def _normals(programs: Programs, frame: Frame, batch: Batch, inputs: Values) -> Values:
    """Location and log scale of every latent under the guide, by unit."""
    trace: Any = programs.trace(programs.guide, frame, batch, enumerate_sites=False)
    found = {}
    for name, site in programs.structure.latents.items():
        fn = _bare(trace.nodes[name]["fn"])
        found[f"{LOC} {name}"] = frame.by_unit(fn.loc, site)
        found[f"{LOG_SCALE} {name}"] = frame.by_unit(fn.scale.log(), site)
    return found


def _elbo(particles: Particles, own: Values) -> Tensor:
    """The ELBO of every unit under its own normals, the mean of K fresh draws."""
    z, log_q = {}, torch.zeros((), dtype=torch.float64)
    for name in particles.pair.sites:
        loc, scale = own[f"{LOC} {name}"], own[f"{LOG_SCALE} {name}"].exp()
        q = dist.Normal(loc, scale, validate_args=False).expand([particles.num, *loc.shape[1:]])
        z[name] = q.rsample()
        log_q = log_q + q.log_prob(z[name]).double().reshape(*z[name].shape[:2], -1).sum(-1)
    return (particles.log_joint(z) - log_q).mean(0)


def _bare(fn: Any) -> Any:
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return fn
