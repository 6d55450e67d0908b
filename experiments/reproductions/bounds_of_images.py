"""log p(x) of many images: the K-sample bound that papers report, and annealed chains, on any device."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from ppvae.datasets import evenly_spaced
from ppvae.errors import PpvaeError
from ppvae.inference import Annealing, Evidence, annealed_evidence, log_weights

Found = TypeVar("Found")

# Images whose weights are held at once.
PIECE = 500
# Images for chains on the CPU where those of the device cannot be had.
ON_CPU = 100


@dataclass(frozen=True)
class Bound:
    """log (1/K) Σ_k w_k of every image, in nats.

    Attributes:
        value: ``(num_data,)``.
        standard_error: of ``value``, by the delta method.
        elbo: the mean of log w_k.
    """

    value: Tensor
    standard_error: Tensor
    elbo: Tensor


def memory_mb(x: Tensor) -> float:
    """The budget for one pass of a pair."""
    return 64.0 if x.device.type == "cpu" else 3000.0


def drawn_bound(pair: Any, x: Tensor, num_particles: int, seed: int) -> Bound:
    """The bound from K draws of the guide alone; no modes are searched for."""
    parts = []
    for start in range(0, len(x), PIECE):
        piece = x[start : start + PIECE]
        log_w = log_weights(pair.model, pair.guide, piece, num_particles, seed=seed + start, memory_mb=memory_mb(piece))
        total = log_w.logsumexp(0)
        ess = (2 * total - (2 * log_w).logsumexp(0)).exp()
        value = total - math.log(num_particles)
        parts.append(torch.stack([value, (1 / ess - 1 / num_particles).clamp(min=0).sqrt(), log_w.mean(0)]))
    return Bound(*torch.cat(parts, -1))


def on_device_or_cpu(measure: Callable[[Any, Tensor], Found], pair: Any, x: Tensor) -> tuple[Tensor, Found]:
    """Rows of x and the result of a function on them: all rows where the device of x can do it, else some.

    Else the pair is moved to the CPU and measured on some of them.
    """
    rows = torch.arange(len(x))
    try:
        return rows, measure(pair, x)
    except PpvaeError:
        raise
    except RuntimeError:
        if x.device.type == "cpu":
            raise
        traceback.print_exc()
        rows = evenly_spaced(rows, ON_CPU)
        return rows, measure(pair.to("cpu"), x.cpu()[rows])


def chains(
    pair: Any, x: Tensor, num_chains: int, num_distributions: int, seed: int, num_steps: int = 3
) -> tuple[Tensor, Evidence]:
    """AIS from the guide: on which images, and their log p(x)."""

    def measure(pair: Any, x: Tensor) -> Evidence:
        plan = Annealing(num_steps=num_steps)
        return annealed_evidence(
            pair.model, pair.guide, x, num_chains, num_distributions, annealing=plan, seed=seed, memory_mb=memory_mb(x)
        )

    return on_device_or_cpu(measure, pair, x)
