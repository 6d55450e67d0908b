"""The parameters of a pair: where Pyro keeps them, and their trained values as a thing of their own.

Pyro keeps what ``pyro.param`` and ``pyro.module`` name in one global store. A measurement and a training run on that
store, as Pyro's own ``SVI`` and ``Predictive`` do, with one difference: the parameters of a module are those that the
module holds. Otherwise two modules that are registered under one name would share the values of the first.

:class:`ParameterValues` holds the values of a pair apart from the store and the modules, so that nothing done to
either changes them, and :class:`Trained` is a program that runs on such values.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import pyro
import torch
from pyro import poutine
from pyro.nn import PyroModule
from pyro.params.param_store import ParamStoreDict
from torch import Tensor, nn

from ppvae.errors import PairError

from .arguments import Batch
from .modes import Program, owning_modules, reachable, reachable_modules
from .randomness import generator_kept

# Between the name of a module and that of its parameter, for what pyro.module registers.
MODULE_DIVIDER = "$$$"


@contextmanager
def own_parameters(*programs: Program, keep: bool = True) -> Iterator[dict[str, Any]]:
    """The present store without the parameters of modules, which live in their modules.

    Args:
        programs: whose PyroModules run on their own values, whatever plain ones the store has under their names.
        keep: whether plain parameters that ``pyro.param`` makes inside are in the store afterwards.

    Yields:
        The state of the store that was set aside.
    """
    store = pyro.get_param_store()
    before: Any = store.get_state()
    names = pyro_module_names(*programs)
    state = without_modules(before, names)
    with store.scope(cast(Any, state)):
        yield before
    if keep:
        store.set_state(cast(Any, _merged(before, without_modules(state, names))))


@contextmanager
def trained_parameters(*programs: Program, fresh: bool = False) -> Iterator[dict[str, Any]]:
    """The store of a training: it starts without the parameters of modules. What it holds in the end, modules'
    parameters too, is in Pyro's store afterwards, as Pyro's own ``SVI`` leaves it there.

    Args:
        programs: whose PyroModules start from their own values, whatever plain ones the store has under their names.
        fresh: start without the plain parameters too, and leave Pyro's store as it was if an error is raised inside.

    Yields:
        The state of the store that it starts with.
    """
    store = pyro.get_param_store()
    before: Any = store.get_state()
    names = pyro_module_names(*programs)
    state: dict[str, Any] = {"params": {}, "constraints": {}} if fresh else without_modules(before, names)
    done = False
    after = before
    try:
        with store.scope(cast(Any, state)):
            try:
                yield {part: dict(held) for part, held in state.items()}
                done = True
            finally:
                if done or not fresh:
                    after = _merged(before, cast(Any, store.get_state()))
    finally:
        store.set_state(cast(Any, after))


def _merged(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The states of two stores as one; where both have a name, the later one holds."""
    return {part: {**before[part], **after[part]} for part in ("params", "constraints")}


def without_modules(state: Any, names: Collection[str] = ()) -> dict[str, Any]:
    """A store's state without ``nn.Parameter``s, which belong to modules, and without these names."""
    params = {
        name: leaf for name, leaf in state["params"].items() if not isinstance(leaf, nn.Parameter) and name not in names
    }
    return {"params": params, "constraints": {name: state["constraints"][name] for name in params}}


def pyro_module_names(*programs: Program) -> set[str]:
    """The names in the store of what the programs' PyroModules hold."""
    return {
        f"{part._pyro_name}.{name}".removeprefix(".").removesuffix("_unconstrained")
        for module in reachable_modules(*programs)
        for part in module.modules()
        if isinstance(part, PyroModule)
        for name, _ in part.named_parameters(recurse=False)
    }


