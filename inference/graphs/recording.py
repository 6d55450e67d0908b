"""A function recorded as a graph of torch's operations, without Python.

The function is run once while torch records what it computes (``make_fx``). Its arguments are inputs of the graph, and
so is every other tensor that it reads. Random numbers come from torch's global generator, in the order in which the
function draws them, so that graph and function see the same noise.

Distributions check their parameters and values, Pyro checks for NaN and takes numbers out of tensors. These checks are
kept: that all of them come out as they did is one more output of the graph (:class:`Checks`). What a *program* decides
by the value of a tensor cannot be recorded, and is refused.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch._decomp.decompositions import native_batch_norm_decomposition
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx
from torch.overrides import TorchFunctionMode

from ppvae.errors import first_line

aten = torch.ops.aten

# Operations whose signatures do not say that they write into their arguments, by such as say so.
_WRITES_SAID = {
    aten.native_batch_norm.default: native_batch_norm_decomposition,
    **{op: decomposition_table[op] for op in (aten.cudnn_batch_norm.default,) if op in decomposition_table},
}


class NoGraph(Exception):
    """A function cannot be a graph; the sentence says why."""


class Recorded(NamedTuple):
    """A recorded function.

    Attributes:
        module: from ``(*first, *held, *last)`` to what the function returns, and the new values of what it writes into.
        held: tensors that the function reads beside its arguments.
        inputs: the tensors that the module was recorded with.
        written: which of the inputs it writes into.
    """

    module: GraphModule
    held: list[Tensor]
    inputs: list[Tensor]
    written: list[int]


def recorded(function: Callable[..., Any], first: list[Tensor], last: list[Tensor]) -> Recorded:
    """The graph of ``function(*first, *last)``; global generators move as they do when the function runs.

    Args:
        function: what is recorded; it finds the tensors themselves where they always are, and need not use its
            arguments.
        first: tensors that are inputs of the graph before those that the function holds.
        last: those after them.

    Raises:
        NoGraph: the function cannot be recorded; the sentence says why.
    """
    states = _python_generators()
    try:
        module = make_fx(function, _WRITES_SAID)(*first, *last)
    except NoGraph:
        raise
    except Exception as error:  # whatever in the programs cannot be recorded
        raise NoGraph(_why(error)) from error
    if states != _python_generators():
        raise NoGraph("the programs draw random numbers outside torch")
    held = _lift(module, len(first))
    inputs = [*first, *held, *last]
    module, written = _functional(module, [tensor.detach() for tensor in inputs])
    return Recorded(module, held, inputs, written)


def _python_generators() -> tuple[Any, ...]:
    state: Any = np.random.get_state()  # noqa: NPY002
    kind, keys, *rest = state
    return random.getstate(), kind, bytes(keys), *rest


def _why(error: Exception) -> str:
    if "trying to get value out of a tracing tensor" in str(error):
        return "a program takes the value of a tensor into Python (control flow on data, item())"
    return f"it cannot be recorded ({type(error).__name__}: {first_line(error)})"


class Checks(TorchFunctionMode):
    """Lets the checks of Pyro and of torch's distributions pass as they come out now, and remembers them.

    Pyro turns its loss into a number, and warns of NaN: the loss stays a tensor here, and a NaN in it is found later.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.passed = torch.ones((), dtype=torch.bool, device=device)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _OUT_OF_TORCH and not _caller().startswith(_OF_LIBRARIES):
            raise NoGraph("a program takes the numbers of a tensor out of torch (numpy, tolist)")
        if func not in _OF_CHECKS:
            return func(*args, **(kwargs or {}))
        if func is torch._is_all_true:  # an operation that inductor does not fuse
            return args[0].all()
        caller = _caller()
        if func is Tensor.item and caller.startswith("pyro.infer."):
            return args[0].detach()
        if caller == "pyro.util":
            return False if func is Tensor.__bool__ else None
        if func is Tensor.__bool__ and caller.startswith(_OF_LIBRARIES):
            return self._assume(args[0])
        return func(*args, **(kwargs or {}))

    def _assume(self, condition: Tensor) -> bool:
        with disable_proxy_modes_tracing():
            came_out = bool(condition)
        self.passed = self.passed & (condition if came_out else ~condition).reshape(())
        return came_out


def _caller() -> str:
    """The name of the module that calls a function of torch's, past torch's own wrappers of it."""
    frame: Any = sys._getframe(2)
    while (name := frame.f_globals.get("__name__", "")) in {"torch.overrides", "torch._tensor"}:
        frame = frame.f_back
    return name


# Whose decisions by the value of a tensor are checks; the last is ppvae's own check of the data's support.
_OF_LIBRARIES = ("torch.distributions.", "pyro.", "ppvae.inference.pair.handlers")
_OUT_OF_TORCH = {Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.__dlpack__}
_OF_CHECKS = {Tensor.item, Tensor.__bool__, Tensor.register_hook, torch._is_all_true}


def _lift(module: GraphModule, num_parameters: int) -> list[Tensor]:
    """Make inputs of the tensors that the graph holds, after the parameters; those made by the step itself stay."""
    graph = module.graph
    held: dict[int, tuple[Tensor, Node]] = {}
    places = [node for node in graph.nodes if node.op == "placeholder"]
    before = places[num_parameters] if len(places) > num_parameters else next(iter(graph.nodes))
    for node in list(graph.nodes):
        if node.op != "get_attr" or all(user.target is aten.lift_fresh_copy.default for user in node.users):
            continue
        tensor = getattr(module, node.target)
        if id(tensor) not in held:
            with graph.inserting_before(before):
                held[id(tensor)] = (tensor, graph.placeholder(f"held_{len(held)}"))
        node.replace_all_uses_with(held[id(tensor)][1])
        graph.erase_node(node)
    module.recompile()
    return [tensor for tensor, _ in held.values()]


def _functional(module: GraphModule, inputs: list[Tensor]) -> tuple[GraphModule, list[int]]:
    """The same graph with nothing written in place: new values of inputs are outputs; and which inputs these are of."""
    with torch.no_grad():
        module = make_fx(torch.func.functionalize(module, remove="mutations"))(*inputs)
    places = [node for node in module.graph.nodes if node.op == "placeholder"]
    output = next(node for node in module.graph.nodes if node.op == "output")
    copies = [n for n in module.graph.nodes if n.target is aten.copy_.default and n.args[0] in places]
    output.args = ((*_flat(output.args[0]), *(copy.args[1] for copy in copies)),)
    written = [places.index(copy.args[0]) for copy in copies]
    for copy in copies:
        copy.replace_all_uses_with(copy.args[1])
        module.graph.erase_node(copy)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module, written


def _flat(found: Any) -> Iterable[Node]:
    return found if isinstance(found, tuple | list) else (found,)
