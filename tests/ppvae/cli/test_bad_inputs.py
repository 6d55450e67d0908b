"""What a user can get wrong: one clear sentence and exit code 2 on the command line, a typed exception from Python.

Nothing that was there before is touched, no run directory appears for a run that never began, and nobody sees a
traceback.
"""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from ppvae.cli import main
from ppvae.datasets import load_dataset
from ppvae.errors import CheckpointError, DataError, DatasetError, NonFiniteError, OptionError, PairError, RunError
from ppvae.experiments.runs.make_pair import make_pair
from ppvae.inference import fit, importance_evidence, log_weights
from ppvae.inference.resume import write_checkpoint
from ppvae.inference.svi.checkpoint import load_parameters
from ppvae.models import VAE, Bernoulli, Binomial, LinearGaussian, Poisson
from ppvae.storage import RunDirectory, Settings

HEAD = """
import pyro, torch
import pyro.distributions as dist
"""
GOOD = """
def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(pyro.param("mean", torch.tensor(0.0)), 1.0))
        pyro.sample("x", dist.Normal(z[..., None] * torch.ones(3), 1.0).to_event(1), obs=x)

def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.sum(-1), pyro.param("scale", torch.tensor(1.0))))
"""
PAIRS = {
    "good.py": HEAD + GOOD,
    "syntax.py": HEAD + "def model(x:\n",
    "missing_module.py": "\nimport not_there\n",
    "stops.py": "\n\nraise SystemExit(0)\n",
    "raises.py": HEAD + "class Pair:\n    def __init__(self):\n        raise RuntimeError('out of ideas')\n",
    "half.py": HEAD + "def model(x):\n    pass\n",
    "observes_nothing.py": HEAD + GOOD.replace(", obs=x)", ")"),
    "needs.py": "class Needs:\n    def __init__(self, latent_dim):\n        pass\n",
    "no_latent.py": HEAD
    + GOOD.replace('pyro.sample("z", dist.Normal(x.sum', "print if x is None else (dist.Normal(x.sum"),
    "other_name.py": HEAD + GOOD.replace('pyro.sample("z", dist.Normal(x.sum', 'pyro.sample("y", dist.Normal(x.sum'),
    "fails.py": HEAD + GOOD.replace("torch.ones(3)", "torch.ones(7)"),
    "no_parameters.py": HEAD
    + GOOD.replace('pyro.param("mean", torch.tensor(0.0))', "0.0").replace(
        'pyro.param("scale", torch.tensor(1.0))', "1.0"
    ),
    "explodes.py": HEAD + GOOD.replace("x.sum(-1)", "x.sum(-1) * pyro.param('w', torch.tensor(1.0)) ** 9e9"),
}

NORMAL = ["--pair", "LinearGaussian", "--pair_args.latent_dim", "1"]
MINE = ["--data", "good.npy"]
OWN = ["--pair", "good.py", *MINE]

