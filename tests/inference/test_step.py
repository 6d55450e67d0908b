"""Compiled steps: the same function as the eager ones, and never trusted where they are not.

Most tests replay the recorded graph without inductor, which takes seconds for each graph; what it makes of a graph is
compared for a few pairs. Eager and compiled trainings draw the same noise, so that they end in the same place.
"""

import ctypes
import functools
import importlib
import os
import random

import pairs
import pyro
import pyro.distributions as dist
import pytest
import torch
from gate import slow_but, slow_those
from lightning_fabric import Fabric
from pyro.infer import RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.distributions import constraints
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import LambdaLR

from ppvae.datasets import load_dataset
from ppvae.errors import CheckpointError, NonFiniteError, OptionError
from ppvae.inference import Fit, fit
from ppvae.inference.graphs import NoGraph
from ppvae.inference.pair import buffers_kept, elbo_for, named_parameters, plain_traces
from ppvae.inference.svi import choice, compiled, step
from ppvae.inference.svi.loss import Loss
from ppvae.models import VAE, Binomial

svi_loop = importlib.import_module("ppvae.inference.svi.loop")
inductor = importlib.import_module("ppvae.inference.graphs.inductor")
quiet = functools.partial(fit, progress=False, accelerator="cpu")


@pytest.fixture
def uncompiled(monkeypatch):
    """The recorded graph itself in the place of inductor's code."""
    monkeypatch.setattr(compiled, "inductor", lambda graph, inputs, **options: graph)


@pytest.fixture
def soon(monkeypatch):
    """Any training is long enough to be compiled."""
    monkeypatch.setattr(choice, "COMPILED_FROM_STEPS", 1)


def data(num_data=40, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return 1.0 + torch.randn(num_data, generator=generator)


# --- a step -----------------------------------------------------------------------------------------------------------

LOSSES = {
    "Trace_ELBO": Trace_ELBO,
    "Trace_ELBO, 2 particles": lambda: Trace_ELBO(num_particles=2),
    "Trace_ELBO, 3 at once": lambda: Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1),
    "TraceMeanField_ELBO": TraceMeanField_ELBO,
    "TraceGraph_ELBO": TraceGraph_ELBO,
    "TraceEnum_ELBO": lambda: TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False),
    "RenyiELBO": lambda: RenyiELBO(alpha=0.0, num_particles=3, vectorize_particles=True, max_plate_nesting=1),
}
# Every pair of the law suite that has parameters, and every other ELBO for one of them.
STEPS = [(name, None) for name in pairs.LEARNT] + [("stored", loss) for loss in LOSSES if loss != "Trace_ELBO"]
# Networks, a pair of params, and an objective of each kind.
SOONER = [
    ("linear_gaussian", None),
    ("vae_bernoulli", None),
    ("stored", None),
    ("autoencoder", None),
    ("feed_forward", None),
    ("stored", "TraceMeanField_ELBO"),
    ("stored", "TraceEnum_ELBO"),
    ("stored", "RenyiELBO"),
]


def loss_of(model, guide, batch, elbo=None):
    elbo = elbo or elbo_for(*plain_traces(model, guide, batch))
    leaves = list(named_parameters(model, guide, batch).values())
    with torch.no_grad(), buffers_kept(model, guide):
        elbo.loss(model, guide, *batch)
    return Loss(model, guide, elbo, Fabric(accelerator="cpu", devices=1), leaves)


def assert_steps_agree(loss, batch, tolerance):
    """Loss and gradients under the same noise, relative to the loss and to the largest gradient."""
    pyro.set_rng_seed(7)
    expected = loss.backward(batch)
    gradients = [p.grad for p in loss.parameters]
    assert sum(g.abs().sum() for g in gradients if g is not None) > 0
    for parameter in loss.parameters:
        parameter.grad = None
    one = compiled.Compiled(loss, batch)
    pyro.set_rng_seed(7)
    value, norm, finite, passed = one(batch)
    assert (finite, passed) == (True, True)
    assert value == pytest.approx(expected, rel=tolerance)
    assert norm.item() == pytest.approx(torch.nn.utils.get_total_norm([g for g in gradients if g is not None]).item())
    for parameter, gradient in zip(loss.parameters, gradients, strict=True):
        assert (parameter.grad is None) == (gradient is None)
        if gradient is not None:
            scale = max(gradient.abs().max().item(), 1e-3 * norm.item())
            assert (parameter.grad - gradient).abs().max().item() <= tolerance * scale


