"""The objects that words name: `VAE`, `my_file.py:MyPair`, `my_file.py`, `package.module:MyPair`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from ppvae.errors import PairError, PpvaeError, suggestion


def resolve(spec: str, what: str) -> Any:
    """The object that a spec names.

    Args:
        spec: a name in ``ppvae.models``; ``file.py:Name``; ``file.py``; ``package.module:Name``.
        what: the option: ``"pair"`` and ``"likelihood"`` have names of their own, others only paths.

    Raises:
        PairError: there is nothing of that name, or its file fails.

    Example:
        >>> resolve("VAE", "pair").__name__
        'VAE'
    """
    where, _, name = spec.partition(":")
    if where.endswith(".py"):
        module = _load_file(Path(where).expanduser())
    elif ":" in spec:
        module = _load_module(where, spec)
    else:
        known = _known(what)
        if spec not in known:
            ours = f"one of {', '.join(known)}, " if known else ""
            missing = f"there is no {what} {spec!r}{suggestion(spec, known)}"
            raise PairError(f"{missing}: give {ours}my_file.py:Name or package.module:Name.")
        return known[spec]
    if not name:
        return module
    if not hasattr(module, name):
        names = [n for n in vars(module) if not n.startswith("_")]
        raise PairError(f"{where} holds nothing of the name {name!r}{suggestion(name, names)}: correct --{what}.")
    return getattr(module, name)


def known_pairs() -> dict[str, type]:
    """The pairs of ppvae.models, by name."""
    return {name: c for name, c in _classes().items() if hasattr(c, "model") and hasattr(c, "guide")}


def known_likelihoods() -> dict[str, type]:
    """The likelihoods of ppvae.models, by name."""
    return {name: c for name, c in _classes().items() if hasattr(c, "initial_bias") and not inspect.isabstract(c)}


def _known(what: str) -> dict[str, type]:
    if what == "likelihood":
        return known_likelihoods()
    return known_pairs() if what == "pair" else {}


def _classes() -> dict[str, type]:
    from ppvae import models  # slow to import

    return {name: c for name in models.__all__ if inspect.isclass(c := getattr(models, name))}


def _load_file(file: Path) -> ModuleType:
    """Run a user's file as a module; the files beside it can be imported, as when Python runs it."""
    if not file.is_file():
        raise PairError(f"there is no file {file}: correct the path.")
    name = f"_ppvae_{abs(hash(file.absolute())):x}_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    loader = spec.loader
    assert loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up there
    folder = str(file.absolute().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    call_user_code(f"{file} cannot be loaded", file, lambda: loader.exec_module(module))
    return module


def _load_module(name: str, spec: str) -> ModuleType:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does; the installed command does not
    try:
        if not name or importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError
    except (ModuleNotFoundError, ValueError) as error:
        raise PairError(
            f"there is no module {name!r} in {spec!r}: install it, or give the path of a .py file."
        ) from error
    return call_user_code(f"{name} cannot be imported", None, lambda: importlib.import_module(name))


def call_user_code(what: str, file: Path | None, call: Callable[[], Any]) -> Any:
    """Call the user's own code; an exception in it becomes a PairError that names the line."""
    try:
        return call()
    except PpvaeError:
        raise
    except SyntaxError as error:
        place = (
            f"line {error.lineno}" if file and error.filename == str(file) else f"{error.filename}, line {error.lineno}"
        )
        raise PairError(f"{what}: {error.msg} in {place}.") from error
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        in_file = [frame for frame in frames if file is not None and frame.filename == str(file)] or frames
        reason = (str(error).strip().splitlines() or [""])[0]
        raise PairError(
            f"{what}: {type(error).__name__} in {in_file[-1].filename}, line {in_file[-1].lineno}: {reason}"
        ) from error


def user_file(spec: str) -> Path | None:
    """The user's file that a spec names, if it names one."""
    where = spec.partition(":")[0]
    return Path(where).expanduser() if where.endswith(".py") else None
