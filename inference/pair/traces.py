"""Runs of a program, and what a run holds: its sample sites, sized plates, log densities."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from pyro.poutine.broadcast_messenger import BroadcastMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import SubsampleMessenger
from torch import Tensor

from .arguments import Batch
from .distributions import bare, is_point_mass
from .randomness import generator_kept

Program = Callable[..., Any]

# What a program raises when it does not fit the data it is run on: anything but an interruption.
FAILURES = (Exception,)


def sample_sites(trace: Trace) -> Iterator[tuple[str, dict[str, Any]]]:
    """The sample statements of a trace that carry probability (no subsampling, no ``pyro.deterministic``)."""
    nodes: dict[str, Any] = trace.nodes
    for name, site in nodes.items():
        if site["type"] != "sample" or type(site["fn"]).__name__ == "_Subsample":
            continue
        if not site["infer"].get("_deterministic", False):
            yield name, site


def latents(trace: Trace) -> dict[str, dict[str, Any]]:
    """The sites of a trace that are drawn, not observed."""
    return {name: site for name, site in sample_sites(trace) if not site["is_observed"]}


def observations(trace: Trace) -> dict[str, dict[str, Any]]:
    """The observed sites of a trace, without those of ``pyro.factor``."""
    return {name: site for name, site in sample_sites(trace) if site["is_observed"] and not is_factor(site)}


def is_factor(site: dict[str, Any]) -> bool:
    """Whether a site is a ``pyro.factor``, or an observed point mass whose ``log_density`` makes it one."""
    fn = bare(site["fn"])
    if site["is_observed"] and is_point_mass(fn):
        return bool((torch.as_tensor(fn.log_density) != 0).any())
    return type(fn).__name__ == "Unit"


def enumerated(site: dict[str, Any]) -> bool:
    """Whether a site is to be summed out (``infer={"enumerate": "parallel"}``), and not over some draws of it."""
    return site["infer"].get("enumerate") == "parallel" and not drawn_in_parallel(site)


def drawn_in_parallel(site: dict[str, Any]) -> bool:
    """Whether Pyro is to draw a site so many times at once (``"num_samples"``), which is no sum over its values."""
    return site["infer"].get("num_samples") is not None


def drawn_once(site: Any) -> Any:
    """The configuration that has Pyro draw such a site as any other."""
    return {"enumerate": None} if drawn_in_parallel(site) else {}


def plain_traces(model: Program, guide: Program, batch: Batch) -> tuple[Trace, Trace]:
    """Guide and model as written, one particle, without densities: ``(model_trace, guide_trace)``.

    The global generators are left as they were found.
    """
    with torch.no_grad(), generator_kept():
        guide_trace = poutine.trace(guide).get_trace(*batch)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*batch)
    return model_trace, guide_trace


class SizedPlate(Messenger):
    """Gives a plate that was made without a size, ``pyro.plate("data")``, the number of rows of the data."""

    def __init__(self, dim: int, size: int) -> None:
        super().__init__()
        self._dim, self._size = dim, size

    def _pyro_sample(self, msg: Any) -> None:
        stack = msg["cond_indep_stack"]
        if any(frame.dim == self._dim and frame.size == -1 for frame in stack):
            msg["cond_indep_stack"] = tuple(
                frame._replace(size=self._size) if frame.dim == self._dim else frame for frame in stack
            )
            BroadcastMessenger._pyro_sample(msg)


@contextmanager
def whole_plates(active: bool = True) -> Iterator[None]:
    """Every subsampling plate shows all of its data.

    A plate compares what it is told to show with the size that the program asks for, so that no handler can widen it;
    Pyro's own function that chooses the subsample is therefore stood in for while this lasts.
    """

    def everything(name: str, size: int | None = None, subsample_size: int | None = None, *args: Any) -> Any:
        return chosen(name, size, None if size is not None else subsample_size, *args)

    chosen = SubsampleMessenger._subsample
    with ExitStack() as stack:
        if active:
            stack.enter_context(mock.patch.object(SubsampleMessenger, "_subsample", staticmethod(everything)))
        yield


def is_weighted(site: dict[str, Any]) -> bool:
    """Whether ``poutine.scale`` weights a site: by the factor that its subsampling plates do not account for."""
    sized = [frame for frame in site["cond_indep_stack"] if (frame.full_size or 0) > 0 and frame.size > 0]
    of_plates = math.prod(frame.full_size / frame.size for frame in sized)
    scale = torch.as_tensor(site["scale"], dtype=torch.float64)
    return not bool(torch.isclose(scale, torch.tensor(of_plates, dtype=torch.float64).to(scale)).all())


def site_log_prob(site: dict[str, Any]) -> Tensor:
    """The log density of a site in float64, summed over events, masked, not scaled.

    An enumerated site is summed over its prior, masked or not, as Pyro has it: a sum over ones would count its values.
    """
    args, kwargs = site["args"], site["kwargs"]
    log_prob = site["fn"].log_prob(site["value"], *args, **kwargs)
    mask = None if site["infer"].get("_enumerate_dim") is not None else site["mask"]
    return scale_and_mask(log_prob, 1.0, mask).double()


def guide_log_prob(site: dict[str, Any]) -> Tensor:
    """The log density of a site of the guide; of a point mass at a function of other draws, its Jacobian's part.

    The value of such a site equals the point but for rounding, which must not make its density zero.
    """
    if not is_point_mass(site["fn"]):
        return site_log_prob(site)
    fn = site["fn"]
    return scale_and_mask(fn.log_prob(fn.mean), 1.0, site["mask"]).double()
