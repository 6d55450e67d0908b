"""A pair as a function: unconstrained latents of every chain and datum ↦ log densities, with gradients.

Markov chains and local optimisers want one flat vector of real numbers per datum, and the density of it. A pair has
sites instead, of any number, shape and support. With Pyro's bijection z = T(u) from the reals onto the support that
the model gives each site, the view of a pair on data x is

    log p(x, u) = log p(x, T(u)) + log |det ∂T/∂u|,      log q(u|x) = log q(T(u)|x) + log |det ∂T/∂u|,

and the same for the prior p(u). Integrals over u are integrals over z: ∫ p(x, u) du = p(x).

Sites that either program enumerates are summed out of every density, log Σ_d p(x, z, d), log Σ_d q(z, d|x) and
log Σ_d p(z, d), and are drawn when latents are drawn.

Shapes: u is ``(num_chains, num_data, dim)``; a log density is ``(num_chains, num_data)``, float64, in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import biject_to

from ppvae.errors import PairError, first_line

from .chunks import bytes_per_particle
from .contraction import has_enumerated, sum_out
from .objective import enumerated
from .parameters import evaluation_mode, own_parameters
from .structure import sound_plates
from .traces import PARTICLES, Batch, Plates, Program, generator_kept, latents, plain_traces, rows, sample_sites
from .weights import site_log_prob, sum_plates

Start = Literal["guide", "prior"]

# Pyro gives these the support ℝ, on which they are periodic.
CIRCULAR = dist.VonMises, dist.SineBivariateVonMises, dist.SineSkewed

# Log densities that are functions of u: (num_chains, num_data, dim) ↦ (num_terms, num_chains, num_data).
Terms = Callable[[Tensor], Tensor]


class Point(NamedTuple):
    """A place u of every chain and datum, and what the terms are there.

    Attributes:
        u: ``(num_chains, num_data, dim)``.
        values: ``(num_terms, num_chains, num_data)``, float64.
        gradients: of ``values`` in u, ``(num_terms, num_chains, num_data, dim)``; zero where they are not finite.
    """

    u: Tensor
    values: Tensor
    gradients: Tensor


def evaluate(terms: Terms, u: Tensor) -> Point:
    """Values and gradients of the terms at u."""
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        values = terms(u) + 0 * u.sum(-1)  # a term may not depend on u
        # Chains and data do not touch each other, so the gradient of the sum holds the gradient of each.
        last = len(values) - 1
        gradients = [torch.autograd.grad(v.sum(), u, retain_graph=j < last)[0] for j, v in enumerate(values)]
    return Point(u.detach(), values.detach(), torch.stack(gradients).nan_to_num(0.0, 0.0, 0.0))


@dataclass(frozen=True)
class Slot:
    """Where a latent site stands in u: from ``start`` on, as a tensor of ``shape`` (inner plates, then its event)."""

    start: int
    shape: tuple[int, ...]

    @property
    def stop(self) -> int:
        """Where the next site begins."""
        return self.start + math.prod(self.shape)


@dataclass(frozen=True)
class Density:
    """A pair on a batch of data as functions of unconstrained latents; made by :func:`density_of`.

    Attributes:
        model: the generative program.
        guide: the guide.
        batch: ``(x, *context)``.
        plates: the pair's plates.
        slots: where each latent site stands in u.
        summed: names of the sites that are summed out.
        bytes_each: bytes that one evaluation with its gradient costs per chain and datum.
    """

    model: Program
    guide: Program
    batch: Batch
    plates: Plates
    slots: dict[str, Slot]
    summed: frozenset[str]
    bytes_each: int

    @property
    def dim(self) -> int:
        """How many real numbers a datum's latents are."""
        return max((slot.stop for slot in self.slots.values()), default=0)

    @property
    def num_data(self) -> int:
        """How many data there are."""
        return len(self.batch[0])

    def rows(self, index: Any) -> Density:
        """The same view of some of the data."""
        return replace(self, batch=rows(self.batch, index))

    def joint(self, u: Tensor) -> Tensor:
        """log p(x, u), ``(1, num_chains, num_data)``."""
        return self._joint(u)[0][None]

    def path(self, start: Start) -> Terms:
        """The two ends of an annealing path: u ↦ log q(u|x) or log p(u), and log p(x, u); ``(2, chains, data)``."""

        def terms(u: Tensor) -> Tensor:
            log_joint, log_prior, log_jacobian, z = self._joint(u, want_prior=start == "prior")
            log_start = log_prior if start == "prior" else self._log_guide(z, len(u)) + log_jacobian
            return torch.stack([log_start, log_joint])

        return terms

    def ends(self, u: Tensor) -> Tensor:
        """log q(u|x), log p(u) and log p(x, u), ``(3, num_chains, num_data)``."""
        log_joint, log_prior, log_jacobian, z = self._joint(u, want_prior=True)
        return torch.stack([self._log_guide(z, len(u)) + log_jacobian, log_prior, log_joint])

    def draw(self, start: Start, num_chains: int) -> Tensor:
        """Independent draws of the guide or of the prior, ``(num_chains, num_data, dim)``.

        Raises:
            PairError: the guide draws outside the support that the model gives a site.
        """
        with torch.no_grad():
            if start == "prior":
                values = {}
            else:
                trace = self._trace(self.guide, num_chains, enumerate_sites=False)
                values = {name: trace.nodes[name]["value"] for name in self.slots}
            return self.unconstrained(values, num_chains)

    def unconstrained(self, values: dict[str, Any], num_chains: int) -> Tensor:
        """u of latents as the programs shape them, ``(num_chains, *plates, num_data, *event)`` by site.

        A site that is not given is drawn from the model.
        """
        place = _Read(self.slots, values)
        try:
            with torch.no_grad(), pyro.validation_enabled(False):
                self._trace(self.model, num_chains, enumerate_sites=False, place=place)
        except PairError as error:  # Pyro appends the shapes of the trace
            raise PairError(first_line(error)) from None
        shape = num_chains, self.num_data, -1
        parts = [place.u[name].movedim(self.plates.nesting, 1).reshape(shape) for name in self.slots]
        return torch.cat(parts, -1) if parts else torch.zeros(num_chains, self.num_data, 0)

    def constrained(self, u: Tensor) -> dict[str, Tensor]:
        """The latents T(u) by site, ``(num_chains, num_data, *plates inside the datum, *event)``."""
        with torch.no_grad():
            _, _, _, z = self._joint(u)
        return {name: value.movedim(self.plates.nesting, 1) for name, value in z.items()}

    def _joint(self, u: Tensor, want_prior: bool = False) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """log p(x, u), log p(u) (if wanted), log |det ∂T/∂u|, and the constrained values."""
        place = _Write({name: self._site(u, slot) for name, slot in self.slots.items()})
        with pyro.validation_enabled(False):
            trace = self._trace(self.model, len(u), place=place)
            log_jacobian = self._zero(u)
            for part in place.log_jacobians:
                log_jacobian = log_jacobian + sum_plates(part.double(), self.plates)
            log_joint = self._log_prob(trace, len(u), observed=True) + log_jacobian
            log_prior = self._log_prob(trace, len(u), observed=False) + log_jacobian if want_prior else log_joint
        return log_joint, log_prior, log_jacobian, place.values

    def _log_guide(self, z: dict[str, Tensor], num_chains: int) -> Tensor:
        """log q(z|x)."""
        with pyro.validation_enabled(False):
            trace = self._trace(self.guide, num_chains, place=_Put(z))
            return self._log_prob(trace, num_chains, observed=True)

    def _site(self, u: Tensor, slot: Slot) -> Tensor:
        """The part of u that belongs to a site, as the programs shape it: ``(chains, *plates, data, *event)``."""
        part = u[..., slot.start : slot.stop].reshape(*u.shape[:2], *slot.shape)
        return part.movedim(1, self.plates.nesting)

    def _trace(
        self,
        program: Program,
        num_chains: int,
        *,
        enumerate_sites: bool = True,
        place: Messenger | None = None,
    ) -> Trace:
        """One run of a program under the plate of chains."""

        def run(*args: Any) -> Any:
            with pyro.plate(PARTICLES, num_chains, dim=self.plates.particle_dim):
                return program(*args)

        wrapped: Any = poutine.infer_config(run, self._infer)
        if enumerate_sites:
            wrapped = EnumMessenger(first_available_dim=self.plates.particle_dim - 1)(wrapped)
        if place is not None:  # outside enumeration, which must see where each site stands
            wrapped = place(wrapped)
        return prune_subsample_sites(poutine.trace(wrapped).get_trace(*self.batch))

    def _infer(self, site: Any) -> Any:
        return {"enumerate": "parallel"} if site["name"] in self.summed else {}

    def _log_prob(self, trace: Trace, num_chains: int, *, observed: bool) -> Tensor:
        """The sum of the sites' log densities, with enumerated sites summed out; of the latents only if asked."""
        terms = [(s, site_log_prob(s)) for _, s in sample_sites(trace) if observed or not s["is_observed"]]
        if has_enumerated(trace):
            return sum_out(terms, trace, Trace(), self.plates.data, num_chains, self.num_data)
        total = self._zero(torch.empty(num_chains, 0, 0, device=self.batch[0].device))
        for _, term in terms:
            total = total + sum_plates(term, self.plates)
        return total

    def _zero(self, u: Tensor) -> Tensor:
        return torch.zeros(len(u), self.num_data, dtype=torch.float64, device=u.device)