@pytest.mark.parametrize(("name", "elbo"), slow_but(SOONER, STEPS))
def test_the_graph_of_a_step_is_the_step(name, elbo, uncompiled):
    pair = pairs.build(name)
    assert_steps_agree(loss_of(pair.model, pair.guide, pair.args, elbo and LOSSES[elbo]()), pair.args, 1e-12)


def gammas():
    """Draws that inductor's C++ has no call for."""

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Poisson(pyro.sample("z", dist.Gamma(2.0, 1.0))), obs=x)

    def guide(x):
        rate = pyro.param("rate", torch.tensor(2.0), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Gamma(2.0 + x, rate))

    return model, guide, (torch.arange(40.0).fmod(7),)


def of_many_units():
    """tanh of more numbers than are left to inductor."""
    torch.manual_seed(0)
    x = torch.arange(100 * 8.0).reshape(100, 8).fmod(17)
    vae = VAE.for_data(x, Binomial(16), latent_dim=3, hidden=(inductor.LARGE_TANH // 100,))
    return vae.model, vae.guide, (x,)


def stored():
    pair = pairs.build("stored")
    return pair.model, pair.guide, pair.args


@pytest.mark.slow
@pytest.mark.parametrize("make", [stored, gammas, of_many_units])
def test_what_inductor_makes_of_it_is_the_step(make, capfd):
    model, guide, batch = make()
    assert_steps_agree(loss_of(model, guide, batch), batch, 1e-12)
    assert capfd.readouterr() == ("", "")


# --- a training -------------------------------------------------------------------------------------------------------


class Normals(nn.Module):
    """z ~ N(m, 1), x ~ N(z, 1), with batch norm and dropout on the way to q(z|x)."""

    def __init__(self, dropout=0.3):
        super().__init__()
        torch.manual_seed(1)
        self.m, self.beta = nn.Parameter(torch.tensor(0.0)), 1.0
        # No bias before batch norm: its gradient is rounding alone, of which Adam makes steps of full length.
        self.encoder = nn.Sequential(
            nn.Linear(1, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 2)
        )

    def model(self, x):
        pyro.module("normals", self)
        with pyro.plate("data", len(x)):
            with pyro.poutine.scale(scale=self.beta):
                z = pyro.sample("z", dist.Normal(self.m, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x):
        pyro.module("normals", self)
        loc, log_scale = self.encoder(x.unsqueeze(-1)).unbind(-1)
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=self.beta):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()))


def modules():
    pair = Normals()
    return pair.model, pair.guide, data()


def constrained():
    def model(x):
        scale = pyro.param("scale", torch.tensor(2.0), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, scale)), 1.0), obs=x)

    def guide(x):
        width = pyro.param("width", torch.tensor(0.3), constraint=constraints.unit_interval)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("slope", torch.tensor(0.1)) * x, width))

    return model, guide, data()


def with_context():
    def model(x, u, shared):
        weight = pyro.param("weight", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(weight * u + shared.sum(), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0).mask(u > 0.2), obs=x)

    def guide(x, u, shared):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x + pyro.param("slope", torch.tensor(0.5)) * u) / 2, 0.5))

    return model, guide, (data(), torch.linspace(-1, 1, 40), torch.tensor([0.1, 0.2, 0.3]))


def subsampled():
    def model(x):
        m = pyro.sample("m", dist.Normal(0.0, 3.0))
        with pyro.plate("data", len(x), subsample_size=7) as index:
            pyro.sample("x", dist.Normal(m, 1.0), obs=x[index])

    def guide(x):
        scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
        pyro.sample("m", dist.Normal(pyro.param("loc", torch.tensor(0.0)), scale))

    return model, guide, data()


