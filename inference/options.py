"""The options of inference: the one place that says what values they may have.

Each function takes the name of an argument and its value, and returns the value as plain Python: numpy's numbers and
tensors of no dimension count as the numbers that they hold, and a bool is no number. What cannot be used is refused in
one sentence.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppvae.errors import OptionError

# No count may be larger: work of this size never ends, and memory for it does not exist.
MOST = 10**9
# numpy's generator, which Pyro seeds with torch's and Python's, takes no larger seed.
MOST_SEED = 2**32 - 1
# Characters of a value that a sentence repeats.
SHOWN = 60


def whole_number(name: str, value: Any, least: int = 1, unit: str = "") -> int:
    """``value`` if it is a whole number from ``least`` to a thousand million.

    Raises:
        OptionError: it is not.
    """
    number, of = plain(value), f" {unit}" if unit else ""
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise OptionError(f"{name} must be an integer of at least {least}{of}; it is {shown(value)}.")
    if number > MOST:
        raise OptionError(f"{name} must be an integer of at most {MOST}{of}; it is {shown(value)}.")
    return number


def positive_number(name: str, value: Any, unit: str = "") -> float:
    """``value`` if it is a finite number above 0.

    Raises:
        OptionError: it is not.
    """
    number = real(value)
    if number is None or not 0 < number < math.inf:
        of = f" of {unit}" if unit else ""
        raise OptionError(f"{name} must be a positive number{of}; it is {shown(value)}.")
    return number


def not_negative(name: str, value: Any, unit: str = "") -> float:
    """``value`` if it is a number of at least 0; it may be infinite.

    Raises:
        OptionError: it is not.
    """
    number = real(value)
    if number is None or not number >= 0:
        of = f" of {unit}" if unit else ""
        raise OptionError(f"{name} must be a number{of} and must not be negative; it is {shown(value)}.")
    return number


def number_between(name: str, value: Any, low: float, high: float, unit: str = "") -> float:
    """``value`` if it is a number between two others, and none of them.

    Raises:
        OptionError: it is not.
    """
    number = real(value)
    if number is None or not low < number < high:
        of = f" {unit}" if unit else ""
        raise OptionError(f"{name} must lie between {low:g} and {high:g}{of}; it is {shown(value)}.")
    return number


def one_of(name: str, value: Any, known: Iterable[str]) -> Any:
    """``value`` if it is one of the known words.

    Raises:
        OptionError: it is not.
    """
    words = list(known)
    if not isinstance(value, str) or value not in words:
        raise OptionError(f"{name} must be one of {', '.join(map(repr, words))}; it is {shown(value)}.")
    return value


def flag(name: str, value: Any) -> bool:
    """``value`` if it is True or False.

    Raises:
        OptionError: it is not.
    """
    found = plain(value)
    if not isinstance(found, bool):
        raise OptionError(f"{name} must be True or False; it is {shown(value)}.")
    return found


def flag_or(word: str, name: str, value: Any) -> Any:
    """``value`` if it is True, False or one word.

    Raises:
        OptionError: it is not.
    """
    if isinstance(value, str) and value == word:
        return value
    found = plain(value)
    if not isinstance(found, bool):
        raise OptionError(f"{name} must be {word!r}, True or False; it is {shown(value)}.")
    return found


def valid_seed(value: Any) -> int | None:
    """The argument ``seed``, if the generators can be started from it; or None, which leaves them as they are.

    Raises:
        OptionError: it is neither.
    """
    number = plain(value)
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MOST_SEED:
        raise OptionError(f"seed must be an integer from 0 to {MOST_SEED}, or None; it is {shown(value)}.")
    return number


def valid_memory(value: Any) -> float:
    """The argument ``memory_mb``, if it is a finite positive number.

    Raises:
        OptionError: it is not.
    """
    return positive_number("memory_mb", value, "mebibytes")


def valid_compute(seed: Any, memory_mb: Any, progress: Any = False) -> tuple[int | None, float, bool]:
    """The three arguments that every estimator has: ``seed``, ``memory_mb`` and ``progress``.

    Raises:
        OptionError: one of them cannot be used.
    """
    return valid_seed(seed), valid_memory(memory_mb), flag("progress", progress)


def file_path(name: str, value: Any) -> Path | None:
    """The path of a file that exists or may be made; or None.

    Raises:
        OptionError: it is no path, or that of a folder.
    """
    if value is None:
        return None
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise OptionError(f"{name} must be the path of a file, or None; it is {shown(value)}.")
    if Path(text).is_dir():
        raise OptionError(f"{name} must be the path of a file; {shown(text)} is a folder: give a file in it.")
    return Path(text)


def callable_of(name: str, value: Any, what: str) -> Callable[..., Any]:
    """``value`` if it can be called.

    Raises:
        OptionError: it cannot.
    """
    if not callable(value):
        raise OptionError(f"{name} must be {what}; it is {shown(value)}.")
    return value


def instance_of(name: str, value: Any, kind: Any, what: str) -> Any:
    """``value`` if it is of a type, which is described in words.

    Raises:
        OptionError: it is not.
    """
    if not isinstance(value, kind):
        raise OptionError(f"{name} must be {what}; it is {shown(value)}.")
    return value


def real(value: Any) -> float | None:
    """A real number as a float; None for anything else, bools among it.

    Example:
        >>> real(torch.tensor(0.5)), real("0.5"), real(True)
        (0.5, None, None)
    """
    number = plain(value)
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        return None
    try:
        return float(number)
    except OverflowError:
        return math.inf


def made(name: str, kind: Any, make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a function that was given as an option makes, if it is of a type.

    Raises:
        OptionError: it is not, or the function fails, with its error as the cause.
    """
    try:
        value = make(*args, **kwargs)
    except Exception as error:
        said = str(error).strip().splitlines() or ["without a word"]
        raise OptionError(
            f"{name} must make a torch {kind.__name__}; it fails ({type(error).__name__}: {said[0]})."
        ) from error
    if not isinstance(value, kind):
        raise OptionError(f"{name} must make a torch {kind.__name__}; what it makes is {shown(value)}.")
    return value


def plain(value: Any) -> Any:
    """The number in a numpy scalar, or in an array or a tensor of no dimension; anything else as it is."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    if isinstance(value, Tensor) and value.dim() == 0 and value.layout == torch.strided and not value.is_meta:
        return value.item()
    return value


def shown(value: Any) -> str:
    """A value as a sentence can repeat it: short, and in one line."""
    if isinstance(value, Tensor):
        return f"a {'sparse ' if value.layout != torch.strided else ''}tensor of shape {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, int) and value.bit_length() > 1000:  # Python refuses to write much longer ones out
        return f"an integer of {value.bit_length()} bits"
    if value is None or isinstance(value, (bool, int, float, complex, np.generic)):
        return repr(value)
    if isinstance(value, str):
        return repr(value if len(value) <= SHOWN else f"{value[:SHOWN]}…")
    return f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"