# what is wrong: (the words, what the sentence must say)
CASES: dict[str, tuple[list[str], str]] = {
    # data
    "nan": (
        ["run", *NORMAL, "--data", "nan.npy"],
        r"nan.npy has 1 missing value, .* row 2, column 1 .* LinearGaussian does not leave them out",
    ),
    "inf": (["run", *NORMAL, "--data", "inf.csv"], r"inf.csv has 1 infinite or overlarge value, .* row 2, column 1"),
    "text in a table": (["run", *NORMAL, "--data", "text.csv"], "does not hold numbers"),
    "complex numbers": (["run", *NORMAL, "--data", "complex.npy"], "give real numbers"),
    "objects": (["run", *NORMAL, "--data", "objects.npy"], "cannot be read"),
    "no data": (["run", *NORMAL, "--data", "empty.npy"], r"shape \(0, 3\)"),
    "an empty table": (["run", *NORMAL, "--data", "empty.csv"], "is empty"),
    "one datum": (["run", *NORMAL, "--data", "one.npy"], "at least 3"),
    "constant data": (["run", *NORMAL, "--data", "constant.npy"], "does not vary"),
    "parts of other shapes": (["run", *NORMAL, "--data", "shapes.npz"], "different shapes"),
    "no such file": (["run", *NORMAL, "--data", "nowhere.npy"], "there is no file nowhere.npy"),
    "a damaged file": (["run", *NORMAL, "--data", "damaged.npz"], "damaged"),
    "a kind of file nobody reads": (["run", *NORMAL, "--data", "good.txt"], "path that ends in"),
    "unknown data": (["run", "--data", "digit"], "did you mean 'digits'"),
    "wrong hash": (["run", "--data", "mnist", "--data_dir", "."], "mnist.npz"),
    "no mnist here": (["run", "--data", "binarized_mnist", "--data_dir", "nowhere"], "does not exist"),
    # likelihood
    "outside the support": (["run", "--data", "good.npy", "--likelihood", "Bernoulli"], "training part .* support of"),
    "counts too large": (
        ["run", "--likelihood", "Binomial", "--likelihood_args.total_count", "9"],
        "support of Binomial",
    ),
    "unknown likelihood": (["run", "--likelihood", "Binomail"], "did you mean 'Binomial'"),
    "likelihood without its argument": (["run", "--likelihood", "Binomial"], "--likelihood_args.total_count"),
    "likelihood of a bad size": (
        ["run", "--likelihood", "Binomial", "--likelihood_args.total_count", "0"],
        "total_count is 0; give a whole number",
    ),
    "arguments of no likelihood": (["run", "--likelihood_args.total_count", "3"], "needs --likelihood"),
    "no likelihood for own data": (["run", *MINE], "VAE needs --likelihood for good.npy"),
    "likelihood for a pair that takes none": (["run", *NORMAL, "--likelihood", "Normal"], "takes no likelihood"),
    # pair
    "unknown pair": (["run", "--pair", "VEA"], "did you mean 'VAE'"),
    "no such pair file": (["run", "--pair", "nowhere.py:Pair"], "there is no file nowhere.py"),
    "no such module": (["run", "--pair", "not_there.at_all:Pair"], "there is no module 'not_there.at_all'"),
    "no such name": (["run", "--pair", "good.py:modle"], "did you mean 'model'"),
    "syntax error": (["run", "--pair", "syntax.py"], "never closed in .*syntax.py, line 4"),
    "import error": (["run", "--pair", "missing_module.py"], "missing_module.py, line 2: No module named 'not_there'"),
    "file that exits": (["run", "--pair", "stops.py"], "SystemExit in .*stops.py, line 3"),
    "constructor that raises": (["run", "--pair", "raises.py:Pair"], "raises.py, line 6: out of ideas"),
    "no guide": (["run", "--pair", "half.py"], "has no guide"),
    "nothing observed": (["run", "--pair", "observes_nothing.py", *MINE], "observes nothing"),
    "guide without a latent": (["run", "--pair", "no_latent.py", *MINE], "which the guide does not sample"),
    "names that differ": (["run", "--pair", "other_name.py", *MINE], "only-in-"),
    "shapes that clash": (["run", "--pair", "fails.py", *MINE], "size of tensor a"),
    "nothing to train": (["run", "--pair", "no_parameters.py", *MINE], "no parameters to train"),
    "unknown argument of a pair": (["run", "--pair_args.latent", "3"], "did you mean 'latent_dim'"),
    "missing argument of a pair": (["run", "--pair", "needs.py:Needs"], "--pair_args.latent_dim"),
    "inputs of a network": (["run", "--pair", "FeedForward"], "FeedForward.for_data"),
    "pair without log p(x)": (["run", "--pair", "Autoencoder", "--epochs", "1"], "has no log p"),
    "pair of a bad size": (["run", "--pair_args.latent_dim", "0"], "latent_dim is 0"),
    "arguments for an object": (["run", *OWN, "--pair_args.latent_dim", "2"], "takes no --pair_args"),
    # options
    "unknown command": (["rnu"], "did you mean 'run'"),
    "no command": ([], "a command is missing"),
    "unknown option": (["run", "--epcohs", "3"], "did you mean '--epochs'"),
    "a number that is none": (["run", "--epochs", "many"], "epochs must be a whole number; it is 'many'"),
    "an option without its value": (["run", "--epochs"], "--epochs: expected one argument"),
    "no epochs": (["run", *OWN, "--epochs", "0"], "epochs must be a whole number of at least 1"),
    "negative learning rate": (["run", *OWN, "--learning_rate", "-1"], "learning_rate must be a positive number"),
    "no particles": (["run", *OWN, "--num_particles", "0"], "num_particles .* at least 1; it is 0"),
    "negative seed": (["run", *OWN, "--seed", "-1"], "seed must lie between"),
    "unknown precision": (["run", *OWN, "--precision", "33"], "precision '33' cannot be used"),
    "unknown accelerator": (["run", *OWN, "--accelerator", "abacus"], "accelerator 'abacus'"),
    "no such config": (["run", "--config", "nowhere.yaml"], "does not exist"),
    "a damaged config": (["run", "--config", "damaged.yaml"], "config"),
    "unknown option in a config": (["run", "--config", "unknown.yaml"], "did you mean '--epochs'"),
    # run directories
    "out is a file": (["run", *OWN, "--out", "good.npy"], "no run directory can be made at good.npy"),
    "out lies below a file": (["run", *OWN, "--out", "good.npy/runs"], "no run directory can be made"),
    "a name that is taken": (["run", *OWN, "--name", "earlier"], "there is a run at runs/earlier already"),
    "resume what is no run": (["run", "--resume", "nowhere"], "nowhere is not a run directory"),
    "resume with other options": (["run", "--resume", "runs/earlier", "--epochs", "9"], "give no other"),
    "evaluate without a run": (["evaluate"], "RUN is missing"),
    "evaluate what is no run": (["evaluate", "."], "is not a run directory"),
    "evaluate no particles": (["evaluate", "runs/earlier", "--num_particles", "0"], "at least 1"),
    "unknown split": (["evaluate", "runs/earlier", "--split", "train"], "must be test or validation"),
    "a damaged run": (["evaluate", "runs/damaged"], "config.yaml cannot be read"),
    "a truncated checkpoint": (["evaluate", "runs/truncated"], "is damaged or is not a checkpoint"),
    "checkpoint of another pair": (["evaluate", "runs/other"], "another pair"),
    "resume a checkpoint of another pair": (["run", "--resume", "runs/other"], "another pair"),
    "no checkpoint": (["evaluate", "runs/killed"], "there is no checkpoint"),
    "check without a pair": (["check"], "PAIR is missing"),
}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A folder with good and bad files, and some earlier runs; the cases leave it as it is."""
    folder = tmp_path_factory.mktemp("bad")
    before = Path.cwd()
    os.chdir(folder)
    try:
        _write_files()
        _write_runs()
    finally:
        os.chdir(before)
    return folder


def _write_files() -> None:
    good = np.random.default_rng(0).normal(size=(30, 3))
    np.save("good.npy", good)
    np.savetxt("good.txt", good)
    for value, save in (
        (np.nan, lambda x: np.save("nan.npy", x)),
        (np.inf, lambda x: np.savetxt("inf.csv", x, delimiter=",")),
    ):
        bad = good.copy()
        bad[2, 1] = value
        save(bad)
    Path("text.csv").write_text("a,b\n1,2\n3,four\n5,6\n")
    np.save("complex.npy", good + 1j)
    np.save("objects.npy", np.array([{}, {}, {}]), allow_pickle=True)
    np.save("empty.npy", good[:0])
    Path("empty.csv").write_text("")
    np.save("one.npy", good[:1])
    np.save("constant.npy", np.ones((30, 3)))
    np.savez("shapes.npz", train=good, validation=good[:, :2], test=good)
    np.savez("whole.npz", good)
    Path("damaged.npz").write_bytes(Path("whole.npz").read_bytes()[:300])
    np.savez("mnist.npz", x_train=np.zeros((6, 28, 28)), y_train=np.zeros(6), x_test=good, y_test=good)
    for name, text in PAIRS.items():
        Path(name).write_text(text)
    Path("damaged.yaml").write_text("epochs: [1\nx: ]")
    Path("unknown.yaml").write_text("epcohs: 3\n")


def _write_runs() -> None:
    """Runs by hand: two whole ones, and what can become of a run."""
    for name, dims in (("earlier", 1), ("other", 2), ("truncated", 1), ("killed", 1), ("damaged", 1)):
        settings = Settings(
            pair="LinearGaussian", pair_args={"latent_dim": 1}, data="good.npy", accelerator="cpu", epochs=1, name=name
        )
        directory = RunDirectory.create(settings)
        directory.write_settings(settings)
        data = load_dataset("good.npy")
        pair = make_pair(Settings(pair="LinearGaussian", pair_args={"latent_dim": dims}), data)
        fit(pair.model, pair.guide, data, epochs=1, batch_size=200, checkpoint=directory.checkpoint, progress=False)
    runs = Path("runs")
    (runs / "damaged" / "config.yaml").write_text("pair: [")
    (runs / "killed" / "checkpoint.pt").unlink()
    whole = (runs / "truncated" / "checkpoint.pt").read_bytes()
    (runs / "truncated" / "checkpoint.pt").write_bytes(whole[: len(whole) // 2])


def _content(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts}


def _one_sentence(err: str) -> str:
    assert "Traceback" not in err
    sentence = err.splitlines()[-1]
    assert sentence.startswith("ppvae: ")
    assert len(sentence) < 500
    return sentence


@pytest.mark.parametrize("case", CASES)
def test_one_sentence_and_exit_code_2(case, shelf, monkeypatch, capsys):
    monkeypatch.chdir(shelf)
    words, says = CASES[case]
    before, folders = _content(shelf), set(shelf.glob("**/"))
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    sentence = _one_sentence(shown.err)
    assert re.search(says, sentence), sentence
    assert _content(shelf) == before
    assert {folder for folder in shelf.glob("**/") if folder.name != "__pycache__"} == folders - {shelf / "__pycache__"}


@pytest.mark.parametrize(
    "case",
    ["unknown option", *(pytest.param(case, marks=pytest.mark.slow) for case in ("nan", "checkpoint of another pair"))],
)
def test_the_same_from_a_process(case, shelf):
    words, says = CASES[case]
    command = [sys.executable, "-m", "ppvae", *words]
    done = subprocess.run(command, cwd=shelf, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.search(says, _one_sentence(done.stderr))


def test_a_training_that_diverges_keeps_its_last_good_state(shelf, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(shelf)
    words = [
        "--learning_rate",
        "1e30",
        "--batch_size",
        "4",
        "--accelerator",
        "cpu",
        "--out",
        str(tmp_path),
        "--name",
        "it",
    ]
    assert main(["run", *NORMAL, *MINE, *words]) == 2
    assert "training stopped in epoch" in _one_sentence(capsys.readouterr().err)
    assert sorted(file.name for file in (tmp_path / "it").iterdir()) == ["checkpoint.pt", "config.yaml"]


def _full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_before_training(shelf, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(shelf)
    monkeypatch.setattr(os, "fsync", _full)
    before = _content(shelf)
    assert main(["run", *NORMAL, *MINE]) == 2
    assert "No space left on device" in _one_sentence(capsys.readouterr().err)
    assert _content(shelf) == before


def test_a_full_disk_in_evaluation_leaves_the_earlier_results(shelf, monkeypatch, capsys):
    monkeypatch.chdir(shelf)
    words = ["evaluate", "runs/earlier", "--num_particles"]
    assert main([*words, "30"]) == 0
    before = _content(shelf)
    monkeypatch.setattr(os, "fsync", _full)
    assert main([*words, "50"]) == 2
    assert "No space left on device" in _one_sentence(capsys.readouterr().err)
    assert _content(shelf) == before


def test_a_disk_that_fills_up_in_training(monkeypatch, tmp_path):
    """torch's own writer turns the error of a full device into one about an "unexpected pos"; ours keeps it."""
    monkeypatch.setattr(Path, "write_bytes", _full)
    with pytest.raises(RunError, match="No space left on device"):
        write_checkpoint(tmp_path / "checkpoint.pt", {"parameters": torch.zeros(10_000)})
    assert not list(tmp_path.iterdir())


