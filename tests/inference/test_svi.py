"""Training: the same steps as Pyro's own SVI, known optima, isolation of pairs, and nothing lost on the way."""

import dataclasses
import functools
import importlib
import os
import random
import signal
import subprocess
import sys

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from gate import slow_but
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule, PyroParam
from torch import nn
from torch.distributions import constraints
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau

from ppvae.datasets import Dataset
from ppvae.errors import CheckpointError, DataError, NonFiniteError, OptionError, PairError
from ppvae.inference import fit, importance_evidence, log_weights

svi_loop = importlib.import_module("ppvae.inference.svi.loop")

quiet = functools.partial(fit, progress=False)


def data(num_data=40, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return 1.0 + 2.0**0.5 * torch.randn(num_data, generator=generator, dtype=torch.float64)


# z ~ N(m, 1), x ~ N(z, 1): p(x) = N(m, 2), p(z|x) = N((x + m)/2, 1/2).
def plain_model(x):
    m = pyro.param("m", torch.tensor(0.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(m, 1.0)), 1.0), obs=x)


def plain_guide(x):
    slope = pyro.param("slope", torch.tensor(0.0))
    shift = pyro.param("shift", torch.tensor(0.0))
    scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(slope * x + shift, scale))


class Module(nn.Module):
    """The same pair as bound methods of a module, with dropout to make the generator matter."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.m = nn.Parameter(torch.tensor(0.0))
        self.encoder = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 2))

    def model(self, x):
        pyro.module("pair", self)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(self.m, 1.0)), 1.0), obs=x)

    def guide(self, x):
        pyro.module("pair", self)
        loc, log_scale = self.encoder(x.unsqueeze(-1)).unbind(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()))


class Pyronic(PyroModule):
    """And as a PyroModule."""

    def __init__(self):
        super().__init__()
        self.m = PyroParam(torch.tensor(0.0))
        self.scale = PyroParam(torch.tensor(1.0), constraint=constraints.positive)
        self.affine = PyroModule[nn.Linear](1, 1)

    def model(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(self.m, 1.0)), 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.affine(x.unsqueeze(-1)).squeeze(-1), self.scale))


LOSSES = {
    "Trace_ELBO": lambda: Trace_ELBO(),
    "Trace_ELBO, 3 particles": lambda: Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1),
    "TraceMeanField_ELBO": lambda: TraceMeanField_ELBO(),
    "TraceGraph_ELBO": lambda: TraceGraph_ELBO(),
    "TraceEnum_ELBO": lambda: TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False),
    "RenyiELBO": lambda: RenyiELBO(alpha=0.0, num_particles=3, vectorize_particles=True, max_plate_nesting=1),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_is_pyros_own(name):
    """Loss and gradients of one step are those of pyro.infer.SVI under the same seed, divided by the batch size."""
    x, seed, rate = data(), 5, 0.1
    ours, theirs = Module(), Module()
    theirs.load_state_dict(ours.state_dict())
    result = quiet(ours.model, ours.guide, x, loss=LOSSES[name](), optimizer=SGD, learning_rate=rate, epochs=1,
                   batch_size=len(x), seed=seed)  # fmt: skip
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed * 1_000_003))
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    step = SVI(theirs.model, theirs.guide, pyro.optim.SGD({"lr": rate / len(x)}), LOSSES[name]())
    loss = step.step(x[order])
    assert result.elbo == pytest.approx(-loss / len(x), rel=1e-12)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, other, rtol=0, atol=1e-13)
        assert mine.abs().sum() > 0


@pytest.mark.parametrize(
    "pair", ["functions", *(pytest.param(form, marks=pytest.mark.slow) for form in ("bound methods", "PyroModule"))]
)
def test_training_reaches_the_maximum_likelihood(pair):
    """The guide's family holds the posterior, so the ELBO climbs to max_m mean log N(x; m, 2), at m = mean(x)."""
    x = data(400)
    best = dist.Normal(x.mean(), 2.0**0.5).log_prob(x).mean().item()
    made = {"functions": None, "bound methods": Module(), "PyroModule": Pyronic()}[pair]
    model, guide = (made.model, made.guide) if made else (plain_model, plain_guide)
    schedule = functools.partial(CosineAnnealingLR, T_max=150)
    result = quiet(model, guide, x, epochs=150, learning_rate=0.05, scheduler=schedule,
                   loss=Trace_ELBO(num_particles=4))  # fmt: skip
    evidence = importance_evidence(model, guide, x, num_particles=200, seed=1)
    assert evidence.summary()["log_evidence"] == pytest.approx(best, abs=2e-3)
    assert evidence.gap.mean() < (0.02 if pair == "bound methods" else 2e-3)
    stored = set(pyro.get_param_store().keys())
    assert stored
    assert stored <= set(result.parameters)


