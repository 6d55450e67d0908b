"""The ELBO of the validation data, after each epoch of a training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..pair import (
    Batch,
    Pair,
    Program,
    evaluation_mode,
    generator_kept,
    measured_again,
    seeded,
    where_parameters_are,
)

# At least so many weights in all: a small validation set gets more particles per datum.
NUM_WEIGHTS = 4096
MEMORY_MB = 64.0


def mean_score(elbo: Any, programs: tuple[Program, Program], batch: Batch, seed: int, num_units: int | None) -> Tensor:
    """Pyro's ELBO of a batch by unit, ``(1,)``: for a guide without a density, which gives no numbers by unit."""
    with torch.no_grad(), generator_kept(seed), evaluation_mode(*programs):
        loss = getattr(elbo, "elbo", elbo).loss(*programs, *batch)
    return torch.tensor([-loss / (num_units or len(batch[0]))], dtype=torch.float64)


class Validation:
    """The validation data of a training, and the pair on them, which is looked at once and measured each time.

    Args:
        model: ``model(x, *context)``.
        guide: ``guide(x, *context)``, with a density.
        batch: this process's share of the validation data, ``(x, *context)``.
        seed: of the draws, which are the same each time.
        whole: validation data of all processes together.
    """

    def __init__(self, model: Program, guide: Program, batch: Batch, seed: int, whole: int) -> None:
        self._programs, self._seed = (model, guide), seed
        self._batch = where_parameters_are(model, guide, batch)
        self._particles = math.ceil(NUM_WEIGHTS / whole)
        self._seen: Pair | None = None

    def elbo(self) -> Tensor:
        """The ELBO of every unit with the present parameters, in nats."""
        with seeded(self._seed), self._measured() as pair:
            return pair.gathered_log_weights(self._particles, MEMORY_MB).mean(0)

    @contextmanager
    def _measured(self) -> Iterator[Pair]:
        if self._seen is None:
            with Pair.on(*self._programs, self._batch) as pair:
                yield pair
            # A Laplace approximation is another guide at each point.
            self._seen = pair if pair.guide is self._programs[1] else None
        else:
            with measured_again(self._seen) as pair:
                yield pair
