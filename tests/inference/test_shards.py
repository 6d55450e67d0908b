"""Shards: the same bits whoever computes them and whatever interrupts; what fails is named, the rest is kept."""

import errno
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor

import pyro
import pyro.distributions as dist
import pytest
import torch

from ppvae.errors import CheckpointError, OptionError, PairError, RunError
from ppvae.inference import (
    certify,
    estimate_evidence,
    importance_evidence,
    in_shards,
    log_weights,
    sample_posterior,
)
from ppvae.inference.bounds import Certificate, pooled
from ppvae.inference.bounds.markov import Groups, margin, sandwich
from ppvae.inference.bounds.tangent import end_of_mean, mean_parts, mean_upper
from ppvae.inference.shards import executors
from ppvae.inference.shards.task import computing_versions, demand_same
from ppvae.models import LinearGaussian

NUM_DATA, SIZE = 40, 8


def pair_and_data():
    torch.manual_seed(0)
    pair = LinearGaussian(num_features=3, latent_dim=2)
    return pair, pair.weight.new_tensor(torch.randn(NUM_DATA, 3).tolist())


def shards_in(directory, executor=None, *, estimator=importance_evidence, **more):
    pair, x = pair_and_data()
    options = {"num_particles": 100} if estimator is importance_evidence else {}
    options |= {"shard_size": SIZE, "progress": False, "seed": 3} | more
    return in_shards(estimator, pair.model, pair.guide, x, directory=directory, executor=executor, **options)


class Counted(Executor):
    """Computes at once and counts; breaks where it is told to."""

    def __init__(self, breaks_at=()):
        self.count, self.breaks_at = 0, breaks_at

    def submit(self, function, task):
        self.count += 1
        self.sent = len(task.data)
        future = Future()
        if self.count in self.breaks_at:
            future.set_exception(BrokenExecutor("a worker died"))
            return future
        try:
            future.set_result(function(task))
        except Exception as error:
            future.set_exception(error)
        return future


def same(a, b):
    return all(torch.equal(getattr(a, n), getattr(b, n)) for n in ("log_evidence", "elbo", "standard_error", "bound"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The record by one worker, never interrupted; in single precision, to see that the default type travels."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    with pyro.get_param_store().scope():
        yield shards_in(tmp_path_factory.mktemp("alone"))
    torch.set_default_dtype(before)


@pytest.fixture
def single():
    torch.set_default_dtype(torch.float32)  # the harness brings it back


@pytest.mark.slow
def test_the_evidence_is_that_of_the_closed_form_in_the_order_of_the_data(tmp_path):
    pair, x = pair_and_data()
    options = {"directory": tmp_path, "shard_size": 5, "seed": 3, "progress": False}
    found = in_shards(estimate_evidence, pair.model, pair.guide, x[:10], **options)
    lower, upper = found.interval(0.9999)  # false alarm: 10 data, 1e-4 each: 0.1 %
    truth = pair.log_evidence(x[:10]).detach()
    assert ((lower < truth) & (truth < upper)).all()


@pytest.mark.slow
def test_two_and_four_processes_give_the_same_bits(tmp_path, alone, single):
    for workers in (2, 4):
        assert same(shards_in(tmp_path / str(workers), workers=workers), alone)


def test_threads_give_the_same_bits(tmp_path, alone, single):
    with ThreadPoolExecutor(3) as threads:
        assert same(shards_in(tmp_path / "threads", threads), alone)


def test_only_what_is_missing_is_computed(tmp_path, alone, single):
    first, again, third = Counted(), Counted(), Counted()
    assert same(shards_in(tmp_path, first), alone)
    assert first.count == 5
    for number in (1, 4):
        (tmp_path / f"shard-000000{number}.pt").unlink()
    assert same(shards_in(tmp_path, again), alone)
    assert again.count == 2
    assert same(shards_in(tmp_path, third), alone)
    assert third.count == 0


def test_an_executor_that_breaks_is_opened_again(tmp_path, alone, single):
    made = []

    def make():
        made.append(Counted([{2}, {1}, ()][len(made)]))
        return made[-1]

    assert same(shards_in(tmp_path, make), alone)
    assert len(made) == 3
    with pytest.raises(RunError, match=r"Counted broke while shards .* finished is kept"):
        shards_in(tmp_path / "other", Counted({3}))
    assert same(shards_in(tmp_path / "other"), alone)


def stubborn(x):
    """A model that cannot be run on a datum above 90."""
    if bool((x > 90).any()):
        raise RuntimeError("too large")
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))