def test_two_pairs_of_the_same_names_do_not_disturb_each_other():
    def other_model(x):
        plain_model(x)

    def other_guide(x):
        plain_guide(x)

    trained = quiet(plain_model, plain_guide, data(), epochs=3, learning_rate=0.1)
    before = log_weights(plain_model, plain_guide, data(), 3, seed=0)
    first, second = Module(), Module()
    quiet(first.model, first.guide, data(), epochs=3, learning_rate=0.1)
    weights = [p.clone() for p in first.parameters()]
    quiet(second.model, second.guide, data(), epochs=3, learning_rate=0.1)
    other = quiet(other_model, other_guide, data() + 5.0, epochs=3, learning_rate=0.1)
    assert other.parameters["m"] != 0
    assert "m" in other.found  # trained on from where the first pair left it, as Pyro's SVI would
    assert torch.equal(before, log_weights(trained.model, trained.guide, data(), 3, seed=0))
    # The programs themselves run on Pyro's store, which holds what was trained last.
    assert not torch.equal(before, log_weights(plain_model, plain_guide, data(), 3, seed=0))
    assert all(torch.equal(p, w) for p, w in zip(first.parameters(), weights, strict=True))


def test_parameters_made_by_pyro_are_evaluated():
    """A pair trained by Pyro's own SVI lives in the global store, and is found there."""

    def model(x):
        plain_model(x)

    def guide(x):
        plain_guide(x)

    x = data()
    step = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    before = log_weights(model, guide, x, 50, seed=0).mean()
    for _ in range(100):
        step.step(x)
    assert log_weights(model, guide, x, 50, seed=0).mean() > before + 0.1
    assert set(pyro.get_param_store().keys()) == {"m", "slope", "shift", "scale"}


def test_the_global_generators_are_left_alone():
    pair = Module()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    quiet(pair.model, pair.guide, data(), epochs=2, validation=data(10), patience=1)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert (states[2] == np.random.get_state()[1]).all()  # noqa: NPY002


def test_an_enumerated_site_is_summed_out_in_training():
    """A mixture of two known normals whose weight is learnt: Trace_ELBO would sample the assignment from its prior."""

    def model(x):
        weight = pyro.param("weight", torch.tensor(0.5), constraint=constraints.unit_interval)
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(weight), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(10 * c, 1.0), obs=x)

    x = torch.cat((data(30) - 1, data(10) + 9))
    result = quiet(model, lambda x: None, x, epochs=300, batch_size=40, learning_rate=0.05)
    assert result.parameters["weight"].item() == pytest.approx(0.25, abs=1e-3)


def test_clipping_bounds_the_step():
    pair = Module()
    before = torch.cat([p.detach().clone().reshape(-1) for p in pair.parameters()])
    quiet(
        pair.model, pair.guide, data() + 50, optimizer=SGD, learning_rate=0.5, clip_norm=0.01, epochs=1, batch_size=40
    )
    after = torch.cat([p.detach().reshape(-1) for p in pair.parameters()])
    assert (after - before).norm().item() == pytest.approx(0.5 * 0.01, rel=1e-3)


def test_context_reaches_both_programs():
    def model(x, u):
        weight = pyro.param("weight", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(weight * u, 0.1)), 0.1), obs=x)

    def guide(x, u):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x + pyro.param("slope", torch.tensor(0.5)) * u) / 2, 0.1))

    u = torch.linspace(-1, 1, 64)
    result = quiet(model, guide, (3 * u, u), epochs=200, batch_size=16, learning_rate=0.05)
    assert result.parameters["weight"].item() == pytest.approx(3.0, abs=0.05)
    with pytest.raises(PairError, match="cannot be run on the data"):
        quiet(model, guide, (u, u[:3]), epochs=1)  # a context of 3 rows is shared by all data


def grey_data():
    grey = torch.full((30, 1), 0.5)
    return Dataset("grey", grey, grey.round(), grey.round(), (1,), None, None, True)


