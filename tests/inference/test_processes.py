"""Trainings on several processes: the step of one, one end for all, and what is kept when a process is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

SCRIPT = Path(__file__).with_name("two_processes.py")


def started(*words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, str(SCRIPT), *map(str, words)], env=environment, stderr=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True)  # fmt: skip


def ended(process, seconds=240):
    try:
        _, said = process.communicate(timeout=seconds)
    finally:
        process.kill()
        process.communicate()
    return process.returncode, said


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What two processes find (gloo, on the processor)."""
    file = tmp_path_factory.mktemp("two") / "found.json"
    code, said = ended(started("equal", file))
    assert code == 0, said
    return json.loads(file.read_text())


@pytest.mark.parametrize("pair", ["OfModules", "Scaled", "OfParams"])
def test_two_processes_take_the_steps_of_one(found, pair):
    """Same noise, so the same parameters, ELBOs and validation ELBOs; the last batch has one datum."""
    parameters, elbos = found[pair]
    assert parameters < 1e-13
    assert elbos < 1e-12


def test_mixed_precision_is_that_of_one_process_up_to_its_rounding(found):
    assert found["bf16"] < 0.02


def test_noise_depends_on_seed_step_and_process_alone(found):
    once, again, later = found["noise"]
    assert once == again
    assert len({*once, *later}) == 4


def test_parameters_that_come_apart_are_an_error(found):
    assert "not the same on all processes" in found["parted"]


def test_an_error_in_one_process_ends_all(found):
    assert "LookupError" in found["failed"]


def test_a_pair_on_all_data_at_once_has_nothing_to_divide(found):
    assert "nothing to divide" in found["indivisible"]


@pytest.mark.slow
def test_compiled_steps_on_two_processes_are_the_eager_ones_of_one(tmp_path):
    code, said = ended(started("compiled", tmp_path / "found.json"), 280)
    assert code == 0, said
    distance, step = json.loads((tmp_path / "found.json").read_text())
    assert (distance < 1e-9, step) == (True, "compiled")


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The parameters of the long training on two processes."""
    folder = tmp_path_factory.mktemp("straight")
    code, said = ended(started("long", folder, 2))
    assert code == 0, said
    return json.loads((folder / "end.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["first", "second"])
def test_a_killed_process_ends_the_training_and_nothing_is_lost(tmp_path, straight, killed):
    """All processes end within seconds, and the resumed training has the bits of one that was not disturbed."""
    process = started("long", tmp_path, 2)
    wait_for(tmp_path / "checkpoint.pt")
    family = psutil.Process(process.pid)
    helper = family.children()[0]
    time.sleep(0.2)
    (family if killed == "first" else helper).send_signal(signal.SIGKILL)
    began = time.monotonic()
    code, said = ended(process, 60)
    _, alive = psutil.wait_procs([helper], timeout=30)
    assert not alive
    assert time.monotonic() - began < 30
    assert code != 0
    assert "another process of this training has ended" in said
    assert not (tmp_path / "end.json").exists()
    code, said = ended(started("long", tmp_path, 2))
    assert code == 0, said
    assert json.loads((tmp_path / "end.json").read_text()) == straight


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_interrupting_one_process_stops_all_and_another_number_goes_on(tmp_path, before, after):
    process = started("long", tmp_path, before)
    wait_for(tmp_path / "checkpoint.pt")
    process.send_signal(signal.SIGINT)
    code, said = ended(process, 60)
    assert code == 0, said
    assert json.loads((tmp_path / "end.json").read_text())[0] < 30
    code, said = ended(started("long", tmp_path, after))
    assert code == 0, said
    assert json.loads((tmp_path / "end.json").read_text())[0] == 30


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
def test_processes_that_are_made_for_the_training_alone(tmp_path, straight, strategy):
    code, said = ended(started("long", tmp_path, 2, strategy))
    assert code == 0, said
    assert json.loads((tmp_path / "end.json").read_text()) == straight


@pytest.mark.slow
def test_processes_that_torchrun_starts(tmp_path, straight):
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", SCRIPT, "long", tmp_path, 2]
    process = subprocess.Popen([sys.executable, *map(str, words)], env={**os.environ, "OMP_NUM_THREADS": "1"},
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    code, said = ended(process)
    assert code == 0, said
    assert json.loads((tmp_path / "end.json").read_text()) == straight


def wait_for(file, seconds=120):
    end = time.monotonic() + seconds
    while not file.exists():
        assert time.monotonic() < end
        time.sleep(0.05)