def enumerated():
    def model(x):
        weight = pyro.param("weight", torch.tensor([0.3, 0.7]), constraint=constraints.simplex)
        locs = pyro.param("locs", torch.tensor([-1.0, 2.0]))
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(weight), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(locs[c], 1.0), obs=x)

    return model, lambda x: None, data()


def global_latents():
    def model(x):
        slope, scale = pyro.sample("slope", dist.Normal(0.0, 1.0)), pyro.sample("scale", dist.Gamma(2.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(slope, scale), obs=x)

    return model, AutoNormal(model), data()


def tied():
    """One layer under two names, and the sum of two parameters: their gradients are one tensor."""

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(1, 1)
            self.second, self.a, self.b = self.first, nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))

        def model(self, x):
            pyro.module("tied", self)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal((self.a + self.b).sum(), 1.0))
                pyro.sample("x", dist.Normal(self.second(z.unsqueeze(-1)).squeeze(-1), 1.0), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.first(x.unsqueeze(-1)).squeeze(-1), 0.5))

    torch.manual_seed(2)
    pair = Tied()
    return pair.model, pair.guide, data()


TRAINED = [modules, constrained, with_context, subsampled, enumerated, global_latents, tied]


def train(make, compile, **options):
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    model, guide, x = make()
    return quiet(model, guide, x, compile=compile, **{"epochs": 6, "batch_size": 20, "learning_rate": 0.05, **options})


def assert_same_end(one, other, tolerance=1e-9):
    assert one.steps == other.steps
    for name, value in other.parameters.items():
        torch.testing.assert_close(one.parameters[name], value, rtol=tolerance, atol=tolerance)
    for (_, _, buffers), (_, _, others) in zip(one.model.values.modules, other.model.values.modules, strict=True):
        for name, value in others.items():
            torch.testing.assert_close(buffers[name], value, rtol=tolerance, atol=tolerance)
    elbos = [[row["elbo"] for row in result.history] for result in (one, other)]
    assert elbos[0] == pytest.approx(elbos[1], rel=tolerance)


@pytest.mark.parametrize(
    ("make", "clip_norm"),
    slow_those(
        [(make, None) for make in (constrained, with_context, global_latents, tied)],
        [(make, None) for make in TRAINED] + [(tied, 0.05)],
    ),
)
def test_a_training_ends_where_the_eager_one_does(make, clip_norm, uncompiled):
    """Batch norm, dropout, constraints, context, subsampled plates, enumeration, automatic guides, tied weights."""
    result = train(make, True, clip_norm=clip_norm)
    assert result.step == "compiled"
    assert_same_end(result, train(make, False, clip_norm=clip_norm))


@pytest.mark.slow
def test_a_vae_of_the_digits_ends_within_rounding_of_the_eager_one():
    torch.set_default_dtype(torch.float32)
    x = load_dataset("digits").train[:200]

    def make():
        vae = VAE.for_data(x, Binomial(16), latent_dim=4, hidden=(16,))
        return vae.model, vae.guide, x

    result, eager = (train(make, kind, epochs=20, batch_size=50, learning_rate=1e-3) for kind in (True, False))
    assert (result.step, eager.step) == ("compiled", "eager: compile=False")
    assert_same_end(result, eager, tolerance=1e-3)
    assert result.elbo > result.history[0]["elbo"] + 1
    model, guide, _ = make()
    assert_steps_agree(loss_of(model, guide, (x[:50],)), (x[:50],), 1e-6)