def test_a_shard_that_fails_is_named_and_the_others_are_kept(tmp_path):
    x = torch.randn(80)  # the first 64 show what the pair is
    x[77] = 99.0
    options = {"directory": tmp_path, "shard_size": 20, "num_particles": 10, "progress": False}
    with pytest.raises(PairError, match=r"1 of 4 shards failed, first shard 3 \(rows 60 to 79\): .*too large.*kept in"):
        in_shards(importance_evidence, stubborn, guide, x, **options)
    assert sorted(file.name for file in tmp_path.glob("shard*")) == [f"shard-000000{n}.pt" for n in (0, 1, 2)]
    x[77] = 0.0
    found = in_shards(importance_evidence, stubborn, guide, x, **options)
    # The guide is the posterior: every weight is p(x).
    assert torch.allclose(found.log_evidence, dist.Normal(0.0, 2**0.5).log_prob(x))


def test_a_shard_is_tried_again_where_the_cause_may_pass(tmp_path):
    class Flaky(Counted):
        def submit(self, function, *arguments):
            future = super().submit(function, *arguments)
            if self.count in (1, 3):
                future = Future()
                future.set_exception(OSError("the network is away"))
            return future

    flaky = Flaky()
    assert len(shards_in(tmp_path, flaky).log_evidence) == NUM_DATA
    assert flaky.count == 7


def test_shards_of_something_else_are_refused(tmp_path):
    shards_in(tmp_path)
    pair, x = pair_and_data()
    with pytest.raises(CheckpointError, match=r"are of seed 3, not 4"):
        shards_in(tmp_path, seed=4)
    with pytest.raises(CheckpointError, match=r"are of options .*100"):
        shards_in(tmp_path, num_particles=200)
    options = {"directory": tmp_path, "num_particles": 100, "shard_size": SIZE, "seed": 3, "progress": False}
    with pytest.raises(CheckpointError, match="of other data"):
        in_shards(importance_evidence, pair.model, pair.guide, x + 1, **options)
    torch.nn.init.zeros_(pair.weight)
    with pytest.raises(CheckpointError, match="are of another pair"):
        in_shards(importance_evidence, pair.model, pair.guide, x, **options)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["versions"]["torch"] = "1.0"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match=r"this process has torch .* computed by torch 1\.0, which may give other bits"):
        shards_in(tmp_path)


def test_a_worker_of_other_versions_is_refused():
    with pytest.raises(RunError, match=r"this worker has numpy .*install the same version"):
        demand_same({"numpy": "0.1"}, computing_versions(), "this worker")


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch, alone, single):
    written, fsync = [], os.fsync

    def full(handle):
        written.append(handle)
        if len(written) > 5:  # manifest and first shard, each with its folder, are there
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"shard-\d+\.pt could not be written \(No space left on device\)"):
        shards_in(tmp_path)
    monkeypatch.undo()
    assert list(tmp_path.glob("shard-0000000.pt"))
    assert same(shards_in(tmp_path), alone)


