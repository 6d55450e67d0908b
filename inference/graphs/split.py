"""A graph in two parts: what depends on some of its inputs, and what does not and need be computed once only."""

from __future__ import annotations

import torch
from torch.fx import Graph, GraphModule, Node


def split(module: GraphModule, varying: set[int]) -> tuple[GraphModule, GraphModule]:
    """The parts ``once`` and ``each`` of a graph without writes in place. What is drawn at random varies.

    Args:
        module: the graph.
        varying: which of its inputs vary.

    Returns:
        ``once``, from the other inputs to a tuple of tensors; and ``each``, from the varying inputs, followed by these
        tensors, to what ``module`` returns.

    Example:
        >>> import torch
        >>> from torch.fx import symbolic_trace
        >>> def f(x, y):
        ...     return (y.exp() * x,)
        >>> once, each = split(symbolic_trace(f), {0})
        >>> x, y = torch.tensor(2.0), torch.tensor(0.0)
        >>> each(x, *once(y))
        (tensor(2.),)
    """
    nodes = list(module.graph.nodes)
    places = [node for node in nodes if node.op == "placeholder"]
    output = nodes[-1]
    draws = {node for node in nodes if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())}
    depends = _depending({places[i] for i in varying} | draws, nodes)
    # What depends on no input at all costs nothing to make: it is part of ``each``, where it is folded.
    given = _depending(set(places), nodes)
    later = [node for node in nodes if node in depends or (node not in given and node is not output)]
    needed = {one for node in [*depends, output] for one in node.all_input_nodes}
    between = [node for node in nodes if node in needed and node in given and node not in depends]
    once = _graph([p for p in places if p not in depends], [n for n in nodes if n not in depends], between)
    each = _graph([*(places[i] for i in sorted(varying)), *between], later, output.args[0])
    return GraphModule(module, once), GraphModule(module, each)


def _depending(sources: set[Node], nodes: list[Node]) -> set[Node]:
    """The sources and all that is computed from them, but for the output."""
    found = set(sources)
    for node in nodes:
        if node.op != "output" and any(one in found for one in node.all_input_nodes):
            found.add(node)
    return found


def _graph(inputs: list[Node], nodes: list[Node], outputs: object) -> Graph:
    """The graph from some nodes, as inputs, by way of others to the outputs."""
    graph, known = Graph(), {}
    for i, node in enumerate(inputs):
        known[node] = graph.placeholder(f"input_{i}")
    for node in nodes:
        if node not in known and node.op not in ("placeholder", "output"):
            known[node] = graph.node_copy(node, known.__getitem__)
    results = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    graph.output(tuple(known[one] if isinstance(one, Node) else one for one in results))
    graph.eliminate_dead_code()
    graph.lint()
    return graph
