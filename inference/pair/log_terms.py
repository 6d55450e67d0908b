"""The log densities that chains move on, as functions of a unit's unconstrained latents u."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from .layout import Tensors
from .sites import U

if TYPE_CHECKING:
    from .pair import Pair  # which imports this file

# log q(u|x), log p(u), log p(x, u).
Term = Literal["guide", "prior", "joint"]


def joint_terms(pair: Pair, u: Tensor, *, prior: bool = False) -> Tensors:
    """What :meth:`.programs.Programs.joint` says at u, by unit."""
    return pair.run(partial(pair.programs.joint, prior=prior), len(u), {U: u}, pair.model_layout)


def log_terms(pair: Pair, names: tuple[Term, ...], u: Tensor) -> tuple[Tensor, ...]:
    """The terms of these names at u, ``(num_chains, num_units)`` each, float64, in nats, by running the programs."""
    found = joint_terms(pair, u, prior="prior" in names)
    terms = {"joint": found["log_joint"]}
    if "prior" in names:
        terms["prior"] = found["log_prior"]
    if "guide" in names:  # log q(u|x) from log q(z|x) and the Jacobian
        values = {name: found[name] for name in pair.sites} | ({U: u} if pair.structure.sources else {})
        log_q = pair.run(pair.programs.log_guide, len(u), values, pair.guide_layout)["log_q"]
        terms["guide"] = log_q + found["log_jacobian"]
    return tuple(terms[name] for name in names)