class _Write(Messenger):
    """Puts T(u) at each site and notes log |det ∂T/∂u|."""

    def __init__(self, u: dict[str, Tensor]) -> None:
        super().__init__()
        self._u = u
        self.values: dict[str, Tensor] = {}
        self.log_jacobians: list[Tensor] = []

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if name in self._u and not msg["is_observed"]:
            u, transform = self._u[name], biject_to(msg["fn"].support)
            z = transform(u)
            self.values[name] = z
            self.log_jacobians.append(transform.log_abs_det_jacobian(u, z))
            msg["value"], msg["done"] = z, True


class _Put(Messenger):
    """Puts z at each site."""

    def __init__(self, z: dict[str, Tensor]) -> None:
        super().__init__()
        self._z = z

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self._z and not msg["is_observed"]:
            msg["value"], msg["done"] = self._z[msg["name"]], True


class _Read(_Put):
    """Puts z where it is given, and notes u = T⁻¹(z) of every latent."""

    def __init__(self, names: Iterable[str], z: dict[str, Tensor]) -> None:
        super().__init__(z)
        self._names = frozenset(names)
        self.u: dict[str, Tensor] = {}

    def _pyro_post_sample(self, msg: Any) -> None:
        name = msg["name"]
        if name not in self._names or msg["is_observed"]:
            return
        support = msg["fn"].support
        if not support.check(msg["value"]).all():
            raise PairError(
                f"the guide draws {name!r} outside the support that the model gives it: let the guide's distribution "
                "have the support of the model's, or start from the prior (start='prior')."
            )
        limit = torch.finfo(msg["value"].dtype).max ** 0.5  # a draw that was rounded onto the boundary is at ±∞
        self.u[name] = biject_to(support).inv(msg["value"]).clamp(-limit, limit)


