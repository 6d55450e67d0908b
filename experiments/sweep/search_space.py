"""The configuration of a sweep: the options of `ppvae run`, some of them with a range in place of a value.

data: digits
epochs: 30
learning_rate: {low: 0.0001, high: 0.01, log: true}
pair_args:
  latent_dim: {low: 2, high: 20}
  hidden: {choices: [[50], [200, 200]]}
"""

from __future__ import annotations

import json
import math
from argparse import ArgumentError
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from ppvae.errors import OptionError, suggestion
from ppvae.storage import Settings

# Options that hold arguments by name, each of which may have a range.
OF_NAMES = ("pair_args", "likelihood_args")
# Trials are compared datum by datum: what says which data they are, and how these are measured, is the same for all.
MAY_VARY = (
    "pair",
    "likelihood",
    "epochs",
    "batch_size",
    "learning_rate",
    "cosine",
    "patience",
    "precision",
    "seed",
)


@dataclass(frozen=True)
class Range:
    """The values that an option may take.

    Attributes:
        name: of the option, as ``"pair_args.latent_dim"``.
        low: the lowest number; None where there are choices.
        high: the highest.
        log: whether to search on the scale of its logarithm.
        choices: the values; empty where it is a number between two.
    """

    name: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    def suggested(self, trial: Any) -> Any:
        """The value that Optuna suggests."""
        if self.choices:  # a list is shown to Optuna as a word
            words = {one if isinstance(one, str | int | float | None) else json.dumps(one): one for one in self.choices}
            return words[trial.suggest_categorical(self.name, list(words))]
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.name, self.low, self.high, log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)


@dataclass(frozen=True)
class SearchSpace:
    """The options that all trials share, and the ranges of the others.

    Attributes:
        fixed: values by name, those of ``pair_args`` and ``likelihood_args`` by name in turn.
        ranges: of the others.
    """

    fixed: dict[str, Any]
    ranges: tuple[Range, ...]

    @staticmethod
    def read(path: str | Path) -> SearchSpace:
        """The space that a file describes.

        Raises:
            OptionError: it cannot be read, names an unknown option, or has a range that cannot be used.
        """
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise OptionError(f"config {path} cannot be read ({str(error).splitlines()[0]}).") from error
        if not isinstance(content, dict):
            raise OptionError(f"config {path} holds no options: give those of `ppvae run`, some of them with a range.")
        fixed: dict[str, Any] = {}
        ranges: list[Range] = []
        for name, value in content.items():
            _check_known(name)
            if name in OF_NAMES and isinstance(value, dict):
                found = {inner: _range(f"{name}.{inner}", one) for inner, one in value.items()}
                fixed[name] = {inner: value[inner] for inner, one in found.items() if one is None}
                ranges += [one for one in found.values() if one is not None]
            elif (one := _range(name, value)) is not None:
                ranges.append(one)
            else:
                fixed[name] = value
        if not ranges:
            raise OptionError(
                f"config {path} has no range: give one in place of a value, as in "
                "`learning_rate: {low: 0.0001, high: 0.01, log: true}`."
            )
        space = SearchSpace(_of_their_types(fixed, str(path)), tuple(ranges))
        space.settings({})
        return space

    def settings(self, values: dict[str, Any]) -> Settings:
        """The settings of a run with these values of the swept options; those left out have their defaults."""
        content: dict[str, Any] = {
            name: dict(value) if name in OF_NAMES else value for name, value in self.fixed.items()
        }
        for name, value in values.items():
            option, _, inner = name.partition(".")
            if inner:
                content.setdefault(option, {})[inner] = value
            else:
                content[option] = value
        return Settings(**content).check()


def _check_known(name: str) -> None:
    known = [field.name for field in fields(Settings)]
    if name not in known:
        raise OptionError(f"there is no option {name}{suggestion(str(name), known)}: `ppvae run --help` lists them.")


def _range(name: str, value: Any) -> Range | None:
    """The range that a value stands for; None where it is a value."""
    if not isinstance(value, dict) or not ({"low", "high", "choices"} & set(value)):
        return None
    if name.partition(".")[0] not in (*OF_NAMES, *MAY_VARY):
        raise OptionError(f"{name} must be the same in all trials, since they are compared datum by datum.")
    if set(value) == {"choices"}:
        if not isinstance(value["choices"], list) or len(value["choices"]) < 2:
            raise OptionError(f"{name} must have two choices or more, in a list.")
        return Range(name, choices=tuple(value["choices"]))
    if not {"low", "high"} <= set(value) <= {"low", "high", "log"}:
        raise OptionError(
            f"{name} must have low and high (and log: true where it is searched on that scale), or choices."
        )
    low, high, log = _number(name, value["low"]), _number(name, value["high"]), bool(value.get("log", False))
    if not low < high or (log and low <= 0):
        raise OptionError(f"{name} must have low < high{', above 0 since log is true' * log}; it has {low} and {high}.")
    return Range(name, low, high, log)


def _number(name: str, value: Any) -> float:
    """A number, also where YAML takes it for a word, as 1e-3."""
    try:
        number = value if isinstance(value, int) and not isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise OptionError(f"{name} must have numbers as low and high; it has {value!r}.")
    return number


def _of_their_types(fixed: dict[str, Any], path: str) -> dict[str, Any]:
    """The values as the command line would read them."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Settings, as_group=False)
    try:
        parsed = parser.parse_object(fixed).as_dict()
    except ArgumentError as error:
        raise OptionError(f"config {path}: {' '.join(str(error).split()).rstrip('.')}.") from error
    return {name: parsed[name] for name in fixed}
