"""After a training its values are where Pyro's own SVI leaves them, and stay with the Fit whatever happens later.

Every pair here is normal: with z ~ q(z|x) the log weights are written out again in plain torch (``by_hand``), so that
"trained" means: these numbers, from the trained values. Where the same operations run twice, bits are compared.
"""

import functools
import subprocess
import sys
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from gate import slow_but
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoIAFNormal, AutoMultivariateNormal, AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch import nn
from torch.distributions import constraints
from torch.optim import SGD

from ppvae.errors import CheckpointError, NonFiniteError, PairError, RunError
from ppvae.inference import Fit, fit, log_weights
from ppvae.inference.svi.checkpoint import load_parameters

quiet = functools.partial(fit, accelerator="cpu", progress=False, epochs=2, batch_size=20, learning_rate=0.1)


def data(n=40):
    return 3.0 + torch.randn(n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


# --- the pairs: z ~ N(loc, 1), x ~ N(z, 1); q(z|x) = N(slope x + shift, scale) ----------------------------------------


class Functions:
    """Plain functions with pyro.param, one of them constrained."""

    @staticmethod
    def model(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(loc, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    @staticmethod
    def guide(x):
        slope, shift = pyro.param("slope", torch.tensor(0.0)), pyro.param("shift", torch.tensor(0.0))
        scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(slope * x + shift, scale))

    def values(self, found):
        return found["loc"], found["slope"], found["shift"], found["scale"]


class Registered:
    """Networks held by an object that is no module, registered with pyro.module; methods of the object."""

    def __init__(self):
        self.encoder, self.prior = nn.Linear(1, 2), nn.Linear(1, 1, bias=False)

    def model(self, x):
        pyro.module("prior", self.prior)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.prior.weight.squeeze(), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        loc, log_scale = self.encoder(x.unsqueeze(-1)).unbind(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()))

    def values(self, found):
        weight, bias = found["encoder$$$weight"].squeeze(), found["encoder$$$bias"]
        x = data()
        return found["prior$$$weight"].squeeze(), weight[0], bias[0], (weight[1] * x + bias[1]).exp()


class Closures(Registered):
    """The same as functions that close over the networks."""

    def __init__(self):
        super().__init__()
        encoder, prior = self.encoder, self.prior

        def model(x):
            net = pyro.module("prior", prior)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(net.weight.squeeze(), 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(x):
            loc, log_scale = pyro.module("encoder", encoder)(x.unsqueeze(-1)).unbind(-1)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(loc, log_scale.exp()))

        self.model, self.guide = model, guide


class Methods(nn.Module):
    """Bound methods of a module that registers itself."""

    def __init__(self):
        super().__init__()
        self.loc, self.numbers = nn.Parameter(torch.tensor(0.0)), nn.Parameter(torch.zeros(3))

    def model(self, x):
        pyro.module("pair", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.loc, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x):
        pyro.module("pair", self)
        slope, shift, log_scale = self.numbers
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(slope * x + shift, log_scale.exp()))

    def values(self, found):
        slope, shift, log_scale = found["pair$$$numbers"]
        return found["pair$$$loc"], slope, shift, log_scale.exp()


class PyroModel(PyroModule):
    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.tensor(0.0))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.loc, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)


class PyroGuide(PyroModule):
    def __init__(self):
        super().__init__()
        self.slope, self.shift = PyroParam(torch.tensor(0.0)), PyroParam(torch.tensor(0.0))
        self.scale = PyroParam(torch.tensor(1.0), constraint=constraints.positive)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.slope * x + self.shift, self.scale))


class PyroModules(Functions):
    """A pair of PyroModules, one parameter constrained."""

    def __init__(self):
        self.model, self.guide = PyroModel(), PyroGuide()


