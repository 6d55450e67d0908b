"""The strict harness: float64, Pyro's validation on, an empty parameter store, a seed; warnings are errors."""

from pathlib import Path

import matplotlib
import pyro
import pytest
import torch

matplotlib.use("Agg")
torch.set_num_threads(1)  # two would spin against each other under pytest-xdist


@pytest.fixture(autouse=True)
def strict():
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    with pyro.validation_enabled(True):
        yield
    torch.set_default_dtype(default)


@pytest.fixture
def repository() -> Path:
    return Path(__file__).resolve().parent.parent


@pytest.fixture
def undrawn(monkeypatch):
    """Runs write each figure as one white pixel: to draw them takes half of the time of a small run."""
    from PIL import Image

    from ppvae.storage import RunDirectory

    def pixel(directory, name, figure):
        folder = directory.path / "figures"
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (1, 1), "white").save(folder / f"{name}.png")

    monkeypatch.setattr(RunDirectory, "write_figure", pixel)


@pytest.fixture
def uncompiled(monkeypatch):
    """The recorded graph itself in the place of inductor's code for densities and weights; all that are made."""
    made = []

    def graph(module, inputs, **options):
        made.append(module)
        return module

    monkeypatch.setattr("ppvae.inference.pair.block_code.inductor", graph)
    return made