def warn_of_other_values(stored: dict[str, Any], leaves: dict[str, Tensor], *programs: Program) -> None:
    """Warn where Pyro itself would run a PyroModule on values of the store that are not the module's.

    Args:
        stored: the state of the store, from :func:`own_parameters`.
        leaves: the pair's unconstrained leaves by name.
        programs: the pair; those of a ``Fit`` run on their own values by intent.
    """
    own = {id(leaf) for one in reachable(Trained, *programs) for leaf in one.values.leaves.values()}
    other = [
        name
        for name, leaf in leaves.items()
        if isinstance(leaf, nn.Parameter)
        and id(leaf) not in own
        and MODULE_DIVIDER not in name
        and _differs(stored["params"].get(name), leaf)
    ]
    if other:
        warnings.warn(
            f"Pyro's parameter store holds other values for {', '.join(map(repr, other[:3]))} than the module does (of "
            "another module, or loaded): those of the module are used. To use the store's, copy them into the module; "
            "to drop them, call pyro.clear_param_store().",
            stacklevel=4,
        )


def _differs(stored: Tensor | None, leaf: Tensor) -> bool:
    if stored is None or stored is leaf:
        return False
    return stored.shape != leaf.shape or not torch.equal(stored.detach().to(leaf.device), leaf.detach())


def named_parameters(model: Program, guide: Program, batch: Batch) -> dict[str, Tensor]:
    """The unconstrained leaf of every parameter that one run of the pair touches, by its name in the store.

    A leaf is listed once, under the first name that it has. Parameters of the owning modules that no program
    registered (a module without ``pyro.module``) are included.
    """
    with generator_kept(), poutine.trace(param_only=True) as captured:
        guide_trace = poutine.trace(guide).get_trace(*batch)
        poutine.replay(model, trace=guide_trace)(*batch)
    nodes: dict[str, Any] = captured.trace.nodes
    found: dict[str, Tensor] = {}
    registered: set[int] = set()
    for name, site in nodes.items():
        value = site["value"]
        leaf = value.unconstrained() if hasattr(value, "unconstrained") else value
        if id(leaf) not in registered:
            registered.add(id(leaf))
            found[name] = leaf
    for module in owning_modules(model, guide):
        for name, leaf in module.named_parameters():
            if id(leaf) not in registered and not _spelled(name, found):
                registered.add(id(leaf))
                found[name] = leaf
    return {name: leaf for name, leaf in found.items() if leaf.requires_grad}


def _spelled(name: str, found: dict[str, Tensor]) -> bool:
    """A PyroModule names its constrained parameters ``x_unconstrained`` in the module and ``x`` in the store."""
    return name.removesuffix("_unconstrained") in found or name in found


