"""Whether data lie in the likelihood's support, and whether prior and guide have the same one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from pyro.poutine import Trace

from .contract import Finding
from .distributions import bare, is_point_mass, kind
from .handlers import outside_support
from .traces import latents, sample_sites
from .unconstrained import CIRCULAR


def supports(model_trace: Trace, guide_trace: Trace) -> Iterator[Finding]:
    """Findings where data lie outside the likelihood's support, or prior and guide differ in theirs."""
    for name, site in sample_sites(model_trace):
        value = site["value"]
        missing = value.is_floating_point() and bool(value.isnan().any())  # masked, or found when it is measured
        outside = outside_support(site) if site["is_observed"] and not missing else 0
        if outside:
            yield Finding(
                "support-of-data",
                name,
                f"{outside} observed values lie outside the support of {kind(site['fn'])}, which is then no "
                "normalised likelihood of these data",
                "use a likelihood for such values, or bring the data to the support (binarise grey pixels)",
            )
    for name, site in latents(guide_trace).items():
        prior = model_trace.nodes.get(name)
        if prior is None or prior["is_observed"]:
            continue
        if outside_support({**site, "fn": prior["fn"], "mask": None}):
            yield Finding(
                "support",
                name,
                f"the guide ({kind(site['fn'])}) proposes values outside the support of the prior "
                f"({kind(prior['fn'])})",
                "use a guide with the prior's support, or dist.TransformedDistribution to reach it",
            )
        elif _reaches_less(prior["fn"], site["fn"]):
            yield Finding(
                "support",
                name,
                f"the guide ({kind(site['fn'])}) cannot propose all that the prior ({kind(prior['fn'])}) allows, so "
                "log p(x) comes out too low",
                "widen the guide's support to the prior's",
            )
        elif isinstance(bare(prior["fn"]), CIRCULAR) and _winds(site["fn"]):
            yield Finding(
                "support",
                name,
                f"it lives on a circle, which draws of the guide ({kind(site['fn'])}) go round more than once, so that "
                "log p(x) comes out too high",
                "give the guide a distribution on the circle too (VonMises), or one on an interval of length 2π",
            )


def _reaches_less(prior: Any, proposal: Any) -> bool:
    """Whether draws of the prior lie outside the guide's support (a point mass has none to compare)."""
    if is_point_mass(proposal):
        return False
    try:
        draws = prior.sample(torch.Size((100,)))
    except NotImplementedError:
        return False
    return outside_support({"fn": proposal, "value": draws, "mask": None}) > 0


def _winds(proposal: Any) -> bool:
    """Whether draws of a guide's distribution lie farther apart than a circle is long."""
    if is_point_mass(proposal):
        return False
    draws = proposal.sample((100,))
    return bool((draws.amax(0) - draws.amin(0) > 2 * math.pi).any())
