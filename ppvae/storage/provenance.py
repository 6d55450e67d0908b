"""The provenance of numbers: the hash of the data, the versions of the libraries, the device."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING

import ppvae

if TYPE_CHECKING:  # torch is slow to import, and `ppvae --help` needs a run directory's settings only
    import torch

    from ppvae.datasets import Dataset


def data_hash(data: Dataset) -> str:
    """SHA-256 over the three parts and the context of each, in single precision."""
    digest = hashlib.sha256()
    for part in ("train", "validation", "test"):
        rows = getattr(data, part)
        digest.update(str(tuple(rows.shape)).encode())
        for values in data.portions(part):
            digest.update(values.float().contiguous().numpy().tobytes())
        for values in data.beside(part):
            digest.update(str(tuple(values.shape)).encode())
            digest.update(values.float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """The versions of Python, of ppvae and of the libraries that compute the numbers."""
    names = ("torch", "pyro-ppl", "numpy", "lightning-fabric", "arviz-stats")
    return {"ppvae": ppvae.__version__, "python": platform.python_version(), **{name: version(name) for name in names}}


def device_name(device: torch.device) -> str:
    """The name of a device."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"
