"""Checkpoints: one format for all work that can be resumed, in one file that appears whole or not at all.

A file holds tensors, numbers, strings and containers of them, and loads without running code. With them it holds a
fingerprint of what it belongs to, and is refused by anything else.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ppvae.errors import CheckpointError
from ppvae.storage import atomic_path

FORMAT = 2


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, and containers of them) to ``path`` atomically.

    Raises:
        RunError: the folder cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(checkpoint_content(state))


def checkpoint_content(state: dict[str, Any]) -> bytes:
    """The content of the file that :func:`write_checkpoint` writes."""
    content = io.BytesIO()  # torch's own writer hides that a disk is full
    torch.save({"format": FORMAT, **state}, content)
    return content.getvalue()


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


def fingerprint(parameters: dict[str, Tensor], data: tuple[Any, ...], **options: Any) -> dict[str, str]:
    """What must agree between a checkpoint and what goes on from it: names and shapes, data, options."""
    shapes = {name: list(value.shape) for name, value in sorted(parameters.items())}
    return {"pair": json.dumps(shapes), "data": digest(data), **{name: str(value) for name, value in options.items()}}


def digest(parts: Iterable[Any]) -> str:
    """A hash of the tensors among ``parts``: their shapes, types and bits."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            found.update(str((tuple(part.shape), part.dtype)).encode())
            found.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def check_fingerprint(path: Path, saved: dict[str, str], present: dict[str, str]) -> None:
    """Refuse a checkpoint that belongs to something else.

    Raises:
        CheckpointError: pair, data or an option differ; the sentence says which.
    """
    for name, value in present.items():
        if saved.get(name) != value:
            raise CheckpointError(
                f"the checkpoint {path} is of {_difference(name, saved.get(name), value)}: go on with what it was "
                "started with, or start anew with another checkpoint file."
            )


def _difference(name: str, saved: str | None, value: str) -> str:
    if name == "pair":
        ours, theirs = json.loads(value), json.loads(saved or "{}")
        differing = sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
        return f"another pair (its parameters differ, first {differing[0]!r})"
    if name == "values":
        return "another pair (its parameters have other values)"
    return "other data" if name == "data" else f"other options ({name} = {saved}, not {value})"
