"""Tables through the commands: labels, context, splits, and the numbers of standardised data in their own units."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
import xarray as xr

from ppvae.cli import main
from ppvae.experiments import load
from ppvae.experiments.runs.saved_run import load_run
from ppvae.report import compare
from ppvae.storage import RunDirectory

# Two classes; a latent that the label shifts.
OWN_PAIR = """
import pyro
import pyro.distributions as dist
import torch


def model(x, kind, age):
    base = pyro.param("base", torch.zeros(2))
    slope = pyro.param("slope", torch.tensor(0.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(base[kind] + slope * age, 1.0))
        pyro.sample("x", dist.Normal(z.unsqueeze(-1).expand(z.shape + (2,)), 0.5).to_event(1), obs=x)


def guide(x, kind, age):
    weight = pyro.param("weight", torch.zeros(2))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x @ weight, 0.4))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A spreadsheet with a semicolon and decimal commas, an identity and a label."""
    folder = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(0)
    z = rng.normal(size=(200, 2))
    x = (z @ rng.normal(size=(2, 4)) + 0.3 * rng.normal(size=(200, 4))) * [1, 10, 100, 0.1] + [5, 0, 1000, 0]
    frame = pd.DataFrame(x, columns=["length", "width", "mass", "depth"])
    frame["species"] = np.where(z[:, 0] > 0, "oak", "elm")
    frame.insert(0, "id", range(200))
    frame.to_csv(folder / "plants.csv", index=False, sep=";", decimal=",")
    (folder / "own.py").write_text(OWN_PAIR)
    return folder


@pytest.fixture(scope="module")
def run(folder) -> RunDirectory:
    torch.set_default_dtype(torch.float32)  # what a user has
    words = ["run", "--data", f"{folder}/plants.csv", "--pair", "LinearGaussian", "--pair_args.latent_dim", "2"]
    words += ["--label_column", "species", "--drop_columns", "id", "--standardise", "true", "--epochs", "40"]
    words += ["--learning_rate", "0.02", "--stratify", "species", "--out", str(folder / "runs"), "--name", "plants"]
    assert main(words) == 0
    return RunDirectory.open(folder / "runs" / "plants")


@pytest.fixture(autouse=True)
def _single_precision():
    torch.set_default_dtype(torch.float32)


def test_a_label_is_asked_about_and_not_trained_on(folder, capsys):
    assert main(["run", "--data", f"{folder}/plants.csv", "--pair", "LinearGaussian"]) == 2
    said = capsys.readouterr().err
    assert "'species'" in said
    assert "'id'" in said
    assert "--label_column" in said


def _truth(run: RunDirectory, frame: pd.DataFrame) -> torch.Tensor:
    """log p(x) of the test data in the units of the file, by the normal distribution that the pair is."""
    saved = load_run(run)
    rows = saved.data.data.rows
    assert rows is not None
    own = torch.tensor(frame[["length", "width", "mass", "depth"]].to_numpy()[rows["test"]])
    units, pair = saved.data.data.standardisation, saved.pair.double()
    mean, scale = (torch.zeros(4), torch.ones(4)) if units is None else (units.mean, units.scale)
    with torch.no_grad():
        noise = torch.diag((2 * pair.log_noise_scale).exp().expand(4))
        covariance = scale.double()[:, None] * (pair.weight @ pair.weight.T + noise) * scale.double()
        loc = pair.bias * scale.double() + mean.double()
        return torch.distributions.MultivariateNormal(loc, covariance).log_prob(own)


def test_the_numbers_of_a_run_are_those_of_x_in_its_own_units(run, folder):
    truth = _truth(run, pd.read_csv(folder / "plants.csv", sep=";", decimal=","))
    evidence = xr.load_dataset(run.path / "evidence.nc")
    assert abs(torch.from_numpy(evidence["log_evidence"].to_numpy()) - truth).max() < 0.2  # ± 0.1 at 95 %
    summary = run.read_summary()
    assert abs(summary["evidence"]["log_evidence"] - truth.mean()) < 0.05
    assert summary["columns"] == ["length", "width", "mass", "depth"]
    assert any("Jacobian" in remark for remark in summary["remarks"])
    # Training and test data are alike: the ELBOs of both are in the same units.
    assert abs(summary["training"]["last_elbo"] - summary["evidence"]["elbo"]) < 2
    assert abs(summary["training"]["last_validation_elbo"] - summary["evidence"]["elbo"]) < 2


def test_a_run_on_standardised_data_is_compared_with_one_on_the_data_as_they_are(run, folder, tmp_path, undrawn):
    """The densities of both are in the units of the file, so that their differences are those of the two normals."""
    words = ["run", "--data", f"{folder}/plants.csv", "--pair", "LinearGaussian", "--pair_args.latent_dim", "2"]
    words += ["--label_column", "species", "--drop_columns", "id", "--epochs", "5", "--stratify", "species"]
    assert main([*words, "--out", str(tmp_path), "--name", "plain"]) == 0
    plain = RunDirectory.open(tmp_path / "plain")
    found = compare(run, plain)
    frame = pd.read_csv(folder / "plants.csv", sep=";", decimal=",")
    truth = _truth(plain, frame) - _truth(run, frame)
    assert abs(found.difference["log_evidence"] - truth.mean()) < 0.1
    assert abs(torch.from_numpy(found.values[1] - found.values[0]) - truth).max() < 0.3  # ± 0.1 at 95 %, twice
    assert main(["compare", str(run.path), str(plain.path), "--out", str(tmp_path / "both.html")]) == 0


@pytest.mark.slow
def test_bounds_and_causes_are_those_of_x_in_its_own_units(run):
    before = run.read_summary()["evidence"]["log_evidence"]
    assert main(["certify", str(run.path), "--num_data", "20", "--width", "0.5"]) == 0
    assert main(["gap", str(run.path), "--num_data", "5", "--steps", "50"]) == 0
    summary = run.read_summary()
    assert abs(summary["certificate"]["log_evidence"] - before) < 0.1
    assert summary["certificate"]["mean_lower"] <= before + 0.05
    causes = summary["gap_attribution"]
    assert abs(causes["log_evidence"] - causes["elbo"] - causes["total"]) < 1e-4
    assert abs(causes["log_evidence"] - before) < 3  # of five of the data


def test_a_run_with_labels_colours_its_latent_plane_and_names_columns(run):
    saved = load_run(run)
    labels = saved.labels()
    assert sorted(set(labels)) == ["elm", "oak"]
    plane = json.loads(run.decoder.read_text()) if run.decoder.is_file() else None
    assert plane is None or len(plane["labels"]) == len(plane["means"])
    page = run.report.read_text()
    assert "<bdi>depth</bdi>" in page
    tree = xr.open_datatree(run.path / "posterior.nc", engine="h5netcdf")
    assert tree["observed_data"].coords["column"].to_numpy().tolist() == ["length", "width", "mass", "depth"]
    tree.close()


def test_a_reopened_run_takes_and_gives_data_in_their_own_units(run, folder):
    trained = load(run.path)
    frame = pd.read_csv(folder / "plants.csv", sep=";", decimal=",")[["length", "width", "mass", "depth"]]
    drawn = trained.sample(2000, seed=0)
    spread = frame.std().to_numpy()
    assert (abs(drawn.mean(0).numpy() - frame.mean().to_numpy()) < 0.5 * spread).all()
    assert (drawn.std(0).numpy() / spread < 2).all()
    found = trained.reconstruct(frame, seed=0)
    assert (abs(found.mean.numpy() - frame.to_numpy()).mean(0) < 0.7 * spread).all()
    evidence = trained.log_prob(frame[:5], seed=0)
    assert evidence.log_evidence.mean() > -25


def test_columns_are_context_by_the_names_of_the_arguments(tmp_path, capsys, undrawn):
    rng = np.random.default_rng(1)
    kind, age = rng.integers(0, 2, 150), rng.normal(size=150)
    z = np.array([0.0, 8.0])[kind] + 2 * age + rng.normal(size=150)
    x = z[:, None] + 0.5 * rng.normal(size=(150, 2))
    pd.DataFrame({"age": age, "a": x[:, 0], "kind": np.array(["elm", "oak"])[kind], "b": x[:, 1]}).to_csv(
        tmp_path / "x.csv", index=False
    )
    (tmp_path / "own.py").write_text(OWN_PAIR)
    words = ["run", "--pair", f"{tmp_path}/own.py", "--data", f"{tmp_path}/x.csv", "--context_columns", "age,kind"]
    words += ["--label_column", "kind", "--epochs", "150", "--learning_rate", "0.1", "--batch_size", "150"]
    words += ["--out", str(tmp_path), "--name", "own", "--method", "importance"]
    assert main(words) == 0
    saved = load_run(RunDirectory.open(tmp_path / "own"))
    assert set(saved.labels()) == {"elm", "oak"}
    store = pyro.get_param_store()
    assert abs(store["base"].detach() - torch.tensor([0.0, 8.0])).max() < 1  # code 0 is elm, code 1 is oak
    assert abs(store["slope"] - 2) < 0.5  # and age is age, though it was named first
    assert "elm 0, oak 1" in " ".join(capsys.readouterr().err.split())


def test_files_for_each_part_and_words_that_cannot_be_used(tmp_path, capsys, undrawn):
    rng = np.random.default_rng(2)
    for name, n in (("train", 60), ("test", 20)):
        pd.DataFrame(rng.normal(size=(n, 3)), columns=list("abc")).to_csv(tmp_path / f"{name}.csv", index=False)
    words = ["run", "--data", f"{tmp_path}/train.csv", "--pair", "LinearGaussian", "--epochs", "2"]
    words += ["--pair_args.latent_dim", "1", "--out", str(tmp_path), "--name", "parts", "--method", "importance"]
    assert main([*words, "--test_data", f"{tmp_path}/test.csv"]) == 0
    assert RunDirectory.open(tmp_path / "parts").read_summary()["num_rows"] == 20
    capsys.readouterr()
    for more, said in (
        (["--split", "0.8,0.3"], "sum is 1"),
        (["--split_column", "a", "--stratify", "b"], "leave split and stratify out"),
        (["--validation_data", "v.csv"], "needs test_data"),
        (["--label_column", "d"], "no column of"),
        (["--drop_columns", "a,b,c"], "none is left"),
    ):
        assert main([*words, *more]) == 2
        assert said in " ".join(capsys.readouterr().err.split())