def noisy_pair():
    class Noisy(nn.Module):
        """Uses every generator there is: torch, numpy and Python."""

        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.zeros(()))
            self.norm = nn.BatchNorm1d(1)
            self.drop = nn.Dropout(0.3)
            self.affine = nn.Linear(1, 1)

        def model(self, x):
            pyro.module("noisy", self)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(self.loc, 1.0))
                pyro.sample("x", dist.Bernoulli(logits=z.unsqueeze(-1)).to_event(1), obs=x)

        def guide(self, x):
            pyro.module("noisy", self)
            shift = 0.01 * (np.random.standard_normal() + random.random()) if self.training else 0.0  # noqa: NPY002
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.affine(self.drop(self.norm(x))).squeeze(-1) + shift, 1.0))

    torch.manual_seed(1)
    return Noisy()


OPTIONS = dict(
    epochs=4, batch_size=7, learning_rate=0.05, seed=9, patience=3, checkpoint_seconds=0.0,
    scheduler=functools.partial(CosineAnnealingLR, T_max=4),
)  # fmt: skip


@pytest.mark.parametrize("stop_at", slow_but([4, 5, 19], [1, 4, 5, 8, 14, 19]))
def test_a_resumed_training_ends_with_the_same_bits(stop_at, tmp_path, monkeypatch):
    straight = noisy_pair()
    expected = quiet(straight.model, straight.guide, grey_data(), **OPTIONS)

    step, count = svi_loop.svi_step, 0

    def failing(*args):
        nonlocal count
        count += 1
        if count > stop_at:
            raise ConnectionAbortedError("the machine goes down")
        return step(*args)

    monkeypatch.setattr(svi_loop, "svi_step", failing)
    broken = noisy_pair()
    with pytest.raises(ConnectionAbortedError):
        quiet(broken.model, broken.guide, grey_data(), checkpoint=tmp_path / "c.pt", **OPTIONS)
    monkeypatch.setattr(svi_loop, "svi_step", step)

    torch.manual_seed(1234)  # whatever the generators are when the work is taken up again
    resumed = noisy_pair()
    result = quiet(resumed.model, resumed.guide, grey_data(), checkpoint=tmp_path / "c.pt", resume=True, **OPTIONS)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert [row["elbo"] for row in result.history] == [row["elbo"] for row in expected.history]
    assert [row["validation_elbo"] for row in result.history] == [row["validation_elbo"] for row in expected.history]
    assert result.steps == expected.steps


@pytest.mark.slow
def test_killed_twenty_times_resumed_twenty_times(repository, tmp_path):
    """kill -9 at 20 random points of a training, resume each: the same bits, 20 of 20."""
    script = repository / "tests" / "inference" / "kill_and_resume.py"
    done = subprocess.run(
        [sys.executable, str(script), "20", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert "20 of 20 identical" in done.stdout, done.stdout + done.stderr


def test_ctrl_c_keeps_the_state(tmp_path, monkeypatch):
    straight = Module()
    state = {name: value.clone() for name, value in straight.state_dict().items()}
    quiet(straight.model, straight.guide, data(), epochs=5, batch_size=10)
    step = svi_loop.svi_step

    def interrupting(training, batch):
        if training.steps == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return step(training, batch)

    monkeypatch.setattr(svi_loop, "svi_step", interrupting)
    pair = Module()
    pair.load_state_dict(state)
    first = quiet(pair.model, pair.guide, data(), epochs=5, batch_size=10, checkpoint=tmp_path / "c.pt")
    assert (first.stopped, first.steps) == ("interrupted", 7)
    monkeypatch.setattr(svi_loop, "svi_step", step)
    again = Module()
    second = quiet(again.model, again.guide, data(), epochs=5, batch_size=10, checkpoint=tmp_path / "c.pt", resume=True)
    assert (second.stopped, second.steps) == ("finished", 20)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), again.parameters(), strict=True))


def test_a_loss_that_is_not_finite_stops_before_it_does_harm(tmp_path):
    pair = Module()
    before = [p.detach().clone() for p in pair.parameters()]

    def model(x):
        pyro.module("pair", pair)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(pair.m, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0, validate_args=False), obs=x)
            pyro.factor("overflow", z * torch.inf)

    with pytest.raises(NonFiniteError, match=r"epoch 1, step 1 of 1: .*'overflow'.*learning_rate"):
        quiet(model, pair.guide, data(), epochs=1, checkpoint=tmp_path / "c.pt")
    assert all(torch.equal(p, b) for p, b in zip(pair.parameters(), before, strict=True))
    assert (tmp_path / "c.pt").exists()


