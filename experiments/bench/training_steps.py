"""Who takes a step of SVI, and how long it takes: ppvae's ``fit``, eager and compiled, Pyro, NumPyro and plain torch.

All train the same pair by Adam on the same data in the same batches. The seconds are those of the steps alone: reading
programs and compiling come once in a training. NumPyro runs where it is installed (``pip install 'ppvae[peers]'``).
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import torch
from pyro.infer import SVI, JitTrace_ELBO
from pyro.optim import PyroOptim
from torch import Tensor

from ppvae.inference import fit

from .numpyro_peer import numpyro_steps
from .plain_torch import torch_loss, torch_steps
from .side_by_side import AfterEpochs, OwnSeconds, Spread, Turns, Way
from .step_pairs import StepPair, vae_for

EAGER, COMPILED = "ppvae.inference.fit", "ppvae.inference.fit, compiled"
PYRO = "pyro.infer.SVI"


def vae_steps(x: Tensor, batch_size: int, turns: int, compiled: bool) -> dict[str, Spread]:
    """Seconds of a step of the VAE 784-200-200-50; a turn is a step for every batch of the data.

    Args:
        x: binary data, `(num_data, 784)`.
        batch_size: data in a step.
        turns: that count.
        compiled: with those that compile, which takes each of them half a minute once.
    """
    ours, theirs, jitted = (vae_for(x) for _ in range(3))
    ways: dict[str, Way] = {
        EAGER: _fit_steps(StepPair(ours.model, ours.guide, (x,)), batch_size),
        PYRO: partial(_pyro_steps, StepPair(theirs.model, theirs.guide, (x,)), batch_size),
        f"{PYRO}, JitTrace_ELBO": partial(
            _pyro_steps, StepPair(jitted.model, jitted.guide, (x,), JitTrace_ELBO), batch_size
        ),
        **_others(x, batch_size, compiled),
    }
    pair = vae_for(x)
    taken = _in_turns(StepPair(pair.model, pair.guide, (x,)), ways, batch_size, 1, turns, compiled)
    return taken.spreads(len(x) // batch_size)


def pair_steps(
    make: Callable[[int, int], StepPair], batch_size: int, steps: int, turns: int, compiled: bool
) -> dict[str, Spread]:
    """Seconds of a step of a pair, by ``fit`` and by Pyro.

    Args:
        make: the pair, from the number of data and of those in a step.
        batch_size: data in a step.
        steps: in a turn.
        turns: that count.
        compiled: with the compiled step, which takes half a minute once.
    """
    led, ours, theirs = (make(steps * batch_size, batch_size) for _ in range(3))
    epochs = steps if ours.one_batch else 1
    ways: dict[str, Way] = {
        EAGER: _fit_steps(ours, batch_size, epochs),
        PYRO: partial(_pyro_steps, theirs, batch_size, epochs),
    }
    return _in_turns(led, ways, batch_size, epochs, turns, compiled).spreads(steps)


def _in_turns(pair: StepPair, ways: dict[str, Way], batch_size: int, epochs: int, turns: int, compiled: bool) -> Turns:
    """The turns of all; a compiled training of the pair leads them, if it is asked for."""
    taken = Turns(ways, first=[COMPILED] if compiled else [])
    if not compiled:
        for _ in range(turns + 1):
            taken.take()
        return taken
    fit(
        pair.model,
        pair.guide,
        pair.data,
        epochs=epochs * (turns + 1),
        batch_size=batch_size,
        compile=True,
        loggers=[AfterEpochs(taken, COMPILED, epochs)],
        progress=False,
    )
    return taken


def _fit_steps(pair: StepPair, batch_size: int, epochs: int = 1) -> Callable[[], OwnSeconds]:
    train = partial(fit, epochs=epochs, batch_size=batch_size, compile=False, progress=False)
    return lambda: OwnSeconds(train(pair.model, pair.guide, pair.data).seconds)


def _others(x: Tensor, batch_size: int, compiled: bool) -> dict[str, Way]:
    """NumPyro and plain torch."""
    plain, fused = vae_for(x), vae_for(x)
    ways: dict[str, Way] = {}
    if compiled and importlib.util.find_spec("numpyro") is not None:
        ways["numpyro, lax.scan"] = numpyro_steps(x, batch_size)
    if compiled:
        optimizer = torch.optim.Adam(fused.parameters(), lr=1e-3, fused=True)
        loss = torch.compile(partial(torch_loss, fused))
        ways["plain torch, compiled"] = partial(torch_steps, loss, optimizer, x, batch_size)
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-3)
    ways["plain torch"] = partial(torch_steps, partial(torch_loss, plain), optimizer, x, batch_size)
    return ways


def _pyro_steps(pair: StepPair, batch_size: int, epochs: int = 1) -> OwnSeconds:
    """Pyro's own steps, in a parameter store of their own."""
    with pyro.get_param_store().scope():
        elbo: Any = pair.elbo()
        svi = SVI(pair.model, pair.guide, PyroOptim(torch.optim.Adam, {"lr": 1e-3}), elbo)
        batches = list(zip(*(part.split(batch_size) for part in pair.data), strict=True))
        with warnings.catch_warnings():  # torch.jit is deprecated, and traces Python values
            warnings.simplefilter("ignore")
            svi.step(*batches[0])  # JitTrace_ELBO records the step
        started = time.perf_counter()
        for _ in range(epochs):
            for batch in batches:
                svi.step(*batch)
        return OwnSeconds(time.perf_counter() - started)