def test_errors_are_a_sentence(tmp_path, monkeypatch):
    pair, x = pair_and_data()
    with pytest.raises(OptionError, match="estimator must be one of estimate_evidence"):
        in_shards(log_weights, pair.model, pair.guide, x, directory=tmp_path)
    wrong = {
        "nowhere": "module:function",
        "http://host:8786": "address of a Dask scheduler",
        "os:nothing": "no executor",
    }
    for executor, told in (*wrong.items(), (3, "is 3: give")):
        with pytest.raises(OptionError, match=told):
            shards_in(tmp_path, executor)
    with pytest.raises(OptionError, match=r"returned a str, which has no submit"):
        shards_in(tmp_path, lambda: "me")

    lock = threading.Lock()

    def locks(y):
        with lock:
            pair.model(y)

    with pytest.raises(OptionError, match="cannot be sent to a worker, since a part of it cannot be pickled"):
        in_shards(importance_evidence, locks, pair.guide, x, directory=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_no_cluster_at_the_address_is_a_sentence(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(executors, "PATIENCE", 0.3)
    with pytest.raises(RunError, match=r"no Dask scheduler answers at tcp://127.0.0.1:1 "):
        shards_in(tmp_path, "tcp://127.0.0.1:1")


def test_a_scheduler_without_workers_is_said(tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        told = r"has no workers yet, .* `dask worker tcp://.* --nthreads 1`"
        with pytest.warns(UserWarning, match=told), executors.opened(address, None, tmp_path) as opened:
            assert opened.most == executors.UNKNOWN


def test_slurm_where_there_is_none_is_a_sentence(tmp_path):
    pytest.importorskip("submitit")
    with pytest.raises(RunError, match="there is no Slurm here"):
        shards_in(tmp_path, "slurm")


@pytest.mark.slow
def test_jobs_of_submitit_give_the_same_bits(tmp_path, alone, single):
    """Its local executor, which writes and reads jobs as that of Slurm does, without a queue."""
    submitit = pytest.importorskip("submitit")
    assert same(shards_in(tmp_path, lambda: submitit.AutoExecutor(folder=tmp_path / "jobs", cluster="local")), alone)
    assert list((tmp_path / "jobs").glob("*_result.pkl"))


def test_a_cluster_of_other_versions_is_a_sentence(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")

    class Other:
        """A client of a cluster whose workers have another numpy; what it says is Dask's own sentence."""

        def __init__(self, *_, **__):
            pass

        def get_versions(self, check):
            raise ValueError("Mismatched versions found\n\nnumpy\n| client | 2.3.0 |\n| tcp://b | 1.26.4 |")

        def close(self):
            pass

    monkeypatch.setattr(distributed, "Client", Other)
    with pytest.raises(RunError, match=r"has other versions than this process: install the same .*numpy .*1\.26\.4"):
        shards_in(tmp_path, "tcp://127.0.0.1:1")


def test_context_by_row_is_cut_and_what_all_share_is_not(tmp_path):
    def model(x, offset, scale):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(offset, 1.0))
            pyro.sample("x", dist.Normal(z, scale.sum()), obs=x)

    def guide(x, offset, scale):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(offset, 1.0))

    x, offset, scale = torch.randn(9), torch.linspace(-3, 3, 9), torch.full((9,), 1 / 9)
    options = {"num_particles": 4000, "directory": tmp_path, "shard_size": 2, "progress": False}
    found = in_shards(importance_evidence, model, guide, (x, offset, scale), **options)
    lower, upper = found.interval(0.9999)
    truth = dist.Normal(offset, 2**0.5).log_prob(x)
    assert ((lower < truth) & (truth < upper)).all()


def test_a_shard_is_sent_its_own_data_alone(tmp_path):
    pair, _ = pair_and_data()
    counted = Counted()
    x = torch.randn(100_000, 3)[:20]
    options = {"num_particles": 5, "shard_size": 10, "progress": False, "directory": tmp_path}
    in_shards(importance_evidence, pair.model, pair.guide, x, executor=counted, **options)
    assert counted.sent < 2000


def test_a_data_set_that_is_one_unit_is_one_shard(tmp_path):
    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(x.sum() / (len(x) + 1), (1 / (len(x) + 1)) ** 0.5))

    x, counted = torch.randn(30), Counted()
    found = in_shards(
        importance_evidence, model, guide, x, num_particles=10, directory=tmp_path, executor=counted, progress=False
    )
    truth = dist.MultivariateNormal(torch.zeros(30), torch.eye(30) + 1.0).log_prob(x)
    assert counted.count == 1
    assert torch.allclose(found.log_evidence, truth)


# --- posterior and certificates ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_draws_of_the_posterior_stand_in_the_order_of_the_data(tmp_path):
    pair, x = pair_and_data()
    options = {"num_draws": 60, "num_chains": 4, "warm_up": 30, "shard_size": 1, "progress": False}
    far = torch.stack([5 * x[0], -5 * x[0]])
    found = in_shards(sample_posterior, pair.model, pair.guide, far, directory=tmp_path, **options)
    assert found.draws["z"].shape == (4, 60, 2, 2)
    exact = pair.posterior(far)
    error = (found.draws["z"].mean((0, 1)) - exact.mean).abs()
    # 240 draws that are worth 60 or more of standard deviation below 1: four standard errors.
    assert bool((error < 0.5).all())
    assert bool((exact.mean[0] - exact.mean[1]).abs().max() > 1)  # in the other order the error would show


@pytest.mark.slow
def test_certificates_of_parts_are_one(tmp_path):
    pair, _ = pair_and_data()
    like = torch.zeros(60, 3)
    found = in_shards(certify, pair.model, pair.guide, like, like=True, directory=tmp_path, shard_size=20, seed=0,
                      progress=False)  # fmt: skip
    assert found.kind == "simulated"
    assert len(found.lower) == 60
    assert found.mean_lower < float(pair.log_evidence(found.x).detach().mean()) < found.mean_upper
    own = [margin(0.025, n) for n in (60, 20)]
    assert found.least_width > own[0]
    assert found.mean_upper - found.mean_lower < found.least_width + own[1]


def test_the_pooled_bounds_are_those_of_all_weights():
    """From weights with unequal numbers of groups, by the formulas of the module."""
    log_w, risk = torch.randn(32, 10), 0.025
    parts, groups = [], (4, 8)
    for columns, number in zip((slice(0, 4), slice(4, 10)), groups, strict=True):
        own = log_w[:, columns]
        sides, n = sandwich(own, None, Groups(1, number)), own.shape[1]
        k_hat = torch.zeros(n)
        parts.append(
            Certificate(
                "real",
                0.95,
                sides.below,
                sides.below,
                float(sides.below_mean.mean()) - margin(risk, number * n),
                mean_upper(own, risk, k_hat),
                sides.estimate,
                sides.standard_error,
                torch.zeros(n, 1),
                0.1,
                pareto_k=k_hat,
                num_chains=32,
                num_groups=number,
                tangents=mean_parts(own, k_hat),
            )
        )
    whole = pooled(parts)
    below = torch.cat([sandwich(log_w[:, :4], None, Groups(1, 4)).below_mean,
                       sandwich(log_w[:, 4:], None, Groups(1, 8)).below_mean])  # fmt: skip
    assert whole.mean_lower == pytest.approx(float(below.mean()) - margin(risk, 4 * 10), abs=1e-12)
    assert whole.mean_upper == pytest.approx(mean_upper(log_w, risk, torch.zeros(10)), abs=1e-12)
    assert end_of_mean(mean_parts(log_w, torch.zeros(10)), risk) == mean_upper(log_w, risk, torch.zeros(10))


# --- killed on the way ------------------------------------------------------------------------------------------------


def test_killed_at_random_moments_the_bits_are_the_same(tmp_path, alone, single):
    moments, forked = random.Random(0), multiprocessing.get_context("fork")
    for _ in range(4):
        process = forked.Process(target=shards_in, args=(tmp_path,))
        process.start()
        time.sleep(0.4 * moments.random())
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert same(shards_in(tmp_path), alone)


DRIVER = """
import sys, torch
torch.set_num_threads(1)
from ppvae.inference import importance_evidence, in_shards
from ppvae.models import LinearGaussian
torch.manual_seed(0)
pair = LinearGaussian(num_features=3, latent_dim=2)
x = torch.randn(40, 3)
print("begun", flush=True)
in_shards(importance_evidence, pair.model, pair.guide, x, num_particles=100, shard_size=1, seed=3, workers=2,
          directory=sys.argv[1], progress=False)
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_of_two_workers_and_who_drives_them(tmp_path, single):
    moments, killed = random.Random(1), tmp_path / "killed"
    needed = 0.0  # until the first shard is there
    for number in range(20):
        command = [sys.executable, "-c", textwrap.dedent(DRIVER), str(killed)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.read(5)
            begun = time.monotonic()
            while number == 0 and not list(killed.glob("shard*")):
                time.sleep(0.05)
            needed = needed or time.monotonic() - begun
            time.sleep(1.3 * needed * moments.random() if number else 0)
            process.kill()
    finished = len(list((tmp_path / "killed").glob("shard*")))
    assert finished  # some came to their end before they were killed
    pair, x = pair_and_data()
    options = {"num_particles": 100, "shard_size": 1, "seed": 3, "progress": False}
    found, whole = (
        in_shards(importance_evidence, pair.model, pair.guide, x, directory=tmp_path / name, workers=workers, **options)
        for name, workers in (("killed", 4), ("whole", 1))
    )
    assert same(found, whole)


@pytest.mark.slow
def test_a_worker_of_the_machine_that_is_killed_is_replaced(tmp_path, alone, single):
    pytest.importorskip("psutil")
    import psutil

    killed = []

    class Killing:
        """Hands over to processes of its own, and kills one of them after the third shard."""

        def __init__(self):
            from joblib.externals.loky import ProcessPoolExecutor

            self.pool, self.count = ProcessPoolExecutor(1), 0

        def submit(self, function, *arguments):
            self.count += 1
            future = self.pool.submit(function, *arguments)
            if self.count == 2 and not killed:
                future.result()
                workers = [p for p in psutil.Process().children() if "loky" in " ".join(p.cmdline())]
                killed.append([w.kill() for w in workers if "resource_tracker" not in " ".join(w.cmdline())])
            return future

        def shutdown(self, wait):
            self.pool.shutdown(wait=True, kill_workers=True)

    assert same(shards_in(tmp_path, Killing, workers=1), alone)
    assert killed


@pytest.mark.slow
def test_a_dask_cluster_of_two_processes_of_which_one_is_killed(tmp_path, alone, single):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        pool = client.get_executor()
        killed = []

        class Killing:
            def submit(self, function, *arguments):
                future = pool.submit(function, *arguments)
                if not killed:
                    killed.append(next(iter(cluster.workers.values())).pid)
                    os.kill(killed[0], signal.SIGKILL)
                return future

        assert same(shards_in(tmp_path, Killing(), workers=2), alone)
        assert killed
        address = cluster.scheduler_address
        (tmp_path / "shard-0000002.pt").unlink()
        assert same(shards_in(tmp_path, address), alone)
