"""Whether all runs of a pair's programs have the same sites, as they do not where a loop's length depends on the data.

Such a pair is run on all of its data at once, which have the same sites at each run. Where the number of sites depends
on what is drawn, a weight would leave out what the structure does not tell of, and the pair is refused.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites

from .arguments import Batch
from .contract import ContractError, Finding
from .structure import Structure
from .traces import Program, is_factor, latents, observations, plain_traces


def same_sites(model: Program, guide: Program, batch: Batch, structure: Structure) -> bool:
    """Whether a run on a batch has the sites of the structure, no more and no fewer."""
    model_trace, guide_trace = plain_traces(model, guide, batch)
    names = latents(model_trace).keys() | latents(guide_trace).keys() | observations(model_trace).keys()
    return names == structure.known


def known_sites(trace: Trace, structure: Structure) -> Trace:
    """The trace without its subsampling sites, if the structure tells of all that it draws.

    Raises:
        ContractError: it draws another site. A structure that tells of none is not complete yet.
    """
    trace = prune_subsample_sites(trace)
    complete = bool(structure.drawn or structure.observed)
    for name, site in latents(trace).items():
        if complete and name not in structure.known and not is_factor(site):
            raise _other_sites(name)
    return trace


def demand_sites(names: Iterable[str], trace: Trace) -> None:
    """Raise ContractError if the trace lacks a site."""
    for name in names:
        if name not in trace.nodes:
            raise _other_sites(name)


def _other_sites(name: str) -> ContractError:
    remedy = "let every run have the same sites, and mask those that do not exist for some data (poutine.mask)"
    return ContractError(Finding("other-sites", name, "some runs of the programs sample it and others do not", remedy))
