"""Coordinates in which the guide is a standard normal, for guides whose latents depend on each other.

Where the guide draws each latent from a normal whose location a and scale b are functions of x and of the latents that
it has drawn before,

    u_i = a_i(x, u_{<i}) + b_i(x, u_{<i}) ε_i,        log p(x, ε) = log p(x, u) + Σ_i log b_i,

the guide is ε ~ N(0, I), and a posterior that it resembles is nearly so: what bends in u, or narrows as in a funnel,
because one latent follows another, is straight in ε. The map is one-to-one for every guide, so that ∫ p(x, ε) dε =
p(x) where the guide is poor too; only the way of the chains is then longer.

References:
    A General Framework for the Parametrization of Hierarchical Models (Papaspiliopoulos, Roberts & Sköld, 2007),
    arXiv:0708.3797: non-centred coordinates, where a and b are the prior's.
    NeuTra-lizing Bad Geometry in Hamiltonian Monte Carlo Using Neural Transport (Hoffman et al., 2019),
    arXiv:1903.03704.
"""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.util import sum_rightmost
from pyro.poutine.messenger import Messenger
from torch import Tensor

from .arguments import Batch
from .distributions import bare
from .flat_latents import joined, parts_of
from .handlers import Put
from .layout import Tensors
from .programs import Programs
from .sites import Frame, U, Values

# Σ log b among the results of a body.
LOG_SCALE = "_ppvae_log_scale"


class _Place(Messenger):
    """Puts a + bε at each site and notes log b, summed over the event."""

    def __init__(self, eps: Values) -> None:
        super().__init__()
        self._eps = eps
        self.values: Values = {}
        self.log_scales: list[Tensor] = []

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if name in self._eps and not msg["is_observed"]:
            loc, scale = _loc_and_scale(msg["fn"])
            value = loc + scale * self._eps[name]
            self.values[name] = value
            self.log_scales.append(sum_rightmost(scale.log().expand_as(value), msg["fn"].event_dim))
            msg["value"], msg["done"] = value, True


class _Measure(Put):
    """Puts u at each site and notes ε = (u − a)/b."""

    def __init__(self, u: Values) -> None:
        super().__init__(u)
        self.values: Values = {}

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"] in self._z and not msg["is_observed"]:
            loc, scale = _loc_and_scale(msg["fn"])
            self.values[msg["name"]] = (msg["value"] - loc) / scale


def _loc_and_scale(fn: Any) -> tuple[Tensor, Tensor]:
    normal: dist.Normal = bare(fn)
    return normal.loc, normal.scale


def placed(programs: Programs, frame: Frame, batch: Batch, inputs: Tensors) -> Tensors:
    """u and Σ log b at ``inputs[U]`` = ε, a body of :class:`~.programs.Programs`."""
    put = _Place(parts_of(inputs[U], programs.structure.latents, frame))
    programs.trace(programs.guide, frame, batch, enumerate_sites=False, handler=put)
    log_scale = torch.zeros(frame.shape, dtype=torch.float64, device=frame.device)
    for part in put.log_scales:
        log_scale = log_scale + frame.sum_plates(part.double())
    return {U: joined(put.values, programs.structure.latents, frame), LOG_SCALE: log_scale}


def measured(programs: Programs, frame: Frame, batch: Batch, inputs: Tensors) -> Tensors:
    """ε at ``inputs[U]`` = u, the inverse of :func:`placed`."""
    read = _Measure(parts_of(inputs[U], programs.structure.latents, frame))
    programs.trace(programs.guide, frame, batch, enumerate_sites=False, handler=read)
    return {U: joined(read.values, programs.structure.latents, frame)}
