"""Rewrites of a recorded graph that inductor does not make: the same function, to rounding, of less work.

The likelihood of zeros and ones. torch computes −log Bernoulli(x; logits = y) = (1 − x) y + m + log(exp(−m) + exp(−y −
m)), m = max(−y, 0), and its gradient by the logistic function of y. With e = exp(−|y|),

    log(exp(−m) + exp(−y − m)) = log(1 + e),    sigmoid(y) = (1 if y ≥ 0 else e) / (1 + e),

which is one exponential in the place of three. Summed over an event, these logarithms are one (:mod:`.log_products`).
Of a decoder with many pixels these functions cost as much as its matrix products.

tanh in float32 becomes arithmetic (:mod:`.rational_tanh`).

A layer's bias. On a processor a product that a bias is added to first copies the bias into every row of the result,
which cost a fifth of the product's time; added afterwards it is part of the elementwise code that reads the result.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from .log_products import sum_by_product
from .rational_tanh import rational_tanh

aten = torch.ops.aten
# What torch calls a loss by element.
NO_REDUCTION = 0


def rewritten(module: GraphModule) -> GraphModule:
    """The graph with these rewrites, in place; for processors.

    Args:
        module: a recorded graph without writes in place.

    Example:
        >>> import torch
        >>> from torch.fx.experimental.proxy_tensor import make_fx
        >>> def loss(y):
        ...     return torch.nn.functional.binary_cross_entropy_with_logits(y, torch.ones(3), reduction="none")
        >>> graph = make_fx(loss)(torch.zeros(3))
        >>> y = torch.tensor([-50.0, 0.0, 50.0])
        >>> before, after = graph(y), rewritten(graph)(y)
        >>> sum(node.target is torch.ops.aten.exp.default for node in graph.graph.nodes)
        1
        >>> torch.allclose(before, after)
        True
    """
    graph = module.graph
    nodes, logarithms = list(graph.nodes), []
    for i, node in enumerate(nodes):
        logits = _logits(node)
        if logits is not None:
            logarithms.append(_share_exponential(graph, node, logits, nodes[i:]))
        with graph.inserting_before(node):
            if node.target is aten.addmm.default and not node.kwargs:
                bias, left, right = node.args
                product = _call(graph, aten.mm.default, left, right)
                node.replace_all_uses_with(_call(graph, aten.add.Tensor, product, bias))
            if node.target is aten.binary_cross_entropy_with_logits.default and not node.kwargs:
                logarithms += _write_out(graph, node)
            if node.target is aten.tanh.default and node.meta["val"].dtype is torch.float32:
                _write_out_tanh(graph, node)
    for logarithm in logarithms:
        sum_by_product(graph, logarithm)
    graph.eliminate_dead_code()
    graph.lint()
    module.recompile()
    return module


def _write_out(graph: Graph, node: Node) -> list[Node]:
    """−log Bernoulli(x; logits), where it is one operation, (1 − x) y + m + log(1 + e); and the logarithm in it."""
    logits, x, weight, positive, reduction = [*node.args, None, None, None][:5]
    if weight is not None or positive is not None or reduction != NO_REDUCTION:
        return []
    m = _call(graph, aten.clamp_min.default, _call(graph, aten.neg.default, logits), 0)
    linear = _call(graph, aten.mul.Tensor, _call(graph, aten.rsub.Scalar, x, 1), logits)
    _, total = _exponential(graph, logits)
    linear = _like(node, _call(graph, aten.add.Tensor, linear, m))
    logarithm = _call(graph, aten.log.default, total)
    node.replace_all_uses_with(_like(node, _call(graph, aten.add.Tensor, linear, logarithm)))
    return [logarithm]


def _write_out_tanh(graph: Graph, node: Node) -> None:
    known: dict[Node, Any] = {}
    for one in _tanh().nodes:
        if one.op == "placeholder":
            known[one] = node.args[0]
        elif one.op != "output":
            known[one] = _like(node, graph.node_copy(one, known.__getitem__))
    node.replace_all_uses_with(known[one.args[0]])


@cache
def _tanh() -> Graph:
    return make_fx(rational_tanh)(torch.zeros(1)).graph


def _share_exponential(graph: Graph, node: Node, logits: Node, later: list[Node]) -> Node:
    """Rewrite the logarithm, which is returned, and the logistic functions of these logits that come later."""
    with graph.inserting_before(node):
        e, total = _exponential(graph, logits)
        logarithm = _like(node, _call(graph, aten.log.default, total))
        node.replace_all_uses_with(logarithm)
    for other in later:
        if other.target is aten.sigmoid.default and other.args[0] is logits:
            with graph.inserting_before(other):
                above = _call(graph, aten.where.ScalarSelf, _call(graph, aten.ge.Scalar, logits, 0), 1.0, e)
                other.replace_all_uses_with(_call(graph, aten.div.Tensor, above, total))
    return logarithm


def _exponential(graph: Graph, logits: Any) -> tuple[Node, Node]:
    """The nodes e = exp(−|y|) and 1 + e."""
    e = _call(graph, aten.exp.default, _call(graph, aten.neg.default, _call(graph, aten.abs.default, logits)))
    return e, _call(graph, aten.add.Tensor, e, 1)


def _call(graph: Graph, target: Any, *args: Any) -> Node:
    return graph.call_function(target, args)


def _like(original: Node, node: Node) -> Node:
    """The node, which stands for as many numbers of the same type as the original."""
    node.meta = dict(original.meta)
    return node


# How many arguments these operations have where they are part of the likelihood.
_NUM: dict[Any, int] = {
    aten.log.default: 1,
    aten.add.Tensor: 2,
    aten.exp.default: 1,
    aten.neg.default: 1,
    aten.sub.Tensor: 2,
    aten.clamp_min.default: 2,
}


def _logits(node: Node) -> Node | None:
    """The y of a node log(exp(−m) + exp(−y − m)), m = max(−y, 0); None where the node is another."""
    low, high = _args(_args(node, aten.log.default)[0], aten.add.Tensor)
    (m,) = _args(_args(low, aten.exp.default)[0], aten.neg.default)
    negative, same = _args(_args(high, aten.exp.default)[0], aten.sub.Tensor)
    clamped, least = _args(m, aten.clamp_min.default)
    (y,) = _args(negative, aten.neg.default)
    is_softplus = isinstance(y, Node) and same is m and least == 0 and _args(clamped, aten.neg.default)[0] is y
    return y if is_softplus else None


def _args(node: Any, target: Any) -> tuple[Any, ...]:
    """The arguments of a node of this operation; None for each where it is another."""
    if isinstance(node, Node) and node.target is target and len(node.args) == _NUM[target] and not node.kwargs:
        return tuple(node.args)
    return (None,) * _NUM[target]
