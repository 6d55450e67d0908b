"""The context of a run in the order of the arguments that its model takes after x: by name, or by place."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

from ppvae.datasets import Context, Dataset
from ppvae.errors import OptionError, suggestion


def in_order(model: Any, data: Dataset, pair: str) -> list[Context]:
    """The context in the order of the model's arguments after x.

    Raises:
        OptionError: the model takes others, or another number of them.
    """
    names, required, is_open = _arguments(model)
    data = _named_columns(data, names)
    named = [one for one in data.context if one.by_name]
    given = [one for one in data.context if not one.by_name]
    # An archive of three parts may hold more than the pair wants; one of x and its context may not.
    if named and data.own_parts and not is_open:
        named = [one for one in named if one.name in names]
    if named and given:
        raise OptionError(
            f"{data.name} holds the context {_listed(named)} itself: leave --context out, or give data without them."
        )
    if is_open:
        return named or given
    for one in named:
        if one.name not in names:
            takes = f"its arguments after x are {', '.join(names)}" if names else "it takes nothing after x"
            raise OptionError(
                f"{data.name} holds {one.name!r}, which the model of {pair} does not "
                f"take{suggestion(one.name, names)}: {takes}."
            )
    if named:
        by_name = {one.name: one for one in named}
        last = max(names.index(name) for name in by_name)
        wanted = names[: max(required, last + 1)]
        for name in wanted:
            if name not in by_name:
                raise OptionError(f"the model of {pair} takes {name!r}: put an array of that name into {data.name}.")
        return [by_name[name] for name in wanted]
    if not required <= len(given) <= len(names):
        takes = f"{', '.join(names)} after x" if names else "nothing after x"
        raise OptionError(
            f"the model of {pair} takes {takes}, and {len(given)} context files are given: give one --context for "
            "each, in this order, or name them so in an .npz beside x; columns of a table are --context_columns."
        )
    return given


def _named_columns(data: Dataset, names: list[str]) -> Dataset:
    """The data whose context columns go by name, where all names are those of arguments; else their order counts."""
    columns = [one for one in data.context if one.is_column]
    if not columns or not all(one.name in names for one in columns):
        return data
    return replace(data, context=tuple(replace(one, by_name=one.by_name or one.is_column) for one in data.context))


def _arguments(model: Any) -> tuple[list[str], int, bool]:
    """The names of a program's arguments after x, how many of them have no default, and whether it takes any number."""
    try:
        parameters = list(inspect.signature(model).parameters.values())
    except (TypeError, ValueError):
        return [], 0, True
    kinds = inspect.Parameter
    is_open = any(p.kind is kinds.VAR_POSITIONAL for p in parameters)
    own = [p for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)][1:]
    return [p.name for p in own], sum(p.default is kinds.empty for p in own), is_open


def _listed(contexts: list[Context]) -> str:
    return ", ".join(one.name for one in contexts)
