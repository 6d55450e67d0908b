"""The pair that the settings of a run name: `VAE`, `my_file.py:MyPair`, `my_file.py` or `package.module:MyPair`.

The name stands for a class, an object or a module; a class is instantiated first. The result must have the two programs
`model` and `guide`. Arguments come as plain values, from the command line or from YAML; two need not be given, because
they follow from the data: `num_features`, their width, and `likelihood`.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import partial
from typing import Any, get_origin

import torch
from torch import Tensor

from ppvae.datasets import Dataset, without_missing
from ppvae.errors import DataError, OptionError, PairError, suggestion
from ppvae.storage import Settings

from .import_paths import call_user_code, resolve, user_file

_BINARY = ("mnist", "binarized_mnist", "jsb_chorales")


def with_data(settings: Settings) -> Settings:
    """The settings with the name of data in place of ``auto``: what the pair names as its example, else digits.

    Example:
        >>> with_data(Settings(pair="ItemResponse")).data, with_data(Settings(pair="VAE")).data
        ('lsat6', 'digits')
    """
    if settings.data != "auto":
        return settings
    return replace(settings, data=getattr(resolve(settings.pair, "pair"), "default_data", "digits"))


def make_pair(settings: Settings, data: Dataset) -> Any:
    """The pair that the settings name, made for the data: an object with the programs ``model`` and ``guide``.

    A class with a classmethod ``for_data(x, ...)`` is made by it, another by its constructor. A ``for_data``
    of this package only takes starting values from x: it sees others of the column in place of missing values.

    Args:
        settings: ``pair``, ``pair_args``, ``likelihood`` and ``likelihood_args``; fresh weights come from ``seed``.
        data: the data to train on.

    Raises:
        PairError: there is no such pair, it has no two programs, or its file or constructor fails.
        OptionError: an argument is missing, or unknown, or a likelihood is needed and none was chosen.
        DataError: the data lie outside the likelihood's support.

    Example:
        >>> from ppvae.datasets import load_dataset
        >>> make_pair(Settings(pair_args={"latent_dim": 3}), load_dataset("digits")).latent_dim
        3
    """
    target = resolve(settings.pair, "pair")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        pair = _instance(target, settings, data) if inspect.isclass(target) else _as_given(target, settings)
    missing = [name for name in ("model", "guide") if not callable(getattr(pair, name, None))]
    if missing:
        raise PairError(
            f"{settings.pair} has no {' and no '.join(missing)}: a pair is a class, an object or a file with two "
            "functions, model(x) and guide(x)."
        )
    return pair


def _as_given(target: Any, settings: Settings) -> Any:
    """An object or a module is taken as it is."""
    if settings.pair_args:
        raise OptionError(f"{settings.pair} is not a class, so it takes no --pair_args: leave them out.")
    if settings.likelihood is not None:
        raise OptionError(f"{settings.pair} takes no likelihood: leave --likelihood out.")
    return target


def _instance(target: type, settings: Settings, data: Dataset) -> Any:
    x = data.draw(data.some())
    for_data = getattr(target, "for_data", None)
    accepted = _parameters(target) | (_parameters(for_data) if for_data else {})
    args = dict(settings.pair_args)
    if "likelihood" in args:
        raise OptionError("the likelihood is no argument of --pair_args: name it with --likelihood.")
    if for_data:
        accepted = {name: p for name, p in accepted.items() if name not in {"x", "num_features"}}
    elif "num_features" in accepted:
        args.setdefault("num_features", x.shape[1])
    if "likelihood" in accepted:
        likelihood = _likelihood(settings, data, accepted["likelihood"].default is inspect.Parameter.empty)
        if likelihood is not None:
            args["likelihood"] = likelihood
            _check_support(likelihood, x, data)
    elif settings.likelihood is not None:
        raise OptionError(f"{settings.pair} takes no likelihood: leave --likelihood out.")
    args = _checked_args(settings.pair, "pair_args", args, accepted, _is_open(target))
    if for_data and for_data.__module__.startswith("ppvae."):
        x = without_missing(x)
    make = partial(for_data, x, **args) if for_data else partial(target, **args)
    return call_user_code(f"{settings.pair} cannot be made", user_file(settings.pair), make)


def _likelihood(settings: Settings, data: Dataset, required: bool) -> Any:
    """The likelihood that was chosen, else that of the data set, else None where the pair has a default."""
    spec, args = settings.likelihood, dict(settings.likelihood_args)
    if spec is None and args:
        raise OptionError("likelihood_args needs --likelihood, the name of the likelihood.")
    if spec is None and data.total_count is not None:
        spec, args = "Binomial", {"total_count": data.total_count}
    elif spec is None and data.name in _BINARY:
        spec = "Bernoulli"
    if spec is None:
        if required:
            raise OptionError(
                f"{settings.pair} needs --likelihood for {data.name}: Bernoulli for values 0 and 1, Binomial for "
                "counts up to a known number, Poisson for other counts, NormalSharedScale for real numbers."
            )
        return None
    target = resolve(spec, "likelihood")
    accepted = _parameters(target)
    if "num_features" in accepted:
        args.setdefault("num_features", data.train.shape[1])
    args = _checked_args(spec, "likelihood_args", args, accepted, _is_open(target))
    return call_user_code(f"{spec} cannot be made", user_file(spec), partial(target, **args))


def _check_support(likelihood: Any, x: Tensor, data: Dataset) -> None:
    """All data, in training form, must lie in the likelihood's support, but for missing values."""
    if not hasattr(likelihood, "check"):
        return
    parts = (("training", data.portions("train") if data.streams else [x]), ("validation", [data.validation]))
    for part, rows in ((part, rows) for part, each in (*parts, ("test", [data.test])) for rows in each):
        try:
            likelihood.check(without_missing(data.draw(rows) if data.streams and part == "training" else rows))
        except DataError as error:
            raise DataError(f"in the {part} part of {data.name}, {error}") from error


def _parameters(target: Any) -> dict[str, inspect.Parameter]:
    """The parameters of a callable that can be given by name."""
    kinds = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    return {name: p for name, p in inspect.signature(target).parameters.items() if p.kind in kinds}


def _is_open(target: type) -> bool:
    """Whether the constructor takes arguments of any name."""
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in inspect.signature(target).parameters.values())


def _checked_args(
    spec: str, option: str, args: dict[str, Any], accepted: dict[str, inspect.Parameter], any_name: bool
) -> dict[str, Any]:
    """The arguments, if the callable takes them; the name of a class becomes the class where one is wanted."""
    for name in args:
        if name not in accepted and not any_name:
            takes = ", ".join(name for name in accepted if name != "likelihood") or "none"
            raise OptionError(
                f"{spec} takes no argument {name!r}{suggestion(name, accepted)}: its arguments are {takes}."
            )
    missing = [n for n, p in accepted.items() if p.default is inspect.Parameter.empty and n not in args]
    if missing and accepted[missing[0]].annotation in (Tensor, "Tensor"):
        raise OptionError(
            f"{spec} is made from the array {missing[0]}, which no option holds: make it in Python by "
            f"{spec}.for_data and train it by fit, or name a file that makes it, --pair my_file.py."
        )
    if missing:
        raise OptionError(f"{spec} needs the argument {missing[0]}: give it with --{option}.{missing[0]}.")
    wants_class = {name for name, p in accepted.items() if get_origin(p.annotation) is type}
    return {
        name: resolve(value, name) if name in wants_class and isinstance(value, str) else value
        for name, value in args.items()
    }