@pytest.mark.slow
def test_training_is_the_same_bits_again_and_other_with_another_seed(uncompiled):
    first, second, other = (train(modules, True, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(first.parameters[name], value) for name, value in second.parameters.items())
    assert not torch.equal(first.parameters["normals$$$m"], other.parameters["normals$$$m"])


@pytest.mark.parametrize(("from_steps", "recorded"), [(10**9, 1), (6, 2)])
def test_a_last_batch_of_another_size(from_steps, recorded, uncompiled, monkeypatch):
    """It has a graph of its own where it comes often enough, and is eager otherwise; none is recorded on the way."""
    count, record = 0, compiled.record_step

    def counted(*args):
        nonlocal count
        count += 1
        return record(*args)

    monkeypatch.setattr(compiled, "record_step", counted)
    monkeypatch.setattr(choice, "COMPILED_FROM_STEPS", from_steps)
    result = train(constrained, True, batch_size=15)
    assert (result.step, count) == ("compiled", recorded)
    assert_same_end(result, train(constrained, False, batch_size=15))


@pytest.mark.slow
def test_the_optimiser_is_fused_where_the_user_left_it_open(uncompiled):
    chosen = []

    def noting(kind, **options):
        def make(parameters, lr):
            chosen.append(kind(parameters, lr=lr, **options))
            return chosen[-1]

        return make

    for make in (noting(Adam), noting(Adam, foreach=True), noting(SGD)):
        train(constrained, True, epochs=1, optimizer=make)
    assert [optimizer.param_groups[0].get("fused") for optimizer in chosen] == [True, None, None]


# --- resumed ----------------------------------------------------------------------------------------------------------


def broken_off(make, path, stop_at, monkeypatch, compile, **options):
    taken, count = svi_loop.svi_step, 0

    def failing(*args):
        nonlocal count
        count += 1
        if count > stop_at:
            raise ConnectionAbortedError("the machine goes down")
        return taken(*args)

    monkeypatch.setattr(svi_loop, "svi_step", failing)
    with pytest.raises(ConnectionAbortedError):
        train(make, compile, checkpoint=path, checkpoint_seconds=0.0, **options)
    monkeypatch.setattr(svi_loop, "svi_step", taken)


@pytest.mark.parametrize("stop_at", [pytest.param(1, marks=pytest.mark.slow), 7])
def test_a_resumed_training_ends_with_the_same_bits(stop_at, tmp_path, uncompiled, monkeypatch):
    """Its steps stay compiled without being asked, however few remain."""
    expected = train(modules, True)
    broken_off(modules, tmp_path / "c.pt", stop_at, monkeypatch, True)
    result = train(modules, "auto", checkpoint=tmp_path / "c.pt", resume=True)
    assert result.step == "compiled"
    assert_same_end(result, expected, tolerance=0)


def test_an_eager_training_goes_on_eagerly(tmp_path, uncompiled, soon, monkeypatch):
    expected = train(modules, False)
    broken_off(modules, tmp_path / "c.pt", 3, monkeypatch, False)
    result = train(modules, "auto", checkpoint=tmp_path / "c.pt", resume=True)
    assert result.step == "eager: compile=False"
    assert_same_end(result, expected, tolerance=0)
    assert Fit.load(tmp_path / "c.pt", *modules()).step == result.step


def test_compiled_steps_that_cannot_go_on_are_refused_unless_eager_ones_are_asked_for(
    tmp_path, uncompiled, monkeypatch
):
    broken_off(constrained, tmp_path / "c.pt", 3, monkeypatch, True)

    def none(graph, inputs, **options):
        raise NoGraph("there is no C++ compiler")

    monkeypatch.setattr(compiled, "inductor", none)
    with pytest.raises(CheckpointError, match=r"no C\+\+ compiler.*compile=False"):
        train(constrained, "auto", checkpoint=tmp_path / "c.pt", resume=True)
    result = train(constrained, False, checkpoint=tmp_path / "c.pt", resume=True)
    assert_same_end(result, train(constrained, False))


# --- eager, and why ---------------------------------------------------------------------------------------------------


def guided(guide):
    """A pair of this guide, which has a parameter."""

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=x)

    return model, guide, data()


def drawn(x, loc):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc + pyro.param("loc", torch.tensor(0.1)), 1.0))


