"""Messages about words that a command does not take: one sentence each, with a way out.

The words are compared with the arguments and options of the command, one by one. The message of jsonargparse, which has
several lines, is used only where this comparison finds no cause.
"""

from __future__ import annotations

import types
from argparse import ArgumentError
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from jsonargparse import ArgumentParser

from ppvae.errors import suggestion

KINDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    dict: "names with values, as in --pair_args.latent_dim 10",
    tuple: "a list, as in [1, 2]",
    list: "a list, as in [a.npy, b.npy]",
    types.NoneType: "null",
}
# The options that every parser has, and that take no value.
FLAGS = ("help", "print_config")


@dataclass(frozen=True)
class Usage:
    """The arguments and options of a command.

    Attributes:
        command: the words that name it.
        required: its arguments by position.
        options: the type of each of its options, by name.
    """

    command: str
    required: Sequence[str]
    options: Mapping[str, Any]

    def sentence(self, error: ArgumentError, words: Sequence[str]) -> str:
        """The first fault of the words after the command, which the parser has refused."""
        plain, given = read_words(words)
        given += [pair for name, value in given if name == "config" for pair in read_config(value)]
        return next(self._faults(plain, given), f"{' '.join(str(error).split()).rstrip('.')}.")

    def _faults(self, plain: Sequence[str], given: Sequence[tuple[str, Any]]) -> Iterator[str]:
        names = [f"--{name}" for name in (*self.options, *FLAGS)]
        more = f"`ppvae {self.command} --help` lists them"
        for option in (f"--{name.partition('.')[0]}" for name, _ in given):
            if option not in names:
                yield f"there is no option {option}{suggestion(option, names)}: {more}."
        for word in plain[len(self.required) :]:
            yield f"{word!r} is no option: {more}."
        for name in self.required[len(plain) :]:
            yield f"{name.upper()} is missing: `ppvae {self.command} --help` says what it is."
        for name, value in given:
            if value is not None and name in self.options and not accepts(self.options[name], value):
                yield f"{name} must be {described(self.options[name])}; it is {value!r}."


def read_words(words: Sequence[str]) -> tuple[list[str], list[tuple[str, Any]]]:
    """The words that are given by position, and the options with their values; None where a value is missing.

    Example:
        >>> read_words(["runs/a", "--epochs", "3", "--seed=1", "--help"])
        (['runs/a'], [('epochs', '3'), ('seed', '1'), ('help', None)])
    """
    plain: list[str] = []
    given: list[tuple[str, Any]] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            plain.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        takes_next = not equals and name not in FLAGS and rest and not rest[0].startswith("--")
        given.append((name, value if equals else rest.pop(0) if takes_next else None))
    return plain, given


def read_config(file: str | None) -> list[tuple[str, Any]]:
    """The options in a YAML file; none where it cannot be read, since the parser's message names the reason."""
    try:
        content = yaml.safe_load(Path(file or "").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return []
    return list(content.items()) if isinstance(content, dict) else []


def accepts(kind: Any, value: Any) -> bool:
    """Whether jsonargparse accepts a value for an option of a type."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=kind)
    try:
        parser.parse_object({"value": value})
    except ArgumentError:
        return False
    return True


def described(kind: Any) -> str:
    """A type in words.

    Example:
        >>> described(int | None), described(Literal["importance", "ais", "auto"])
        ('a whole number or null', 'importance, ais or auto')
    """
    if get_origin(kind) is Literal:
        *first, last = map(str, get_args(kind))
        return f"{', '.join(first)} or {last}" if first else last
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(described(part) for part in get_args(kind))
    return KINDS.get(get_origin(kind) or kind, f"a {getattr(kind, '__name__', kind)}")
