"""Whether a model observes every number of its data once and as it is, found by automatic differentiation.

p(x|z) is a density of x where the observed values are x itself, in whatever shape. A number that is observed twice
makes it a product of densities, which does not integrate to one; a function y = f(x) makes it a density of y, and
log p(x) = log p(y) + log |det ∂f/∂x|. With random c and g = ∂(c·y)/∂x, a number that is observed once and as it is has
one of the c as its g; one that is only conditioned on has 0.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .arguments import map_tensors
from .contract import Finding
from .distributions import left_out
from .pair import Pair
from .randomness import generator_kept
from .traces import FAILURES, observations


def observed_leaves(pair: Pair) -> tuple[int, ...]:
    """The leaves of the arguments that are data: x, and tensors of the context that the model observes as they are."""
    own = pair.arguments
    copied = tuple(leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in own.leaves)  # each in its own storage
    with generator_kept():
        trace = pair.programs.seen(pair.frame, replace(own, leaves=copied).batch)
    held = {torch.as_tensor(site["value"]).untyped_storage().data_ptr() for site in observations(trace).values()}
    tensors = [i for i, leaf in enumerate(copied) if isinstance(leaf, Tensor) and leaf.numel()]
    tensors = [i for i in tensors if own.by_row[i] or pair.unit == "data set"]
    return (0, *(i for i in tensors[1:] if copied[i].untyped_storage().data_ptr() in held))


def observed_otherwise(pair: Pair) -> list[Finding]:
    """What is to be said of the data that a pair observes; nothing of data that are not floating-point numbers."""
    try:
        with torch.enable_grad():
            return _found(pair.few)
    except FAILURES:  # what cannot be differentiated
        return []


def _found(pair: Pair) -> list[Finding]:
    leaves: list[Tensor] = []

    def leaf(value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return value
        leaves.append(value.detach().clone().requires_grad_())
        return leaves[-1]

    batch = map_tensors(leaf, pair.batch)
    trace = pair.programs.seen(pair.frame, batch)
    for name, values in {name: _scored(site) for name, site in observations(trace).items()}.items():
        if values.requires_grad:
            finding = _finding(name, values.reshape(-1), leaves)
            if finding is not None:
                return [finding]
    shown = [_scored(site).reshape(-1) for site in observations(trace).values()]
    together = torch.cat([values for values in shown if values.requires_grad] or [torch.zeros(0)])
    finding = _finding("", together, leaves) if together.requires_grad else None
    return [] if finding is None else [finding]


def _scored(site: Any) -> Tensor:
    """The values that a site's density is evaluated at, each as often as it is, and 0 for those left out."""
    shape = torch.broadcast_shapes(site["value"].shape, site["fn"].shape())
    out = left_out(site)
    out = out.reshape((*out.shape, *(1,) * (len(site["fn"].shape()) - out.dim())))
    return site["value"].expand(shape) * ~out


def _finding(name: str, values: Tensor, leaves: list[Tensor]) -> Finding | None:
    weights = torch.rand_like(values).requires_grad_()
    gradients = torch.autograd.grad(values @ weights, leaves, create_graph=True, allow_unused=True)
    for gradient in gradients:
        if gradient is None:
            continue
        other = (gradient != 0) & ~torch.isin(gradient, weights.detach())
        if other.any():
            column = torch.autograd.grad(gradient[other][0], weights, allow_unused=True)[0]
            times = 0 if column is None else int((column == 1).sum())
            return _twice(name, times) if times > 1 else _function(name)
    return None


def _twice(name: str, times: int) -> Finding:
    return Finding(
        "observed-twice",
        name,
        f"the model scores some number of the data {times} times, so that p(x|z) is no density of x and the number is "
        "the logarithm of an integral, not log p(x)",
        "observe every number once, in the shape of its distribution",
        fatal=False,
    )


def _function(name: str) -> Finding:
    return Finding(
        "observes-a-function",
        name,
        "the model observes a function of the data, so that the number is the log density of that function's values, "
        "not of x",
        "transform the data beforehand, or give the distribution of x itself (dist.TransformedDistribution)",
        fatal=False,
    )
