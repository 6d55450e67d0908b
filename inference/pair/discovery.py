"""The sites of a pair, its plates and its unit, found out by running both programs on some of the data."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from pyro.poutine import Trace

from ppvae.errors import PpvaeError

from .arguments import Arguments, Batch
from .contract import ContractError, unmatched_sites, unnormalised, without_density
from .distributions import bare, is_improper, is_point_mass
from .failures import failed_run
from .handlers import Put
from .jacobians import wrong_jacobians
from .one_way import one_way_sites, with_base_draws
from .pair import Pair
from .programs import Programs
from .sites import Frame, Plates, describe
from .structure import Structure, find_plates, observed_names
from .traces import FAILURES, Program, enumerated, is_weighted, latents, observations, plain_traces, sample_sites

# Rows of x that the programs are tried on.
ROWS = 64


class ShowsAPart(Exception):
    """A plate shows a part of its data only, chosen by the program itself and not by who gave it x."""


def first_look(model: Program, guide: Program, arguments: Arguments, most: int) -> Pair:
    """The pair with its sites, from runs on so many of the data.

    Raises:
        PairError: the programs cannot be run, or break the contract.
        ShowsAPart: see there.
    """
    tried = arguments.rows(evenly_spread(arguments.num_rows, most))
    try:
        traces = _validated_traces(model, guide, tried.batch)
        one_way = one_way_sites(traces[1])
        if one_way:
            guide = with_base_draws(guide, one_way)
            traces = _validated_traces(model, guide, tried.batch)
        _demand_whole_plates(traces, tried.num_rows)
        for finding in (*unmatched_sites(*traces), *wrong_jacobians(*traces)):
            raise ContractError(finding)
        plates = _plates_of_data(model, guide, tried, find_plates(*traces, tried.num_rows))
        return Pair(Programs(model, guide, structure_of(model, guide, tried, plates, traces)), arguments)
    except FAILURES as error:
        if isinstance(error, PpvaeError | ShowsAPart):
            raise
        raise failed_run(error) from error


def _validated_traces(model: Program, guide: Program, batch: Batch) -> tuple[Trace, Trace]:
    """Traces of both programs, with Pyro's validation where they pass it, so that it shows who switches it off."""
    try:
        with pyro.validation_enabled(True):
            return plain_traces(model, guide, batch)
    except FAILURES:
        return plain_traces(model, guide, batch)


def _demand_whole_plates(traces: tuple[Trace, Trace], num_rows: int) -> None:
    frames = {frame for trace in traces for _, site in sample_sites(trace) for frame in site["cond_indep_stack"]}
    if any(frame.full_size not in (None, -1, frame.size) and frame.size != num_rows for frame in frames):
        raise ShowsAPart


def structure_of(
    model: Program, guide: Program, arguments: Arguments, plates: Plates, traces: tuple[Trace, Trace]
) -> Structure:
    """The structure of a pair for given plates, from traces on some arguments."""
    model_trace, guide_trace = traces
    hidden, proposed = latents(model_trace), latents(guide_trace)
    summed = frozenset(n for sites in (hidden, proposed) for n, site in sites.items() if enumerated(site))
    expanded = frozenset(n for sites in (hidden, proposed) for n, site in sites.items() if site["infer"].get("expand"))
    validated = _validated(model_trace)
    if plates.size == -1:  # sites have their full shapes only once the plate has a size
        first = Programs(model, guide, Structure(plates, {}, {}, {}, summed))
        frame = Frame(plates, arguments.num_rows, None, arguments.device)
        guide_trace = first.trace(guide, frame, arguments.batch, enumerate_sites=False)
        put = Put({name: site["value"] for name, site in latents(guide_trace).items()})
        model_trace = first.trace(model, frame, arguments.batch, enumerate_sites=False, handler=put)
    nodes: dict[str, Any] = {**guide_trace.nodes, **model_trace.nodes}
    return Structure(
        plates,
        latents={name: describe(nodes[name], plates) for name in hidden if name not in summed},
        auxiliary={name: describe(nodes[name], plates) for name in proposed if name not in summed | hidden.keys()},
        observed={name: describe(nodes[name], plates) for name in observed_names(model_trace)},
        summed=summed,
        validated=validated,
        expanded=summed & expanded,
        classes={name: describe(nodes[name], plates) for name in hidden if name in summed},
        guide_summed=frozenset(name for name, site in proposed.items() if enumerated(site)),
        unnormalised=tuple(unnormalised(model_trace, guide_trace)),
        weighted=tuple(name for name, site in sample_sites(model_trace) if is_weighted(site)),
        without_density=tuple(without_density(model_trace, guide_trace)),
        improper=frozenset(name for name, site in hidden.items() if is_improper(site["fn"])),
        points=frozenset(name for name, site in proposed.items() if name in hidden and is_point_mass(site["fn"])),
    )


def _validated(model_trace: Trace) -> frozenset[str]:
    """The observed sites whose program does not switch the validation of their values off."""
    nodes = observations(model_trace)
    return frozenset(name for name, site in nodes.items() if vars(bare(site["fn"])).get("_validate_args") is not False)


def _plates_of_data(model: Program, guide: Program, arguments: Arguments, candidates: list[Plates]) -> Plates:
    """The candidate that has one place less when the data are one less; none if no plate has."""
    n = arguments.num_rows
    if len(candidates) == 1 or n == 1:
        return candidates[0]
    try:
        traces = plain_traces(model, guide, arguments.rows(slice(0, n - 1)).batch)
        for trace in traces:
            trace.compute_log_prob()  # which fails where shapes do not fit
    except FAILURES:
        return candidates[0]  # plates of a fixed size
    shrunk = {plates.data for plates in find_plates(*traces, n - 1)}
    return next(plates for plates in candidates if plates.data in shrunk)


def evenly_spread(num: int, most: int) -> Any:
    """At most so many of the rows, evenly spread."""
    return slice(None) if num <= most else torch.linspace(0, num - 1, most).long()
