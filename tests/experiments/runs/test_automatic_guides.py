"""A run whose guide is one of Pyro's automatic guides is trained, loaded again and evaluated."""

import numpy as np
import pytest
import torch

from ppvae.experiments.runs.main_job import run
from ppvae.experiments.runs.saved_run import load_run
from ppvae.inference import log_weights
from ppvae.storage import Settings

pytestmark = pytest.mark.usefixtures("undrawn")

PROGRAM = """
import pyro
import pyro.distributions as dist
from pyro.infer.autoguide import {guide}


def model(x):  # one mean for all data
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean.unsqueeze(-2), 1.0).to_event(1), obs=x)


guide = {guide}(model)
"""


def test_an_earlier_run_of_an_automatic_guide_is_loaded(tmp_path, monkeypatch):
    torch.set_default_dtype(torch.float32)  # what a user has; the fixture puts it back
    monkeypatch.chdir(tmp_path)
    np.save("data.npy", 1.0 + np.random.default_rng(0).normal(size=(50, 2)))
    for kind in ("AutoNormal", "AutoMultivariateNormal"):
        (tmp_path / f"{kind}.py").write_text(PROGRAM.format(guide=kind), encoding="utf-8")
        settings = Settings(
            pair=f"{kind}.py",
            data="data.npy",
            epochs=30,
            batch_size=40,
            learning_rate=0.1,
            method="importance",
            num_particles=50,
        )
        evaluation = run(settings, say=lambda _: None)
        first, second = (load_run(evaluation.directory) for _ in range(2))
        assert first.pair.guide is not second.pair.guide
        assert (first.pair.guide.median()["mean"] - 1.0).abs().max() < 0.6  # 4 standard errors of 40 data
        weights = log_weights(first.pair.model, first.pair.guide, first.x, 50, seed=0)
        assert torch.equal(weights, log_weights(second.pair.model, second.pair.guide, second.x, 50, seed=0))
        # log p(x) of all 50 data, since they share the latent: x ~ N(0, I + 1 1ᵀ) in each column.
        assert first.split == "training"
        covariance = torch.eye(50) + 1.0
        normal = torch.distributions.MultivariateNormal(torch.zeros(50), covariance)
        exact = normal.log_prob(first.x.T).sum()
        assert weights.shape == (50, 1)
        assert (weights.logsumexp(0) - np.log(50) - exact).abs() < 2.5  # a guide after 30 steps
