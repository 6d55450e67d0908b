"""The pair that an experiment on evidence examines: that of an earlier run, or a VAE trained on the digits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ppvae.datasets import evenly_spaced, load_dataset
from ppvae.errors import OptionError
from ppvae.inference import fit
from ppvae.models import VAE, Binomial
from ppvae.storage import RunDirectory

from .saved_run import load_run


def trained_pair(run: str | None, num_data: int, epochs: int, seed: int) -> tuple[Any, Tensor, str]:
    """A trained pair, test data evenly spaced over all, and what both are, in words.

    Args:
        run: directory of an earlier run; None trains the VAE that ``ppvae run`` trains by default, on the digits.
        num_data: how many data.
        epochs: of that training.
        seed: of that training.

    Raises:
        PpvaeError: the run, its data or its pair cannot be had.
    """
    if run is not None:
        saved = load_run(RunDirectory.open(run), max_eval=num_data)
        if saved.data.data.context or saved.data.unit == "data set":
            raise OptionError(
                f"run must have a pair without context whose unit is the datum; {run} has another: give the "
                "directory of such a run."
            )
        return saved.pair, saved.x, f"{saved.settings.pair} on {saved.data.data.name}"
    data = load_dataset("digits")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pair = VAE.for_data(data.train, Binomial(16))
    fit(pair.model, pair.guide, data, epochs=epochs, batch_size=200, seed=seed, accelerator="cpu")
    return pair, evenly_spaced(data.test, num_data), "VAE on digits"