def test_an_infinite_gradient_stops_too():
    root = nn.Parameter(torch.tensor(0.0))

    def model(x):
        pyro.param("root", root)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)) + root.sqrt(), 1.0), obs=x)

    with pytest.raises(NonFiniteError, match="a gradient is not"):
        quiet(model, plain_guide, data(), epochs=1)
    assert root.item() == 0.0


def test_early_stopping_returns_to_the_best(tmp_path):
    """On 12 data a flexible guide and model overfit; the plateau rule stops and goes back to the best epoch."""
    pair = Module()
    result = quiet(
        pair.model, pair.guide, data(12), epochs=400, learning_rate=0.1, validation=data(200, seed=8), patience=5
    )
    assert result.stopped == "plateau"
    rows = result.history
    best = max(range(len(rows)), key=lambda i: rows[i]["validation_elbo"])
    now = log_weights(pair.model, pair.guide, data(200, seed=8), 21, seed=0).mean().item()
    spread = rows[best]["validation_standard_error"]
    assert now > rows[-1]["validation_elbo"] - 1e-9
    assert now > rows[best]["validation_elbo"] - 2 * spread


def test_reduce_on_plateau_gets_the_validation_elbo():
    pair = Module()
    schedule = functools.partial(ReduceLROnPlateau, patience=0, threshold=1e9)
    result = quiet(pair.model, pair.guide, data(), epochs=4, scheduler=schedule, validation=data(10))
    rates = [row["learning_rate"] for row in result.history]
    assert rates[-1] < rates[0]


@pytest.mark.parametrize(
    ("option", "value"),
    [("epochs", 0), ("batch_size", 0), ("batch_size", 2.5), ("learning_rate", -1e-3), ("learning_rate", float("nan")),
     ("clip_norm", 0.0), ("patience", 0), ("checkpoint_seconds", -1.0), ("epochs", True)],
)  # fmt: skip
def test_options_without_meaning_are_refused(option, value):
    with pytest.raises(OptionError, match=option):
        quiet(plain_model, plain_guide, data(), validation=data(5), **{option: value})


def test_what_cannot_be_trained_is_refused():
    def without_parameters(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=x)

    def constant_guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    with pytest.raises(PairError, match="no parameters"):
        quiet(without_parameters, constant_guide, data(), epochs=1)
    with pytest.raises(PairError, match="cannot be run on the data"):
        quiet(plain_model, lambda x: torch.ones(2) @ torch.ones(3), data(), epochs=1)
    with pytest.raises(DataError, match="datum 4"):
        quiet(plain_model, plain_guide, torch.where(torch.arange(40) == 4, torch.nan, data()), epochs=1)
    with pytest.raises(OptionError, match="patience needs validation"):
        quiet(plain_model, plain_guide, data(), patience=3)
    with pytest.raises(OptionError, match="resume needs checkpoint"):
        quiet(plain_model, plain_guide, data(), resume=True)


class TestCheckpoint:
    """A checkpoint is refused unless it is whole and of this training."""

    @pytest.fixture
    def path(self, tmp_path):
        pair = Module()
        quiet(pair.model, pair.guide, data(), epochs=1, checkpoint=tmp_path / "c.pt")
        return tmp_path / "c.pt"

    def resume(self, path, pair=None, x=None, **options):
        pair = pair or Module()
        return quiet(
            pair.model, pair.guide, data() if x is None else x, epochs=2, checkpoint=path, resume=True, **options
        )

    def test_goes_on(self, path):
        assert self.resume(path).steps == 2

    def test_missing(self, tmp_path):
        with pytest.raises(CheckpointError, match="no checkpoint at"):
            self.resume(tmp_path / "none.pt")

    @pytest.mark.parametrize("keep", [0, 10, 1000])
    def test_truncated(self, path, keep):
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(CheckpointError, match="damaged"):
            self.resume(path)

    def test_of_another_pair(self, path):
        with pytest.raises(CheckpointError, match="another pair"):
            self.resume(path, pair=Pyronic())

    def test_of_other_data(self, path):
        with pytest.raises(CheckpointError, match="other data"):
            self.resume(path, x=data() + 1)

    def test_of_another_seed(self, path):
        with pytest.raises(CheckpointError, match="seed = 0, not 1"):
            self.resume(path, seed=1)

    def test_runs_no_code(self, path, tmp_path):
        class Evil:
            def __reduce__(self):
                return (os.mkdir, (str(tmp_path / "evil"),))

        torch.save({"format": 1, "evil": Evil()}, path)
        with pytest.raises(CheckpointError):
            self.resume(path)
        assert not (tmp_path / "evil").exists()


