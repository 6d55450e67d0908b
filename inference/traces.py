"""Run a pair of programs once and hold what they did.

A pair is two callables, ``model(x, *context)`` and ``guide(x, *context)``. This file finds the plate that holds the
data, runs guide and model under an outer plate of particles, and gives back the two traces. Everything that is
computed from log probabilities (weights, evidence, checks) starts here.

The layout of batch dimensions, from the right: the data plate at −1; the pair's further plates to its left; the
particle plate left of them all; enumerated discrete sites further left still.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from ppvae.errors import DataError, PairError

Program = Callable[..., Any]
Batch = tuple[Any, ...]

PARTICLES = "_ppvae_particles"

# What a program raises when it does not fit the data it is run on.
FAILURES = (ValueError, RuntimeError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError)


@dataclass(frozen=True)
class Plates:
    """Where a pair keeps its data: the name of the data plate (dim −1), its size, and how many plates are nested."""

    data: str
    size: int
    nesting: int

    @property
    def particle_dim(self) -> int:
        """The dim of the particle plate: left of every plate of the pair."""
        return -self.nesting - 1


def as_batch(x: Tensor | Batch) -> Batch:
    """``x`` or ``(x, *context)`` as the tuple of arguments that both programs take."""
    batch = tuple(x) if isinstance(x, (tuple, list)) else (x,)
    if not batch or not isinstance(batch[0], Tensor) or batch[0].dim() == 0:
        kind = type(batch[0]).__name__ if batch else "an empty tuple"
        raise DataError(
            f"x must be a tensor whose first dimension counts the data, or a tuple (x, *context); it is {kind}: "
            "convert it with torch.as_tensor."
        )
    if len(batch[0]) == 0:
        raise DataError("x holds no data (its first dimension is 0): give at least one datum.")
    return batch


def rows(batch: Batch, index: Any) -> Batch:
    """The data that ``index`` selects, of every member of the batch that runs over the data."""
    n = len(batch[0])
    return tuple(b[index] if isinstance(b, Tensor) and b.dim() and len(b) == n else b for b in batch)


@contextmanager
def generator_kept(seed: int | None = None) -> Iterator[None]:
    """Leave every global generator as it was found; inside, start from ``seed`` when one is given."""
    state = pyro.util.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    try:
        if seed is not None:
            pyro.set_rng_seed(seed)
        yield
    finally:
        pyro.util.set_rng_state(state)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """With a seed: draw from it and leave the global generators as they were. Without: draw from the global ones."""
    if seed is None:
        yield
        return
    with generator_kept(seed):
        yield


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


def plain_traces(model: Program, guide: Program, batch: Batch) -> tuple[Trace, Trace]:
    """Guide and model as written, one particle, without densities: ``(model_trace, guide_trace)``.

    The global generators are left as they were found.
    """
    with torch.no_grad(), generator_kept():
        guide_trace = poutine.trace(guide).get_trace(*batch)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*batch)
    return model_trace, guide_trace


def find_plates(model_trace: Trace, guide_trace: Trace, num_data: int) -> Plates:
    """The data plate of a pair, read off its traces.

    Raises:
        PairError: no sample site lies in a vectorised plate at dim −1 that runs over the data.
    """
    frames = {
        frame
        for trace in (model_trace, guide_trace)
        for _, site in sample_sites(trace)
        for frame in site["cond_indep_stack"]
        if frame.vectorized
    }
    nesting = max((-frame.dim for frame in frames), default=0)
    for frame in sorted(frames, key=lambda f: f.name):
        # A subsampling plate has the size of the whole data set and shows only the batch.
        if frame.dim == -1 and num_data in (frame.size, _visible(frame, model_trace, guide_trace)):
            return Plates(frame.name, frame.size, nesting)
    at_last = sorted(f"{f.name!r} of size {f.size}" for f in frames if f.dim == -1)
    found = f"the plates at dim -1 are {', '.join(at_last)}" if at_last else "it has no plate at dim -1"
    raise PairError(
        f"the pair has no plate over its {num_data} data ({found}): put every latent and the observation inside "
        "`with pyro.plate('data', len(x)):` (dim -1), in the model and in the guide."
    )


def _visible(frame: Any, *traces: Trace) -> int | None:
    """How many data a subsampling plate shows."""
    for trace in traces:
        value = trace.nodes[frame.name]["value"] if frame.name in trace.nodes else None
        if isinstance(value, Tensor):
            return len(value)
    return None


def plates_of(model: Program, guide: Program, batch: Batch, traces: tuple[Trace, Trace] | None = None) -> Plates:
    """Find the plates of a pair in its :func:`plain_traces`, which are made if they are not given.

    Run again on all data but the last, it must show the same plate with one less: another plate may happen to be as
    long as the data are.
    """
    n = len(batch[0])
    plates = find_plates(*(traces or plain_traces(model, guide, batch)), n)
    if n > 1:
        fewer = rows(batch, slice(0, n - 1))
        try:
            find_plates(*plain_traces(model, guide, fewer), n - 1)
        except PairError as error:
            raise PairError(
                f"the plate at dim -1, {plates.data!r}, keeps its size {plates.size} when the data are fewer, so it is "
                "not the plate over the data: put `pyro.plate('data', len(x))` at dim -1, and other plates left of it."
            ) from error
    return plates


def particle_traces(
    model: Program, guide: Program, batch: Batch, num_particles: int, plates: Plates
) -> tuple[Trace, Trace]:
    """``num_particles`` draws of the guide for every datum, and the model replayed on them.

    Sites with ``infer={"enumerate": "parallel"}`` are enumerated, the guide's first, then the model's: each takes a
    dim of its own, left of the particle dim. The traces hold log densities that are not yet scaled or summed.
    """

    def under_particles(program: Program) -> Program:
        def run(*args: Any) -> Any:
            with pyro.plate(PARTICLES, num_particles, dim=plates.particle_dim):
                return program(*args)

        return run

    guide = EnumMessenger(first_available_dim=plates.particle_dim - 1)(under_particles(guide))
    model = EnumMessenger()(under_particles(model))  # goes on from the guide's dims
    guide_trace = poutine.trace(guide).get_trace(*batch)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*batch)
    return prune_subsample_sites(model_trace), prune_subsample_sites(guide_trace)
