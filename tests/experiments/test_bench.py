"""The bench compares like with like: contenders take turns, and what its plain contenders compute is right."""

import math
import os
import subprocess
import sys

import pyro
import pytest
import torch

from ppvae.errors import RunError
from ppvae.experiments.bench import bench_tasks, fresh_process
from ppvae.experiments.bench.__main__ import main
from ppvae.experiments.bench.bench_record import BenchRecord, base
from ppvae.experiments.bench.bench_tasks import BenchSizes, measure_tasks
from ppvae.experiments.bench.evidence_speed import EvidenceSizes
from ppvae.experiments.bench.plain_torch import decoder_flops, torch_anneal, torch_log_w
from ppvae.experiments.bench.side_by_side import AfterEpochs, OwnSeconds, Spread, Turns, side_by_side
from ppvae.experiments.bench.step_pairs import STEP_PAIRS
from ppvae.experiments.bench.training_steps import pair_steps, vae_steps
from ppvae.inference import importance_evidence
from ppvae.inference.svi import compiled
from ppvae.models import VAE, Bernoulli

TINY = EvidenceSizes(2, 5, 2, 2, 3, 3, 16)


def small_vae(num_data=3):
    torch.manual_seed(0)
    x = torch.bernoulli(torch.full((num_data, 12), 0.4))
    return VAE.for_data(x, Bernoulli(), latent_dim=2, hidden=(8,)), x


def test_a_spread_has_median_and_quartiles():
    assert Spread.of([4.0, 1.0, 2.0, 3.0, 5.0]) == Spread(3.0, 2.0, 4.0, 5)


def test_contenders_take_turns_and_the_first_turn_does_not_count():
    order, own = [], iter([OwnSeconds(100.0), OwnSeconds(1.0), OwnSeconds(3.0)])
    found = side_by_side({"a": lambda: order.append("a"), "b": lambda: next(own), "c": lambda: -7.0}, turns=2)
    assert order == ["a"] * 3
    assert found["b"] == Spread(2.0, 1.5, 2.5, 2)
    assert 0 <= found["c"].median < 1  # what it returns is no time


def test_a_training_leads_the_turns_and_keeps_its_parameters():
    ways = {"other": lambda: pyro.param("mine", torch.tensor(2.0)) and None}
    turns = Turns(ways, first=["led"])
    logger = AfterEpochs(turns, "led", epochs=2)
    pyro.param("mine", torch.tensor(1.0))
    for step in range(1, 5):
        logger.log_metrics({"seconds": float(step)}, step)
    assert turns.seconds["led"] == [3.0, 7.0]
    assert len(turns.seconds["other"]) == 2
    assert list(turns.spreads()) == ["led", "other"]
    assert turns.spreads(steps=2)["led"].median == 3.5
    assert pyro.param("mine") == 1.0


@pytest.mark.slow
def test_every_task_has_what_its_ratios_are_taken_to():
    sizes = BenchSizes(((2, 2),), ("logistic regression, AutoNormal",), 2, 2, TINY, turns=1)
    found = dict(bench_tasks.tasks(sizes, compiled=False))
    assert len(found) == 6
    assert [name for name, task in found.items() if base(task) is None] == ["float32 product of two 16 × 16 matrices"]
    assert all(spread.median > 0 for task in found.values() for spread in task.seconds.values())
    assert sum(task.flops > 0 for task in found.values()) == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", STEP_PAIRS)
def test_every_pair_is_trained_by_us_and_by_pyro(name):
    found = pair_steps(STEP_PAIRS[name], 3, steps=2, turns=1, compiled=False)
    assert list(found) == ["ppvae.inference.fit", "pyro.infer.SVI"]
    assert all(spread.median > 0 for spread in found.values())


@pytest.mark.slow
def test_those_that_compile_take_the_same_steps(monkeypatch):
    """Without compilers, which take half a minute each."""
    monkeypatch.setattr(compiled, "inductor", lambda graph, inputs, **options: graph)
    monkeypatch.setattr(torch, "compile", lambda function: function)
    found = vae_steps(torch.bernoulli(torch.full((6, 784), 0.4)), 3, turns=1, compiled=True)
    assert {"ppvae.inference.fit, compiled", "plain torch, compiled"} <= set(found)
    assert all(spread.median > 0 for spread in found.values())


