"""The two programs of a pair, run at draws, and the log densities and values that are read off a run.

Each method is a *body* (:mod:`.layout`): a function of a frame, the programs' arguments and inputs by unit, which gives
tensors by unit. Log densities are float64, in nats. Discrete sites that either program enumerates are summed out of
every density, and drawn where latents are drawn.

With Pyro's bijection z = T(u) from the reals onto the support that the model gives each latent,

    log p(x, u) = log p(x, T(u)) + log |det ∂T/∂u|,      log q(u|x) = log q(T(u)|x) + log |det ∂T/∂u|,

and the same for the prior p(u). Integrals over u are integrals over z: ∫ p(x, u) du = p(x).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ppvae.errors import PairError

from .arguments import Batch
from .discrete_draws import discrete_draws
from .distributions import is_real
from .enumeration import has_enumerated
from .flat_latents import joined, parts_of
from .handlers import Put, Read, Write, demand_support, filled, latent_log_prob, mean_of, written_log_prob
from .layout import Tensors
from .same_sites import demand_sites, known_sites
from .sites import DRAWS, Frame, Site, U, Values, demand_whole_event
from .structure import Structure
from .traces import Program, SizedPlate, drawn_once, guide_log_prob, sample_sites, site_log_prob


@dataclass(frozen=True)
class Programs:
    """The programs of a pair and the structure of their sites."""

    model: Program
    guide: Program
    structure: Structure

    @property
    def sites(self) -> dict[str, Site]:
        """What the guide draws."""
        return self.structure.drawn

    # --- runs ---------------------------------------------------------------------------------------------------------

    def under(self, program: Program, frame: Frame) -> Program:
        """The program under a plate of draws, if the frame has one; a data plate without a size gets the frame's."""
        plates, program = frame.plates, poutine.infer_config(program, drawn_once)

        def run(*args: Any) -> Any:
            if frame.num_draws is None:
                return program(*args)
            with pyro.plate(DRAWS, frame.num_draws, dim=plates.draw_dim):
                return program(*args)

        if plates.data is None or plates.size != -1:
            return run
        return SizedPlate(plates.dim, frame.num_units)(run)

    def trace(
        self, program: Program, frame: Frame, batch: Batch, *, enumerate_sites: bool, handler: Messenger | None = None
    ) -> Trace:
        """One run of a program; ``handler`` puts values at its sites, or reads them."""
        wrapped: Any = poutine.infer_config(self.under(program, frame), self._infer)
        if enumerate_sites and self.structure.summed:
            wrapped = EnumMessenger(first_available_dim=frame.enumeration_dim)(wrapped)
        if handler is not None:  # outside enumeration, which must see where each site stands
            wrapped = handler(wrapped)
        return known_sites(poutine.trace(wrapped).get_trace(*batch), self.structure)

    def seen(self, frame: Frame, batch: Batch) -> Trace:
        """The model at a draw of the guide, nothing summed out: a prior may not be one that can be drawn from."""
        drawn: Any = self.trace(self.guide, frame, batch, enumerate_sites=False)
        put = Put({name: drawn.nodes[name]["value"].detach() for name in self.structure.latents if name in drawn})
        return self.trace(self.model, frame, batch, enumerate_sites=False, handler=put)

    def _infer(self, site: Any) -> Any:
        name, structure = site["name"], self.structure
        return {"enumerate": "parallel", "expand": name in structure.expanded} if name in structure.summed else {}

    def traces(self, frame: Frame, batch: Batch, *, handle_enumeration: bool = False) -> tuple[Trace, Trace]:
        """A run of the guide, and of the model at its draws, ``(model_trace, guide_trace)``.

        Enumerated sites take a dim of their own, the guide's first, left of the draws if there is a dim of them.
        """
        guide, model = self.under(self.guide, frame), self.under(self.model, frame)
        if self.structure.summed or handle_enumeration:
            guide = EnumMessenger(first_available_dim=frame.enumeration_dim)(guide)
            model = EnumMessenger()(model)  # goes on from the guide's dims
        guide_trace = poutine.trace(guide).get_trace(*batch)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*batch)
        return known_sites(model_trace, self.structure), known_sites(guide_trace, self.structure)

    # --- densities ----------------------------------------------------------------------------------------------------

    def weights(self, frame: Frame, batch: Batch, inputs: Tensors) -> Tensors:
        """log w = log p(x, z) − log q(z|x) of draws of the guide."""
        model_trace, guide_trace = self.traces(frame, batch)
        return {"log_w": self.weigh(frame, model_trace, guide_trace)}

    def weigh(self, frame: Frame, model_trace: Trace, guide_trace: Trace) -> Tensor:
        """log p − log q of two traces of one run."""
        terms = [(site, self.model_log_prob(name, site)) for name, site in sample_sites(model_trace)]
        terms += [(site, -term) for site, term in self._proposed(guide_trace)]
        return frame.total(terms, model_trace, guide_trace)

    def _proposed(self, guide_trace: Trace, *, summed: bool = False) -> list[tuple[Any, Tensor]]:
        """The terms of log q: latents and the draws that their points are functions of."""
        found = []
        for name, site in sample_sites(guide_trace):
            counts = name in self.structure.latents or name in self.structure.summed or name in self.structure.sources
            is_summed = site["infer"].get("_enumerate_dim") is not None
            if (counts and not is_summed and not site["is_observed"]) or (summed and is_summed):
                found.append((site, guide_log_prob(site)))
        return found

    def log_q(self, frame: Frame, guide_trace: Trace, *, summed: bool = False) -> Tensor:
        """log q of a trace of the guide."""
        return frame.total(self._proposed(guide_trace, summed=summed), guide_trace)

    def model_log_prob(self, name: str, site: Any) -> Tensor:
        """A term of log p; −inf where a latent lies outside its support.

        Raises:
            DataError: an observed value lies outside its support, and the program asks for validation.
        """
        if name in self.structure.latents:
            return latent_log_prob(site)
        site = filled(site) if name in self.structure.missing else site
        if name in self.structure.validated and not is_real(site["fn"]):
            demand_support(name, site)
        return site_log_prob(site)

    def joint(self, frame: Frame, batch: Batch, inputs: Tensors, *, prior: bool) -> Tensors:
        """log p(x, u), log |det ∂T/∂u|, log p(u) if wanted, and z = T(u) by site, at ``inputs[U]``."""
        u = inputs[U]
        places = self.structure.latents
        put = Write(parts_of(u, self.structure.latents, frame))
        trace = self.trace(self.model, frame, batch, enumerate_sites=True, handler=put)
        log_jacobian = torch.zeros(frame.shape, dtype=torch.float64, device=u.device)
        for part in put.log_jacobians:
            log_jacobian = log_jacobian + frame.sum_plates(part.double())
        missing = self.structure.missing
        terms = [(s, written_log_prob(filled(s) if name in missing else s)) for name, s in sample_sites(trace)]
        out = {"log_joint": frame.total(terms, trace) + log_jacobian, "log_jacobian": log_jacobian}
        if prior:
            hidden = [(site, term) for site, term in terms if not site["is_observed"]]
            out["log_prior"] = frame.total(hidden, trace) + log_jacobian
        return out | {name: frame.by_unit(put.values[name], site) for name, site in places.items()}

    def log_guide(self, frame: Frame, batch: Batch, inputs: Tensors) -> Tensors:
        """log q(z|x) at latents ``inputs`` by site; ``inputs[U]`` where the guide's draws are functions of others."""
        values = {name: inputs[name] for name in self.structure.drawn if name in inputs}
        if not set(values) >= self.structure.sources:
            values |= self._sources(inputs[U])
        trace = self.trace(self.guide, frame, batch, enumerate_sites=True, handler=Put(self._by_program(frame, values)))
        return {"log_q": self.log_q(frame, trace, summed=True)}

    def densities(self, frame: Frame, batch: Batch, inputs: Tensors) -> Tensors:
        """log p(x, z) and log p(x|z) at latents by site."""
        put = Put(self._by_program(frame, {name: inputs[name] for name in self.structure.latents}))
        trace = self.trace(self.model, frame, batch, enumerate_sites=True, handler=put)
        terms = [(site, self.model_log_prob(name, site)) for name, site in sample_sites(trace)]
        log_p = frame.total(terms, trace)
        if has_enumerated(trace):  # the sum over d holds prior and likelihood together
            hidden = [(site, term) for site, term in terms if not site["is_observed"]]
            log_likelihood = (log_p - frame.total(hidden, trace)).nan_to_num(-torch.inf)
        else:
            log_likelihood = frame.total([(site, term) for site, term in terms if site["is_observed"]], trace)
        return {"log_p": log_p, "log_likelihood": log_likelihood}

    # --- draws --------------------------------------------------------------------------------------------------------

    def proposals(self, frame: Frame, batch: Batch, inputs: Tensors) -> Tensors:
        """Draws of q(z|x) by site, auxiliary sites among them, and their log q(z|x)."""
        trace = self.trace(self.guide, frame, batch, enumerate_sites=False)
        return {**self._values(frame, trace, self.structure.drawn), "log_q": self.log_q(frame, trace)}

    def guide_draws(self, frame: Frame, batch: Batch, inputs: Tensors) -> Tensors:
        """Draws of q(z|x) by site, auxiliary sites among them."""
        return self._values(frame, self.trace(self.guide, frame, batch, enumerate_sites=False), self.structure.drawn)

    def prior_draws(self, frame: Frame, batch: Batch, inputs: Tensors, *, predictive: bool) -> Tensors:
        """Draws of p(z), and, if asked, of x̃ ~ p(x|z), by site; those in ``inputs`` are not drawn.

        With x̃ come the draws of the enumerated sites.
        """
        model = poutine.uncondition(self.model) if predictive else self.model
        sites = self.structure.latents | (self.structure.observed | self.structure.classes if predictive else {})
        put = Put(self._by_program(frame, inputs))
        return self._values(frame, self.trace(model, frame, batch, enumerate_sites=False, handler=put), sites)

    def predictions(self, frame: Frame, batch: Batch, inputs: Tensors) -> Tensors:
        """x̃ ~ p(x|z) at latents by site; enumerated sites are drawn from p(d|z, x) first."""
        return self._values(frame, self.predicted(frame, batch, inputs), self.structure.observed)

    def expectations(self, frame: Frame, batch: Batch, inputs: Tensors) -> Tensors:
        """E[x̃|z] at latents by site, and a draw of x̃ where the distribution has no finite mean."""
        trace: Any = self.predicted(frame, batch, inputs)
        for name in self.structure.observed:
            trace.nodes[name]["value"] = mean_of(trace.nodes[name])
        return self._values(frame, trace, self.structure.observed)

    def predicted(self, frame: Frame, batch: Batch, inputs: Tensors) -> Trace:
        """The model with its data drawn; classes and data that are among the inputs are not drawn."""
        put = self._by_program(frame, {n: value for n, value in inputs.items() if n not in self.structure.auxiliary})
        if not put.keys() >= self.structure.classes.keys():
            marked: Any = poutine.infer_config(self.under(self.model, frame), self._infer)
            given = poutine.condition(marked, data=put)
            put |= discrete_draws(given, self.structure.summed, batch, frame.enumeration_dim)
        return self.trace(poutine.uncondition(self.model), frame, batch, enumerate_sites=False, handler=Put(put))

    def observations(self, frame: Frame, batch: Batch, inputs: Tensors) -> Tensors:
        """What the model observes, by site, from a run at latents by site."""
        put = Put(self._by_program(frame, {name: inputs[name] for name in self.structure.latents}))
        trace = self.trace(self.model, frame, batch, enumerate_sites=False, handler=put)
        return self._values(frame, trace, self.structure.observed)

    def unconstrained(self, frame: Frame, batch: Batch, inputs: Tensors) -> Tensors:
        """u of latents by site, those that are not given drawn from the model; and by site's name how many of a
        unit's values lie outside the support."""
        values = {name: inputs[name] for name in self.structure.latents if name in inputs}
        read = Read(self.structure.latents, self._by_program(frame, values))
        self.trace(self.model, frame, batch, enumerate_sites=False, handler=read)
        outside = {
            name: frame.sum_plates((~read.inside[name]).double()).expand(frame.shape) for name in self.structure.latents
        }
        return {U: joined(read.u, self.structure.latents, frame), **outside}

    # --- shapes -------------------------------------------------------------------------------------------------------

    def _values(self, frame: Frame, trace: Any, sites: dict[str, Site]) -> Values:
        demand_sites(sites, trace)
        for name, site in sites.items():
            demand_whole_event(name, trace.nodes[name], site)
        return {name: frame.by_unit(trace.nodes[name]["value"], site) for name, site in sites.items()}

    def _by_program(self, frame: Frame, values: Values) -> Values:
        sites = self.structure.drawn | self.structure.observed | self.structure.classes
        return {name: frame.by_program(value, sites[name].plates) for name, value in values.items()}

    def _sources(self, u: Tensor) -> Values:
        """The auxiliary draws that the latents are functions of, from u."""
        if self.structure.order is None:
            raise PairError(
                "the guide's latents are a function of its auxiliary draws that ppvae cannot invert, so that log "
                "q(z|x) is known at its own draws only: estimate with importance_evidence, or start from the prior "
                "(start='prior' in Annealing or Sampling)."
            )
        a, start, values = u[..., self.structure.order.to(u.device)], 0, {}
        for name, site in self.structure.auxiliary.items():
            if name in self.structure.sources:
                size = torch.Size(site.shape).numel()
                values[name] = a[..., start : start + size].reshape(*a.shape[:-1], *site.shape).to(site.dtype)
                start += size
        return values
