"""The loggers of a run: Lightning Fabric's, or any object with ``log_metrics(metrics, step=...)``, by import path.

They are given the ELBOs after each epoch, beside ``metrics.csv``.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppvae.errors import OptionError, suggestion

from .import_paths import resolve

KNOWN = {
    "csv": "lightning_fabric.loggers:CSVLogger",
    "tensorboard": "lightning_fabric.loggers:TensorBoardLogger",
}
# The argument by which a class of loggers takes its folder; the first that it has is given.
FOLDERS = ("root_dir", "save_dir")


def loggers_of(specs: Sequence[str], folder: Path) -> list[Any]:
    """Make the loggers that the specs name.

    Args:
        specs: ``csv``, ``tensorboard``, or an import path: of an object with ``log_metrics``, or of a class or function
            that makes one. It is given the folder if it has an argument ``root_dir`` or ``save_dir``.
        folder: the run directory.

    Raises:
        PpvaeError: a spec names nothing, or what it names makes no logger.
    """
    return [_logger(spec, folder) for spec in specs]


def _logger(spec: str, folder: Path) -> Any:
    if spec not in KNOWN and ":" not in spec and not spec.endswith(".py"):
        raise OptionError(
            f"there is no logger {spec!r}{suggestion(spec, KNOWN)}: give csv, tensorboard, my_file.py:Name or "
            "package.module:Name."
        )
    made = resolve(KNOWN.get(spec, spec), "loggers")
    if inspect.isclass(made) or not callable(getattr(made, "log_metrics", None)):
        made = _called(made, spec, folder)
    if not callable(getattr(made, "log_metrics", None)):
        raise OptionError(f"the logger {spec} has no method log_metrics(metrics, step=...): give one that has.")
    return made


def _called(make: Any, spec: str, folder: Path) -> Any:
    """What a class or a function of loggers makes."""
    if not callable(make):
        raise OptionError(
            f"the logger {spec} is neither a logger nor a class or function that makes one: name such a one."
        )
    takes = [name for name in FOLDERS if name in inspect.signature(make).parameters][:1]
    try:
        return make(**{name: str(folder) for name in takes})
    except ImportError as error:
        raise OptionError(f"the logger {spec} needs a package that is not installed: {error}") from error
    except Exception as error:
        raise OptionError(f"the logger {spec} cannot be made ({type(error).__name__}: {error}).") from error


def finish(loggers: Sequence[Any]) -> None:
    """Close the loggers that want to be closed."""
    for logger in loggers:
        if callable(finalize := getattr(logger, "finalize", None)):
            finalize("success")
