"""What a checkpoint of a training holds, beside the format that all checkpoints share (:mod:`ppvae.inference.resume`).

It is the values of all parameters and buffers, the optimiser, the scheduler, the generators, the place in the data and
what early stopping knows, so that a training killed at any point goes on as if it had not been.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn

from ppvae.errors import CheckpointError, PpvaeError

from ..pair import (
    FAILURES,
    Arguments,
    Batch,
    ParameterValues,
    Program,
    as_batch,
    buffers_kept,
    failed_run,
    generator_kept,
    named_parameters,
    prepare,
    reachable_modules,
    trained_parameters,
    untrained,
    where_parameters_are,
)
from ..resume import check_fingerprint, fingerprint, read_checkpoint, write_checkpoint

# Rows that a pair is run on so that all its parameters exist, where that does.
FEW_ROWS = 2


def generator_state() -> dict[str, Any]:
    """The states of torch's, numpy's and Python's global generators, as plain values."""
    state = pyro.util.get_rng_state()
    version, numbers, gauss = state["random"]
    kind, keys, *rest = state["numpy"]
    return {
        "torch": state["torch"],
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "random": [version, list(numbers), gauss],
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *rest],
    }


def set_generator_state(state: dict[str, Any]) -> None:
    """Put the global generators where :func:`generator_state` found them."""
    version, numbers, gauss = state["random"]
    kind, keys, *rest = state["numpy"]
    numpy_state = (kind, keys.numpy().astype(np.uint32), *rest)
    pyro.util.set_rng_state({"torch": state["torch"], "random": (version, tuple(numbers), gauss), "numpy": numpy_state})
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def values_of(parameters: dict[str, Tensor], modules: list[nn.Module]) -> dict[str, Any]:
    """Copies of all parameters and of the modules' buffers."""
    return {
        "parameters": {name: p.detach().clone() for name, p in parameters.items()},
        "buffers": [{name: b.clone() for name, b in module.named_buffers()} for module in modules],
    }


def put_values(
    parameters: dict[str, Tensor], modules: list[nn.Module], values: dict[str, Any], device: torch.device
) -> None:
    """Put what :func:`values_of` copied back in place, on a device; nothing is changed unless all of it fits.

    Raises:
        KeyError, ValueError: the values are of something else.
    """
    pairs = [(parameter, values["parameters"][name]) for name, parameter in parameters.items()]
    for module, buffers in zip(modules, values["buffers"], strict=True):
        pairs += [(buffer, buffers[name]) for name, buffer in module.named_buffers()]
    for place, value in pairs:
        if place.shape != value.shape:
            raise ValueError(f"a tensor of shape {tuple(value.shape)} has no place in {tuple(place.shape)}")
    for place, value in pairs:
        place.data = value.to(device, copy=True)


def save_values(path: Path, values: ParameterValues, told: dict[str, Any]) -> None:
    """Write trained values, and what else is told of the training, to a file that :func:`load_parameters` reads.

    Raises:
        RunError: the file cannot be written.
    """
    copies = {name: leaf.detach() for name, leaf in values.leaves.items()}
    buffers = [dict(buffers) for _, _, buffers in values.modules]
    marks = {"pair": fingerprint(copies, ())["pair"]}
    write_checkpoint(path, {"fingerprint": marks, "values": {"parameters": copies, "buffers": buffers}, **told})


