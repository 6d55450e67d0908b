"""The parsers: the arguments of a command are the parameters of its function, and the fields of its options class.

jsonargparse reads types, defaults and docstrings. A parameter without a default is given by position, any other as
``--name``.
"""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from types import ModuleType
from typing import Any, get_type_hints

import yaml
from jsonargparse import ArgumentParser, Namespace

import ppvae
from ppvae.errors import OptionError

from .console import first_sentence
from .usage import Usage

# Parameters of a command's function that are not arguments: both come from the command line as a whole.
NOT_ARGUMENTS = {"command", "words"}
# The command whose options can be given in a file.
TAKES_CONFIG = "run"
CONFIG_HELP = "YAML file of options, as --print_config prints it."


def commands_parser(commands: Mapping[str, Callable[..., int]]) -> ArgumentParser:
    """The parser of all commands."""
    description = (ppvae.__doc__ or "").partition("\n")[0]
    parser = ArgumentParser(prog="ppvae", description=description, version=ppvae.__version__, exit_on_error=False)
    subcommands = parser.add_subcommands()
    for name, function in commands.items():
        command = ArgumentParser(description=first_sentence(function), exit_on_error=False)
        if name == TAKES_CONFIG:
            command.add_argument("--config", action="config", help=CONFIG_HELP)
        classes = options_classes(function)
        command.add_function_arguments(function, as_group=False, as_positional=True, skip={*NOT_ARGUMENTS, *classes})
        for options in classes.values():
            command.add_class_arguments(options, as_group=False)
        subcommands.add_subcommand(name, command, help=first_sentence(function))
    return parser


def options_classes(function: Callable[..., Any]) -> dict[str, type]:
    """The parameters of a function whose type is a dataclass of options, with the class."""
    hints = get_type_hints(function)
    return {name: kind for name, kind in hints.items() if isinstance(kind, type) and is_dataclass(kind)}


def parse(parser: ArgumentParser, words: Sequence[str], own: Sequence[str], usage: Usage) -> Namespace:
    """Parse the words of a command line.

    Args:
        parser: of the command.
        words: all that it gets.
        own: those after the name of the command.
        usage: what the command takes.

    Raises:
        OptionError: the words cannot be used, in one sentence.
    """
    try:
        return parser.parse_args(with_lists(words))
    except argparse.ArgumentError as error:
        raise OptionError(usage.sentence(error, own)) from error


# Options whose value is a list: one may be given several times; names are separated by commas.
LISTS = ("context", "drop_columns", "context_columns", "loggers")
WITH_COMMAS = ("drop_columns", "context_columns", "loggers")


def with_lists(words: Sequence[str]) -> list[str]:
    """The words with every list gathered into one, at the place of its first word.

    Example:
        >>> with_lists(["run", "--context", "y.npy", "--seed", "1", "--context=w.npy"])
        ['run', '--context=["y.npy", "w.npy"]', '--seed', '1']
        >>> with_lists(["--drop_columns", "id,day"])
        ['--drop_columns=["id", "day"]']
    """
    found = list(words)
    for name in LISTS:
        found = _with_one_list(found, name)
    return found


def _with_one_list(words: Sequence[str], name: str) -> list[str]:
    out: list[str] = []
    values: list[str] = []
    place, rest = None, list(words)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        if option != f"--{name}" or not (equals or (rest and not rest[0].startswith("--"))):
            out.append(word)
            continue
        place = len(out) if place is None else place
        value = value if equals else rest.pop(0)
        several = value.split(",") if name in WITH_COMMAS else [value]
        values += yaml.safe_load(value) if value.startswith("[") else [one for one in several if one]
    return out if place is None else [*out[:place], f"--{name}={json.dumps(values)}", *out[place:]]


def call(function: Callable[..., int], values: dict[str, Any], command: str) -> int:
    """Call the function of a command with the parsed values, those of an options class as an instance of it."""
    arguments = {name: value for name, value in values.items() if name in inspect.signature(function).parameters}
    for name, options in options_classes(function).items():
        arguments[name] = options(**{field.name: values[field.name] for field in fields(options)})
    if "command" in inspect.signature(function).parameters:
        arguments["command"] = command
    return function(**arguments)


def usage_of(name: str, function: Callable[..., Any]) -> Usage:
    """The arguments and options of a command, for messages about words that it does not take."""
    parameters = {n: p for n, p in inspect.signature(function).parameters.items() if n not in NOT_ARGUMENTS}
    kinds, classes = get_type_hints(function), options_classes(function)
    required = [n for n, p in parameters.items() if p.default is inspect.Parameter.empty and n not in classes]
    options = {n: kinds[n] for n in parameters if n not in required and n not in classes}
    for each in classes.values():
        options |= get_type_hints(each)
    return Usage(name, required, options | ({"config": str} if name == TAKES_CONFIG else {}))


def parse_experiment(name: str, module: ModuleType, words: Sequence[str]) -> tuple[Any, str]:
    """The Config of an experiment and the folder for its results: its options are the fields of its Config.

    A field without a default is given by position.

    Raises:
        OptionError: the words are not such options.
    """
    parser = ArgumentParser(prog=f"ppvae experiment {name}", description=first_sentence(module), exit_on_error=False)
    parser.add_argument("--config", action="config", help=CONFIG_HELP)
    parser.add_class_arguments(module.Config, as_group=False, as_positional=True)
    parser.add_argument("--out", default="runs", help="folder in which the experiment's own is made.")
    kinds = get_type_hints(module.Config)
    required = [field.name for field in fields(module.Config) if field.default is field.default_factory is MISSING]
    options = {name: kind for name, kind in kinds.items() if name not in required} | {"out": str, "config": str}
    parsed = parse(parser, words, words, Usage(f"experiment {name}", required, options))
    values = parser.instantiate(parsed).as_dict()  # a field may be a dataclass itself
    values.pop("config")
    out = values.pop("out")
    return module.Config(**values), out
