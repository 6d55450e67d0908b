"""Whether a model observes every number of its data once and as it is, found by automatic differentiation.

p(x|z) is a density of x where the observed values are x itself, in whatever shape. A number that is observed twice
makes it a product of densities, which does not integrate to one; a function y = f(x) makes it a density of y, and
log p(x) = log p(y) + log |det ∂f/∂x|. With random c and g = ∂(c·y)/∂x, a number that is observed once and as it is has
one of the c as its g; one that is only conditioned on has 0.

A missing value (NaN) has 0 too where a number is put in its place. If the model scores more numbers than it has of the
data, and of the latents, such numbers count as observations.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .arguments import map_tensors
from .contract import Finding
from .distributions import left_out
from .pair import FEW, Pair
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
    """Findings about the data that a pair observes; none where the data are not floating-point numbers."""
    try:
        with torch.enable_grad():
            return _found(pair.few) or _in_place_of_missing(pair)
    except FAILURES:  # what cannot be differentiated
        return []


def _found(pair: Pair) -> list[Finding]:
    leaves, sites = _differentiable(pair)
    for name, site in sites.items():
        values = _scored(site)
        if values.requires_grad:
            finding = _finding(name, values.reshape(-1), leaves)
            if finding is not None:
                return [finding]
    shown = [_scored(site).reshape(-1) for site in sites.values()]
    together = torch.cat([values for values in shown if values.requires_grad] or [torch.zeros(0)])
    finding = _finding("", together, leaves) if together.requires_grad else None
    return [] if finding is None else [finding]


def _differentiable(pair: Pair) -> tuple[list[Tensor], dict[str, Any]]:
    """The numbers of the arguments, as leaves of a graph, and the observed sites of a run on them."""
    leaves: list[Tensor] = []

    def leaf(value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return value
        leaves.append(value.detach().clone().requires_grad_())
        return leaves[-1]

    batch = map_tensors(leaf, pair.batch)
    return leaves, observations(pair.programs.seen(pair.frame, batch))


def _in_place_of_missing(pair: Pair) -> list[Finding]:
    """That the model scores more numbers of its own where values are missing than where they are not."""
    x = pair.batch[0]
    rows = x.isnan().reshape(len(x), -1).any(-1).nonzero().flatten()[:FEW]
    if not len(rows):
        return []
    some = pair.rows(rows) if pair.divisible else pair
    leaves = (torch.nan_to_num(leaf) if leaf is some.arguments.leaves[0] else leaf for leaf in some.arguments.leaves)
    own, complete = (
        _of_the_model(some),
        _of_the_model(replace(some, arguments=replace(some.arguments, leaves=tuple(leaves)))),
    )
    return [_scored_in_place_of_missing(name) for name in own if own[name] > complete.get(name, 0)][:1]


def _of_the_model(pair: Pair) -> dict[str, int]:
    """How many numbers each observed site scores that are neither of the data nor of the latents."""
    leaves, sites = _differentiable(pair)
    _, again = _differentiable(pair)  # at other latents
    found = {}
    for name, values in {name: _scored(site) for name, site in sites.items()}.items():
        if values.requires_grad:
            gradients = torch.autograd.grad(values.nan_to_num().sum(), leaves, allow_unused=True)
            of_data = sum(int((gradient != 0).sum()) for gradient in gradients if gradient is not None)
            moved = (values != _scored(again[name])) & ~values.isnan()
            found[name] = int((~_out(sites[name])).expand(values.shape).sum()) - of_data - int(moved.sum())
    return found


def _scored(site: Any) -> Tensor:
    """The values that a site's density is evaluated at, each as often as it is, and 0 for those left out."""
    shape = torch.broadcast_shapes(site["value"].shape, site["fn"].shape())
    return site["value"].expand(shape) * ~_out(site)


def _out(site: Any) -> Tensor:
    """Which values of a site are left out of its density."""
    out = left_out(site)
    return out.reshape((*out.shape, *(1,) * (len(site["fn"].shape()) - out.dim())))


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


def _scored_in_place_of_missing(name: str) -> Finding:
    return Finding(
        "missing-scored",
        name,
        "the data have missing values (NaN), and the model scores a number in place of each as if it had been "
        "observed, so that the result is not the log density of the values that are there",
        "leave them out, with .mask(~x.isnan()) on the distribution of x",
        fatal=False,
    )
