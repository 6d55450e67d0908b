"""A pair as it is measured: what cannot be read off two programs is found out by running them again at the same draws.

After the sites and the unit (:mod:`.discovery`) and the rows (:mod:`.cutting`) these are how draws meet data
(:mod:`.layout`): the fastest layout whose densities are those of the loop; which auxiliary draws of the guide its point
masses are functions of (:mod:`.points`); and what a draw costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pyro
import torch
from pyro.contrib.easyguide import EasyGuide
from pyro.infer.autoguide import AutoGuide, AutoLaplaceApproximation

from ..option_records import Start
from .arguments import Arguments, Batch
from .bijections import bijection_to
from .contract import ContractError
from .cutting import same_sites_everywhere, with_rows, without_nan
from .discovery import ROWS, ShowsAPart, first_look
from .distributions import is_real, support_of
from .evaluations import Evaluations
from .failures import programs_named
from .handlers import filled, has_density_outside_support, outside_support
from .layout_choice import demand_the_same, replayed, with_layouts
from .memory import FLOOR, growth
from .modes import buffers_kept, evaluation_mode, reachable_modules
from .observed import observed_otherwise
from .pair import Pair
from .parameters import named_parameters, own_parameters, pyro_module_names, warn_of_other_values
from .points import resolved_points
from .randomness import generator_kept
from .same_sites import demand_sites
from .sites import Frame, U
from .traces import FAILURES, Program, latents, plain_traces, whole_plates
from .unconstrained import demand_continuum


@contextmanager
def understood(
    model: Program, guide: Program, batch: Batch, start: Start | None, *, density: bool = True
) -> Iterator[Pair]:
    """The pair as it is measured; see :meth:`.pair.Pair.on`."""
    grad = torch.is_grad_enabled()
    with (
        programs_named(),
        torch.no_grad(),
        evaluation_mode(model, guide),
        own_parameters(model, guide) as stored,
    ):
        guide = _measurable(guide, batch)
        arguments = Arguments.of(batch)
        with ExitStack() as stack:
            stack.enter_context(buffers_kept(model, guide))
            with generator_kept(), pyro.validation_enabled(False):
                pair = _seen(model, guide, arguments, stack)
                if pyro_module_names(model, guide) & stored["params"].keys():
                    warn_of_other_values(stored, named_parameters(model, guide, pair.few.batch), model, guide)
                pair = _with_slots(pair)
                if density:
                    pair = _with_points(pair)
                if start is not None:
                    demand_continuum(pair.few, start)
                before = replayed(pair.few)
                pair = _with_remarks(_with_filler(_with_cost(with_layouts(pair, before))))
            with torch.set_grad_enabled(grad):
                yield pair
            demand_the_same(pair.few, before)


@contextmanager
def measured_again(pair: Pair) -> Iterator[Pair]:
    """The pair inside a context as :func:`understood` gives it, after its parameters changed.

    What was found out about the programs holds whatever the parameters are, and is not found out anew: that takes
    longer than many a measurement.
    """
    programs = (pair.model, pair.guide)
    with (
        programs_named(),
        evaluation_mode(*programs),
        own_parameters(*programs),
        buffers_kept(*programs),
        whole_plates(pair.plates_made_whole),
    ):
        yield replace(pair, evaluations=Evaluations())  # what is compiled is of the parameters that were


def _measurable(guide: Program, batch: Batch) -> Program:
    """A Laplace approximation is a point while it is trained; what it stands for is the normal at that point."""
    if not isinstance(guide, AutoLaplaceApproximation):
        return guide
    with generator_kept(), torch.enable_grad():
        return guide.laplace_approximation(*batch)


def looked_at(model: Program, guide: Program, arguments: Arguments) -> Pair:
    """The pair with its sites, and how its arguments are cut; the layouts are those that always hold.

    The programs are run on some of the data, where that is possible. What they would make of these data's size alone
    (``pyro.param("loc", torch.zeros(len(x)))``, the prototype of an automatic guide) must not last.

    Raises:
        PairError: the programs cannot be run, or break the contract.
    """
    if arguments.num_rows > ROWS:
        try:
            with own_parameters(keep=False):
                pair = with_rows(first_look(model, guide, arguments, ROWS))
        except ShowsAPart:
            raise
        except FAILURES:
            pair = None  # they run on all data only, or on none
        if pair is not None and pair.divisible and same_sites_everywhere(pair):
            plain_traces(model, guide, pair.few.batch)  # parameters are made
            return pair
    return with_rows(first_look(model, guide, arguments, arguments.num_rows))


def trainable(model: Program, guide: Program, arguments: Arguments) -> Pair:
    """The pair as :func:`looked_at` sees it, with all data shown by plates that a program subsamples itself.

    Raises:
        PairError: the programs cannot be run, or break the contract.
        DataError: a missing value reaches a density.
    """
    with ExitStack() as stack, pyro.validation_enabled(False):
        return _seen(model, guide, arguments, stack)


def _seen(model: Program, guide: Program, arguments: Arguments, stack: ExitStack) -> Pair:
    """The same; where plates are made to show all of their data, they do until the stack is closed."""
    prepare(guide, arguments)
    try:
        pair = looked_at(model, guide, arguments)
    except ShowsAPart:
        stack.enter_context(whole_plates())
        pair = replace(looked_at(model, guide, arguments), plates_made_whole=True)
    return without_nan(pair)


def prepare(guide: Program, arguments: Arguments) -> None:
    """Let an automatic guide see all data first, since it takes its shapes from the first that it sees."""
    parts = [part for module in reachable_modules(guide) for part in module.modules()]
    if any(isinstance(part, (AutoGuide, EasyGuide)) and part.prototype_trace is None for part in parts):
        with generator_kept(), torch.no_grad():
            guide(*arguments.batch)


def _with_slots(pair: Pair) -> Pair:
    """The pair with the places of its latents in u; a latent without such a place keeps none."""
    one, start, sites = pair.few, 0, {}
    trace: Any = one.programs.seen(one.frame, one.batch)
    demand_sites(pair.sites, trace)
    for name, site in pair.sites.items():
        node = trace.nodes[name]
        try:
            u = bijection_to(support_of(node["fn"])).inv(node["value"])
        except (NotImplementedError, AttributeError):
            u = node["value"]
        shape = (*site.shape[: len(site.plates)], *u.shape[node["value"].dim() - site.event_dim :])
        sites[name] = replace(site, start=start, u_shape=tuple(shape))
        start = sites[name].stop
    structure = replace(pair.structure, latents=sites)
    return replace(pair, programs=replace(pair.programs, structure=structure))


def _with_points(pair: Pair) -> Pair:
    """The pair with what is known of the latents that are functions of auxiliary draws.

    Raises:
        ContractError: the guide has no density of all latents.
    """
    for finding in pair.structure.without_density:
        raise ContractError(finding)
    if not pair.structure.points:
        return pair
    structure = resolved_points(pair.few)
    return replace(pair, programs=replace(pair.programs, structure=structure))


def _with_cost(pair: Pair) -> Pair:
    """The pair with the bytes that a draw costs per unit."""
    one = pair.rows(slice(0, 1)) if pair.divisible else pair
    width = 1 if pair.unit == "data set" else one.arguments.num_rows
    validated = one.structure.validated >= set(one.structure.observed)
    few, many = (1, 3) if {"loop", "vectorised"} & {pair.model_layout, pair.guide_layout} else (2, 34)

    def work(num_draws: int) -> None:
        if pair.model_layout == pair.guide_layout == "broadcast":
            frame = Frame(one.structure.plates, width, num_draws, one.device)
            # With enumeration's handlers and with validation: pieces, and a seed's draws, depend on neither.
            with pyro.validation_enabled(validated):
                traces = one.programs.traces(frame, one.batch, handle_enumeration=True)
                hidden = latents(traces[0])
                outside = {name for name, site in hidden.items() if not is_real(site["fn"]) and outside_support(site)}
                for trace in traces:
                    trace.compute_log_prob(lambda name, _: name not in outside)
        else:
            one.log_weights(num_draws)

    return replace(pair, bytes_each=2 * max(growth(work, few, many) // width, FLOOR))


def _with_filler(pair: Pair) -> Pair:
    """The pair with values for the units that are not meant, where the programs run on all data at once."""
    if pair.divisible or pair.unit == "data set":
        return pair
    values = pair.guide_values(1)
    filler = dict(values)
    if pair.sites and all(site.dtype.is_floating_point and not site.discrete for site in pair.sites.values()):
        filler[U] = pair.run(pair.programs.unconstrained, 1, values, pair.model_layout)[U]
    return replace(pair, filler=filler)


def _with_remarks(pair: Pair) -> Pair:
    """The pair with what is to be said of every number of it."""
    structure = replace(pair.structure, otherwise=tuple(observed_otherwise(pair)))
    pair = replace(pair, programs=replace(pair.programs, structure=structure))
    findings = [*structure.unnormalised, *structure.otherwise]
    found = [(f"{one.site!r}: " if one.site else "") + f"{one.message}." for one in findings]
    if structure.weighted:
        others = f" (and {len(structure.weighted) - 1} more)" if len(structure.weighted) > 1 else ""
        found.append(
            f"{structure.weighted[0]!r}{others}: poutine.scale weights its log density, as a training may; the numbers "
            "are those of the model without the weight."
        )
    unchecked = set(pair.structure.observed) - pair.structure.validated
    one = pair.few
    trace: Any = one.programs.seen(one.frame, one.batch) if unchecked else None
    for name, site in ((name, trace.nodes[name]) for name in sorted(unchecked)):
        if has_density_outside_support(filled(site) if name in pair.structure.missing else site):
            found.append(
                f"the data lie outside the support of {name!r}, which is then no normalised likelihood of them: "
                "log p(x) cannot be compared with that of another model."
            )
    return replace(pair, remarks=tuple(found))
