"""Whether the steps of a training are compiled."""

from __future__ import annotations

from typing import Literal

import torch

from ppvae.errors import CheckpointError, OptionError

from ..graphs import NoGraph
from ..pair import generator_kept
from .adam import fuse
from .state import Training

Compile = bool | Literal["auto"]

# From so many steps on a training is compiled. With an empty cache that took 25 to 50 s for five pairs on one busy
# core, of which some 20 s are for what inductor asks the compiler once, and 3 to 4 s from the disk's cache; 137 and
# 20 s for a pair with flows. A step fell from 8 to 0.5 ms (regression with AutoNormal), from 23 to 14 ms (VAE
# 784-200-200-50) and from 90 to 40 ms (a convolutional one): 700 to 3800 steps earn it, and 40 to 480 where the code is
# in the cache.
COMPILED_FROM_STEPS = 5000


def choose_step(training: Training, compile: Compile, epochs: int) -> None:
    """Compile the steps of a training that is about to begin or to go on, or say why they are eager.

    On several processes all steps are of one kind: compiled ones are followed by another form of the optimiser's step,
    which rounds otherwise.

    Args:
        training: with the state of its checkpoint, if it goes on from one: with "auto" its steps stay of the kind that
            they were, so that the result has the same bits.
        compile: as ``fit`` has it.
        epochs: of the whole training.

    Raises:
        OptionError: ``compile`` is True and the steps cannot be compiled.
        CheckpointError: ``compile`` is "auto", the steps were compiled before, and cannot be compiled now.
    """
    _choose(training, compile, epochs)
    eager = float(training.team.sum(torch.tensor(float(not training.step.sizes), device=training.device)))
    if 0 < eager < training.team.size:
        training.step.be_eager("another process cannot compile its steps")
        fuse(training.bare_optimizer)


def _choose(training: Training, compile: Compile, epochs: int) -> None:
    saved = training.saved_step if compile == "auto" else None
    if compile is False:
        return training.step.be_eager("compile=False")
    if saved is not None and not saved["sizes"]:
        return training.step.be_eager(str(saved["name"]).removeprefix("eager: "))
    sizes = _sizes(training, epochs)
    if saved is not None:  # as many as before; other processes have other shares
        sizes = _sizes(training, COMPILED_FROM_STEPS)[: len(saved["sizes"])]
    total = epochs * training.source.num_batches
    if compile == "auto" and saved is None and total < COMPILED_FROM_STEPS:
        return training.step.be_eager(f"{total} steps are too few to pay for compiling, {COMPILED_FROM_STEPS} do")
    try:
        _compile(training, sizes)
    except NoGraph as why:
        if saved is not None:
            raise CheckpointError(
                f"the checkpoint is of a training by compiled steps, which cannot be taken here ({why}): go on with "
                "eager steps by compile=False; the result is then the same up to rounding."
            ) from why
        if compile is True:
            raise OptionError(f"compile=True cannot be had: {why}. Leave it out, and steps are eager.") from why
        training.step.be_eager(str(why))


def _sizes(training: Training, epochs: int) -> list[int]:
    """Rows of the batches that a step is compiled for: the last one's only where it comes often enough."""
    source = training.source
    if source.whole:
        return [source.num_data]
    first, rest = source.own_size(0), source.own_size(source.num_batches - 1)
    return [first] + [rest] * (epochs >= COMPILED_FROM_STEPS and 0 < rest < first)


def _compile(training: Training, sizes: list[int]) -> None:
    source = training.source
    with generator_kept():
        plain, shuffled = torch.arange(source.num_data), source.order(training.epoch + 1)
        batches = [
            training.to_device(source.batch(plain, 0 if i == 0 else source.num_batches - 1)) for i in range(len(sizes))
        ]
        training.step.compile(batches, training.to_device(source.batch(shuffled, 0)))
    training.step.sizes = sizes
    fuse(training.bare_optimizer)
