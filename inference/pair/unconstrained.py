"""Log densities as functions of a unit's unconstrained latents, with gradients, and what a pair needs to have them.

Markov chains and local optimisers want one flat vector u of real numbers per unit. :class:`.pair.Pair` gives log p(x,
u), log q(u|x) and log p(u); :func:`evaluate` gives any such terms with their gradients.
"""

from __future__ import annotations

from typing import Any, NamedTuple, get_args

import pyro
import pyro.distributions as dist
import torch
from pyro.poutine import Trace
from torch import Tensor

from ppvae.errors import PairError, first_line

from ..option_records import Start
from .bijections import bijection_to
from .distributions import bare, is_discrete, layers, support_of
from .handlers import Put
from .log_densities import KnowsGradients
from .pair import Pair, Terms
from .randomness import generator_kept
from .sites import Frame
from .structure import Structure

# Pyro gives these the support ℝ, on which they are periodic.
CIRCULAR = dist.VonMises, dist.SineBivariateVonMises, dist.SineSkewed


class Point(NamedTuple):
    """A place u of every chain and unit, and what the terms are there.

    Attributes:
        u: ``(num_chains, num_units, dim)``.
        values: ``(num_terms, num_chains, num_units)``, float64.
        gradients: of ``values`` in u, ``(num_terms, num_chains, num_units, dim)``; zero where they are not finite.
    """

    u: Tensor
    values: Tensor
    gradients: Tensor


def evaluate(terms: Terms, u: Tensor) -> Point:
    """Values and gradients of the terms at u."""
    known = terms.with_gradients(u) if isinstance(terms, KnowsGradients) else None
    if known is not None:
        return Point(u.detach(), known.values, known.gradients.nan_to_num(0.0, 0.0, 0.0))
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        # Terms that are not one tensor: the gradient of one term would pass through all of a tensor's others as zeros.
        values = [term + 0 * u.sum(-1) for term in terms(u)]  # a term may not depend on u
        # Chains and units do not touch each other, so the gradient of the sum holds the gradient of each.
        last = len(values) - 1
        gradients = [torch.autograd.grad(v.sum(), u, retain_graph=j < last)[0] for j, v in enumerate(values)]
    values = [value.detach() for value in values]
    return Point(u.detach(), torch.stack(values), torch.stack(gradients).nan_to_num(0.0, 0.0, 0.0))


def demand_continuum(pair: Pair, start: Start) -> None:
    """Raise PairError unless the latents have densities on a continuum, on which chains can move.

    Args:
        pair: on a few data.
        start: what chains are to start from.
    """
    structure = pair.structure
    if start == "guide":
        _demand_log_guide(structure)
    frame = pair.frame
    model_trace = pair.programs.seen(frame, pair.batch)
    guide_trace = pair.programs.trace(pair.guide, frame, pair.batch, enumerate_sites=False)
    for name in structure.latents:
        _demand_density(name, model_trace, guide_trace, structure, start)
    if structure.summed and structure.latents:
        _demand_one_support(pair, frame, model_trace)


def _demand_log_guide(structure: Structure) -> None:
    """Raise PairError unless log q(z|x) is known wherever a chain may move."""
    ways_out = "start from the prior (start='prior' in Annealing or Sampling), or estimate with importance_evidence"
    for name in structure.auxiliary:
        if name not in structure.sources:
            raise PairError(
                f"{name!r} is auxiliary, so that q(z|x) is an integral over it: give a guide without it, {ways_out}."
            )
    if structure.sources and structure.order is None:
        raise PairError(
            f"the guide's latents are a function of {sorted(structure.sources)[0]!r} that ppvae cannot invert, so that "
            f"log q(z|x) is known at the guide's own draws only: {ways_out}."
        )


def has_continuum(pair: Pair) -> bool:
    """Whether :func:`demand_continuum` has nothing to say of chains that start from the guide or from the prior."""
    with generator_kept(), torch.no_grad(), pyro.validation_enabled(False):
        try:
            for start in get_args(Start):
                demand_continuum(pair.few, start)
        except PairError:
            return False
    return True


def _demand_density(name: str, model_trace: Trace, guide_trace: Trace, structure: Structure, start: Start) -> None:
    """Raise PairError unless a latent lives on a continuum in which chains can move."""
    site: Any = model_trace.nodes[name]
    proposed: Any = guide_trace.nodes[name]
    fns = [bare(site["fn"]), *([] if name in structure.points else [bare(proposed["fn"])])]
    if any(is_discrete(fn) for fn in fns if not isinstance(fn, dist.Delta)):
        raise PairError(
            f"{name!r} is discrete and has no gradient: mark it infer={{'enumerate': 'parallel'}} in both "
            "programs, so that it is summed out, or estimate with importance_evidence."
        )
    if any(isinstance(fn, dist.Delta) for fn in fns):
        raise PairError(f"{name!r} is a point mass (Delta) and has no density: give it a distribution with a density.")
    if any(isinstance(fn, CIRCULAR) for fn in fns):
        raise PairError(f"{name!r} lives on a circle, which no real line maps onto: estimate with importance_evidence.")
    masks = [site["mask"], *(fn._mask for fn in layers(site["fn"]) if isinstance(fn, dist.MaskedDistribution))]
    if start == "prior" and any(mask is not None and not torch.as_tensor(mask).all() for mask in masks):
        raise PairError(f"the prior of {name!r} is masked, so that it is no distribution: start from the guide.")
    if start == "prior" and name in structure.improper:
        raise PairError(
            f"the prior of {name!r} is improper, so that nothing can be drawn from it: give it a distribution, or, for "
            "chains, start from the guide."
        )
    try:
        bijection_to(support_of(site["fn"]))
    except NotImplementedError as error:
        raise PairError(
            f"no bijection from the reals onto the support of {name!r} is known ({first_line(error)}): give it a "
            "distribution on another support, or estimate with importance_evidence."
        ) from error


def _demand_one_support(pair: Pair, frame: Frame, drawn: Any) -> None:
    """Raise PairError if the support of a latent depends on a site that is summed out: then so would z = T(u)."""
    z = {name: drawn.nodes[name]["value"] for name in pair.sites}
    with pyro.validation_enabled(False):
        trace: Any = pair.programs.trace(pair.model, frame, pair.batch, enumerate_sites=True, handler=Put(z))
    for name, value in z.items():
        if bijection_to(support_of(trace.nodes[name]["fn"])).inv(value).dim() > value.dim():
            raise PairError(
                f"the support of {name!r} depends on a site that is summed out: give it one support for all values of "
                "that site, or estimate with importance_evidence."
            )