@dataclass(frozen=True)
class ParameterValues:
    """The values of a pair's parameters and buffers, copied.

    Attributes:
        leaves: the unconstrained leaf of every parameter, each under one name.
        state: the state of a parameter store: ``{"params": unconstrained leaves by name, "constraints": by name}``.
        modules: the pair's modules, each with its parameters and its buffers by name, under every name that they have.
    """

    leaves: dict[str, Tensor]
    state: dict[str, Any]
    modules: tuple[tuple[nn.Module, dict[str, nn.Parameter], dict[str, Tensor]], ...]

    @staticmethod
    def copied(model: Program, guide: Program, leaves: dict[str, Tensor]) -> ParameterValues:
        """Copies of these leaves and of whatever else the modules hold, with all names that the store has for them."""
        copies: dict[int, Any] = {}

        def copy(leaf: Tensor) -> Any:
            if id(leaf) not in copies:
                fresh = leaf.detach().clone()
                copies[id(leaf)] = (
                    nn.Parameter(fresh, leaf.requires_grad)
                    if isinstance(leaf, nn.Parameter)
                    else fresh.requires_grad_(leaf.requires_grad)
                )
            return copies[id(leaf)]

        modules = tuple(
            (
                module,
                {name: copy(p) for name, p in module.named_parameters(remove_duplicate=False)},
                {name: copy(b) for name, b in module.named_buffers(remove_duplicate=False)},
            )
            for module in reachable_modules(model, guide)
        )
        own = {name: copy(leaf) for name, leaf in leaves.items()}
        store: Any = pyro.get_param_store().get_state()
        held = {name: copy(leaf) for name, leaf in store["params"].items() if id(leaf) in copies}
        return ParameterValues(
            own, {"params": held, "constraints": {name: store["constraints"][name] for name in held}}, modules
        )

    def restore(self) -> None:
        """Put copies of these values into the modules and into Pyro's store, as the training left them there."""
        for module, parameters, buffers in self.modules:
            for name, leaf in module.named_parameters(remove_duplicate=False):
                leaf.data = parameters[name].detach().clone()
            for name, buffer in module.named_buffers(remove_duplicate=False):
                buffer.data = buffers[name].clone()
        plain = without_modules(self.state)
        fresh = {id(leaf): leaf.detach().clone().requires_grad_() for leaf in plain["params"].values()}
        params = {name: fresh[id(leaf)] for name, leaf in plain["params"].items()}
        store: Any = pyro.get_param_store()
        store.set_state(_merged(store.get_state(), {**plain, "params": params}))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The store and the modules hold these values inside, and what they held before afterwards."""
        with ExitStack() as stack:
            for module, parameters, buffers in self.modules:
                stack.enter_context(_swapped(module, parameters, "_parameters"))
                stack.enter_context(_swapped(module, buffers, "_buffers"))
            store: ParamStoreDict = pyro.get_param_store()
            stack.enter_context(store.scope(cast(Any, {part: dict(held) for part, held in self.state.items()})))
            yield


@contextmanager
def _swapped(module: nn.Module, values: dict[str, Any], kind: str) -> Iterator[None]:
    """Other tensors in the place of a module's parameters or buffers; the tensors themselves are not touched."""
    before = []
    for path, value in values.items():
        prefix, _, name = path.rpartition(".")
        table = getattr(module.get_submodule(prefix), kind)
        before.append((table, name, table[name]))
        table[name] = value
    try:
        yield
    finally:
        for table, name, value in before:
            table[name] = value


class Trained:
    """A program that runs on values of its own, whatever the parameter store or its modules hold by now.

    Args:
        program: ``program(x, *context)``.
        values: what it runs on; the model and the guide of a pair share them.
    """

    def __init__(self, program: Program, values: ParameterValues) -> None:
        self.program, self.values = program, values

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program."""
        with self.values.in_place():
            return self.program(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Trained({self.program!r})"


def untrained(model: Program, guide: Program) -> tuple[Program, Program]:
    """The programs themselves, where ``Fit.model`` and ``Fit.guide`` are given: what a training or a file may change.

    Raises:
        PairError: a program wraps one that runs on values of its own, which cannot be changed.
    """
    for program in (model, guide):
        if not isinstance(program, Trained) and reachable(Trained, program):
            raise PairError(
                "a program calls the model or the guide of a Fit, whose values are never changed: train Fit.model and "
                "Fit.guide themselves, or the programs that they were made from."
            )
    bare = [program.program if isinstance(program, Trained) else program for program in (model, guide)]
    return bare[0], bare[1]


def restored(model: Program, guide: Program) -> tuple[Program, Program]:
    """As :func:`untrained`, with the values of ``Fit.model`` and ``Fit.guide`` put where their training left them.

    Raises:
        PairError: the two are of trainings whose values are in the way of one another, or see :func:`untrained`.
    """
    values = list({id(p.values): p.values for p in (model, guide) if isinstance(p, Trained)}.values())
    if len(values) == 2 and (
        {id(m) for m, *_ in values[0].modules} & {id(m) for m, *_ in values[1].modules}
        or values[0].state["params"].keys() & values[1].state["params"].keys()
    ):
        raise PairError(
            "the model and the guide are of two trainings of the same parameters: give both of one Fit, or the "
            "programs that they were made from."
        )
    programs = untrained(model, guide)
    for one in values:
        one.restore()
    return programs
