"""Missing values (NaN) of a user's file, through the commands: measured where the pair masks them, else refused."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch.distributions import MultivariateNormal

from ppvae.cli import main
from ppvae.errors import DataError
from ppvae.experiments.runs.run_data import load_pair_and_data
from ppvae.experiments.runs.saved_run import load_run
from ppvae.inference import calibrate, check, log_weights, simulate, to_datatree
from ppvae.models import LinearGaussian
from ppvae.storage import RunDirectory, Settings

pytestmark = pytest.mark.usefixtures("undrawn")

PPCA = """
import pyro
import pyro.distributions as dist
import torch
from torch import nn


class PPCA(nn.Module):
    '''z ~ N(0, I), x ~ N(b + W z, diag s²), of which some readings are missing; the guide sees which.'''

    def __init__(self, num_features, latent_dim=2):
        super().__init__()
        self.latent_dim = latent_dim
        self.weight = nn.Parameter(torch.randn(num_features, latent_dim))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.log_scale = nn.Parameter(torch.zeros(num_features))
        self.encoder = nn.Sequential(nn.Linear(2 * num_features, 32), nn.Tanh(), nn.Linear(32, 2 * latent_dim))

    def model(self, x):
        pyro.module("ppca", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latent_dim), 1.0).to_event(1))
            reading = dist.Normal(self.bias + z @ self.weight.T, self.log_scale.exp())
            pyro.sample("x", reading.mask(~x.isnan()).to_event(1), obs=x.nan_to_num())

    def guide(self, x):
        pyro.module("ppca", self)
        with pyro.plate("data", len(x)):
            loc, raw = self.encoder(torch.cat([x.nan_to_num(), x.isnan().to(x)], -1)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, nn.functional.softplus(raw) + 1e-4).to_event(1))
"""
# A user's own class on top of the package's: for_data is inherited.
MASKED_VAE = """
import pyro
import pyro.distributions as dist
from ppvae.models import VAE


class MaskedVAE(VAE):
    def model(self, x):
        pyro.module("vae", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latent_dim), 1.0).to_event(1))
            pixels = self.likelihood.features(self.decoder(z)).mask(~x.isnan()).to_event(1)
            pyro.sample("x", pixels, obs=x.nan_to_num())

    def encode(self, x):
        return super().encode(x.nan_to_num(nan=0.5))
"""
IMPUTE = """
import pyro, torch
import pyro.distributions as dist

