"""A run directory opened as a trained pair: the values of its training, and no code of others run unasked."""

import numpy as np
import pyro
import pytest
import torch

from ppvae.errors import CheckpointError, OptionError, RunError
from ppvae.experiments import load
from ppvae.experiments.runs import main_job
from ppvae.inference import Fit, importance_evidence
from ppvae.models import LinearGaussian
from ppvae.storage import Settings

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.random.default_rng(0).normal(size=(60, 4)))
    return path


def run(tmp_path, **changes):
    small = {"epochs": 3, "batch_size": 20, "num_particles": 40, "accelerator": "cpu", "patience": None}
    settings = Settings(**{"out": str(tmp_path / "runs"), "name": "one", **small, **changes})
    return main_job.run(settings, say=lambda line: None).directory.path


OWN = """
import pyro
import pyro.distributions as dist
import torch
from pathlib import Path

Path(__file__).with_suffix(".ran").touch()


def model(x):
    shift = pyro.param("shift", torch.tensor(0.5))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(shift, 1.0))
        pyro.sample("x", dist.Normal(z.unsqueeze(-1), 1.0).expand(z.shape + (4,)).to_event(1), obs=x)


def guide(x):
    gain = pyro.param("gain", torch.tensor(0.1))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(gain * x.sum(-1), 0.5))
"""


def test_the_pair_of_a_run_is_that_of_its_training(tmp_path, data):
    """Put into two pairs, it gives the same evidence to the bit."""
    path = run(tmp_path, pair="LinearGaussian", pair_args={"latent_dim": 2}, data=str(data))
    trained = load(path)
    assert isinstance(trained, Fit)
    assert trained.stopped == "finished"
    assert len(trained.history) == 3
    assert trained.sample(5, seed=0).shape == (5, 4)
    x = trained.example[0]
    assert trained.embed(x).matrix.shape == (len(x), 2)
    fresh = LinearGaussian(4, 2)
    again = load(path, pair=fresh)
    here, there = (importance_evidence(one.model, one.guide, x, 20, seed=0) for one in (trained, again))
    assert torch.equal(here.log_evidence, there.log_evidence)
    torch.testing.assert_close(fresh.weight.detach(), trained.parameters["linear_gaussian$$$weight"])


def test_the_default_run_is_opened(tmp_path):
    trained = load(run(tmp_path, epochs=1, max_eval=5))
    drawn = trained.sample(3, seed=0)
    assert drawn.shape == (3, 64)
    assert set(drawn.unique().tolist()) <= set(map(float, range(17)))


def test_a_file_of_the_users_is_run_only_if_one_says_so(tmp_path, data):
    own = tmp_path / "own.py"
    own.write_text(OWN)
    path = run(tmp_path, pair=str(own), data=str(data))
    mark = own.with_suffix(".ran")
    mark.unlink()
    with pytest.raises(OptionError, match="run_code=True"):
        load(path)
    assert not mark.exists()
    pyro.clear_param_store()
    trained = load(path, run_code=True)
    assert mark.exists()
    assert trained.sample(4, seed=0).shape == (4, 4)
    assert set(trained.parameters) == {"shift", "gain"}


def test_what_is_no_finished_run_is_said(tmp_path, data):
    with pytest.raises(RunError):
        load(tmp_path)
    path = run(tmp_path, pair="LinearGaussian", pair_args={"latent_dim": 2}, data=str(data))
    with pytest.raises(CheckpointError):
        load(path, pair=LinearGaussian(4, 3))
    (path / "checkpoint.pt").unlink()
    with pytest.raises(CheckpointError):
        load(path)


def test_a_run_with_parameters_for_each_datum_is_opened_on_all_of_them(tmp_path, data):
    own = tmp_path / "own.py"
    own.write_text(OWN.replace("torch.tensor(0.1))", "torch.full((len(x),), 0.1))"))
    path = run(tmp_path, pair=str(own), data=str(data))
    trained = load(path, run_code=True)
    assert len(trained.example[0]) == 60
    assert trained.sample(4, seed=0).shape == (4, 4)
