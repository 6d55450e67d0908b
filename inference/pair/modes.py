"""Evaluation mode for every network that a pair runs, whoever holds it, and buffers that stay as they were.

The programs may be methods of a module, functions that call ``pyro.module``, closures over networks, or partials and
lambdas of these. What can be found from the program is switched beforehand; anything else is switched by a hook as
soon as it runs.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

Program = Any  # a callable (x, *context)


def owner(program: Program) -> Any:
    """What a program belongs to: the object of a bound method, else the callable itself."""
    return getattr(program, "__self__", program)


def owning_modules(*programs: Program) -> list[nn.Module]:
    """The modules that the programs are, or are methods of, each once."""
    found = {id(o): o for o in map(owner, programs) if isinstance(o, nn.Module)}
    return list(found.values())


def reachable_modules(*programs: Program) -> list[nn.Module]:
    """The modules that the programs are methods of, close over, hold as arguments, or name as globals, each once.

    A module that is a part of another is left out.
    """
    found = reachable(nn.Module, *programs)
    parts = {id(part) for module in found for part in module.modules() if part is not module}
    return [module for module in found if id(module) not in parts]


def reachable(kind: Any, *programs: Program) -> list[Any]:
    """The objects of a class that the programs can reach as :func:`reachable_modules` says, each once."""
    found: dict[int, Any] = {}
    seen: dict[int, Any] = {}  # held, so that no other object takes an id
    pending = list(programs)
    while pending:
        one = pending.pop()
        if id(one) in seen or isinstance(one, type) or _of_a_library(one):
            continue
        seen[id(one)] = one
        if isinstance(one, kind):
            found[id(one)] = one
        elif not isinstance(one, nn.Module):
            pending += _referred(one)
    return list(found.values())


# No object of these holds a network of the user's.
_LIBRARIES = {
    "torch",
    "pyro",
    "numpy",
    "functools",
    "pandas",
    "xarray",
    "matplotlib",
    "builtins",
    *sys.stdlib_module_names,
}


def _of_a_library(one: Any) -> bool:
    """Whether a function was defined by a library."""
    return (getattr(one, "__module__", None) or "").split(".")[0] in {"torch", "pyro", "numpy", "functools"} and (
        isinstance(one, types.FunctionType | types.BuiltinFunctionType)
    )


def _referred(one: Any) -> list[Any]:
    """What a callable, a container or an object of a user's class holds that may be a module or a program."""
    if isinstance(one, functools.partial):
        return [one.func, *one.args, *one.keywords.values()]
    if isinstance(one, dict):
        return list(one.values())
    if isinstance(one, (list, tuple)):
        return list(one)
    if isinstance(one, types.MethodType):
        return [one.__self__, one.__func__]
    if isinstance(one, types.FunctionType):
        cells = [cell.cell_contents for cell in one.__closure__ or () if _filled(cell)]
        named = [one.__globals__[name] for name in one.__code__.co_names if name in one.__globals__]
        return [*cells, *named, *(one.__defaults__ or ()), getattr(one, "__wrapped__", None)]
    users = callable(one) or type(one).__module__.split(".")[0] not in _LIBRARIES
    return list(vars(one).values()) if users and hasattr(one, "__dict__") else []


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


@contextmanager
def evaluation_mode(*programs: Program) -> Iterator[None]:
    """Dropout off and batch norm on its running statistics, for every module that runs inside."""
    switched: list[nn.Module] = []

    def switch(module: nn.Module) -> None:
        for part in module.modules():
            if part.training:
                part.training = False
                switched.append(part)

    for module in reachable_modules(*programs):
        switch(module)
    hook = register_module_forward_pre_hook(lambda module, _: switch(module) if module.training else None)
    try:
        yield
    finally:
        hook.remove()
        for module in switched:
            module.training = True


@contextmanager
def buffers_kept(*programs: Program) -> Iterator[None]:
    """Leave the buffers of every module that runs inside (batch norm's statistics) as they were."""
    kept: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(module: nn.Module) -> None:
        for buffer in module.buffers():
            kept.setdefault(id(buffer), (buffer, buffer.clone()))

    for module in reachable_modules(*programs):
        keep(module)
    hook = register_module_forward_pre_hook(lambda module, _: keep(module))
    try:
        yield
    finally:
        hook.remove()
        with torch.no_grad():
            for buffer, value in kept.values():
                buffer.copy_(value)
