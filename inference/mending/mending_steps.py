"""Training of a guide alone: the model's parameters stand still, and what is kept can be told from what is not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import pyro
import torch
from torch import Tensor, nn
from torch.optim import Adam

from ppvae.datasets import Dataset
from ppvae.errors import PairError

from ..options import positive_number, whole_number
from ..pair import (
    Batch,
    Pair,
    Program,
    as_batch,
    buffers_kept,
    evaluation_mode,
    generator_kept,
    named_parameters,
    reachable_modules,
)
from ..svi import Beta, WarmUp, fit

# In nats per unit: what a step must gain to be kept.
LEAST_GAIN = 0.01
# Draws of the guide that gains are estimated from, per unit at least, and over all units at least.
LEAST_DRAWS, ALL_DRAWS = 100, 10_000


@contextmanager
def left_as_found(*programs: Program) -> Iterator[None]:
    """Pyro's store and every parameter and buffer of the programs' modules are the same afterwards, to the bit."""
    store: Any = pyro.get_param_store()
    state = store.get_state()
    modules = reachable_modules(*programs)
    held = [p for module in modules for p in (*module.parameters(), *module.buffers())]
    held += [leaf for leaf in state["params"].values() if not isinstance(leaf, nn.Parameter)]
    copies = [(leaf, leaf.detach().clone(), leaf.requires_grad) for leaf in held]
    try:
        with store.scope(cast(Any, {part: dict(kept) for part, kept in state.items()})):
            yield
    finally:
        for leaf, copy, wanted in copies:
            leaf.data = copy
            leaf.requires_grad_(wanted)


def stored_names() -> list[str]:
    """The names of the parameters in Pyro's store."""
    return list(pyro.get_param_store().keys())


def leaves_of(model: Program, guide: Program, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The parameters that the model's density depends on, and those that the guide's draws or density alone do."""
    every = named_parameters(model, guide, batch)
    names, leaves = list(every), list(every.values())
    with torch.enable_grad(), Pair.on(model, guide, batch) as pair, pyro.validation_enabled(False):
        drawn = pair.guide_values(1)
        still = {name: value.detach() for name, value in drawn.items()}
        of_model = _depends(pair.densities(still).log_p, leaves)
        moving = sum((v.sum() for v in drawn.values() if v.is_floating_point()), torch.zeros(()))
        of_guide = _depends(moving + pair.log_guide(still, 1).sum(), leaves)
    model_leaves = {name: leaf for name, leaf, used in zip(names, leaves, of_model, strict=True) if used}
    both = zip(names, leaves, of_guide, strict=True)
    return model_leaves, {name: leaf for name, leaf, used in both if used and name not in model_leaves}


def _depends(value: Tensor, leaves: list[Tensor]) -> list[bool]:
    if not value.requires_grad:
        return [False] * len(leaves)
    return [g is not None for g in torch.autograd.grad(value.sum(), leaves, allow_unused=True)]


def valid_training(steps: int, learning_rate: float, standard_errors: float) -> tuple[int, float, float]:
    """The options that all short trainings have, if they can be used.

    Raises:
        OptionError: one cannot.
    """
    return (
        whole_number("steps", steps),
        positive_number("learning_rate", learning_rate),
        positive_number("standard_errors", standard_errors),
    )


@dataclass(frozen=True)
class Budget:
    """How a step is trained.

    Attributes:
        steps: gradient steps.
        learning_rate: of Adam at first; it falls to zero by a cosine.
        divisible: whether the programs run on some of the data alone.
        batch_size: data per step, where they do.
    """

    steps: int
    learning_rate: float
    divisible: bool
    batch_size: int = 100


class FallingAdam(Adam):
    """Adam whose step size falls to zero along half a cosine, step by step, since few epochs may be all there are."""

    def __init__(self, params: Any, lr: float, num_steps: int) -> None:
        super().__init__(params, lr=lr)
        self._first, self._num_steps, self._taken = lr, num_steps, 0

    def step(self, closure: Any = None) -> Any:
        """Take a step."""
        for group in self.param_groups:
            group["lr"] = self._first * (1 + math.cos(math.pi * min(1.0, self._taken / self._num_steps))) / 2
        self._taken += 1
        return super().step(closure)


def train_guide(model: Program, guide: Program, data: Any, example: Batch, budget: Budget) -> None:
    """Train the guide's own parameters in place; the model's stand still.

    Raises:
        PairError: the guide has no parameters of its own.
    """
    _, own = leaves_of(model, guide, example)
    if not own:
        raise PairError("the guide has no parameters of its own")
    kept = {id(leaf) for leaf in own.values()}
    still = [leaf for leaf in named_parameters(model, guide, example).values() if id(leaf) not in kept]
    try:
        for leaf in still:
            leaf.requires_grad_(False)
        train_pair(model, guide, data, example, budget)
    finally:
        for leaf in still:
            leaf.requires_grad_(True)


def train_both(model: Program, guide: Program, data: Any, example: Batch, budget: Budget) -> None:
    """Train model and guide in place, with a KL term whose weight rises from near 0 to 1 over the first half."""
    train_pair(model, guide, data, example, budget, Beta(WarmUp(max(1, budget.steps // 2))))


def train_pair(model: Program, guide: Program, data: Any, example: Batch, budget: Budget, loss: Any = None) -> None:
    """Train whatever parameters are not held still, in place, by the ELBO or another objective.

    Networks stay in evaluation mode, and buffers as they are: batch norm in the model belongs to the model.
    """
    num_data = len(data.train) if isinstance(data, Dataset) else len(as_batch(data)[0])
    per_epoch = math.ceil(num_data / budget.batch_size) if budget.divisible else 1
    epochs = max(1, budget.steps // per_epoch)
    with evaluation_mode(model, guide), buffers_kept(model, guide):
        fit(
            model,
            guide,
            data,
            loss=loss,
            epochs=epochs,
            batch_size=budget.batch_size,
            learning_rate=budget.learning_rate,
            optimizer=partial(FallingAdam, num_steps=epochs * per_epoch),
            seed=int(torch.randint(2**31, ())),
            compile=False,
            accelerator="cpu" if example[0].device.type == "cpu" else "auto",  # where the pair is
            progress=False,
        )


def kept_values(model: Program, guide: Program, example: Batch) -> list[tuple[Tensor, Tensor]]:
    """Every parameter of the pair with a copy of its value."""
    return [(leaf, leaf.detach().clone()) for leaf in named_parameters(model, guide, example).values()]


def put_back(values: list[tuple[Tensor, Tensor]]) -> None:
    """Give the parameters the values of :func:`kept_values`."""
    for leaf, value in values:
        leaf.data.copy_(value)


def drawn_elbo(model: Program, guide: Program, held_out: Batch, seed: int, memory_mb: float) -> Tensor:
    """log p(x, z) − log q(z|x) at draws from a seed, ``(num_draws, num_units)``: their mean is the ELBO."""
    with generator_kept(seed), torch.no_grad(), Pair.on(model, guide, held_out) as pair:
        num_draws = max(LEAST_DRAWS, ALL_DRAWS // pair.num_units)
        return pair.gathered_log_weights(num_draws, memory_mb)


def paired_gain(before: Tensor, after: Tensor) -> tuple[float, float]:
    """The mean difference of two ELBOs over the units, and its standard error.

    Over several units the error is that of the mean over units, draws included; for one, of the mean over draws.
    """
    difference = after - before
    values = difference.mean(0) if difference.shape[1] > 1 else difference[:, 0]
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))
