"""The provenance of numbers: the versions of the libraries, and the device."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING

import ppvae

if TYPE_CHECKING:  # torch is slow to import, and `ppvae --help` needs a run directory's settings only
    import torch


def versions() -> dict[str, str]:
    """The versions of Python, of ppvae and of the libraries that compute the numbers."""
    names = ("torch", "pyro-ppl", "numpy", "lightning-fabric", "arviz-stats")
    return {"ppvae": ppvae.__version__, "python": platform.python_version(), **{name: version(name) for name in names}}


def device_name(device: torch.device) -> str:
    """The name of a device."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"
