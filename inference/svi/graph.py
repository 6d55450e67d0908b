"""One step of SVI as a graph of torch's operations: programs, ELBO and the backward pass, without Python.

The step is run once while torch records what it computes (``make_fx``). The parameters and the batch are inputs of the
graph, and so is every other tensor that the programs read: buffers, and tensors that they hold. What the step writes
into such tensors (batch norm's statistics) becomes an output. Random numbers come from torch's global generator, in the
order in which the programs draw them, so that graph and programs see the same noise.

Distributions check their parameters and values, Pyro checks for NaN and takes numbers out of tensors. These checks are
kept: that all of them come out as they did is one more output of the graph. What a *program* decides by the value of a
tensor cannot be recorded, and is refused.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch._decomp.decompositions import native_batch_norm_decomposition
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

from ppvae.errors import first_line

from ..pair import Batch, buffers_kept, generator_kept, reachable_modules
from .loss import Loss

aten = torch.ops.aten

# Operations whose signatures do not say that they write into their arguments, by such as say so.
_WRITES_SAID = {
    aten.native_batch_norm.default: native_batch_norm_decomposition,
    **{op: decomposition_table[op] for op in (aten.cudnn_batch_norm.default,) if op in decomposition_table},
}


class NoGraph(Exception):
    """A step cannot be a graph; the sentence says why."""


@dataclass(frozen=True)
class Graph:
    """A recorded step.

    Attributes:
        module: from ``(*parameters, *held, *batch)`` to ``(stats, *gradients, *new values)``, where ``stats`` holds
            the loss, the gradients' global norm, and 1 if all checks came out as they did when it was recorded, else 0.
        held: tensors that the programs read beside the parameters and the batch.
        used: for each parameter, whether it has a gradient.
        written: the tensors that the step writes into.
    """

    module: GraphModule
    held: list[Tensor]
    used: list[bool]
    written: list[Tensor]


def record_step(loss: Loss, batch: Batch) -> Graph:
    """The step on a batch as a graph; generators, buffers and gradients are left as they were.

    Raises:
        NoGraph: the step cannot be recorded.
    """
    tensors = batch_tensors(batch)
    used: list[bool] = []

    def step(*_: Tensor) -> tuple[Tensor, ...]:
        # The tensors themselves are what torch tracks: the programs find them where they always are.
        with _Checks(tensors[0].device) as checks:
            value, gradients = loss.gradients(batch)
        used[:] = [gradient is not None for gradient in gradients]
        present = [gradient for gradient in gradients if gradient is not None]
        return (_stats(value, present, checks.passed), *present)

    with buffers_kept(loss.model, loss.guide), generator_kept():
        states = _python_generators()
        try:
            module = make_fx(step, _WRITES_SAID)(*loss.parameters, *tensors)
        except NoGraph:
            raise
        except Exception as error:  # whatever in the programs cannot be recorded
            raise NoGraph(_why(error)) from error
        if states != _python_generators():
            raise NoGraph("the programs draw random numbers outside torch")
        held = _lift(module, len(loss.parameters))
        inputs = [*loss.parameters, *held, *tensors]
        module, written = _functional(module, [tensor.detach() for tensor in inputs])
    buffers = {id(buffer) for one in reachable_modules(loss.model, loss.guide) for buffer in one.buffers()}
    if not all(id(inputs[i]) in buffers for i in written):
        raise NoGraph("the programs write into a tensor that is no buffer of a module of theirs")
    return Graph(module, held, used, [inputs[i] for i in written])


def batch_tensors(batch: Batch) -> list[Tensor]:
    """The tensors of a batch, in their order in the graph's arguments."""
    if all(type(leaf) is Tensor for leaf in batch):
        return list(batch)
    return [leaf for leaf in tree_flatten(batch)[0] if isinstance(leaf, Tensor)]


def _stats(value: Tensor, gradients: list[Tensor], passed: Tensor) -> Tensor:
    """Loss, norm and checks in one tensor, so that a step waits for the device once."""
    kind = torch.promote_types(value.dtype, torch.float32)
    norms = [torch.linalg.vector_norm(gradient).to(kind) for gradient in gradients]
    norm = torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros_like(value, dtype=kind)
    return torch.stack((value.to(kind).reshape(()), norm, passed.to(kind)))


def _python_generators() -> tuple[Any, ...]:
    state: Any = np.random.get_state()  # noqa: NPY002
    kind, keys, *rest = state
    return random.getstate(), kind, bytes(keys), *rest


def _why(error: Exception) -> str:
    if "trying to get value out of a tracing tensor" in str(error):
        return "a program takes the value of a tensor into Python (control flow on data, item())"
    return f"the step cannot be recorded ({type(error).__name__}: {first_line(error)})"


class _Checks(TorchFunctionMode):
    """Lets the checks of Pyro and of torch's distributions pass as they come out now, and remembers them.

    Pyro turns its loss into a number, and warns of NaN: the loss stays a tensor here, and a NaN in it is found later.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.passed = torch.ones((), dtype=torch.bool, device=device)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
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
