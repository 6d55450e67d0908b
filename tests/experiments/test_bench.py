"""The bench compares like with like: what its plain contenders compute is right."""

import math

import torch

from ppvae.experiments import bench, bench_record
from ppvae.experiments.bench_training import torch_log_w, trainers
from ppvae.inference.svi import compiled
from ppvae.models import VAE, Bernoulli


def test_every_task_has_a_plain_contender_and_a_median():
    config = bench.Config(
        batch_sizes=(4, 3),
        steps=2,
        compiled=False,
        num_data=2,
        num_particles=5,
        num_chains=2,
        num_annealed=2,
        num_laid_out=3,
        turns=1,
    )
    result = bench.run(config)
    assert len(result) == 5
    assert all("plain torch" in medians and min(medians.values()) > 0 for medians in result.values())
    assert bench.table(result).row_count == 19


def test_those_that_compile_take_the_same_steps(monkeypatch):
    """Without compilers, which take half a minute each."""
    monkeypatch.setattr(compiled, "inductor", lambda graph, inputs, **options: graph)
    monkeypatch.setattr(torch, "compile", lambda function: function)
    ways = trainers(torch.bernoulli(torch.full((6, 784), 0.4)), 3, compiled=True)
    assert {"ppvae.inference.fit, compiled", "plain torch, compiled"} <= set(ways)
    assert all(way() > 0 for way in ways.values())


def test_the_plain_annealing_estimates_the_same_evidence():
    """Against importance sampling in a space of two, |difference| < 5 errors: both are right there."""
    torch.manual_seed(0)
    x = torch.bernoulli(torch.full((3, 12), 0.4))
    pair = VAE.for_data(x, Bernoulli(), latent_dim=2, hidden=(8,))
    with torch.no_grad():
        drawn = torch_log_w(pair, x, 20_000)
    annealed = bench._torch_anneal(pair, x, 500, 10, 3)
    # Both leave the same Gaussian constants out.
    for i in range(len(x)):
        estimates = [
            (w.logsumexp(0) - math.log(len(w)), (w - w.logsumexp(0)).exp()) for w in (drawn[:, i], annealed[:, i])
        ]
        errors = [share.std() * math.sqrt(len(share)) for _, share in estimates]
        assert abs(estimates[0][0] - estimates[1][0]) < 5 * math.hypot(*errors)


def test_what_changed_since_the_run_before_is_shown(tmp_path):
    file = tmp_path / "build" / "bench.json"
    first = {"a task": {"ours": 2.0, "theirs": 3.0, "plain torch": 1.0}}
    assert "no earlier run" in bench_record.changes(first, file)
    bench_record.keep(first, file)
    slower_machine = {"a task": {"ours": 4.1, "theirs": 6.0, "plain torch": 2.0}}
    assert "No ratio" in bench_record.changes(slower_machine, file)
    slower_code = {"a task": {"ours": 2.5, "theirs": 3.0, "plain torch": 1.0}}
    assert bench_record.changes(slower_code, file).row_count == 1