@contextmanager
def density_of(model: Program, guide: Program, batch: Batch, *, start: Start = "guide") -> Iterator[Density]:
    """The view of a pair on a batch, inside a context in which its parameters are in place.

    Args:
        model: the generative program.
        guide: the guide.
        batch: ``(x, *context)``, on the device of the parameters.
        start: what is to be drawn and evaluated beside log p(x, z): its demands are checked too.

    Raises:
        PairError: the pair breaks the contract, or a latent has no density on a continuum: it is discrete and not
            enumerated, a point mass, on a circle or sphere, auxiliary, or masked out of the prior that is started from.
    """
    with own_parameters(model, guide), evaluation_mode(model, guide):
        plates = sound_plates(model, guide, batch)
        model_trace, guide_trace = plain_traces(model, guide, batch)
        hidden = {**latents(guide_trace), **latents(model_trace)}
        summed = {n for t in (model_trace, guide_trace) for n, site in latents(t).items() if enumerated(site)}
        for name in hidden:
            if name not in summed:
                _demand_density(name, model_trace, guide_trace, start)
        bytes_each = 2 * bytes_per_particle(model, guide, batch, plates)  # as much again for the gradient
        names = [name for name in latents(model_trace) if name not in summed]
        density = Density(model, guide, batch, plates, dict.fromkeys(names, Slot(0, ())), frozenset(summed), bytes_each)
        yield replace(density, slots=_slots(density))


