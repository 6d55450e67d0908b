"""The ELBO with free bits: a KL term that costs nothing below a level, against the collapse of the posterior.

    Σ_n E_q[log p_θ(x_n|z)] − Σ_j N max(λ, (1/N) Σ_n KL_j(x_n)),

with a group j for every number of a latent whose KL is a sum over its numbers (independent normals and the like), or
else for a latent in each place of its plates inside a datum. In a mini-batch N is its size. The KL is in closed form
where torch has it, and else log q − log p at the draw. While a group is below λ, no gradient pulls it to the prior:
λ = 0 is the ELBO with that KL, and a large λ leaves the reconstruction, beside a constant.

References:
    Improved Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016), arXiv:1606.04934, app. C.8.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import Independent, kl_divergence

from ppvae.errors import PairError

from ...options import not_negative
from ...pair import Batch, Frame, Pair, Programs, Values, sample_sites
from .particle_objective import ParticleObjective
from .particles import Particles

LIKELIHOOD = "log_likelihood"


class FreeBits(ParticleObjective):
    """Minus the ELBO in which the first λ nats of KL of each number of the latents cost nothing: see the module.

    Args:
        nats: λ ≥ 0, nats per number and datum.
        num_particles: K, draws whose mean is taken.

    Example:
        >>> import torch
        >>> from ppvae.inference import fit
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair, x = LinearGaussian(3, 2, full_covariance=False), torch.randn(20, 3)
        >>> trained = fit(pair.model, pair.guide, x, loss=FreeBits(nats=0.1), epochs=2, progress=False)
        >>> trained.steps
        2
    """

    sums_guide = False

    def __init__(self, nats: float, num_particles: int = 1) -> None:
        """Make the objective; the class says what its arguments are."""
        super().__init__(num_particles)
        self.nats = not_negative("nats", nats)

    def bound(self, particles: Particles) -> Tensor:
        """The likelihood's term of every unit, less the groups' terms of the mean unit."""
        pair = particles.pair
        found = pair.run(partial(_terms, pair.programs), particles.num, {}, _one_layout(pair), random=True)
        total = found.pop(LIKELIHOOD).mean(0)
        for kl in found.values():
            mean = kl.mean((0, 1))
            total = total - (mean.clamp(min=self.nats) if self.nats > 0 else mean).sum()
        return total

    def _demand(self, pair: Pair, args: Batch) -> None:
        """Raise PairError unless every latent has a KL of its own."""
        super()._demand(pair, args)
        if pair.structure.summed or pair.structure.points:
            which = "sums a site out" if pair.structure.summed else "has a guide whose latents are points (Delta)"
            raise PairError(
                f"the pair {which}, so that its latents have no KL each, which FreeBits needs: train with "
                "Beta(WarmUp(...))."
            )


def _one_layout(pair: Pair) -> Any:
    """A layout in which both programs can be run together."""
    return pair.model_layout if pair.together else "loop"


def _terms(programs: Programs, frame: Frame, batch: Batch, inputs: Values) -> Values:
    """log p(x|z) of a draw of the guide, and the KL of every latent by group."""
    model_trace, guide_trace = programs.traces(frame, batch)
    p, q = dict(sample_sites(model_trace)), dict(sample_sites(guide_trace))
    observed = [
        (s, programs.model_log_prob(name, s)) for name, s in p.items() if name not in programs.structure.latents
    ]
    found = {LIKELIHOOD: frame.total(observed, model_trace)}
    for name, site in programs.structure.latents.items():
        kl, numbers = _kl(q[name], p[name])
        by_unit = frame.arranged(kl, site.plates, numbers)
        found[name] = by_unit.expand(*frame.shape, *by_unit.shape[len(frame.shape) :])
    return found


def _kl(q: Any, p: Any) -> tuple[Tensor, int]:
    """KL(q ‖ p) of a latent by group, ``(*batch, *numbers)``, and how many dims the numbers have."""
    q_fn, p_fn = _bare(q["fn"]), _bare(p["fn"])
    try:
        one_by_one = not q_fn.event_shape and not p_fn.event_shape
        kl = kl_divergence(q_fn, p_fn) if one_by_one else kl_divergence(q["fn"], p["fn"])
    except NotImplementedError:
        one_by_one = False
        kl = q["fn"].log_prob(q["value"]) - p["fn"].log_prob(q["value"])
    numbers = q["fn"].event_dim if one_by_one else 0
    for mask in (q["mask"], p["mask"]):
        if isinstance(mask, Tensor):
            mask = mask.reshape(*mask.shape, *(1,) * numbers)
        kl = scale_and_mask(kl, 1.0, mask)
    return kl.double(), numbers


def _bare(fn: Any) -> Any:
    """The distribution of single numbers, where they are declared independent."""
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return fn
