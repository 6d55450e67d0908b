"""Checkpoints of a training: one file that appears whole or not at all, and loads without running code.

A file holds the values of all parameters and buffers, the optimiser, the scheduler, the generators, the place in the
data and what early stopping knows, so that a training killed at any point goes on as if it had not been. It also
holds a fingerprint of the pair and the data, and is refused by any other.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn

from ppvae.errors import CheckpointError
from ppvae.storage import atomic_path

from .parameters import modules_of, named_parameters, own_parameters
from .traces import Batch, Program, as_batch

FORMAT = 2


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, and containers of them) to ``path`` atomically.

    Raises:
        RunError: the folder cannot be written.
    """
    content = io.BytesIO()  # torch's own writer hides that a disk is full
    torch.save({"format": FORMAT, **state}, content)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state that :func:`write_checkpoint` wrote.

    Raises:
        CheckpointError: the file is missing, damaged, or not a checkpoint of this version.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"there is no checkpoint at {path}: give the file of an earlier training, or start anew.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different type for each kind of damage
        raise CheckpointError(
            f"the checkpoint {path} is damaged or is not a checkpoint ({type(error).__name__}): "
            "restore it from a copy, or remove it and start anew."
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this version of ppvae: start anew.")
    return state


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


def fingerprint(parameters: dict[str, Tensor], data: tuple[Any, ...], **options: Any) -> dict[str, str]:
    """What must agree between a checkpoint and the training that goes on from it."""
    shapes = {name: list(value.shape) for name, value in sorted(parameters.items())}
    digest = hashlib.sha256()
    for part in data:
        if isinstance(part, Tensor):
            digest.update(str((tuple(part.shape), part.dtype)).encode())
            digest.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return {
        "pair": json.dumps(shapes),
        "data": digest.hexdigest(),
        **{name: str(value) for name, value in options.items()},
    }


def check_fingerprint(path: Path, saved: dict[str, str], present: dict[str, str]) -> None:
    """Refuse a checkpoint that belongs to something else.

    Raises:
        CheckpointError: pair, data or an option differ; the sentence says which.
    """
    for name, value in present.items():
        if saved.get(name) == value:
            continue
        if name == "pair":
            ours, theirs = json.loads(value), json.loads(saved.get("pair", "{}"))
            differing = sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
            what = f"another pair (its parameters differ, first {differing[0]!r})"
        elif name == "data":
            what = "other data"
        else:
            what = f"{name} = {saved.get(name)}, not {value}"
        raise CheckpointError(
            f"the checkpoint {path} is of a training with {what}: resume it with what it was started with, or start "
            "anew with another checkpoint file."
        )


def values_of(parameters: dict[str, Tensor], modules: list[nn.Module]) -> dict[str, Any]:
    """Copies of all parameters and of the modules' buffers."""
    return {
        "parameters": {name: p.detach().clone() for name, p in parameters.items()},
        "buffers": [{name: b.clone() for name, b in module.named_buffers()} for module in modules],
    }


def put_values(
    parameters: dict[str, Tensor], modules: list[nn.Module], values: dict[str, Any], device: torch.device
) -> None:
    """Put what :func:`values_of` copied back in place, on a device.

    Raises:
        KeyError, ValueError: the values are of something else.
    """
    for name, parameter in parameters.items():
        parameter.data = values["parameters"][name].to(device, copy=True)
    for module, buffers in zip(modules, values["buffers"], strict=True):
        for name, buffer in module.named_buffers():
            buffer.data = buffers[name].to(device, copy=True)


def load_parameters(path: str | Path, model: Program, guide: Program, x: Tensor | Batch) -> dict[str, Any]:
    """Put the trained values of a checkpoint into a pair, in place, as :func:`ppvae.inference.fit` would leave them.

    Where early stopping was on, these are the values that scored best on the validation data. The pair gets the
    parameter store of its own that ``fit`` gives; values keep the type they were trained in and go where ``x`` is.

    Args:
        path: the file that ``fit(checkpoint=...)`` wrote.
        model: ``model(x, *context)``.
        guide: ``guide(x, *context)``.
        x: some data, on which the pair is run once so that all its parameters exist.

    Returns:
        ``parameters``, the unconstrained values by name, and what else is known of the training: ``history``,
        ``steps``, ``seconds``.

    Raises:
        CheckpointError: the checkpoint is missing, damaged, or of another pair.

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
    state, batch = read_checkpoint(Path(path)), as_batch(x)
    with own_parameters(model, guide, claim=True), torch.no_grad():
        parameters = named_parameters(model, guide, batch)
        try:
            check_fingerprint(Path(path), state["fingerprint"], {"pair": fingerprint(parameters, ())["pair"]})
            put_values(parameters, modules_of(model, guide), state["best"] or state["values"], batch[0].device)
            told = {"history": state["history"], "steps": state["place"][2], "seconds": state["sums"][1]}
        except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(
                f"the checkpoint {path} does not fit this pair ({type(error).__name__}): give the checkpoint of its "
                "own training."
            ) from error
    return {"parameters": parameters, **told}


class Keeper:
    """Writes the checkpoint every so often."""

    def __init__(self, training: Any, path: Path | None, marks: dict[str, str], every: float) -> None:
        self._training, self._path, self._marks, self._every = training, path, marks, every
        self._last = time.monotonic()

    def now(self) -> None:
        """Write it."""
        if self._path is not None:
            write_checkpoint(self._path, {"fingerprint": self._marks, **self._training.state_dict()})
        self._last = time.monotonic()

    def if_due(self) -> None:
        """Write it if the last one is old."""
        if self._path is not None and time.monotonic() - self._last >= self._every:
            self.now()
