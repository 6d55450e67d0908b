"""The commands that compute in shards: a user's own pair travels, and another number of workers gives the same bits."""

import shutil

import numpy as np
import pytest
import torch
import xarray as xr

from ppvae.cli import main
from ppvae.errors import OptionError
from ppvae.experiments.runs.command_options import EvaluateOptions

PAIR = """
import pyro, torch
import pyro.distributions as dist

def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

def guide(x):
    slope = pyro.param("slope", torch.tensor(0.4))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(slope * x, 0.7))
"""


def test_a_time_limit_and_shards_exclude_each_other():
    with pytest.raises(OptionError, match="eval_minutes has no meaning for shards"):
        EvaluateOptions(workers=2, eval_minutes=1.0).check()
    with pytest.raises(OptionError, match="workers must be a whole number of at least 1; it is 0"):
        EvaluateOptions(workers=0).check()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_evaluate_and_certify_in_shards(tmp_path, monkeypatch):
    torch.set_default_dtype(torch.float32)  # what a user has; the harness brings the other back
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(PAIR)
    np.save("x.npy", np.sqrt(2) * np.random.default_rng(0).standard_normal(200))
    assert main(["run", "--pair", "mine.py", "--data", "x.npy", "--epochs", "2", "--num_particles", "30",
                 "--name", "one"]) == 0  # fmt: skip
    folder = tmp_path / "runs" / "one"
    found = []
    for workers in ("1", "2"):
        words = ["--workers", workers, "--shard_size", "7", "--num_particles", "30"]
        assert main(["evaluate", str(folder), *words]) == 0
        with xr.open_dataset(folder / "evidence.nc") as evidence:
            found.append(evidence.load())
        assert len(list((folder / "shards").glob("*/shard-*.pt"))) == 6
        shutil.rmtree(folder / "shards")
    assert found[0].equals(found[1])
    x = np.load("x.npy")
    assert np.isfinite(found[0].log_evidence).all()
    assert len(found[0].datum) == len(x) // 10
    assert main(["certify", str(folder), "--split", "model", "--workers", "1", "--num_data", "12"]) == 0
