"""A sum of logarithms in a recorded graph, as the logarithm of a product: one logarithm in the place of hundreds.

    Σ_i ±(a_i + log t_i) = Σ_i ±a_i ± log Π_i t_i

in float64, which holds the product of 1000 factors between 1 and 2. In float32 it is the more exact of the two.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Graph, Node

aten = torch.ops.aten
MOST_FACTORS = 1000


class _Way(NamedTuple):
    """The way of a term to the sum that it is part of: its sign there, how it is viewed, and the sum."""

    sign: int
    views: list[Any]
    total: Node


def sum_by_product(graph: Graph, logarithm: Node) -> None:
    """Take a logarithm of numbers in [1, 2] out of the sum over the last dimension that it is a term of, if it is one.

    Args:
        graph: whose nodes know what they stand for (``meta["val"]``), as they do where it was recorded.
        logarithm: a node of it.
    """
    added = _only_user(logarithm)
    if added is None or added.target is not aten.add.Tensor or added.kwargs:
        return
    rest = added.args[1] if added.args[0] is logarithm else added.args[0]
    way = _to_sum(added)
    if way is None or not isinstance(rest, Node) or rest is logarithm or _value(rest).shape != _value(added).shape:
        return
    added.replace_all_uses_with(rest)
    with graph.inserting_after(way.total):
        end = graph.call_function(aten.add.Tensor if way.sign > 0 else aten.sub.Tensor, (way.total, None))
    way.total.replace_all_uses_with(end, lambda user: user is not end)
    with graph.inserting_before(end):
        factors: Any = logarithm.args[0]
        for shape in way.views:
            factors = graph.call_function(aten.view.default, (factors, shape))
        factors = graph.call_function(aten._to_copy.default, (factors,), {"dtype": torch.float64})
        product = graph.call_function(aten.prod.dim_int, (factors, -1))
        value = graph.call_function(aten.log.default, (product,))
        rounded = graph.call_function(aten._to_copy.default, (value,), {"dtype": _value(way.total).dtype})
    end.args = (way.total, rounded)
    end.meta = dict(way.total.meta)


def _to_sum(node: Node) -> _Way | None:
    """From a term to the sum of at most 1000 such, by way of signs and views alone; None where there is none."""
    sign, place, user = 1, node, _only_user(node)
    views: list[Any] = []
    while user is not None and user.target in (aten.neg.default, aten.view.default):
        if user.target is aten.neg.default:
            sign = -sign
        else:
            views.append(user.args[1])
        place, user = user, _only_user(user)
    if user is None or user.target is not aten.sum.dim_IntList or user.kwargs or len(user.args) != 2:
        return None
    shape = _value(place).shape
    last = list(user.args[1]) in ([-1], [len(shape) - 1])  # type: ignore[arg-type]
    return _Way(sign, views, user) if last and shape and shape[-1] <= MOST_FACTORS else None


def _only_user(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _value(node: Node) -> Tensor:
    value: Tensor = node.meta["val"]
    return value
