"""Which of Pyro's ELBOs fits a pair: one that sums discrete sites out where a site asks for it."""

from __future__ import annotations

from pyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO
from pyro.poutine import Trace

from .traces import drawn_in_parallel, enumerated, latents, sample_sites


def elbo_for(model_trace: Trace, guide_trace: Trace) -> ELBO:
    """``Trace_ELBO``, or ``TraceEnum_ELBO`` when a latent of the pair is enumerated.

    Args:
        model_trace: of one run of the pair, as is ``guide_trace``.
        guide_trace: see there.
    """
    traces = model_trace, guide_trace
    if not any(enumerated(site) or drawn_in_parallel(site) for trace in traces for site in latents(trace).values()):
        return Trace_ELBO()
    frames = [frame for trace in traces for _, site in sample_sites(trace) for frame in site["cond_indep_stack"]]
    return TraceEnum_ELBO(max_plate_nesting=max((-frame.dim for frame in frames if frame.vectorized), default=0))