def model(x):  # what is missing is a latent
    with pyro.plate("data", len(x)):
        missing = pyro.sample("missing", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
        pyro.sample("x", dist.Normal(0.0, 1.0).expand(x.shape).to_event(1), obs=torch.where(x.isnan(), missing, x))

def guide(x):
    loc = pyro.param("loc", torch.tensor(0.0))
    with pyro.plate("data", len(x)):
        pyro.sample("missing", dist.Normal(loc, 1.0).expand([x.shape[-1]]).to_event(1))
"""
PAIR = ["--pair", "ppca.py:PPCA", "--accelerator", "cpu"]


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.set_default_dtype(torch.float32)  # what a user has; the fixture puts it back
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 4)) + 0.5 * rng.normal(size=(300, 4)) + 1
    missing = rng.random(x.shape) < 0.2
    missing[0] = True  # a datum of which nothing is known
    full, x[missing] = x.copy(), math.nan
    np.save("x.npy", x)
    np.savetxt("x.csv", x, delimiter=",", header="a,b,c,d", comments="")
    np.savez("test_only.npz", train=full[:200], validation=full[:50], test=x[200:])
    np.save("bits.npy", np.where(x.repeat(2, 1) > 1, 1.0, np.where(np.isnan(x.repeat(2, 1)), math.nan, 0.0)))
    texts = {"ppca": PPCA, "zeros": PPCA.replace(".mask(~x.isnan())", ""), "mine": MASKED_VAE, "impute": IMPUTE}
    for name, text in texts.items():
        Path(f"{name}.py").write_text(text, encoding="utf-8")


def _exact(pair, x: torch.Tensor) -> np.ndarray:
    """log p of the values that are there: a Gaussian with those rows and columns of W Wᵀ + diag s²."""
    weight, bias, scale = pair.weight.double(), pair.bias.double(), pair.log_scale.double().exp()
    covariance = weight @ weight.T + torch.diag(scale**2)
    found = []
    for row in x.double():
        there = ~row.isnan()
        normal = MultivariateNormal(bias[there], covariance[there][:, there]) if there.any() else None
        found.append(0.0 if normal is None else normal.log_prob(row[there]).item())
    return np.array(found)


def test_the_number_is_log_p_of_the_values_that_are_there(capsys):
    words = [*PAIR, "--data", "x.npy", "--epochs", "60", "--learning_rate", "0.02", "--name", "one"]
    assert main(["run", *words, "--num_particles", "500"]) == 0
    run = load_run(RunDirectory.open("runs/one"))
    assert run.x.isnan().any()
    exact = _exact(run.pair, run.x)
    evidence = xr.open_dataset("runs/one/evidence.nc").load()
    numbers = json.loads(Path("runs/one/summary.json").read_text())["evidence"]
    # Beyond five standard errors once in a million, were they exact.
    assert abs(numbers["log_evidence"] - exact.mean()) < 5 * numbers["log_evidence_monte_carlo_error"] + 1e-4
    nothing_there = run.x.isnan().all(-1).numpy()
    np.testing.assert_allclose(evidence.log_evidence[nothing_there], 0.0, atol=0.3)
    assert "of the 1200 values of x.npy are missing: the pair leaves them out" in capsys.readouterr().err


@pytest.mark.parametrize("data", ["x.csv", "test_only.npz"])
def test_other_files_reach_the_pair_too(data):
    pair, found = load_pair_and_data(Settings(pair="ppca.py:PPCA", data=data))
    assert f"values of {data} are missing: the pair leaves them out" in found.remarks[0]
    assert found.understood
    assert check(pair.model, pair.guide, found.data.train) == []


@pytest.mark.slow
def test_every_command_measures_them(capsys):
    words = [*PAIR, "--data", "x.npy", "--epochs", "40", "--learning_rate", "0.02", "--name", "one"]
    assert main(["check", "ppca.py:PPCA", "--data", "x.npy"]) == 0
    assert main(["run", *words, "--num_particles", "200"]) == 0
    assert main(["evaluate", "runs/one", "--method", "auto", "--max_eval", "10"]) == 0
    run = load_run(RunDirectory.open("runs/one"), max_eval=10)
    numbers = json.loads(Path("runs/one/summary.json").read_text())["evidence"]
    error = numbers["log_evidence_monte_carlo_error"]
    assert abs(numbers["log_evidence"] - _exact(run.pair, run.x).mean()) < 5 * error + 1e-4
    assert main(["gap", "runs/one", "--num_data", "5", "--steps", "50"]) == 0
    assert main(["posterior", "runs/one", "--num_data", "4", "--num_simulations", "20"]) == 0
    assert main(["report", "runs/one"]) == 0
    summary = json.loads(Path("runs/one/summary.json").read_text())
    assert {"gap_attribution", "latent_units", "calibration", "quality"} <= set(summary)
    gap = summary["gap_attribution"]
    few = load_run(RunDirectory.open("runs/one"), max_eval=5)
    error = gap["log_evidence_monte_carlo_error"]
    assert abs(gap["log_evidence"] - _exact(few.pair, few.x).mean()) < 5 * error + 1e-3
    page = Path("runs/one/report.html").read_text(encoding="utf-8")
    assert "are missing: the pair leaves them out" in page
    assert ">nan" not in page.lower()


@pytest.mark.parametrize("data", ["x.npy", "x.csv", "test_only.npz"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("VAE", ["--likelihood", "NormalSharedScale"]),
        ("LinearGaussian", ["--pair_args.latent_dim", "1"]),
        ("Autoencoder", ["--pair_args.latent_dim", "1"]),
    ],
)
def test_a_pair_that_does_not_mask_them_is_refused_in_a_sentence(name, words, data, capsys):
    assert main(["run", "--pair", name, "--data", data, "--epochs", "1", *words]) == 2
    sentence = capsys.readouterr().err.strip()
    assert len(sentence.splitlines()) == 1
    assert f"{data} has " in sentence
    assert "missing values, the first in row " in sentence
    assert f"{name} does not leave them out of its densities: remove such rows or fill them in" in sentence
    assert not Path("runs").exists()


def test_a_pair_that_fails_for_another_reason_is_not_accused():
    Path("fails.py").write_text(PPCA.replace("self.bias + z", "self.nothing + z"), encoding="utf-8")
    _, found = load_pair_and_data(Settings(pair="fails.py:PPCA", data="x.npy"))
    assert not found.understood
    assert main(["check", "fails.py:PPCA", "--data", "x.npy"]) == 1


def test_a_subclass_of_the_vae_that_masks_them(capsys):
    words = ["--pair", "mine.py:MaskedVAE", "--pair_args.latent_dim", "2", "--likelihood", "Bernoulli"]
    assert main(["run", *words, "--data", "bits.npy", "--epochs", "2", "--num_particles", "50", "--name", "one"]) == 0
    assert "are missing: the pair leaves them out" in capsys.readouterr().err
    pair = load_run(RunDirectory.open("runs/one")).pair
    assert all(value.isfinite().all() for value in pair.state_dict().values())


def test_numbers_in_place_of_missing_values_are_found(capsys):
    assert main(["check", "zeros.py:PPCA", "--data", "x.npy"]) == 1
    assert "[missing-scored] x (zeros.py:24): the data have missing values" in capsys.readouterr().out
    words = ["--pair", "zeros.py:PPCA", "--data", "x.npy", "--epochs", "1", "--num_particles", "20"]
    assert main(["run", *words]) == 0
    said = capsys.readouterr().err
    assert "scores a number in place of each" in said
    assert "leaves them out, and log p(x)" not in said


def test_missing_values_as_latents_are_no_numbers_in_their_place():
    pair, found = load_pair_and_data(Settings(pair="impute.py", data="x.npy"))
    assert "missing-scored" not in [finding.code for finding in check(pair.model, pair.guide, found.data.train)]


class Exact:
    """A linear-Gaussian pair with missing values, and its exact posterior as the guide: the gap is nought."""

    def __init__(self, x):
        import pyro
        import pyro.distributions as dist

        linear = LinearGaussian.for_data(x.nan_to_num(), 2)
        weight, bias, noise = linear.weight.detach(), linear.bias.detach(), 0.5

        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
                reading = dist.Normal(bias + z @ weight.T, noise).mask(~x.isnan())
                pyro.sample("x", reading.to_event(1), obs=x.nan_to_num())

        def guide(x):
            there = (~x.isnan()).to(x)
            precision = torch.eye(2) + torch.einsum("...d,di,dj->...ij", there, weight, weight) / noise**2
            shift = ((x - bias).nan_to_num() @ weight).unsqueeze(-1) / noise**2
            loc = torch.linalg.solve(precision, shift).squeeze(-1)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.MultivariateNormal(loc, precision_matrix=precision))

        self.model, self.guide = model, guide


def _x() -> torch.Tensor:
    torch.set_default_dtype(torch.float64)
    x = torch.from_numpy(np.load("x.npy"))
    return x[:40]


def test_simulated_data_are_missing_where_the_data_are():
    x = _x()
    pair = Exact(x)
    drawn = simulate(pair.model, pair.guide, x, seed=0)
    assert torch.equal(drawn.batch[0].isnan(), x.isnan())
    log_w = log_weights(pair.model, pair.guide, drawn.batch, 20)  # the guide is exact there too: all are log p(x)
    torch.testing.assert_close(log_w, log_w[:1].expand_as(log_w))
    found = calibrate(pair.model, pair.guide, x, anchor="prior", num_simulations=50, seed=0, progress=False)
    assert found.summary()["prior_symmetric_kl"] == pytest.approx(0.0, abs=1e-10)


def test_observed_data_are_nan_where_they_are_missing():
    x = _x()
    pair = Exact(x)
    tree = to_datatree(pair.model, pair.guide, x, predictive=False, seed=0)
    np.testing.assert_array_equal(tree["observed_data"]["x"], x)


def test_other_programs_still_refuse_them_by_datum():
    x = _x()
    pair = LinearGaussian(num_features=4, latent_dim=1)
    with pytest.raises(DataError, match="first in datum 0, and they reach a density"):
        to_datatree(pair.model, pair.guide, x)
