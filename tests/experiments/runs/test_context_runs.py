"""Pairs of every kind from a file, through the commands: context, shared latents, and parameters for each datum."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from ppvae.cli import main
from ppvae.datasets import load_dataset
from ppvae.experiments.runs.run_data import load_pair_and_data
from ppvae.storage import Settings

pytestmark = pytest.mark.usefixtures("undrawn")

HEAD = """
import pyro, torch
import pyro.distributions as dist
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch.distributions import constraints
"""
REGRESSION = """
def model(y, covariates):
    weights = pyro.sample("weights", dist.Normal(0.0, 1.0).expand([covariates.shape[-1]]).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(covariates @ weights, 0.5), obs=y)

guide = AutoMultivariateNormal(model)
"""
LABELS = """
def model(x, table, labels):  # x ~ N(table[label], 1.25)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(table[labels], 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)

def guide(x, table, labels):
    scale = pyro.param("scale", torch.tensor(0.45), constraint=constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal((4 * x + table[labels]) / 5, scale))
"""
ROWS = """
def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)

def guide(x):
    loc = pyro.param("loc", lambda: 0.8 * x)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, 0.45))
"""
RUN = ["--accelerator", "cpu", "--name", "one", "--method", "importance", "--num_particles", "400"]


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.set_default_dtype(torch.float32)  # what a user has; the fixture puts it back
    for name, text in (("regression", REGRESSION), ("labelled", LABELS), ("rows", ROWS)):
        (tmp_path / f"{name}.py").write_text(HEAD + text, encoding="utf-8")
    rng = np.random.default_rng(0)
    covariates, labels, table = rng.normal(size=(40, 3)), rng.integers(0, 40, size=40), 2 * rng.normal(size=40)
    np.save("covariates.npy", covariates)
    np.save("y.npy", covariates @ [1.0, -0.5, 0.2] + 0.5 * rng.normal(size=40))
    x = table[labels] + math.sqrt(1.25) * rng.normal(size=40)
    np.savez("labelled.npz", x=x, labels=labels, table=table)  # a table with as many rows as there are data


def test_a_regression_is_trained_and_measured_whole(capsys):
    words = ["--pair", "regression.py", "--data", "y.npy", "--context", "covariates.npy"]
    assert main(["run", *words, *RUN, "--epochs", "300", "--learning_rate", "0.05"]) == 0
    said = capsys.readouterr()
    assert "nats for the data set of 40" in said.out
    assert "per datum" not in said.out
    summary = json.loads(Path("runs/one/summary.json").read_text())
    x, y = np.load("covariates.npy"), np.load("y.npy")
    exact = stats.multivariate_normal(np.zeros(40), x @ x.T + 0.25 * np.eye(40)).logpdf(y)
    numbers = summary["evidence"]
    # Two of the guide's own errors would be passed once in 20; the guide is not quite the posterior: five.
    assert abs(numbers["log_evidence"] - exact) < 5 * numbers["log_evidence_standard_error"] + 1e-3
    assert (summary["unit"], summary["split"], summary["num_rows"]) == ("data set", "training", 40)
    assert any("the training had 300 gradient steps" in remark for remark in summary["remarks"])
    assert not any("1 of 1" in remark for remark in summary["remarks"])
    page = Path("runs/one/report.html").read_text()
    assert "per datum" not in page
    assert "test data" not in page
    assert "NaN" not in page
    assert main(["evaluate", "runs/one"]) == 0  # the config has all that is needed
    assert main(["evaluate", "runs/one", "--split", "validation"]) == 2
    assert "there are no validation data" in capsys.readouterr().err


def test_labels_are_cut_with_the_data_and_a_table_of_as_many_rows_is_not(capsys):
    _, found = load_pair_and_data(Settings(pair="labelled.py", data="labelled.npz"))
    assert [(one.name, one.by_row) for one in found.data.context] == [("table", False), ("labels", True)]
    x, table, labels = found.data.batch("test")
    whole = np.load("labelled.npz")
    rows = found.data.rows["test"].numpy()
    np.testing.assert_allclose(x, whole["x"][rows], rtol=1e-6)
    np.testing.assert_array_equal(labels, whole["labels"][rows])
    np.testing.assert_allclose(table, whole["table"], rtol=1e-6)
    assert main(["run", "--pair", "labelled.py", "--data", "labelled.npz", *RUN, "--epochs", "2"]) == 0
    numbers = json.loads(Path("runs/one/summary.json").read_text())["evidence"]
    exact = stats.norm(whole["table"][whole["labels"][rows]], math.sqrt(1.25)).logpdf(whole["x"][rows]).mean()
    assert abs(numbers["log_evidence"] - exact) < 5 * numbers["log_evidence_monte_carlo_error"] + 1e-4


def test_parameters_by_datum_are_measured_on_the_training_data(capsys):
    np.save("x.npy", np.random.default_rng(1).normal(size=20))
    assert main(["run", "--pair", "rows.py", "--data", "x.npy", *RUN, "--epochs", "2"]) == 0
    assert "mean over 20 training data" in " ".join(capsys.readouterr().out.split())
    numbers = json.loads(Path("runs/one/summary.json").read_text())["evidence"]
    exact = stats.norm(0, math.sqrt(1.25)).logpdf(np.load("x.npy")).mean()
    assert abs(numbers["log_evidence"] - exact) < 5 * numbers["log_evidence_monte_carlo_error"] + 1e-4


def test_a_pair_that_is_refused_is_shown_all_of_few_data(capsys):
    """The programs run on all 40 data only: what the check says is why they are refused, and not that they fail."""
    text = "\ndef guide(y, covariates):\n    assert len(y) == 40\n    pyro.sample('other', dist.Normal(0.0, 1.0))\n"
    Path("refused.py").write_text(HEAD + REGRESSION + text, encoding="utf-8")
    assert main(["check", "refused.py", "--data", "y.npy", "--context", "covariates.npy"]) == 1
    said = capsys.readouterr().out
    assert "[only-in-guide] other" in said
    assert "AssertionError" not in said


@pytest.mark.slow
def test_the_gap_of_a_data_set(capsys):
    words = ["--pair", "regression.py", "--data", "y.npy", "--context", "covariates.npy"]
    assert main(["run", *words, *RUN, "--epochs", "50", "--learning_rate", "0.05"]) == 0
    capsys.readouterr()
    assert main(["gap", "runs/one", "--steps", "20", "--num_data", "7"]) == 0
    said = "num_data = 7 has no effect: these data cannot be divided, and all 40 are measured."
    assert said in capsys.readouterr().err
    section = json.loads(Path("runs/one/summary.json").read_text())["gap_attribution"]
    assert (section["unit"], section["num_data"]) == ("data set", 1)
    assert said in section["remarks"]
    assert main(["gap", "runs/one", "--steps", "2"]) == 0
    assert main(["evaluate", "runs/one", "--num_particles", "20", "--max_eval", "9"]) == 0
    assert [line for line in capsys.readouterr().err.splitlines() if "has no effect" in line] == [
        "Note: max_eval = 9 has no effect: these data cannot be divided, and all 40 are measured."
    ]


def test_check_says_unit_and_layouts(capsys):
    assert main(["check", "regression.py", "--data", "y.npy", "--context", "covariates.npy"]) == 0
    said = capsys.readouterr().out
    assert "unit: data set; layouts: model vectorised, guide broadcast." in said
    assert "context covariates: (40, 3) of float32, given whole." in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["regression.py", "--data", "y.npy"], "takes covariates after x, and 0 context files are given"),
        (["regression.py", "--data", "y.npy", "--context", "nowhere.npy"], "nowhere.npy is no file"),
        (["regression.py", "--data", "y.npy", "--context", "short.npy"], "has 39 rows for 40 data"),
        (["regression.py", "--data", "labelled.npz"], "which the model of regression.py does not take"),
        (["rows.py", "--data", "y.npy", "--context", "y.npy"], "takes nothing after x"),
    ],
)
def test_a_wrong_context_is_one_sentence(capsys, words, sentence):
    np.save("short.npy", np.zeros((39, 3)))
    assert main(["check", *words]) == 2
    err = capsys.readouterr().err.strip()
    assert sentence in err
    assert len(err.splitlines()) == 1


def test_an_archive_brings_its_context():
    data = load_dataset("labelled.npz")
    assert [one.name for one in data.context] == ["labels", "table"]
    assert data.context[0].values.dtype == torch.int64
