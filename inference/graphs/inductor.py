"""A recorded graph, compiled by torch's inductor."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensorMode

from ppvae.errors import first_line

from .recording import NoGraph
from .rewrites import rewritten

# Noise is drawn by torch's own generators, so that it is that of the eager step. That shapes are those that it was
# compiled for is known, and need not be asked in every step.
INDUCTOR = {"fallback_random": True, "size_asserts": False, "alignment_asserts": False}
# From so many float64 numbers on, MKL's tanh is called: it takes a fourth of the time of the code that inductor makes.
LARGE_TANH = 10_000

Runner = Callable[..., Any]


def inductor(graph: torch.fx.GraphModule, inputs: list[Tensor], *, reuse_results: bool) -> Runner:
    """The graph as compiled code, from inductor's cache on the disk (``TORCHINDUCTOR_CACHE_DIR``) where it is there.

    Args:
        graph: as recorded.
        inputs: of the shapes, types and device that it will be called with.
        reuse_results: whether a call may write its results over those of the call before, as CUDA graphs do.

    Raises:
        NoGraph: it cannot be compiled.
    """
    try:
        with torch.no_grad(), _quiet():
            options = {name: value for name, value in INDUCTOR.items() if hasattr(torch._inductor.config, name)}
            # On a GPU a step of a small network is mostly the launching of kernels; a CUDA graph launches all at once.
            options["triton.cudagraphs"] = reuse_results and inputs[0].is_cuda
            if not inputs[0].is_cuda:
                # All code in one file, compiled at once: kernels are called from C++, without Python between them.
                options["cpp_wrapper"] = True
                # Inductor's patterns would put biases back into products.
                options["pattern_matcher"] = False
                _prepare(rewritten(graph))
            with _of_known_shapes(inputs) as shapes:
                return torch._inductor.compile(graph, shapes, options=options)
    except Exception as error:  # inductor raises a different type for each stage
        if "InvalidCxxCompiler" in f"{type(error).__name__}{error!r}":
            raise NoGraph("there is no C++ compiler, which torch's inductor needs") from error
        raise NoGraph(f"inductor cannot compile it ({type(error).__name__}: {first_line(error)})") from error


def _prepare(graph: torch.fx.GraphModule) -> None:
    """Ask for MKL's tanh, and remove the shapes that were recorded: the inputs tell inductor theirs."""
    for node in graph.graph.nodes:
        value = node.meta.get("val")
        large = isinstance(value, Tensor) and value.numel() >= LARGE_TANH
        node.meta.clear()
        if node.target is torch.ops.aten.tanh.default and large and torch.backends.mkl.is_available():
            node.meta["custom"] = {"fallback_to_eager": True}


@contextmanager
def _of_known_shapes(inputs: list[Tensor]) -> Iterator[list[Any]]:
    """The inputs' shapes. Inside, torch's caches on the disk know that none is left open, without which they are off.

    From them a graph that was compiled before comes in 0.2 s, where code was made anew in 2.7 s to find it there.
    """
    from torch.fx.experimental.symbolic_shapes import ShapeEnv  # brings sympy, which start-up need not wait for

    shapes = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    with tracing(TracingContext(shapes)):
        yield [shapes.from_tensor(one, static_shapes=True) for one in inputs]


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, inductor says nothing of operations that it calls by way of Python."""
    log = logging.getLogger("torch._inductor.ir")
    level = log.level
    try:
        log.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