def test_double_precision_converts_the_module():
    pair = Module().float()
    result = quiet(pair.model, pair.guide, data().float(), epochs=2, precision="64-true")
    assert result.parameters["pair$$$m"].dtype == torch.float64
    assert np.isfinite(result.elbo)


def test_mixed_precision_trains():
    pair = Module().float()
    result = quiet(pair.model, pair.guide, data().float(), epochs=30, learning_rate=0.05, precision="bf16-mixed")
    assert result.history[-1]["elbo"] > result.history[0]["elbo"]


def test_a_pair_need_not_be_hashable():
    @dataclasses.dataclass
    class Pair:
        name: str = "a dataclass compares by value and has no hash"

        def model(self, x):
            plain_model(x)

        def guide(self, x):
            plain_guide(x)

    one, other = Pair(), Pair()
    first = quiet(one.model, one.guide, data(), epochs=2, learning_rate=0.1)
    before = log_weights(one.model, one.guide, data(), 2, seed=0)
    second = quiet(other.model, other.guide, data() + 5, epochs=2, learning_rate=0.1)
    assert torch.equal(before, log_weights(first.model, first.guide, data(), 2, seed=0))
    assert not torch.equal(before, log_weights(second.model, second.guide, data(), 2, seed=0))


def test_early_stopping_returns_to_the_buffers_too():
    pair = noisy_pair()
    result = quiet(pair.model, pair.guide, grey_data(), epochs=30, learning_rate=0.5, batch_size=30, patience=2)
    assert result.stopped == "plateau"
    assert pair.norm.num_batches_tracked < result.steps


def test_what_fails_in_validation_is_said_in_a_sentence():
    pair = Module()
    with pytest.raises(NonFiniteError, match="learning_rate"):
        quiet(pair.model, pair.guide, data(), epochs=3, batch_size=40, learning_rate=1e30, validation=data(5))
    with pytest.raises(OptionError, match="accelerator or precision"):
        quiet(pair.model, pair.guide, data(), precision="7-true")


class Rows:
    """A logger of one's own: what it is given."""

    def __init__(self):
        self.rows = []

    def log_metrics(self, metrics, step):
        self.rows.append((step, metrics))


def test_loggers_are_given_each_epoch_once_also_after_a_resumption(tmp_path):
    first, second, x = Rows(), Rows(), data()
    quiet(plain_model, plain_guide, x, epochs=2, checkpoint=tmp_path / "c.pt", loggers=first)
    pyro.clear_param_store()
    result = quiet(
        plain_model, plain_guide, x, epochs=5, checkpoint=tmp_path / "c.pt", resume=True, loggers=[first, second]
    )
    assert [step for step, _ in first.rows] == [1, 2, 3, 4, 5]
    assert [step for step, _ in second.rows] == [3, 4, 5]
    assert [row["elbo"] for _, row in first.rows] == [row["elbo"] for row in result.history]


def test_fabrics_csv_logger_writes_the_history(tmp_path):
    from lightning_fabric.loggers import CSVLogger

    logger = CSVLogger(tmp_path, name="run")
    result = quiet(plain_model, plain_guide, data(), epochs=3, loggers=[logger])
    (written,) = tmp_path.rglob("metrics.csv")
    header, *rows = written.read_text().splitlines()
    elbos = [float(row.split(",")[header.split(",").index("elbo")]) for row in rows]
    assert elbos == pytest.approx([row["elbo"] for row in result.history])


def test_a_training_by_another_objective_is_not_resumed(tmp_path):
    from ppvae.inference import IWAE

    path, x = tmp_path / "c.pt", data()
    quiet(plain_model, plain_guide, x, epochs=2, checkpoint=path)
    with pytest.raises(CheckpointError, match=r"loss = ELBO, not IWAE"):
        quiet(plain_model, plain_guide, x, epochs=4, checkpoint=path, resume=True, loss=IWAE(5))