def control_flow():
    return guided(lambda x: drawn(x, 0.1 * x if x.sum() > 0 else -x))


def outside_torch():
    return guided(lambda x: drawn(x, x * random.random()))


def by_numpy():
    return guided(lambda x: drawn(x, torch.as_tensor(x.numpy() / 2)))


def in_memory(tensor):
    """Its numbers, read from its memory: torch does not see it."""
    return list((ctypes.c_double * tensor.numel()).from_address(tensor.data_ptr()))


def by_memory():
    return guided(lambda x: drawn(x, torch.tensor(in_memory(x)) / 2))


def of_a_parameter():
    return guided(lambda x: drawn(x, in_memory(pyro.param("w", torch.tensor(0.5)))[0] * x))


def of_a_parameter_by_numpy():
    return guided(lambda x: drawn(x, float(pyro.param("w", torch.tensor(0.5)).detach().numpy()) * x))


def counting():
    calls = []

    def guide(x):
        calls.append(1)
        drawn(x, x / len(calls))

    return guided(guide)


def writing():
    mean = torch.zeros(())

    def guide(x):
        mean.mul_(0.9).add_(0.1 * x.mean())
        drawn(x, mean)

    return guided(guide)


def score_function():
    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(3 * c, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Bernoulli(logits=pyro.param("slope", torch.tensor(0.1)) * x))

    return model, guide, data()


REASONS = {
    control_flow: "takes the value of a tensor into Python",
    by_numpy: "takes the numbers of a tensor out of torch",
    of_a_parameter_by_numpy: "takes the numbers of a tensor out of torch",
    by_memory: "not the eager one \\(.* differs\\)",
    of_a_parameter: "not the eager one \\(.* differs\\)",
    score_function: "site 'c' of the guide has no reparameterised draw",
}


@pytest.mark.parametrize("make", REASONS)
def test_what_cannot_be_compiled_is_eager_with_a_sentence(make, uncompiled, soon):
    with pytest.raises(OptionError, match=f"compile=True cannot be had: .*{REASONS[make]}"):
        train(make, True)
    result, eager = train(make, "auto"), train(make, False)
    assert result.step.startswith("eager: ")
    assert "\n" not in result.step
    assert result.step in str(result)
    assert_same_end(result, eager, tolerance=0)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (outside_torch, "random numbers outside torch"),
        (counting, "change a Python value as they run"),
        (writing, "write into a tensor that is no buffer"),
    ],
)
def test_what_is_more_than_a_function_is_not_compiled(make, why, uncompiled):
    """Where all latents of all data hang together, or in training mode alone, fit has no other way to see it."""
    model, guide, x = make()
    one = step.Step(loss_of(model, guide, (x,)))
    with pytest.raises(NoGraph, match=why):
        one.compile([(x,)], (data(seed=4),))
    assert not one.sizes


def test_too_few_steps_are_eager(uncompiled, monkeypatch):
    assert "12 steps are too few" in train(constrained, "auto").step
    monkeypatch.setattr(choice, "COMPILED_FROM_STEPS", 12)
    assert train(constrained, "auto").step == "compiled"


def test_without_a_compiler_steps_are_eager(soon):
    from torch._inductor import config, cpp_builder

    cpp_builder.get_cpp_compiler.cache_clear() if hasattr(cpp_builder.get_cpp_compiler, "cache_clear") else None
    with config.patch({"cpp.cxx": (None, "no-such-compiler"), "force_disable_caches": True}):
        assert "no C++ compiler" in train(constrained, "auto").step


@pytest.mark.parametrize("value", ["yes", 2, None, 0.5])
def test_other_values_of_compile_are_refused(value):
    with pytest.raises(OptionError, match="compile must be 'auto', True or False"):
        train(constrained, value)


# --- not trusted ------------------------------------------------------------------------------------------------------