FORMS = {form.__name__: form for form in (Functions, Registered, Closures, Methods, PyroModules)}
every_form = pytest.mark.parametrize("form", list(FORMS))
two_forms = pytest.mark.parametrize("form", slow_but(["Functions", "PyroModules"], FORMS))
one_form = pytest.mark.parametrize(
    "form", [pytest.param(form, marks=[pytest.mark.slow] if i else []) for i, form in enumerate(FORMS)]
)


def by_hand(values, x):
    """log p(x, z) − log q(z|x) at three draws of the guide from seed 0, ``(3, num_data)``, in plain torch."""
    loc, slope, shift, scale = values
    normal = torch.distributions.Normal
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        z = slope * x + shift + scale * torch.normal(torch.zeros(3, len(x)), torch.ones(3, len(x)))
    log_p = normal(loc, 1.0).log_prob(z) + normal(z, 1.0).log_prob(x)
    return log_p - normal(slope * x + shift, scale).log_prob(z)


def draws_of(guide, x):
    """z of one run of a guide, from a seed."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(5)
        return pyro.poutine.trace(guide).get_trace(x).nodes["z"]["value"]


def weights(model, guide, x=None):
    return log_weights(model, guide, data() if x is None else x, 3, seed=0)


def assert_trained(pair, result, model, guide):
    """The log weights of a pair, and what Pyro itself draws of its guide, are those of the trained values."""
    values, x = pair.values(result.parameters), data()
    assert torch.allclose(weights(model, guide), by_hand(values, x), rtol=0, atol=1e-11)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        z = values[1] * x + values[2] + values[3] * torch.normal(torch.zeros(len(x)), torch.ones(len(x)))
    assert torch.allclose(draws_of(guide, x), z, rtol=0, atol=1e-12)


# --- where Pyro's SVI leaves them -------------------------------------------------------------------------------------


@every_form
def test_however_the_pair_is_wrapped_it_is_trained(form):
    pair = FORMS[form]()
    result = quiet(pair.model, pair.guide, data())
    assert all(value.abs().max() > 0.01 for value in result.parameters.values())
    bound = type("Bound", (), {"model": lambda self, x: pair.model(x), "guide": lambda self, x: pair.guide(x)})()
    wrapped = {
        "as it is": (pair.model, pair.guide),
        "lambda": (lambda x: pair.model(x), lambda x: pair.guide(x)),
        "partial": (functools.partial(pair.model), functools.partial(pair.guide)),
        "bound method": (bound.model, bound.guide),
        "Fit": (result.model, result.guide),
    }
    bits = weights(pair.model, pair.guide)
    for model, guide in wrapped.values():
        assert_trained(pair, result, model, guide)
        assert torch.equal(weights(model, guide), bits)


@one_form
def test_predictive_gives_draws_of_the_trained_guide(form):
    pair = FORMS[form]()
    result = quiet(pair.model, pair.guide, data())
    _, slope, shift, scale = pair.values(result.parameters)
    x, noise = data(), 1000
    for model, guide in ((pair.model, pair.guide), (result.model, result.guide)):
        pyro.set_rng_seed(0)
        z = Predictive(model, guide=guide, num_samples=noise, return_sites=["z"])(x)["z"].reshape(noise, -1)
        # 40 means, each beyond 5 standard errors with probability 6e-7: a false alarm in 43 000 runs.
        assert ((z.mean(0) - (slope * x + shift)).abs() < 5 * scale / noise**0.5).all()


@two_forms
def test_the_store_holds_what_pyros_svi_leaves(form):
    ours, theirs = FORMS[form](), FORMS[form]()
    for mine, other in zip(modules_of(ours), modules_of(theirs), strict=True):
        other.load_state_dict(mine.state_dict())
    x, seed = data(), 5
    quiet(ours.model, ours.guide, x, epochs=1, batch_size=len(x), optimizer=SGD, seed=seed)
    state = {name: value.detach().clone() for name, value in pyro.get_param_store().items()}
    pyro.clear_param_store()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed * 1_000_003))
    pyro.set_rng_seed(seed)
    SVI(theirs.model, theirs.guide, pyro.optim.SGD({"lr": 0.1 / len(x)}), Trace_ELBO()).step(x[order])
    assert set(state) == set(pyro.get_param_store().keys())
    for name, value in pyro.get_param_store().items():
        assert torch.allclose(state[name], value.detach(), rtol=0, atol=1e-13)  # a mean of gradients, or their sum


def modules_of(pair):
    held = [pair] if isinstance(pair, nn.Module) else list(vars(pair).values())
    return [one for one in held if isinstance(one, nn.Module)]


@two_forms
def test_the_stores_own_save_and_load_give_the_trained_values(form, tmp_path):
    pair = FORMS[form]()
    result = quiet(pair.model, pair.guide, data())
    weights(pair.model, pair.guide)  # a measurement in between takes nothing out of the store
    for name, value in result.parameters.items():
        assert torch.equal(pyro.param(name), value)
    store = pyro.get_param_store()
    store.save(tmp_path / "store.pt")
    before = draws_of(pair.guide, data())
    pyro.clear_param_store()
    store.load(tmp_path / "store.pt")
    assert set(store.keys()) >= set(result.parameters)
    for name, value in result.parameters.items():
        assert torch.equal(store[name], value)
    assert torch.equal(draws_of(pair.guide, data()), before)
    assert torch.equal(weights(pair.model, pair.guide), weights(result.model, result.guide))


def test_a_training_keeps_what_others_left_in_the_store():
    first, second = Methods(), Registered()
    kept = quiet(first.model, first.guide, data()).parameters
    quiet(second.model, second.guide, data())
    assert torch.equal(pyro.param("pair$$$numbers"), kept["pair$$$numbers"])


def test_a_training_that_fails_leaves_its_last_good_step_in_the_store():
    seen = []

    def model(x):
        seen.append(1)
        Functions.model(x + (torch.inf if len(seen) > 60 else 0.0))

    with pytest.raises(NonFiniteError, match="last good step"):
        quiet(model, Functions.guide, data(), epochs=100)
    assert float(pyro.param("loc").detach()) != 0.0


# --- what a Fit keeps -------------------------------------------------------------------------------------------------


@two_forms
def test_two_pairs_of_the_same_names_keep_their_bits(form):
    first, second = FORMS[form](), FORMS[form]()
    one = quiet(first.model, first.guide, data())
    bits, states = weights(one.model, one.guide), [dict_of(m) for m in modules_of(first)]
    two = quiet(second.model, second.guide, 2.0 - data(), epochs=3)
    other = weights(two.model, two.guide)
    assert not torch.equal(bits, other)
    assert torch.equal(weights(one.model, one.guide), bits)
    assert torch.equal(weights(two.model, two.guide), other)
    assert all(same(dict_of(m), state) for m, state in zip(modules_of(first), states, strict=True))
    assert_trained(first, one, one.model, one.guide)
    assert_trained(second, two, two.model, two.guide)


def dict_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_module_is_trained_from_its_own_values_whatever_the_store_has_under_its_names():
    quiet(Functions.model, Functions.guide, data(), epochs=20)
    trained = {name: value.detach().clone() for name, value in pyro.get_param_store().items()}
    pair = PyroModules()
    with pytest.warns(UserWarning, match="store holds other values for 'slope'"):
        weights(pair.model, pair.guide)
    result = quiet(pair.model, pair.guide, data(), learning_rate=1e-3)
    assert result.found == ()
    assert all((value - trained[name]).abs() > 0.05 for name, value in result.parameters.items())
    assert_trained(pair, result, pair.model, pair.guide)
    assert_trained(pair, result, result.model, result.guide)


def test_found_names_what_was_in_the_store():
    pyro.param("loc", torch.tensor(7.0))
    pyro.param("of another pair", torch.tensor(1.0))
    first = quiet(Functions.model, Functions.guide, data(), epochs=1)
    assert first.found == ("loc",)
    assert first.parameters["loc"] > 6.0  # trained on from 7, by steps of 0.1
    assert "of another pair" in pyro.get_param_store()
    assert "found in Pyro's parameter store: loc" in str(first)
    pair = Methods()
    assert quiet(pair.model, pair.guide, data()).found == ()


@two_forms
def test_training_on_leaves_the_first_fit_as_it_was(form):
    pair = FORMS[form]()
    first = quiet(pair.model, pair.guide, data())
    bits = weights(first.model, first.guide)
    quiet(pair.model, pair.guide, 2.0 - data())  # the pair itself goes elsewhere
    second = quiet(first.model, first.guide, data(), epochs=1, learning_rate=1e-3)
    assert torch.equal(weights(first.model, first.guide), bits)
    assert_trained(pair, first, first.model, first.guide)
    # It went on from the first Fit, by 2 steps of at most 0.001 each.
    for name, value in second.parameters.items():
        assert 0 < (value - first.parameters[name]).abs().max() < 0.01
    assert torch.equal(weights(second.model, second.guide), weights(pair.model, pair.guide))
    assert second.model.program is first.model.program


def test_what_wraps_a_fit_is_not_trained():
    pair = Methods()
    first, second = quiet(pair.model, pair.guide, data()), quiet(pair.model, pair.guide, data())
    with pytest.raises(PairError, match=r"train Fit\.model"):
        quiet(lambda x: first.model(x), first.guide, data())
    with pytest.raises(PairError, match="two trainings of the same parameters"):
        quiet(first.model, second.guide, data())


@two_forms
def test_gradients_and_random_numbers_do_not_leak(form):
    pair = FORMS[form]()
    state = torch.get_rng_state()
    result = quiet(pair.model, pair.guide, data())
    assert torch.equal(torch.get_rng_state(), state)
    leaves = [p.unconstrained() if hasattr(p, "unconstrained") else p for p in pyro.get_param_store().values()]
    assert all(leaf.grad is None for leaf in leaves)
    assert not any(value.requires_grad for value in result.parameters.values())
    bits = weights(result.model, result.guide)
    Trace_ELBO().loss_and_grads(result.model, result.guide, data())
    assert all(leaf.grad is None for leaf in leaves)  # those of the Fit's own copies are filled
    assert any(leaf.grad is not None for leaf in result.model.values.leaves.values())
    assert torch.equal(weights(result.model, result.guide), bits)


def test_tied_weights_stay_tied_and_with_their_fit():
    class Tied(Methods):
        def __init__(self):
            super().__init__()
            self.other = self.loc

        def model(self, x):
            pyro.module("pair", self)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(self.other, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    pair = Tied()
    first = quiet(pair.model, pair.guide, data())
    bits = weights(first.model, first.guide)
    quiet(pair.model, pair.guide, 2.0 - data())
    assert torch.equal(weights(first.model, first.guide), bits)
    assert pair.other is pair.loc


# --- automatic guides -------------------------------------------------------------------------------------------------


def shared(x):  # a latent of the whole data set, and so one number
    z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0).expand([len(x)]), obs=x)


def local(x):  # a latent of every datum, in a plate of a fixed size
    with pyro.plate("data", 40):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


AUTOMATIC = {
    "AutoNormal": (shared, AutoNormal),
    "AutoMultivariateNormal": (shared, AutoMultivariateNormal),
    "AutoIAFNormal": (shared, AutoIAFNormal),
    "a latent per datum": (local, AutoNormal),
}


@pytest.mark.parametrize("name", slow_but(["AutoNormal", "a latent per datum"], AUTOMATIC))
def test_an_automatic_guide_is_trained_saved_and_loaded(name, tmp_path):
    model, kind = AUTOMATIC[name]
    x, guide = data(), kind(model)
    first = quiet(model, guide, x, epochs=5, batch_size=40)
    bits = weights(first.model, first.guide)
    assert torch.equal(weights(model, guide), bits)
    first.save(tmp_path / "fit.pt")
    pyro.clear_param_store()
    pyro.set_rng_seed(11)  # what the guide makes at random by itself is other in another process
    other = kind(model)
    again = Fit.load(tmp_path / "fit.pt", model, other, x)
    assert torch.equal(weights(again.model, again.guide), bits)
    assert torch.equal(weights(model, other), bits)
    assert again.parameters.keys() == first.parameters.keys()
    quiet(model, other, 2.0 - x, epochs=2, batch_size=40)
    assert torch.equal(weights(again.model, again.guide), bits)
    if name != "AutoIAFNormal":  # which has neither
        assert guide.median(x)["z"].shape == guide.quantiles([0.5], x)["z"].squeeze(0).shape


def test_the_median_and_quantiles_of_an_automatic_guide_are_those_trained():
    guide, x = AutoNormal(local), data()
    result = quiet(local, guide, x, epochs=20, batch_size=40)
    loc, scale = result.parameters["AutoNormal.locs.z"], result.parameters["AutoNormal.scales.z"]
    assert loc.mean() > 1.0
    assert torch.equal(guide.median(x)["z"], loc)
    upper = torch.as_tensor(guide.quantiles([0.9], x)["z"]).squeeze(0)
    assert torch.allclose(upper, torch.distributions.Normal(loc, scale).icdf(torch.tensor(0.9)))
    with result.guide.values.in_place():
        assert torch.equal(guide.median(x)["z"], loc)
    z = Predictive(local, guide=guide, num_samples=2000, return_sites=["z"])(x)["z"].reshape(2000, -1)
    # 40 means, each beyond 5 standard errors with probability 6e-7: a false alarm in 43 000 runs.
    assert ((z.mean(0) - loc).abs() < 5 * scale / 2000**0.5).all()


# --- files ------------------------------------------------------------------------------------------------------------

OTHER_PROCESS = """
import sys
sys.path[:0] = {folders!r}
import pyro, torch
import test_trained_values as t
from ppvae.inference import Fit
torch.set_default_dtype(torch.float64)
pyro.set_rng_seed(99)
found = {{}}
for form in t.FORMS:
    pair, state = t.FORMS[form](), torch.get_rng_state()
    again = Fit.load({files!r} + "/" + form + ".pt", pair.model, pair.guide, t.data()[:5])
    same = torch.equal(torch.get_rng_state(), state)
    weights = t.weights(again.model, again.guide), t.weights(pair.model, pair.guide)
    facts = [again.steps, again.history[-1]["elbo"], list(again.found), again.stopped]
    found[form] = [same, *weights, t.draws_of(pair.guide, t.data()), facts]