# --- from Python: what is wrong, the exception, the words


def _x() -> torch.Tensor:
    return torch.randn(12, 3)


def _linear() -> LinearGaussian:
    return LinearGaussian(num_features=3, latent_dim=1)


def _fit(**options):
    pair = _linear()
    return fit(pair.model, pair.guide, _x(), progress=False, **({"epochs": 1} | options))


def _evidence(x, num_particles=5):
    pair = _linear()
    return importance_evidence(pair.model, pair.guide, x, num_particles)


def _with_nan() -> torch.Tensor:
    x = _x()
    x[4, 2] = torch.nan
    return x


def _no_latent_model(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(0.0, 1.0).expand([3]).to_event(1), obs=x)


def _no_latent_guide(x):
    pass


PYTHON = {
    "nan in data": (lambda: _evidence(_with_nan()), DataError, "first in datum 4"),
    "nan in training data": (lambda: fit(_linear().model, _linear().guide, _with_nan()), DataError, "first in datum 4"),
    "no data": (lambda: _evidence(torch.zeros(0, 3)), DataError, "at least one datum"),
    "data that are no tensor": (lambda: _evidence({1.0, 2.0}), DataError, "torch.as_tensor"),
    "data of another width": (
        lambda: fit(_linear().model, _linear().guide, torch.zeros(4, 2)),
        PairError,
        "cannot be run",
    ),
    "no particles": (lambda: _evidence(_x(), 0), OptionError, "num_particles"),
    "half a particle": (lambda: _evidence(_x(), 2.5), OptionError, "num_particles"),
    "a negative memory": (
        lambda: log_weights(_linear().model, _linear().guide, _x(), 3, memory_mb=-1),
        OptionError,
        "memory",
    ),
    "nothing observed": (
        lambda: importance_evidence(lambda x: None, lambda x: None, _x()),
        PairError,
        "observes nothing",
    ),
    "no epochs": (lambda: _fit(epochs=0), OptionError, "epochs"),
    "negative learning rate": (lambda: _fit(learning_rate=-1.0), OptionError, "learning_rate"),
    "patience without validation": (lambda: _fit(patience=3), OptionError, "validation"),
    "resume without a file": (lambda: _fit(resume=True), OptionError, "checkpoint"),
    "resume nothing": (lambda: _fit(resume=True, checkpoint="nowhere.pt"), CheckpointError, "no checkpoint"),
    "a step too large": (lambda: _fit(learning_rate=1e200, epochs=5), NonFiniteError, "learning_rate"),
    "nothing to train": (lambda: fit(_no_latent_model, _no_latent_guide, _x()), PairError, "no parameters"),
    "unknown data": (lambda: load_dataset("digit"), DatasetError, "did you mean"),
    "missing file": (lambda: load_dataset("nowhere.npy"), DatasetError, "no file"),
    "grey pixels": (lambda: VAE.for_data(torch.rand(4, 3), Bernoulli()), DataError, "support"),
    "half counts": (lambda: Poisson().check(torch.full((2, 3), 0.5)), DataError, "support"),
    "whole numbers": (lambda: Binomial(4).check(torch.ones(2, 3, dtype=torch.int64)), DataError, "float"),
    "pictures not laid flat": (lambda: Binomial(4).check(torch.ones(2, 3, 3)), DataError, "flatten"),
    "no latent dimensions": (lambda: VAE(3, latent_dim=0), OptionError, "latent_dim"),
    "no layer": (lambda: VAE(3, hidden=(0,)), OptionError, "hidden width"),
    "no counts": (lambda: Binomial(0), OptionError, "total_count"),
    "unknown pair": (lambda: make_pair(Settings(pair="VEA"), load_dataset("digits")), PairError, "did you mean"),
    "no run": (lambda: RunDirectory.open("nowhere"), RunError, "not a run directory"),
    "no parameters to load": (
        lambda: load_parameters("nowhere.pt", _linear().model, _linear().guide, _x()),
        CheckpointError,
        "no checkpoint",
    ),
}


@pytest.mark.parametrize("case", PYTHON)
def test_a_typed_exception_from_python(case):
    call, kind, says = PYTHON[case]
    with pytest.raises(kind, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)
