"""Whether the parameters of the distributions are of the right kind: in their ranges, and made so that they stay there.

A value out of range falsifies a density where nothing validates it. What a parameter is made by is read off torch's
graph: a scale that nothing keeps above zero, |s| where exp(s) was meant, probabilities in the place of logits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .contract import Finding
from .distributions import bare, is_point_mass, kind, masked, opened
from .gradient_run import FACTORS, GradientRun, below, first_input, leaves, operation

# Rounding that is no value out of range, and scales below which a prior that was learnt is a point.
ROUNDING, POINT = 1e-6, 1e-4
HALF = (torch.float16, torch.bfloat16)
# Operations that make a number positive, with what they make of zero.
POSITIVE = {"Exp": 1.0, "Softplus": math.log(2)}
LINEAR = ("Addmm", "Mm", "Bmm", "Linear", "Baddbmm", "Mv", "Addmv")


def distribution_parameters(run: GradientRun) -> Iterator[Finding]:
    """Findings about the parameters of every site's distribution."""
    for program, name, site in run.sites():
        values = _values(site["fn"])
        yield from _out_of_range(program, name, site, values)
        yield from _half_precision(name, site, values)
        for argument, value in values.items() if program == "model" or not site["is_observed"] else ():
            if argument == "logits" and _is_made_of_probabilities(value):
                yield _probabilities(name, site)
            sentence = _sign(run, argument, value, _constraint(site["fn"], argument))
            if sentence:
                yield _scale(program, name, argument, sentence)
    yield from _learnt_priors(run)


def _values(fn: Any) -> dict[str, Tensor]:
    """The parameters that a distribution was given, by name."""
    core = opened(fn)[0]
    held = {name: vars(core).get(name) for name in getattr(core, "arg_constraints", {})}
    return {name: value for name, value in held.items() if isinstance(value, Tensor)}


def _constraint(fn: Any, argument: str) -> Any:
    constraint = opened(fn)[0].arg_constraints[argument]
    while hasattr(constraint, "base_constraint"):
        constraint = constraint.base_constraint
    return constraint


def _bounds(constraint: Any) -> tuple[float, float]:
    low, high = getattr(constraint, "lower_bound", -torch.inf), getattr(constraint, "upper_bound", torch.inf)
    plain = isinstance(low, (int, float)) and isinstance(high, (int, float))
    return (low, high) if plain else (-torch.inf, torch.inf)


def _out_of_range(program: str, name: str, site: Any, values: dict[str, Tensor]) -> Iterator[Finding]:
    if masked(site):
        return  # what is left out may be anything
    for argument, value in values.items():
        low, high = _bounds(_constraint(site["fn"], argument))
        outside = int(((value < low - ROUNDING) | (value > high + ROUNDING)).sum())
        if outside:
            other = "logits=" if argument == "probs" else "its exponential, if it is a logarithm"
            yield Finding(
                "parameter",
                name,
                f"{outside} of {value.numel()} values of {argument} of its {kind(site['fn'])} in the {program} lie "
                f"outside [{low:g}, {high:g}], so that its density is wrong",
                f"pass {other}, and let Pyro validate (no validate_args=False)",
            )


def _half_precision(name: str, site: Any, values: dict[str, Tensor]) -> Iterator[Finding]:
    half = [argument for argument, value in values.items() if value.dtype in HALF]
    if half:
        yield Finding(
            "precision",
            name,
            f"{' and '.join(half)} of its {kind(site['fn'])} are in half precision, of which a log density keeps two "
            "or three digits",
            "convert them with .float() before they enter the distribution",
            fatal=False,
        )


def _is_made_of_probabilities(logits: Tensor) -> bool:
    made, node = operation(logits)
    if made == "Sub" and first_input(node) is not None:  # Categorical subtracts the logarithm of their sum
        made, _ = below(first_input(node))
    return made in ("Sigmoid", "Softmax")


def _probabilities(name: str, site: Any) -> Finding:
    return Finding(
        "logits",
        name,
        f"the logits of its {kind(site['fn'])} are made by a sigmoid or a softmax: they are probabilities, and as "
        "logits can say nothing that is nearly certain",
        "pass them as probs=, or leave the sigmoid or softmax out",
        fatal=False,
    )


def _sign(run: GradientRun, argument: str, value: Tensor, constraint: Any) -> str:
    """What is wrong with the way in which a parameter is kept positive; nothing where it is no learnt one."""
    positive = getattr(constraint, "lower_bound", None) == 0 and not hasattr(constraint, "upper_bound")
    if not positive or not run.parameters(leaves(value)):
        return ""
    made, node = operation(value)
    if made == "AccumulateGrad" or made in LINEAR:
        return "nothing keeps it above zero while it is learnt"
    if made == "Abs":
        return "it is an absolute value, the same for s and −s, and zero between them"
    if made == "Relu":
        return "it is made by a ReLU, which is zero for half of its inputs, with no gradient"
    if argument == "scale" and made in POSITIVE and first_input(node) is not None:
        within, _ = below(first_input(node), (*FACTORS, "Add"))
        if within in POSITIVE and bool((value >= POSITIVE[made]).all()):
            return "it is made by an exponential of what is positive already, and so cannot be small"
    return ""


def _scale(program: str, name: str, argument: str, sentence: str) -> Finding:
    return Finding(
        "scale-sign",
        name,
        f"the {argument} of its distribution in the {program}: {sentence}",
        "make it by one exp or softplus of a real number, as pyro.param(…, constraint=constraints.positive) does",
        fatal=False,
    )


def _learnt_priors(run: GradientRun) -> Iterator[Finding]:
    """A prior whose scale is learnt, and has gone to zero or will."""
    x = run.batch[0].detach()
    spread = float(x.std()) if x.is_floating_point() and x.numel() > 1 else 1.0
    for name in run.drawn:
        site, proposal = run.model_trace.nodes[name], run.guide_trace.nodes.get(name)
        scale: Any = _values(site["fn"]).get("scale")
        if scale is None or not run.parameters(leaves(scale)):
            continue
        a_point = proposal is not None and is_point_mass(proposal["fn"]) and not _is_drawn(run, proposal)
        if bool((scale < POINT * min(1.0, spread)).any()):
            yield _prior(
                name, f"the scale of its prior is learnt and is down to {float(scale.min()):.1g}: it is a point"
            )
        elif a_point and not is_point_mass(site["fn"]):
            yield _prior(
                name,
                "the guide puts it at a point and the scale of its prior is learnt, so that p(z) grows without end",
            )


def _is_drawn(run: GradientRun, proposal: Any) -> bool:
    """Whether a point of the guide is a function of other draws."""
    fn = bare(proposal["fn"])
    drawn = {id(site["value"]) for _, site in _sites_drawn(run)}
    return bool(leaves(fn.v).keys() & drawn)


def _sites_drawn(run: GradientRun) -> Iterator[tuple[str, Any]]:
    return ((name, site) for program, name, site in run.sites() if program == "guide" and not site["is_observed"])


def _prior(name: str, message: str) -> Finding:
    return Finding(
        "prior-scale",
        name,
        message,
        "fix the prior's scale (at 1, with a decoder that scales), or give the scale a prior of its own",
        fatal=False,
    )
