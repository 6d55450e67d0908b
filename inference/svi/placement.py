"""Whether a pair can be trained on an accelerator: programs may hold tensors that stay on the CPU."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pyro
import torch

from ppvae.errors import first_line

from ..option_records import Compute
from ..pair import FAILURES, Batch, Program, buffers_kept, generator_kept, map_tensors, plain_traces, reachable_modules
from .batches import Source
from .launching import fabric_of

if TYPE_CHECKING:
    from lightning_fabric import Fabric  # which is slow to import


def fabric_for(
    model: Program, guide: Program, source: Source, accelerator: str, precision: Any, compute: Compute
) -> Fabric:
    """Lightning Fabric on the devices that were asked for; for ``"auto"`` on the CPU, if the pair runs on no other.

    Args:
        model: the generative program.
        guide: the guide.
        source: of the data that the programs are tried on, which are drawn only where there is something to try.
        accelerator: Fabric's.
        precision: Fabric's.
        compute: processes.

    Raises:
        OptionError: there is no such accelerator or precision here, or not so many devices.
    """
    fabric = fabric_of(accelerator, precision, compute)
    if accelerator != "auto" or fabric.device.type == "cpu" or fabric.world_size > 1:
        return fabric
    with generator_kept():
        reason = why_not_on(fabric.device, model, guide, source.shown)
    if reason is None:
        return fabric
    warnings.warn(
        f"the programs cannot be run on {fabric.device.type} ({reason}), so that they are trained on the CPU: make "
        "tensors where the data are, as in torch.zeros(3, device=x.device), or say accelerator='cpu'.",
        stacklevel=3,
    )
    return fabric_of("cpu", precision, compute)


def why_not_on(device: torch.device, model: Program, guide: Program, batch: Batch) -> str | None:
    """Why the programs fail on a device though they run on the CPU; None where they run, or fail on both.

    Parameters, buffers, the parameter store and the random generators are left as they were.
    """
    reason = _failure(device, model, guide, batch)
    return reason if reason is None or _failure(torch.device("cpu"), model, guide, batch) is None else None


def _failure(device: torch.device, model: Program, guide: Program, batch: Batch) -> str | None:
    modules = reachable_modules(model, guide)
    held = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    before = [tensor.data for tensor in held]
    store = pyro.get_param_store()
    with buffers_kept(model, guide), store.scope(store.get_state()):
        try:
            for module in modules:
                module.to(device)
            plain_traces(model, guide, map_tensors(lambda leaf: leaf.to(device), batch))
        except FAILURES as error:
            return f"{type(error).__name__}: {first_line(error)}"
        finally:
            for tensor, values in zip(held, before, strict=True):
                tensor.data = values
    return None
