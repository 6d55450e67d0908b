"""Which members of a family of tests run each time, and which with the slow ones."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def slow_but(kept: Collection[Any], members: Iterable[Any]) -> list[Any]:
    """`members` for `parametrize`, those that are not `kept` marked slow."""
    members = list(members)
    assert all(member in members for member in kept), "a member that is kept has another name now"
    return [member if member in kept else _slow(member) for member in members]


def slow_those(named: Collection[Any], members: Iterable[Any]) -> list[Any]:
    """`members` for `parametrize`, those that are `named` marked slow."""
    members, named = list(members), list(named)
    return slow_but([member for member in members if member not in named], members)


def _slow(member: Any) -> Any:
    values = member if isinstance(member, tuple) else (member,)
    return pytest.param(*values, marks=pytest.mark.slow)
