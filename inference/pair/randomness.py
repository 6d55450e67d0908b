"""The global generators of torch, numpy and Python: kept as they are found, or started from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyro
import torch


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
def own_randomness() -> Iterator[None]:
    """Random numbers of its own, from a seed that the global generators name, which are left as they were found.

    What is drawn after it is what would be drawn without it.
    """
    with generator_kept():
        seed = int(torch.randint(2**31, ()))
    with generator_kept(seed):
        yield


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """With a seed: draw from it and leave the global generators as they were. Without: draw from the global ones."""
    if seed is None:
        yield
        return
    with generator_kept(seed):
        yield
