"""Guides whose flows have no inverse, such as Planar, Radial, Sylvester, or a neural autoregressive flow.

Where z = f(a) with a ~ q(a) and f is a composition of transforms of which one has no inverse, q(z) = q(a) |det ∂f/∂a|⁻¹
is known at a only; Pyro finds a for a z that it has just drawn, and for no other. So a becomes an auxiliary draw of the
guide and z a point at f(a) that states the Jacobian (:mod:`.points`), as Pyro's automatic guides have it.
"""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import TransformedDistribution

from .distributions import bare, image, layers
from .traces import FAILURES, Program, latents


def one_way_sites(guide_trace: Trace) -> frozenset[str]:
    """The sites that a guide draws by a transform without an inverse."""
    return frozenset(name for name, site in latents(guide_trace).items() if _is_one_way(site["fn"], site["value"]))


def with_base_draws(guide: Program, names: frozenset[str]) -> Program:
    """The guide with a point at f(a) in the place of each of these sites, and a drawn at a site ``NAME_base``."""
    return _BaseDraws(names)(guide)


def _is_one_way(fn: Any, value: Tensor) -> bool:
    core = bare(fn)
    if not isinstance(core, TransformedDistribution) or core.arg_constraints or _is_masked(fn):
        return False
    y = value.clone()  # of the draw itself the transform may remember where it comes from
    try:
        with torch.no_grad():
            for transform in reversed(core.transforms):
                y = transform.inv(y)
    except FAILURES:
        return True
    return False


def _is_masked(fn: Any) -> bool:
    return any(isinstance(one, dist.MaskedDistribution) for one in layers(fn))


class _BaseDraws(Messenger):
    """See :func:`with_base_draws`."""

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__()
        self._names = names

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] not in self._names or msg["is_observed"] or msg["done"]:
            return
        fn, core = msg["fn"], bare(msg["fn"])
        inner = fn.event_dim - core.event_dim
        base = core.base_dist.expand(fn.shape()[: len(fn.shape()) - core.event_dim])
        a = pyro.sample(f"{msg['name']}_base", base.to_event(inner), infer={"is_auxiliary": True})
        z, log_density = image(core, a)
        msg["fn"] = dist.Delta(z, log_density, event_dim=core.event_dim).to_event(inner)
