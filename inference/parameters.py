"""The parameters of a pair, kept apart from those of every other pair.

Pyro keeps what ``pyro.param`` and ``pyro.module`` name in one global store, so two pairs that use a name twice share
the value: a second ``pyro.module("vae", ...)`` overwrites the weights of its module with those of the first. Here each
pair that was trained by :func:`ppvae.inference.fit` owns a store, in which its programs run from then on; a pair that
was never trained by ``fit`` runs on Pyro's global store, as it would without us.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import pyro
from pyro import poutine
from torch import Tensor, nn

from .traces import Batch, Program, generator_kept

StoreState = dict[str, Any]

_stores: WeakKeyDictionary[Any, WeakKeyDictionary[Any, StoreState]] = WeakKeyDictionary()
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
    state = _stores.get(owner(model), WeakKeyDictionary()).get(owner(guide))
    inside = bool(_entered) and _entered[-1] is state
    if inside or (state is None and not claim):
        yield
        return
    if state is None:
        state = {"params": {}, "constraints": {}}
        _stores.setdefault(owner(model), WeakKeyDictionary())[owner(guide)] = state
    _entered.append(state)
    try:
        with pyro.get_param_store().scope(state):
            yield
    finally:
        _entered.pop()


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
    found = {name: site["value"].unconstrained() for name, site in captured.trace.nodes.items()}
    registered = {id(leaf) for leaf in found.values()}
    for module in modules_of(model, guide):
        for name, leaf in module.named_parameters():
            if id(leaf) not in registered and not _spelled(name, found):
                found[name] = leaf
    return {name: leaf for name, leaf in found.items() if leaf.requires_grad}


def _spelled(name: str, found: dict[str, Tensor]) -> bool:
    """A PyroModule names its constrained parameters ``x_unconstrained`` in the module and ``x`` in the store."""
    return name.removesuffix("_unconstrained") in found or name in found
