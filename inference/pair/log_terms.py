"""The log densities that chains move on, as functions of a unit's unconstrained latents u."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from .guide_coordinates import LOG_SCALE, measured, placed
from .layout import Tensors
from .sites import U

if TYPE_CHECKING:
    from .pair import Pair  # which imports this file

# log q(u|x), log p(u), log p(x, u).
Term = Literal["guide", "prior", "joint"]


def joint_terms(pair: Pair, u: Tensor, *, prior: bool = False) -> Tensors:
    """What :meth:`.programs.Programs.joint` says at u, by unit."""
    return pair.run(partial(pair.programs.joint, prior=prior), len(u), {U: u}, pair.model_layout)


def to_u(pair: Pair, eps: Tensor) -> tuple[Tensor, Tensor]:
    """u of coordinates of the guide, and log |det ∂u/∂ε|; see :mod:`.guide_coordinates`."""
    found = pair.run(partial(placed, pair.programs), len(eps), {U: eps}, pair.guide_layout)
    return found[U].to(eps.dtype), found[LOG_SCALE]


def from_u(pair: Pair, u: Tensor) -> Tensor:
    """The inverse of :func:`to_u`."""
    return pair.run(partial(measured, pair.programs), len(u), {U: u}, pair.guide_layout)[U]


def log_terms(pair: Pair, names: tuple[Term, ...], u: Tensor) -> tuple[Tensor, ...]:
    """The terms of these names at u, ``(num_chains, num_units)`` each, float64, in nats, by running the programs."""
    if pair.by_guide:
        return _in_guide_coordinates(pair, names, u)
    found = joint_terms(pair, u, prior="prior" in names)
    terms = {"joint": found["log_joint"]}
    if "prior" in names:
        terms["prior"] = found["log_prior"]
    if "guide" in names:  # log q(u|x) from log q(z|x) and the Jacobian
        values = {name: found[name] for name in pair.sites} | ({U: u} if pair.structure.sources else {})
        log_q = pair.run(pair.programs.log_guide, len(u), values, pair.guide_layout)["log_q"]
        terms["guide"] = log_q + found["log_jacobian"]
    return tuple(terms[name] for name in names)


def _in_guide_coordinates(pair: Pair, names: tuple[Term, ...], eps: Tensor) -> tuple[Tensor, ...]:
    """The same as densities of ε, in which the guide is N(0, I)."""
    u, log_scale = to_u(pair, eps)
    found = joint_terms(pair, u, prior="prior" in names)
    terms = {"joint": found["log_joint"] + log_scale}
    if "prior" in names:
        terms["prior"] = found["log_prior"] + log_scale
    if "guide" in names:
        terms["guide"] = -eps.double().square().sum(-1) / 2 - pair.dim * math.log(2 * math.pi) / 2
    return tuple(terms[name] for name in names)
