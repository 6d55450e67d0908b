"""The command line: what it prints, where it writes, with which code it ends."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure

from ppvae.cli import main
from ppvae.cli.commands import COMMANDS
from ppvae.storage import RunDirectory, Settings, all_runs

SMALL = [
    "--epochs",
    "2",
    "--method",
    "importance",
    "--num_particles",
    "30",
    "--pair_args.latent_dim",
    "2",
    "--pair_args.hidden",
    "[4]",
]

PAIR = """
import pyro, torch
import pyro.distributions as dist
from torch import nn


class MyPair(nn.Module):
    def __init__(self, num_features, latent_dim=2):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(num_features, latent_dim), nn.Linear(latent_dim, num_features)
        self.latent_dim = latent_dim

    def model(self, x):
        pyro.module("mine", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latent_dim), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("mine", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 0.5).to_event(1))


class Plain:
    def __init__(self):
        self.pair = MyPair(3)
        self.model, self.guide = self.pair.model, self.pair.guide


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(pyro.param("mean", torch.tensor(0.0)), 1.0))
        pyro.sample("x", dist.Normal(z[..., None] * torch.ones(3), 1.0).to_event(1), obs=x)


def guide(x):
    weight = pyro.param("weight", torch.tensor(0.1))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(weight * x.sum(-1), 0.5))


made = MyPair(3)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of a user's with a pair and data in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_file.py").write_text(PAIR)
    np.save("my_data.npy", np.random.default_rng(0).normal(size=(40, 3)))
    return tmp_path


def ppvae(*words, **options):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "ppvae", *words], stdout=-1, stderr=-1, text=True, env=environment, **options
    )


class TestRun:
    def test_trains_evaluates_and_ends_with_the_path(self, here, capsys):
        assert main(["run", *SMALL, "--max_eval", "20"]) == 0
        shown = capsys.readouterr()
        (directory,) = all_runs("runs")
        assert shown.out.splitlines()[-1] == str(directory.path)
        for word in ("ELBO", "log p(x)", "gap", "k-hat", "nats"):
            assert word in shown.out
        summary = directory.read_summary()
        assert summary is not None
        assert f"{summary['evidence']['log_evidence']:.2f}" in shown.out
        assert summary["command"].startswith("ppvae run --epochs 2")

    @pytest.mark.parametrize(
        "spec", ["MyPair", *(pytest.param(spec, marks=pytest.mark.slow) for spec in ("Plain", "made", ""))]
    )
    def test_a_users_own_pair_and_data(self, here, spec, undrawn):
        pair = f"my_file.py:{spec}" if spec else "my_file.py"
        assert main(["run", "--pair", pair, "--data", "my_data.npy", "--epochs", "2", "--num_particles", "30"]) == 0
        (directory,) = all_runs("runs")
        assert main(["evaluate", str(directory.path), "--method", "importance"]) == 0

    def test_a_module_of_the_present_folder(self, here):
        (here / "my_package").mkdir()
        (here / "my_package" / "deep.py").write_text(PAIR)
        assert main(["check", "my_package.deep:MyPair", "--data", "my_data.npy"]) == 0

    def test_likelihoods_of_ones_own(self, here, undrawn):
        (here / "mine.py").write_text("from ppvae.models import Normal\nclass Wide(Normal): pass\n")
        words = ["--data", "my_data.npy", "--likelihood", "mine.py:Wide", "--likelihood_args.scale", "2.0"]
        assert main(["run", *words, *SMALL]) == 0
        settings = all_runs("runs")[0].read_settings()
        assert settings.likelihood_args == {"scale": 2.0}

    def test_a_config_repeats_a_run(self, here, capsys, undrawn):
        assert main(["run", *SMALL, "--max_eval", "5", "--name", "first"]) == 0
        assert main(["run", "--config", "runs/first/config.yaml", "--name", "second"]) == 0
        first, second = (RunDirectory.open(f"runs/{name}").read_summary() for name in ("first", "second"))
        assert first is not None
        assert second is not None
        assert first["evidence"] == second["evidence"]

    def test_print_config_is_a_config(self, here, capsys):
        assert main(["run", "--epochs", "7", "--pair_args.latent_dim", "3", "--print_config"]) == 0
        values = yaml.safe_load(capsys.readouterr().out)
        assert values.pop("resume") is None
        assert Settings(**values) == Settings(epochs=7, pair_args={"latent_dim": 3})


class TestInterruption:
    @pytest.mark.slow
    def test_ctrl_c_ends_with_130_and_resume_goes_on(self, here):
        words = ["--data", "my_data.npy", "--pair", "my_file.py:MyPair", "--num_particles", "30", "--name", "it"]
        process = ppvae("run", *words, "--epochs", "100000", "--batch_size", "1", "--patience", "null")
        while "run directory" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "ppvae run --resume runs/it" in err
        assert "Traceback" not in err
        assert out == ""
        directory = RunDirectory.open("runs/it")
        assert directory.checkpoint.is_file()
        settings = directory.read_settings()
        # as if the user had asked for little more than was done
        (directory.config).write_text(yaml.safe_dump(settings.as_dict() | {"epochs": 1}))
        resumed = ppvae("run", "--resume", "runs/it")
        _, err = resumed.communicate(timeout=120)
        assert resumed.returncode == 0, err
        assert directory.read_summary() is not None

    def test_a_reader_that_leaves_is_no_error(self, here):
        process = ppvae("list")
        process.stdout.close()
        process.stdout = None
        _, err = process.communicate(timeout=60)
        assert err == ""
        assert process.returncode == 1


