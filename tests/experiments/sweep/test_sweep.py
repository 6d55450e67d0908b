"""A sweep: trials on one journal, stopped and gone on with, by several processes; and its page."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

from ppvae.cli import main
from ppvae.errors import OptionError
from ppvae.experiments.runs.planning_options import SweepOptions
from ppvae.experiments.sweep import sweep

pytest.importorskip("optuna")

CONFIG = """
pair: LinearGaussian
data: {data}
epochs: 6
accelerator: cpu
method: importance
num_particles: 50
learning_rate: {{low: 1.0e-3, high: 3.0e-2, log: true}}
batch_size: {{low: 20, high: 60}}
pair_args: {{latent_dim: 2}}
"""

# A pair that has no default for its only argument.
NEEDS = """
from ppvae.models import LinearGaussian


class Needs(LinearGaussian):
    @classmethod
    def for_data(cls, x, latent_dim):
        return super().for_data(x, latent_dim)
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    rng = np.random.default_rng(0)
    np.save(folder / "x.npy", rng.normal(size=(200, 2)) @ rng.normal(size=(2, 4)) + 0.3 * rng.normal(size=(200, 4)))
    (folder / "small.yaml").write_text(CONFIG.format(data=folder / "x.npy"))
    return folder / "small.yaml"


@pytest.fixture(scope="module")
def found(config):
    return sweep(config, SweepOptions(trials=3, out=str(config.parent / "one")), say=lambda line: None)


def test_trials_are_measured_the_default_first(found):
    summary = json.loads((found.folder / "sweep.json").read_text())
    assert [t["default"] for t in summary["trials"]] == [True, False, False]
    assert all(t["state"] == "measured" for t in summary["trials"])
    for one in summary["trials"]:
        kept = np.load(found.folder / "trials" / f"{one['number']:04d}.npz")
        assert kept["log_evidence"].mean() == pytest.approx(one["log_evidence"], abs=1e-6)
        assert len(kept["row"]) == one["num_data"] == 20
    assert summary["num_pairs"] == 3
    best = next(t for t in summary["trials"] if t["number"] == summary["best"])
    assert best["log_evidence"] == max(t["log_evidence"] for t in summary["trials"])


def test_the_page_holds_the_conclusion_and_every_trial(found):
    page = (found.folder / "report.html").read_text()
    assert found.summary["conclusion"].split(".")[0] in page
    for one in found.summary["trials"]:
        assert f'data-value="{json.dumps(one["log_evidence"])}"' in page


def test_the_best_options_are_a_configuration_of_a_run(found):
    best = yaml.safe_load((found.folder / "best.yaml").read_text())
    values = next(t for t in found.summary["trials"] if t["number"] == found.summary["best"])["values"]
    assert best["learning_rate"] == values.get("learning_rate", 1e-3)


def test_a_sweep_that_is_done_only_writes_its_page_again(config, found):
    lines = []
    again = sweep(config, SweepOptions(trials=3, out=str(config.parent / "one")), say=lines.append)
    assert again.summary == found.summary
    assert len(lines) == 1


def test_another_configuration_of_the_same_name_is_refused(config, found, tmp_path):
    other = tmp_path / "small.yaml"
    other.write_text(config.read_text().replace("epochs: 6", "epochs: 7"))
    with pytest.raises(OptionError, match="other options"):
        sweep(other, SweepOptions(trials=3, out=str(config.parent / "one")))


def test_a_trial_that_cannot_be_trained_is_said_and_counted(config, tmp_path):
    other = tmp_path / "failing.yaml"
    text = config.read_text().replace("{latent_dim: 2}", "{latent_dim: {choices: [-1, -2]}}")
    other.write_text(text.replace("pair: LinearGaussian", f"pair: {other.with_name('needs.py')}:Needs"))
    other.with_name("needs.py").write_text(NEEDS)
    found = sweep(other, SweepOptions(trials=2, out=str(tmp_path)), say=lambda line: None)
    assert [t["state"] for t in found.summary["trials"]] == ["failed", "failed"]
    assert "needs the argument latent_dim" in found.summary["trials"][0]["error"]  # the default
    assert "No trial was measured" in (found.folder / "report.html").read_text()


@pytest.mark.slow
def test_two_processes_share_a_sweep_that_is_stopped_and_gone_on_with(config, tmp_path, capsys):
    words = ["sweep", str(config), "--trials", "12", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "ppvae", *words]
    both = [subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) for _ in range(2)]
    end = time.monotonic() + 200
    while len(list((tmp_path / "small" / "trials").glob("*.npz"))) < 3 and time.monotonic() < end:
        time.sleep(0.1)
    os.kill(both[0].pid, signal.SIGKILL)
    both[1].send_signal(signal.SIGINT)
    assert [one.wait(60) for one in both] == [-signal.SIGKILL, 130]
    assert main(words) == 0
    trials = json.loads((tmp_path / "small" / "sweep.json").read_text())["trials"]
    assert sum(t["default"] for t in trials) == 1
    done = [t for t in trials if t["state"] in ("measured", "given up")]
    assert len(done) >= 12 - 1  # the default is not asked for again where its process was killed
    assert "log p(x) of validation data" in capsys.readouterr().out