def _slots(density: Density) -> dict[str, Slot]:
    """Where the sites stand in u, from a run on one datum."""
    one, place = density.rows(slice(0, 1)), _Read(density.slots, {})
    with torch.no_grad(), generator_kept():
        drawn: Any = one._trace(one.model, 2, enumerate_sites=False, place=place)
        if density.summed:
            _demand_one_support(one, {name: drawn.nodes[name]["value"] for name in density.slots})
    slots, start = {}, 0
    for name in density.slots:
        slots[name] = Slot(start, tuple(place.u[name].movedim(density.plates.nesting, 1).shape[2:]))
        start = slots[name].stop
    return slots


def _demand_one_support(density: Density, z: dict[str, Tensor]) -> None:
    """Raise PairError if the support of a latent depends on a site that is summed out: then so would z = T(u)."""
    with pyro.validation_enabled(False):
        trace: Any = density._trace(density.model, 2, place=_Put(z))
        for name, value in z.items():
            if biject_to(trace.nodes[name]["fn"].support).inv(value).dim() > value.dim():
                raise PairError(
                    f"the support of {name!r} depends on a site that is summed out: give it one support for all values "
                    "of that site, or estimate with importance_evidence."
                )


def _demand_density(name: str, model_trace: Trace, guide_trace: Trace, start: Start) -> None:
    """Raise PairError unless a latent lives on a continuum in which chains can move."""
    if name not in model_trace.nodes:
        raise PairError(
            f"{name!r} is auxiliary, so that q(z|x) is an integral over it: give a guide without it, or estimate with "
            "importance_evidence."
        )
    site: Any = model_trace.nodes[name]
    fns = [_layers(trace.nodes[name]["fn"])[-1] for trace in (model_trace, guide_trace) if name in trace.nodes]
    if any(fn.support.is_discrete for fn in fns if not isinstance(fn, dist.Delta)):
        raise PairError(
            f"{name!r} is discrete and has no gradient: mark it infer={{'enumerate': 'parallel'}} in both "
            "programs, so that it is summed out, or estimate with importance_evidence."
        )
    if any(isinstance(fn, dist.Delta) for fn in fns):
        raise PairError(f"{name!r} is a point mass (Delta) and has no density: give it a distribution with a density.")
    if any(isinstance(fn, CIRCULAR) for fn in fns):
        raise PairError(f"{name!r} lives on a circle, which no real line maps onto: estimate with importance_evidence.")
    masks = [site["mask"], *(fn._mask for fn in _layers(site["fn"]) if isinstance(fn, dist.MaskedDistribution))]
    if start == "prior" and any(mask is not None and not torch.as_tensor(mask).all() for mask in masks):
        raise PairError(f"the prior of {name!r} is masked, so that it is no distribution: start from the guide.")
    try:
        biject_to(site["fn"].support)
    except NotImplementedError as error:
        raise PairError(
            f"no bijection from the reals onto the support of {name!r} is known ({first_line(error)}): give it a "
            "distribution on another support, or estimate with importance_evidence."
        ) from error


def _layers(fn: Any) -> list[Any]:
    """A distribution, what Pyro wrapped to make it (plates, events, masks), and at last the bare one."""
    layers = [fn]
    while isinstance(fn, (dist.Independent, dist.MaskedDistribution, dist.torch_distribution.ExpandedDistribution)):
        fn = fn.base_dist
        layers.append(fn)
    return layers