class TestCheck:
    def test_no_findings(self, here, capsys):
        assert main(["check", "my_file.py:MyPair", "--data", "my_data.npy"]) == 0
        assert "no findings" in capsys.readouterr().out

    def test_findings_end_with_1(self, here, capsys):
        (here / "bad.py").write_text(
            PAIR.replace('pyro.sample("z", dist.Normal(self', 'pyro.sample("y", dist.Normal(self')
        )
        assert main(["check", "bad.py:MyPair", "--data", "my_data.npy"]) == 1
        out = capsys.readouterr().out
        assert "only-in-guide" in out
        assert "only-in-model" in out


class TestList:
    def test_shows_pairs_data_and_runs(self, here, capsys):
        RunDirectory.create(Settings(name="unfinished")).write_settings(Settings())
        RunDirectory.create(Settings(name="damaged")).config.write_text("[")
        assert main(["list"]) == 0
        out = capsys.readouterr().out
        for word in ("VAE", "LinearGaussian", "Binomial", "digits", "unfinished", "not evaluated", "damaged"):
            assert word in out

    def test_a_long_path_is_not_cut(self, here, capsys):
        pair = f"/a/{'folder/' * 20}mine.py:MyPair"
        RunDirectory.create(Settings(name="long")).write_settings(Settings(pair=pair))
        assert main(["list"]) == 0
        rows = [line.split("│")[2].strip() for line in capsys.readouterr().out.splitlines() if line.count("│") == 6]
        assert pair in "".join(rows)

    def test_no_runs(self, here, capsys):
        assert main(["list", "--out", "nowhere"]) == 0
        assert "no runs in nowhere" in capsys.readouterr().out


class TestHelp:
    @pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
    def test_help_ends_well(self, command, capsys):
        assert main([*command, "--help"]) == 0
        assert "usage: ppvae" in capsys.readouterr().out

    def test_every_option_is_explained(self, capsys):
        main(["run", "--help"])
        out = " ".join(capsys.readouterr().out.split())
        for option in Settings.__dataclass_fields__:
            explained = out.split(f"--{option} {option.upper()} ")[-1]
            assert not explained.startswith("(type"), option

    @pytest.mark.parametrize("command", ["", "run", "evaluate", "certify", "gap", "posterior"])
    def test_is_quick_because_torch_is_not_imported(self, command):
        words = [word for word in (command, "--help") if word]
        program = f"import sys; from ppvae.cli import main; main({words}); sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL, check=False).returncode == 0


class TestExperiment:
    @pytest.fixture
    def question(self, monkeypatch):
        """An experiment that doubles a number."""
        from ppvae.experiments import experiment

        @dataclasses.dataclass(frozen=True)
        class Config:
            """How large.

            Args:
                number: to be doubled.
            """

            number: int = 2

        def ask(config):
            figure = Figure()
            figure.subplots().plot([0, config.number])
            rows = [{"number": str(config.number), "double": 2.0 * config.number}]
            return experiment.Result("doubles", rows, ["It doubles."], {"line": figure})

        module = types.SimpleNamespace(__doc__="What is twice a number?", Config=Config, run=ask)
        monkeypatch.setattr(experiment, "EXPERIMENTS", ("doubling",))
        monkeypatch.setitem(sys.modules, "ppvae.experiments.doubling", module)

    def test_writes_table_figures_and_conclusions(self, question, tmp_path, capsys):
        assert main(["experiment", "doubling", "--number", "21", "--out", str(tmp_path)]) == 0
        printed = capsys.readouterr().out
        assert "42" in printed
        assert "It doubles." in printed
        folder = tmp_path / "experiment-doubling"
        assert sorted(file.name for file in folder.iterdir()) == ["line.png", "summary.json", "table.csv"]
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["config"] == {"number": 21}
        assert summary["rows"] == [{"number": "21", "double": 42.0}]

    def test_all_are_listed_with_their_questions(self, capsys):
        from ppvae.experiments.experiment import EXPERIMENTS

        assert main(["list"]) == 0
        out = capsys.readouterr().out
        assert [name for name in EXPERIMENTS if name not in out] == []
        words = " ".join(out.replace("│", " ").split())  # a question takes several lines of a narrow table
        assert "Is a linear VAE" in words

    @pytest.mark.parametrize(
        ("words", "what"),
        [
            (["doublin"], "there is no experiment 'doublin' (did you mean 'doubling'?)"),
            (["doubling", "--numbr", "3"], "--numbr"),
            (["doubling", "--number", "x"], "number"),
            ([], "missing"),
        ],
    )
    def test_bad_words(self, question, words, what, capsys):
        assert main(["experiment", *words]) == 2
        said = capsys.readouterr().err
        assert what in said
        assert said.count("\n") == 1

    def test_a_folder_that_cannot_be_made(self, question, tmp_path, capsys):
        (tmp_path / "file").write_text("")
        assert main(["experiment", "doubling", "--out", str(tmp_path / "file")]) == 2
        assert "cannot be made" in capsys.readouterr().err


def test_resume_takes_no_other_option_even_at_its_default(tmp_path, capsys):
    assert main(["run", "--resume", str(tmp_path), "--epochs", str(Settings().epochs)]) == 2
    assert "--resume takes every option" in capsys.readouterr().err
