"""`ppvae run --compute.devices`: what is refused, and a run on two processes that is gone on with by one."""

import json
import os
import subprocess
import sys

import pytest

from ppvae.errors import OptionError
from ppvae.experiments.runs.preparation import compute_of
from ppvae.inference import Compute
from ppvae.inference.svi import helps
from ppvae.storage import Settings


def test_the_settings_name_the_fields_of_compute():
    assert compute_of(Settings()) == Compute()
    assert compute_of(Settings(compute={"devices": 2, "precision": "bf16-mixed"})).num_processes == 2
    with pytest.raises(OptionError, match=r"compute has no option 'device' \(did you mean 'devices'\?\)"):
        compute_of(Settings(compute={"device": 2}))
    with pytest.raises(OptionError, match="devices must be an integer"):
        compute_of(Settings(compute={"devices": "two"}))


def test_a_process_alone_helps_no_other():
    assert not helps(Compute())


@pytest.mark.slow
def test_a_run_on_two_processes_is_gone_on_with_by_one(tmp_path):
    words = ["run", "--pair_args.hidden", "[16]", "--epochs", "2", "--accelerator", "cpu", "--max_eval", "10"]
    words += ["--method", "importance", "--num_particles", "20", "--out", str(tmp_path), "--name", "two"]

    def ppvae(*words):  # in a process of its own, in the floating-point type of a user
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run([sys.executable, "-m", "ppvae", *words], env=environment, capture_output=True, text=True)

    done = ppvae(*words, "--compute.devices", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("log p(x)") == 1  # one process speaks
    assert [path.name for path in tmp_path.iterdir()] == ["two"]
    assert ppvae("run", "--resume", str(tmp_path / "two"), "--epochs", "3").returncode == 2
    done = ppvae("run", "--resume", str(tmp_path / "two"), "--compute.devices", "1")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "two" / "summary.json").read_text())["training"]["epochs"] == 2
