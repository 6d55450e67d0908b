"""Which of Pyro's ELBOs fits a pair: one that sums discrete sites out where a site asks for it."""

from __future__ import annotations

from typing import Any

from pyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO
from pyro.poutine import Trace

from .traces import latents


def enumerated(site: dict[str, Any]) -> bool:
    """Whether a site is to be summed out (``infer={"enumerate": "parallel"}``)."""
    return site["infer"].get("enumerate") == "parallel"


def elbo_for(model_trace: Trace, guide_trace: Trace, nesting: int) -> ELBO:
    """``Trace_ELBO``, or ``TraceEnum_ELBO`` when a latent of the pair is enumerated.

    Args:
        model_trace: of one run of the pair, as is ``guide_trace``.
        guide_trace: see there.
        nesting: how many plates of the pair are nested.
    """
    sites = [site for trace in (model_trace, guide_trace) for site in latents(trace).values()]
    return TraceEnum_ELBO(max_plate_nesting=nesting) if any(map(enumerated, sites)) else Trace_ELBO()