def test_operations_of_the_decoder_are_counted():
    pair, _ = small_vae()
    assert decoder_flops(pair) == 2 * (2 * 8 + 8 * 12)


def test_the_plain_annealing_estimates_the_same_evidence():
    """Against importance sampling in a space of two, |difference| < 5 errors: both are right there."""
    pair, x = small_vae()
    with torch.no_grad():
        drawn = torch_log_w(pair, x, 20_000)
    annealed = torch_anneal(pair, x, 500, 10, 3)
    # Both leave the same Gaussian constants out.
    for i in range(len(x)):
        estimates = [
            (w.logsumexp(0) - math.log(len(w)), (w - w.logsumexp(0)).exp()) for w in (drawn[:, i], annealed[:, i])
        ]
        errors = [share.std() * math.sqrt(len(share)) for _, share in estimates]
        assert abs(estimates[0][0] - estimates[1][0]) < 5 * math.hypot(*errors)


@pytest.mark.filterwarnings("ignore")
def test_pythae_estimates_the_same_evidence():
    """Means of log p(x) over the data, |difference| < 5 errors."""
    pytest.importorskip("pythae")
    from ppvae.experiments.bench.pythae_peer import pythae_evidence, pythae_vae

    pair, x = small_vae()
    ours = importance_evidence(pair.model, pair.guide, x, 2000, seed=0)
    error = math.sqrt(2) * float(ours.standard_error.square().sum().sqrt()) / len(x)
    assert abs(pythae_evidence(pythae_vae(pair), x, 2000) - float(ours.log_evidence.mean())) < 5 * error


@pytest.mark.slow
def test_a_fresh_process_answers_or_says_that_it_did_not(capfd):
    module = "ppvae.experiments.bench.growth_curves"
    setting = {"estimator": "importance_evidence", "num_draws": 20, "num_data": 2}
    found = fresh_process.ask(module, {"setting": setting, "turns": 2}, threads=1)
    assert {name: len(values) for name, values in found.items()} == {"seconds": 2, "tiny": 2, "mebibytes": 2}
    with pytest.raises(RunError, match="ended without a result"):
        fresh_process.ask(module, {"setting": {}, "turns": 2}, threads=1)
    assert "missing" in capfd.readouterr().err


@pytest.mark.slow
def test_the_command_measures_keeps_and_compares(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    record = main(["--small", "--eager"])
    assert BenchRecord.read(tmp_path / "build" / "bench" / "bench.json") == record
    assert {"README.md", "growth.png"} <= {file.name for file in (tmp_path / "build" / "bench").iterdir()}
    assert "no earlier run" in capsys.readouterr().out
    assert main(["--profiles", "--small", "--eager"]).tasks == {}
    assert "aten::addmm" in capsys.readouterr().out


def test_progress_is_said(capsys, monkeypatch):
    monkeypatch.setattr(bench_tasks, "SMALL", BenchSizes((), (), evidence=TINY, turns=1))
    monkeypatch.setattr(bench_tasks, "evidence_tasks", lambda *_: iter([("a task", bench_tasks.Timed({}))]))
    assert measure_tasks(small=True, compiled=False) == {"a task": {"seconds": {}, "flops": 0.0}}
    assert "a task" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no such call")
def test_a_process_has_as_many_cores_as_threads():
    """XLA runs products on all cores that it sees, whatever number of threads it is told."""
    asked = "import os; from ppvae.experiments.bench.fresh_process import keep_to_cores as keep; keep({}); "
    for number in (1, 2):
        printed = subprocess.run(
            [sys.executable, "-c", asked.format(number) + "print(len(os.sched_getaffinity(0)))"],
            capture_output=True,
            check=True,
        ).stdout
        assert int(printed) == min(number, len(os.sched_getaffinity(0)))
