"""A recorded graph, compiled by torch's inductor."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ppvae.errors import first_line

from .recording import NoGraph

# Noise is drawn by torch's own generators, so that it is that of the eager step. That shapes are those that it was
# compiled for is known, and need not be asked in every step.
INDUCTOR = {"fallback_random": True, "size_asserts": False, "alignment_asserts": False}

Runner = Callable[..., Any]


def inductor(
    graph: torch.fx.GraphModule, inputs: list[Tensor], *, reuse_results: bool, biases_apart: bool = False
) -> Runner:
    """The graph as compiled code, from inductor's cache on the disk (``TORCHINDUCTOR_CACHE_DIR``) where it is there.

    Args:
        graph: as recorded.
        inputs: of the shapes, types and device that it will be called with.
        reuse_results: whether a call may write its results over those of the call before, as CUDA graphs do.
        biases_apart: leave biases where :func:`.rewrites.rewritten` put them, after the products.

    Raises:
        NoGraph: it cannot be compiled.
    """
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            options = {name: value for name, value in INDUCTOR.items() if hasattr(torch._inductor.config, name)}
            # On a GPU a step of a small network is mostly the launching of kernels; a CUDA graph launches all at once.
            options["triton.cudagraphs"] = reuse_results and inputs[0].is_cuda
            # Its patterns would put a bias back into the product.
            options["pattern_matcher"] = not biases_apart
            return torch._inductor.compile(graph, [*inputs], options=options)
    except Exception as error:  # inductor raises a different type for each stage
        if "InvalidCxxCompiler" in f"{type(error).__name__}{error!r}":
            raise NoGraph("there is no C++ compiler, which torch's inductor needs") from error
        raise NoGraph(f"inductor cannot compile it ({type(error).__name__}: {first_line(error)})") from error
