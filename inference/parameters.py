"""The parameters of a pair, kept apart from those of every other pair.

Pyro keeps what ``pyro.param`` and ``pyro.module`` name in one global store, so two pairs that use a name twice share
the value: a second ``pyro.module("vae", ...)`` overwrites the weights of its module with those of the first. Here

- a pair that was trained by :func:`ppvae.inference.fit` owns a store, in which its programs run from then on;
- any other pair runs on Pyro's global store, as it would without us, but for the parameters of modules, which live in
  their modules and are neither read from the global store nor left there.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from .traces import Batch, Program, generator_kept

StoreState = Any  # Pyro's: {"params": {name: unconstrained leaf}, "constraints": {name: constraint}}

_stores: dict[tuple[int, int], StoreState] = {}
_entered: list[StoreState] = []


def owner(program: Program) -> Any:
    """What a program belongs to: the object of a bound method, else the callable itself."""
    return getattr(program, "__self__", program)


def modules_of(*programs: Program) -> list[nn.Module]:
    """The modules that the programs are methods of, each once."""
    found = {id(o): o for o in map(owner, programs) if isinstance(o, nn.Module)}
    return list(found.values())


@contextmanager
def own_parameters(model: Program, guide: Program, *, claim: bool = False) -> Iterator[None]:
    """Run a pair on its own parameters.

    Args:
        model: the generative program.
        guide: the guide.
        claim: give the pair a store of its own if it has none (training does).
    """
    owners = owner(model), owner(guide)
    key = id(owners[0]), id(owners[1])
    state = _stores.get(key)
    if state is None and claim:
        state = _stores[key] = {"params": {}, "constraints": {}}
        for one in owners:  # by identity, since a pair need not be hashable, and for as long as the pair lives
            weakref.finalize(one, _stores.pop, key, None).atexit = False
    if state is None:
        with _without_modules():
            yield
    elif _entered and _entered[-1] is state:
        yield
    else:
        _entered.append(state)
        try:
            with pyro.get_param_store().scope(cast(Any, state)):
                yield
        finally:
            _entered.pop()


@contextmanager
def _without_modules() -> Iterator[None]:
    """The present store without the parameters of modules; what ``pyro.param`` makes inside is kept afterwards."""
    store = pyro.get_param_store()
    state = _plain(store.get_state())
    with store.scope(cast(Any, state)):
        yield
    store.set_state(cast(Any, _plain(state)))


def _plain(state: StoreState) -> StoreState:
    """A store's state without ``nn.Parameter``s: those belong to modules, plain tensors to the store."""
    params = {name: leaf for name, leaf in state["params"].items() if not isinstance(leaf, nn.Parameter)}
    return {"params": params, "constraints": {name: state["constraints"][name] for name in params}}


def where_parameters_are(model: Program, guide: Program, batch: Batch) -> Batch:
    """The batch on the device of the modules that the programs belong to: training may have moved them."""
    parameter = next((p for module in modules_of(model, guide) for p in module.parameters()), None)
    if parameter is None:
        return batch
    return tuple(part.to(parameter.device) if isinstance(part, Tensor) else part for part in batch)


@contextmanager
def buffers_kept(model: Program, guide: Program) -> Iterator[None]:
    """Leave the buffers of the modules that the programs belong to (batch norm's statistics) as they were."""
    buffers = [(buffer, buffer.clone()) for module in modules_of(model, guide) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


@contextmanager
def evaluation_mode(model: Program, guide: Program) -> Iterator[None]:
    """Dropout off and batch norm on its running statistics, for the modules that the programs belong to."""
    training = [m for owned in modules_of(model, guide) for m in owned.modules() if m.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def named_parameters(model: Program, guide: Program, batch: Batch) -> dict[str, Tensor]:
    """The unconstrained leaf of every parameter that one run of the pair touches, by its name in the store.

    Parameters of the owning modules that no program registered (a module without ``pyro.module``) are included.
    """
    with generator_kept(), poutine.trace(param_only=True) as captured:
        guide_trace = poutine.trace(guide).get_trace(*batch)
        poutine.replay(model, trace=guide_trace)(*batch)
    nodes: dict[str, Any] = captured.trace.nodes
    found = {name: site["value"].unconstrained() for name, site in nodes.items()}
    registered = {id(leaf) for leaf in found.values()}
    for module in modules_of(model, guide):
        for name, leaf in module.named_parameters():
            if id(leaf) not in registered and not _spelled(name, found):
                found[name] = leaf
    return {name: leaf for name, leaf in found.items() if leaf.requires_grad}


def _spelled(name: str, found: dict[str, Tensor]) -> bool:
    """A PyroModule names its constrained parameters ``x_unconstrained`` in the module and ``x`` in the store."""
    return name.removesuffix("_unconstrained") in found or name in found