class Annealing:
    """A scheduler that also raises the weight of the KL in a pair."""

    def __init__(self, pair):
        self.pair = pair

    def __call__(self, optimizer):
        def rate(epoch):
            self.pair.beta = min(1.0, (1 + epoch) / 4)
            return 1.0

        return LambdaLR(optimizer, rate)


def test_a_schedule_in_python_is_followed(uncompiled):
    """The weight of the KL changes after every epoch, between two steps: none is taken with the old one."""
    results = []
    for kind in (True, False):
        pair = Normals()
        results.append(train(lambda p=pair: (p.model, p.guide, data()), kind, scheduler=Annealing(pair)))
    assert results[0].step == "eager: a Python value that the programs read has changed (beta)"
    assert_same_end(*results)


def test_what_cannot_be_seen_is_found_at_the_start_of_an_epoch_and_warned_of(uncompiled, monkeypatch):
    def guide(x):
        drawn(x, float(os.environ["PPVAE_TEST_SHIFT"]) * x)

    monkeypatch.setenv("PPVAE_TEST_SHIFT", "0.5")
    monkeypatch.setattr(step, "TRIAL_EVERY", 4)

    def schedule(optimizer):
        def rate(epoch):
            monkeypatch.setenv("PPVAE_TEST_SHIFT", "0.7" if epoch >= 2 else "0.5")
            return 1.0

        return LambdaLR(optimizer, rate)

    with pytest.warns(UserWarning, match="from step 5 on steps are eager"):
        result = train(lambda: guided(guide), True, scheduler=schedule)
    assert "disagree from step 5 on" in result.step
    assert_same_end(result, train(lambda: guided(guide), False, scheduler=schedule))


def test_what_distributions_refuse_is_still_refused(uncompiled):
    """A datum outside the support, in the last batch: the checks are part of the graph."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Exponential((pyro.param("rate", torch.tensor(0.0)) + z).exp()), obs=x - 2)

    x = 3 + data().abs()
    values = {}

    def moved(x):
        return model(x - values["shift"])

    def guide(x):
        drawn(x, 0.0)

    def schedule(optimizer):
        return LambdaLR(optimizer, lambda epoch: values["shift"].fill_(10.0 * (epoch > 2)) + 1.0)

    said = []
    for kind in (True, False):
        values["shift"] = torch.zeros(())  # a tensor, whose values the graph reads
        with pytest.raises(NonFiniteError) as error:
            train(lambda: (moved, guide, x), kind, scheduler=schedule)
        said.append(str(error.value))
    assert said[0] == said[1]
    assert "epoch 4" in said[0]
    assert "site 'x'" in said[0]


@pytest.mark.parametrize("kind", [True, False])
def test_a_loss_that_is_not_finite_leaves_parameters_and_buffers(kind, tmp_path, uncompiled):
    pair = Normals()
    scale = torch.ones(())

    def model(x):
        pair.model(x * scale)

    def schedule(optimizer):
        return LambdaLR(optimizer, lambda epoch: scale.fill_(torch.inf if epoch > 1 else 1.0).isfinite() + 0.0)

    with pytest.raises(NonFiniteError, match=r"epoch 3, step 1 of 2: .*learning_rate"):
        train(lambda: (model, pair.guide, data()), kind, scheduler=schedule, checkpoint=tmp_path / "c.pt")
    scale.fill_(1.0)
    good = Normals()
    train(lambda: (good.model, good.guide, data()), kind, epochs=2)
    assert all(torch.equal(p, q) for p, q in zip(pair.parameters(), good.parameters(), strict=True))


def test_the_trial_leaves_no_trace(uncompiled):
    """Generators, buffers, parameters and Python values are as they were."""
    pair = Normals()
    batch = (data(),)
    loss = loss_of(pair.model, pair.guide, batch)
    before = {name: value.clone() for name, value in pair.state_dict().items()}
    state = torch.get_rng_state()
    one = step.Step(loss)
    one.compile([batch], (data(seed=4),))
    assert one.name == "compiled"
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in pair.state_dict().items())
    assert all(parameter.grad is None for parameter in pair.parameters())
