"""The Python values that programs reach, watched: a recorded step holds them as they were when it was recorded.

A weight of the KL that a scheduler raises, a counter, a switch between two networks: numbers of this kind are constants
of a graph. They are compared before every step, so that no step is taken with old ones. What a program can reach is
followed as :mod:`ppvae.inference.pair.modes` follows it: attributes, closures, defaults, globals that it names,
containers. Tensors need no watching but for which tensor it is, since their values are inputs of the graph.
"""

from __future__ import annotations

import functools
import operator
import sys
import types
from typing import Any

from pyro.infer.autoguide import AutoGuide
from torch import Tensor, nn

PLAIN = (bool, int, float, complex, str, bytes, type(None))
# Longer containers are data, not settings: only their length is compared.
LONGEST = 1000
LIBRARIES = {"torch", "pyro", "numpy", "scipy", "pandas", "xarray", "matplotlib", "sklearn", "lightning_fabric"} | (
    set(sys.stdlib_module_names) | {"builtins"}
)
# What a module of torch has from the start: hooks and bookkeeping, beside what decides what it computes.
_BOOKKEEPING = set(vars(nn.Module())) - {"training", "_parameters", "_buffers", "_modules"}
_MISSING = object()


class PythonState:
    """The Python values that programs reach now.

    Args:
        programs: whose values.

    Example:
        >>> class Annealed:
        ...     beta = 0.0
        ...     def __init__(self): self.beta = 0.5
        ...     def model(self, x): return self.beta * x
        >>> pair = Annealed()
        >>> state = PythonState(pair.model)
        >>> state.changed()
        >>> pair.beta = 1.0
        >>> state.changed()
        'beta'
        >>> state.restore()
        >>> pair.beta
        0.5
    """

    def __init__(self, *programs: Any) -> None:
        # (a mapping or a list, its key, the value there)
        self._entries: list[tuple[Any, Any, Any]] = []
        self._cells: list[tuple[types.CellType, Any]] = []
        self._sizes: list[tuple[Any, int]] = []
        seen: dict[int, Any] = {}  # held, so that no other object takes an id
        pending = list(programs)
        while pending:
            one = pending.pop()
            if id(one) not in seen and not isinstance(one, (*PLAIN, Tensor, type)):
                seen[id(one)] = one
                pending += self._watch(one)
        self._tables, self._keys, self._values = (list(map(operator.itemgetter(i), self._entries)) for i in range(3))
        self._sized, self._lengths = (list(map(operator.itemgetter(i), self._sizes)) for i in range(2))

    def changed(self) -> str | None:
        """The name of a value that is another one by now, or None."""
        if self._as_before():
            return None
        for table, key, value in self._entries:
            try:
                now = table[key]
            except LookupError:
                return str(key)
            if now is not value and not _equal(now, value):
                return str(key)
        for cell, value in self._cells:
            if cell.cell_contents is not value and not _equal(cell.cell_contents, value):
                return "a variable of an enclosing function"
        return next(("a list or a dict" for table, size in self._sizes if len(table) != size), None)

    def _as_before(self) -> bool:
        """Whether all are the same objects: asked before every step, and nearly always so."""
        try:
            return (
                all(map(operator.is_, map(operator.getitem, self._tables, self._keys), self._values))
                and all(cell.cell_contents is value for cell, value in self._cells)
                and list(map(len, self._sized)) == self._lengths
            )
        except (LookupError, ValueError):
            return False

    def restore(self) -> None:
        """Put the values back, where they are attributes, globals or items."""
        for table, key, value in self._entries:
            if isinstance(table, (dict, list)) and (key in table if isinstance(table, dict) else key < len(table)):
                table[key] = value
        for cell, value in self._cells:
            cell.cell_contents = value

    def _watch(self, one: Any) -> list[Any]:
        """Note the values that an object holds; they are followed further."""
        if isinstance(one, types.MethodType):
            return [one.__self__, one.__func__]
        if isinstance(one, functools.partial):
            return [one.func, *one.args, *one.keywords.values()]
        if isinstance(one, types.FunctionType):
            return self._watch_function(one) if not _of_a_library(one.__module__) else []
        if isinstance(one, (dict, list, tuple)):
            return self._watch_container(one)
        if isinstance(one, nn.Module):
            remade = {"plates"} if isinstance(one, AutoGuide) else set()  # by Pyro, in every run
            keys = [key for key in vars(one) if key not in _BOOKKEEPING | remade]
            return self._note(vars(one), keys) + self._watch_class(type(one))
        if _of_a_library(type(one).__module__) or isinstance(one, types.ModuleType) or not hasattr(one, "__dict__"):
            return []
        return self._note(vars(one), list(vars(one))) + self._watch_class(type(one))

    def _watch_class(self, kind: type) -> list[Any]:
        """Note the values of a user's class, and follow its methods."""
        found: list[Any] = []
        for one in kind.__mro__:
            if not _of_a_library(one.__module__) and one is not object:
                held = vars(one)
                self._note(held, [key for key, v in held.items() if isinstance(v, PLAIN) and not key.startswith("__")])
                found += [_function(value) for value in held.values()]
        return [function for function in found if isinstance(function, types.FunctionType)]

    def _watch_function(self, function: types.FunctionType) -> list[Any]:
        cells = [cell for cell in function.__closure__ or () if _contents(cell) is not _MISSING]
        self._cells += [(cell, cell.cell_contents) for cell in cells]
        names = _names(function.__code__)
        found = self._note(function.__globals__, [name for name in names if name in function.__globals__])
        for module in [value for value in found if isinstance(value, types.ModuleType)]:
            if not _of_a_library(module.__name__):
                settings = vars(module)
                self._note(settings, [n for n in names if isinstance(settings.get(n, _MISSING), (*PLAIN, Tensor))])
        rest = [*(function.__defaults__ or ()), getattr(function, "__wrapped__", None)]
        return [*found, *(cell.cell_contents for cell in cells), *rest]

    def _watch_container(self, container: Any) -> list[Any]:
        if not isinstance(container, tuple):
            self._sizes.append((container, len(container)))
        if len(container) > LONGEST:
            return []
        return self._note(container, list(container) if isinstance(container, dict) else list(range(len(container))))

    def _note(self, table: Any, keys: list[Any]) -> list[Any]:
        # What torch's and Pyro's transforms remember of their last call is no setting.
        keys = [key for key in keys if not str(key).startswith("_cached")]
        if not isinstance(table, tuple):
            self._entries += [(table, key, table[key]) for key in keys]
        return [table[key] for key in keys]


def _equal(now: Any, before: Any) -> bool:
    if isinstance(before, types.MethodType):
        return now == before
    return isinstance(before, PLAIN) and type(now) is type(before) and now == before


def _function(value: Any) -> Any:
    """The function in a method of a class, whatever it is wrapped in."""
    return value.fget if isinstance(value, property) else getattr(value, "__func__", value)


def _names(code: types.CodeType) -> set[str]:
    """The globals and attributes that a function names, and those of the functions inside it."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _of_a_library(name: str | None) -> bool:
    return (name or "").split(".")[0] in LIBRARIES


def _contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return _MISSING