def load_parameters(path: str | Path, model: Program, guide: Program, x: Tensor | Batch) -> dict[str, Any]:
    """Put the trained values of a file into a pair, in place, as :func:`ppvae.inference.fit` would leave them.

    Where early stopping was on, these are the values that scored best on the validation data. Pyro's parameter store
    and the pair's modules hold them afterwards; values keep the type they were trained in and go where ``x`` is. If
    the file is refused, store and modules are as they were.

    Args:
        path: the file that ``fit(checkpoint=...)`` or ``Fit.save`` wrote.
        model: ``model(x, *context)``.
        guide: ``guide(x, *context)``.
        x: data of the training's shape, on which the pair is run once so that all its parameters exist. Any few rows
            do, unless parameters have a row per datum or a plate has a fixed size: then as many as were trained on.

    Returns:
        ``parameters``, the unconstrained leaves by name, and what else is known of the training: ``history``,
        ``stopped`` (of a training's own checkpoint ``"interrupted"``), ``steps``, ``seconds``, ``step``, ``loss``,
        ``found``.

    Raises:
        CheckpointError: the file is missing, damaged, or of another pair.
        PairError: the programs cannot be run on ``x``.

    Example:
        >>> import tempfile, torch
        >>> from ppvae.inference import fit
        >>> from ppvae.models import LinearGaussian
        >>> x, path = torch.randn(50, 3), Path(tempfile.mkdtemp()) / "checkpoint.pt"
        >>> trained, fresh = LinearGaussian(3, 1), LinearGaussian(3, 1)
        >>> _ = fit(trained.model, trained.guide, x, epochs=2, checkpoint=path, progress=False)
        >>> load_parameters(path, fresh.model, fresh.guide, x)["steps"]
        2
        >>> bool((fresh.weight == trained.weight).all())
        True
    """
    state, device = read_checkpoint(Path(path)), as_batch(x)[0].device
    model, guide = untrained(model, guide)
    arguments = Arguments.of(where_parameters_are(model, guide, as_batch(x)))
    with torch.no_grad(), trained_parameters(fresh=True):
        try:
            marks = {"pair": str(state["fingerprint"]["pair"])}
            with buffers_kept(model, guide):
                parameters = _made(model, guide, arguments, marks["pair"])
            check_fingerprint(Path(path), marks, {"pair": _shapes(parameters)})
            values, told = state.get("best") or state["values"], _told(state)
            put_values(parameters, reachable_modules(model, guide), values, device)
        except PpvaeError:
            raise
        except FAILURES as error:
            raise CheckpointError(
                f"the checkpoint {path} does not fit this pair ({type(error).__name__}): give the checkpoint of its "
                "own training."
            ) from error
    return {"parameters": parameters, **told}


def _made(model: Program, guide: Program, arguments: Arguments, expected: str) -> dict[str, Tensor]:
    """The parameters that the pair makes on a few rows, if they are those expected, else on all."""
    prepare(guide, arguments)
    if arguments.num_rows > FEW_ROWS:
        with suppress(*FAILURES), generator_kept():
            parameters = named_parameters(model, guide, arguments.rows(slice(FEW_ROWS)).batch)
            if _shapes(parameters) == expected:
                return parameters
        pyro.get_param_store().clear()
    try:
        return named_parameters(model, guide, arguments.batch)
    except FAILURES as error:
        raise failed_run(error) from error


def _shapes(parameters: dict[str, Tensor]) -> str:
    return fingerprint(parameters, ())["pair"]


def _told(state: dict[str, Any]) -> dict[str, Any]:
    """What a file says of its training, beside the values."""
    return {
        "history": state["history"],
        "stopped": state.get("stopped", "interrupted"),
        "steps": state["place"][2],
        "seconds": state["sums"][1],
        "step": str(state.get("step", {}).get("name", "eager")),
        "loss": str(state.get("step", {}).get("loss", "ELBO")),
        "found": tuple(state.get("found", ())),
    }


def training_ended(path: str | Path) -> str | None:
    """Why the training of a checkpoint ended, ``"finished"`` or ``"plateau"``; None where it has not ended.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    ended = read_checkpoint(Path(path)).get("ended")
    return None if ended is None else str(ended)


class Keeper:
    """Writes the checkpoint every so often."""

    def __init__(self, training: Any, path: Path | None, marks: dict[str, str], every: float) -> None:
        self._training, self._path, self._marks, self._every = training, path, marks, every
        self._last = time.monotonic()

    def now(self, ended: str | None = None) -> None:
        """Write it; with why the training has ended, where it has."""
        if self._path is not None:
            marks = {"fingerprint": self._marks, "ended": ended}
            write_checkpoint(self._path, {**marks, **self._training.state_dict()})
        self._last = time.monotonic()

    def if_due(self) -> None:
        """Write it if the last one is old."""
        if self._path is not None and time.monotonic() - self._last >= self._every:
            self.now()
