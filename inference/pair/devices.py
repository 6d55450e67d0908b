"""On which device a pair is: its parameters, and the data that meet them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ..options import callable_of
from .arguments import Batch, map_tensors
from .modes import Program, reachable_modules
from .randomness import generator_kept


def where_parameters_are(model: Program, guide: Program, batch: Batch) -> Batch:
    """The batch on the device of the pair's parameters: training may have moved them.

    Raises:
        OptionError: a program cannot be called.
    """
    for name, program in (("model", model), ("guide", guide)):
        callable_of(name, program, f"a program, {name}(x, *context)")
    modules = reachable_modules(model, guide)
    parameter = next((p for module in modules for p in module.parameters()), None)
    if parameter is None and torch.accelerator.is_available():
        found = (_first_parameter(program, batch) for program in (guide, model))
        parameter = next((p for p in found if p is not None), None)
    return batch if parameter is None else map_tensors(lambda leaf: leaf.to(parameter.device), batch)


def _first_parameter(program: Program, batch: Batch) -> Any:
    """A parameter of a program that no module holds; the run may fail afterwards, on data in another place."""
    with torch.no_grad(), generator_kept(), suppress(Exception), poutine.trace(param_only=True) as captured:
        program(*batch)
    nodes: dict[str, Any] = captured.trace.nodes
    return next((site["value"] for site in nodes.values() if isinstance(site["value"], Tensor)), None)
