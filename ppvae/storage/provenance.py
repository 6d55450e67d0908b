"""Where numbers come from: the data's hash, the versions of what computed them, the device."""

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
    """SHA-256 over the three parts, in single precision."""
    digest = hashlib.sha256()
    for part in (data.train, data.validation, data.test):
        digest.update(str(tuple(part.shape)).encode())
        digest.update(part.float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """The versions of what computes the numbers."""
    names = ("torch", "pyro-ppl", "numpy", "lightning-fabric", "arviz-stats")
    return {"ppvae": ppvae.__version__, "python": platform.python_version(), **{name: version(name) for name in names}}


def device_name(device: torch.device) -> str:
    """The device in words."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"
