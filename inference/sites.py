"""The sites of a pair on data: where each stands, runs of the two programs at given draws, and what is read off them.

At draws z of the latents, whoever made them,

    log p(x, z),      log q(z|x),      log p(x|z) = log p(x, z) − log p(z),      x̃ ~ p(x|z).

Discrete sites that either program enumerates are summed out of each of these densities; where data are drawn, they are
drawn too, from p(d|z, x).

Shapes: a site's values are kept by datum, ``(num_draws, num_data, *plates inside the datum, *event)``, whatever the
layout of the program's plates; densities are ``(num_draws, num_data)``, float64, in nats.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.infer.discrete import infer_discrete
from pyro.poutine import Trace
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from ppvae.errors import PairError, first_line

from .chunks import bytes_per_particle, chunks
from .contraction import has_enumerated, sum_out
from .objective import enumerated
from .parameters import evaluation_mode, own_parameters
from .structure import sound_plates
from .traces import (
    FAILURES,
    PARTICLES,
    Batch,
    Plates,
    Program,
    generator_kept,
    latents,
    plain_traces,
    rows,
    sample_sites,
)
from .weights import site_log_prob, sum_plates

Values = dict[str, Tensor]


class Densities(NamedTuple):
    """What the programs say of draws, each ``(num_draws, num_data)``, float64, in nats.

    Attributes:
        log_p: log p(x, z).
        log_q: log q(z|x); None where the guide has auxiliary sites that the draws do not hold.
        log_likelihood: log p(x|z).
    """

    log_p: Tensor
    log_q: Tensor | None
    log_likelihood: Tensor


@dataclass(frozen=True)
class Place:
    """Where a site stands inside a datum.

    Attributes:
        plates: its own plates inside the datum, as dims of the program, outermost first.
        event_dim: how many dims its event has.
        shape: sizes of those plates, then the event's.
        dtype: of its values.
    """

    plates: tuple[int, ...]
    event_dim: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def by_datum(self, value: Tensor, nesting: int) -> Tensor:
        """A value as the program has it, ``(draws, *plates, data, *event)``, with the data dim second."""
        batch_dims = value.dim() - self.event_dim
        value = value.reshape((1,) * (nesting + 1 - batch_dims) + value.shape).movedim(nesting, 1)
        for axis, dim in reversed(list(enumerate(range(-nesting, -1), start=2))):
            if dim not in self.plates:
                value = value.select(axis, 0)
        return value

    def by_program(self, value: Tensor, nesting: int) -> Tensor:
        """The inverse of :meth:`by_datum`."""
        for axis, dim in enumerate(range(-nesting, -1), start=2):
            if dim not in self.plates:
                value = value.unsqueeze(axis)
        return value.movedim(1, nesting)


@dataclass(frozen=True)
class Sites:
    """A pair on a batch, and where its sites stand; made by :func:`sites_of`.

    Attributes:
        model: the generative program.
        guide: the guide.
        batch: ``(x, *context)``.
        plates: the pair's plates.
        latents: the hidden sites of the model that are drawn.
        auxiliary: those that the guide alone draws.
        observed: what the model observes.
        summed: names of the sites that are enumerated.
        bytes_each: bytes that one draw costs per datum.
    """

    model: Program
    guide: Program
    batch: Batch
    plates: Plates
    latents: dict[str, Place]
    auxiliary: dict[str, Place]
    observed: dict[str, Place]
    summed: frozenset[str]
    bytes_each: int

    @property
    def num_data(self) -> int:
        """How many data there are."""
        return len(self.batch[0])

    @property
    def drawn(self) -> dict[str, Place]:
        """What the guide draws."""
        return self.latents | self.auxiliary

    def pieces(self, num_draws: int, memory_mb: float) -> Iterator[tuple[slice, slice, Sites]]:
        """The work in bounded memory: ``(data, draws, the pair on these data)``, data outermost."""
        for data, draws in chunks(num_draws, self.num_data, self.bytes_each, memory_mb):
            yield data, draws, replace(self, batch=rows(self.batch, data))

    def from_guide(self, num_draws: int) -> Values:
        """Draws of q(z|x), auxiliary sites among them."""
        trace = self.run(self.guide, num_draws)
        return self._values(trace, self.drawn, num_draws)

    def from_prior(self, num_draws: int, *, predictive: bool) -> Values:
        """Draws of p(z), and, if asked, of x̃ ~ p(x|z)."""
        if not predictive:
            return self._values(self._draw(self.model, num_draws, {}), self.latents, num_draws)
        trace = self._draw(poutine.uncondition(self.model), num_draws, {})
        return self._values(trace, self.latents | self.observed, num_draws)

    def predicted(self, z: Values, num_draws: int) -> Values:
        """x̃ ~ p(x|z), one for each draw; enumerated sites are drawn from p(d|z, x) first."""
        put = self._as_program(z, self.latents)
        if self.summed:
            put |= self._discrete(put, num_draws)
        return self._values(self._draw(poutine.uncondition(self.model), num_draws, put), self.observed, num_draws)

    def observations(self, z: Values) -> Values:
        """What the model observes, ``(1, num_data, ...)``, from a run on one draw."""
        return self._values(self.run(self.model, 1, self._as_program(z, self.latents)), self.observed, 1)

    def densities(self, z: Values, num_draws: int) -> Densities:
        """The densities at draws by datum."""
        with pyro.validation_enabled(False):  # a draw outside a support has log density −inf
            trace = self.run(self.model, num_draws, self._as_program(z, self.latents), enumerate_sites=True)
            terms = [(site, site_log_prob(site)) for _, site in sample_sites(trace)]
            log_p = self._total(terms, trace, num_draws)
            if has_enumerated(trace):  # the sum over d holds prior and likelihood together
                hidden = [(site, term) for site, term in terms if site["name"] not in self.observed]
                log_likelihood = (log_p - self._total(hidden, trace, num_draws)).nan_to_num(-torch.inf)
            else:
                seen = [(site, term) for site, term in terms if site["name"] in self.observed]
                log_likelihood = self._total(seen, trace, num_draws)
            if set(z) < set(self.drawn):
                return Densities(log_p, None, log_likelihood)
            trace = self.run(self.guide, num_draws, self._as_program(z, self.drawn), enumerate_sites=True)
            terms = [(site, site_log_prob(site)) for _, site in sample_sites(trace)]
            return Densities(log_p, self._total(terms, trace, num_draws), log_likelihood)

    def run(
        self, program: Program, num_draws: int, put: Values | None = None, *, enumerate_sites: bool = False
    ) -> Trace:
        """One run under a plate of draws, with the given values (as the program has them) at their sites."""
        wrapped: Any = self._under_draws(program, num_draws, put or {})
        if enumerate_sites:
            wrapped = EnumMessenger(first_available_dim=self.plates.particle_dim - 1)(wrapped)
        return prune_subsample_sites(poutine.trace(wrapped).get_trace(*self.batch))

    def _under_draws(self, program: Program, num_draws: int, put: Values) -> Program:
        def run(*args: Any) -> Any:
            with pyro.plate(PARTICLES, num_draws, dim=self.plates.particle_dim):
                return program(*args)

        def infer(site: Any) -> Any:
            return {"enumerate": "parallel"} if site["name"] in self.summed else {}

        return poutine.condition(poutine.infer_config(run, infer), data=put)

    def _draw(self, program: Program, num_draws: int, put: Values) -> Trace:
        try:
            return self.run(program, num_draws, put)
        except FAILURES as error:
            raise PairError(
                f"the model cannot be drawn from ({first_line(error)}): let poutine.uncondition(model) run, or, if "
                "only the data cannot be drawn, give predictive=False."
            ) from error

    def _discrete(self, put: Values, num_draws: int) -> Values:
        """Draws of the enumerated sites from p(d|z, x), as the model has them."""
        model: Any = self._under_draws(self.model, num_draws, put)
        drawing = infer_discrete(model, first_available_dim=self.plates.particle_dim - 1)
        trace: Any = poutine.trace(drawing).get_trace(*self.batch)
        values = {}
        for name in self.summed & set(trace.nodes):
            value, event_dim = trace.nodes[name]["value"], trace.nodes[name]["fn"].event_dim
            values[name] = value.reshape(value.shape[max(value.dim() - event_dim - self.plates.nesting - 1, 0) :])
        return values

    def _values(self, trace: Trace, places: dict[str, Place], num_draws: int) -> Values:
        nodes: dict[str, Any] = trace.nodes
        out = {}
        for name, place in places.items():
            value = place.by_datum(nodes[name]["value"], self.plates.nesting)
            out[name] = value.expand(num_draws, self.num_data, *place.shape)
        return out

    def _as_program(self, z: Values, places: dict[str, Place]) -> Values:
        where = self.batch[0].device
        return {name: place.by_program(z[name].to(where), self.plates.nesting) for name, place in places.items()}

    def _total(self, terms: list[tuple[Any, Tensor]], trace: Trace, num_draws: int) -> Tensor:
        if has_enumerated(trace) and terms:
            return sum_out(terms, trace, Trace(), self.plates.data, num_draws, self.num_data)
        total = torch.zeros(num_draws, self.num_data, dtype=torch.float64, device=self.batch[0].device)
        for _, term in terms:
            total = total + sum_plates(term, self.plates)
        return total


@contextmanager
def sites_of(model: Program, guide: Program, batch: Batch) -> Iterator[Sites]:
    """The sites of a pair on a batch, inside a context in which its parameters are in place.

    Raises:
        PairError: the pair breaks the contract.
    """
    with torch.no_grad(), own_parameters(model, guide), evaluation_mode(model, guide):
        plates = sound_plates(model, guide, batch)
        model_trace, guide_trace = plain_traces(model, guide, batch)
        hidden, proposed = latents(model_trace), latents(guide_trace)
        summed = frozenset(n for sites in (hidden, proposed) for n, site in sites.items() if enumerated(site))
        bytes_each = bytes_per_particle(model, guide, batch, plates)
        whole = Sites(model, guide, batch, plates, {}, {}, {}, summed, bytes_each)
        places = _places(replace(whole, batch=rows(batch, slice(0, 1))), proposed.keys() - summed)
        yield replace(
            whole,
            latents={name: places[name] for name in hidden if name not in summed},
            auxiliary={name: places[name] for name in proposed if name not in summed and name not in hidden},
            observed={name: places[name] for name, site in sample_sites(model_trace) if site["is_observed"]},
        )


def _places(one: Sites, proposed: set[str]) -> dict[str, Place]:
    """Where every site stands, from runs of the two programs on one datum."""
    with generator_kept():
        guide_trace = one.run(one.guide, 2)
        nodes: dict[str, Any] = guide_trace.nodes
        model_trace = one.run(one.model, 2, {name: nodes[name]["value"] for name in proposed})
    nesting = one.plates.nesting
    return {name: _place(site, nesting) for trace in (model_trace, guide_trace) for name, site in sample_sites(trace)}


def _place(site: dict[str, Any], nesting: int) -> Place:
    fn, own = site["fn"], {frame.dim for frame in site["cond_indep_stack"] if frame.vectorized}
    batch_shape = (1,) * (nesting + 1 - len(fn.batch_shape)) + tuple(fn.batch_shape)
    dims = tuple(dim for dim in range(-nesting, -1) if dim in own)
    shape = (*(batch_shape[dim] for dim in dims), *fn.event_shape)
    return Place(dims, fn.event_dim, shape, site["value"].dtype)