torch.save(found, {files!r} + "/found.pt")
"""


@pytest.mark.slow
def test_another_process_loads_the_same_bits(tmp_path):
    fits = {}
    for name, form in FORMS.items():
        pair = form()
        fits[name] = quiet(pair.model, pair.guide, data())
        fits[name].save(tmp_path / f"{name}.pt")
    program = OTHER_PROCESS.format(folders=list(map(str, Path(__file__).parents[:2])), files=str(tmp_path))
    subprocess.run([sys.executable, "-c", program], check=True)
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    for name, result in fits.items():
        generator_kept, by_fit, by_pair, z, facts = found[name]
        assert generator_kept
        assert torch.equal(by_fit, weights(result.model, result.guide))
        assert torch.equal(by_pair, weights(result.model, result.guide))
        assert facts == [result.steps, result.history[-1]["elbo"], list(result.found), result.stopped]
        assert torch.equal(z, draws_of(result.guide, data()))  # as Pyro itself runs it


def test_buffers_are_saved_loaded_and_kept(tmp_path):
    def made():
        pair = Registered()
        pair.encoder = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 2))
        return pair

    pair, other = made(), made()
    first = quiet(pair.model, pair.guide, data())
    bits, statistics = weights(first.model, first.guide), dict_of(pair.encoder)
    assert statistics["0.running_mean"].abs() > 0.1
    first.save(tmp_path / "fit.pt")
    again = Fit.load(tmp_path / "fit.pt", other.model, other.guide, data())
    assert same(dict_of(other.encoder), statistics)
    assert torch.equal(weights(again.model, again.guide), bits)
    quiet(pair.model, pair.guide, 9.0 - data())
    assert torch.equal(weights(first.model, first.guide), bits)


def test_a_training_s_checkpoint_is_read_as_a_fit_too(tmp_path):
    pair, other = Methods(), Methods()
    result = quiet(pair.model, pair.guide, data(), checkpoint=tmp_path / "c.pt")
    again = Fit.load(tmp_path / "c.pt", other.model, other.guide, data())
    assert again.stopped == "interrupted"
    assert torch.equal(weights(again.model, again.guide), weights(result.model, result.guide))
    assert again.elbo == result.elbo


def test_a_file_of_another_pair_changes_nothing(tmp_path):
    pair, other = Methods(), Registered()
    quiet(pair.model, pair.guide, data()).save(tmp_path / "fit.pt")
    bits, store = weights(other.model, other.guide), dict(pyro.get_param_store().items())
    with pytest.raises(CheckpointError, match="of another pair"):
        Fit.load(tmp_path / "fit.pt", other.model, other.guide, data())
    (tmp_path / "cut.pt").write_bytes((tmp_path / "fit.pt").read_bytes()[:500])
    with pytest.raises(CheckpointError, match="damaged"):
        Fit.load(tmp_path / "cut.pt", pair.model, pair.guide, data())
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        Fit.load(tmp_path / "none.pt", pair.model, pair.guide, data())
    assert torch.equal(weights(other.model, other.guide), bits)
    assert dict(pyro.get_param_store().items()).keys() == store.keys()


def test_a_stale_store_does_not_get_in_the_way_of_loading(tmp_path):
    result = quiet(Functions.model, Functions.guide, data())
    result.save(tmp_path / "fit.pt")
    pyro.clear_param_store()
    pyro.param("loc", torch.zeros(5))  # of another program
    pyro.param("bystander", torch.ones(2))
    load_parameters(tmp_path / "fit.pt", Functions.model, Functions.guide, data()[:3])
    assert torch.equal(pyro.param("loc"), result.parameters["loc"])
    assert torch.equal(pyro.param("bystander"), torch.ones(2))


def test_a_fit_is_written_whole_or_not_at_all(tmp_path):
    pair = Methods()
    result = quiet(pair.model, pair.guide, data())
    with pytest.raises(RunError):
        result.save(tmp_path / "no folder" / "fit.pt")
    result.save(tmp_path / "fit.pt")
    assert [file.name for file in tmp_path.iterdir()] == ["fit.pt"]


def test_a_fit_loaded_into_a_fits_pair_leaves_that_fit_alone(tmp_path):
    pair = Methods()
    first = quiet(pair.model, pair.guide, data())
    first.save(tmp_path / "fit.pt")
    second = quiet(pair.model, pair.guide, 2.0 - data())
    bits = weights(second.model, second.guide)
    again = Fit.load(tmp_path / "fit.pt", second.model, second.guide, data())
    assert torch.equal(weights(second.model, second.guide), bits)
    assert torch.equal(weights(again.model, again.guide), weights(first.model, first.guide))


def test_printing_a_fit_says_what_was_found():
    pair = Methods()
    result = quiet(pair.model, pair.guide, data(), validation=data(20))
    text = str(result)
    assert repr(result) == text
    assert f"ELBO {result.elbo:.2f} nats per datum in epoch 2, after 4 steps" in text
    assert "(finished)" in text
    assert "4 numbers in 2 parameters" in text
    assert "validation ELBO" in text
    assert "tensor" not in text
    assert len(text.splitlines()) <= 4
