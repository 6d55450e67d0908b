"""What a program raises comes out as a PairError that names the program and its line, with the error as its cause."""

import inspect

import pyro
import pyro.distributions as dist
import pytest
import torch

from ppvae import inference
from ppvae.errors import NonFiniteError, PairError
from ppvae.inference import DrawsFrom, Optimiser, Sampling, check, fit, log_weights, to_datatree

ERRORS = {
    "division": (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
    "value": (lambda: _raise(ValueError("no such thing")), "ValueError: no such thing"),
    "key": (lambda: {"loc": 0.0}["scale"], "KeyError: 'scale'"),
    "shapes": (lambda: torch.zeros(3) + torch.zeros(2), "RuntimeError: The size of tensor a"),
    "silent": (lambda: _raise(NotImplementedError), r"NotImplementedError \("),
    "two lines": (lambda: _raise(TypeError("one\ntwo")), r"TypeError: one \("),
}
FUNCTIONS = {
    "annealed_evidence": {"num_chains": 4, "num_distributions": 5},
    "attribute_gap": {"optimiser": Optimiser(steps=3), "num_draws": 10},
    "calibrate": {"num_simulations": 20, "num_draws": 5},
    "discriminative_calibration": {"num_simulations": 100, "num_draws": 2},
    "certify": {"sampling": Sampling(max_distributions=4, num_twins=5)},
    "decode": {"like": torch.zeros(4)},
    "elbo_surgery": {"num_particles": 5},
    "embed": {"num_particles": 5},
    "estimate_evidence": {"budget": 1000},
    "explain_collapse": {"steps": 2, "validation": torch.zeros(2)},
    "fit": {"epochs": 3, "batch_size": 2, "progress": False},
    "guide_quality": {},
    "importance_evidence": {"num_particles": 1000},
    "impute": {"num_particles": 5},
    "interpolate": {"b": torch.zeros(4), "num_steps": 3},
    "latent_units": {"num_particles": 5},
    "log_weights": {"num_particles": 5},
    "mend": {"steps": 1, "validation": torch.zeros(2)},
    "reconstruct": {"num_particles": 5},
    "refine": {"optimiser": Optimiser(steps=3), "num_draws": 10},
    "sample": {"num_samples": 5},
    "sample_posterior": {"num_draws": 20, "num_chains": 4, "warm_up": 20},
    "simulate": {},
    "to_datatree": {"draws": DrawsFrom(num_draws=5)},
}


# A trial that fails late is one of those that explain_collapse leaves out, and says so; the others take long.
LATE = {"explain_collapse", "guide_quality", "mend"}
LONG = ("annealed_evidence", "sample_posterior")


def _raise(error):
    raise error


class Failing:
    """A pair of which one program fails from its ``first`` call on."""

    def __init__(self, which="", first=0, fault=None):
        self.which, self.first, self.fault, self.calls = which, first, fault, {"model": 0, "guide": 0}

    def model(self, x):
        self.count("model")
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x):
        self.count("guide")
        with pyro.plate("data", len(x)):
            loc = pyro.param("loc", torch.tensor(0.0))
            pyro.sample("z", dist.Normal(loc + x / 2, 0.7))

    def count(self, which):
        self.calls[which] += 1
        if which == self.which and self.calls[which] >= self.first:
            self.fault()


def call(function, pair):
    x = torch.tensor([0.3, -0.5, 1.0, 0.1])
    given = x[:, None] if function == "decode" else x  # latents, a row each
    return getattr(inference, function)(pair.model, pair.guide, given, **FUNCTIONS[function], seed=0)


def test_every_public_function_is_tried():
    names = [name for name in inference.__all__ if inspect.isfunction(getattr(inference, name))]
    # Shards are tried in test_shards: what fails there is named with its shard.
    assert set(names) == {*FUNCTIONS, "check", "column_stability", "in_shards"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fault", ERRORS)
@pytest.mark.parametrize("which", ["model", "guide"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_program_that_fails_at_once_is_named(function, which, fault):
    act, text = ERRORS[fault]
    with pytest.raises(PairError, match=text) as found:
        call(function, Failing(which, 1, act))
    line = inspect.getsourcelines(getattr(Failing, which))[1] + 1
    assert f"in {which}, line {line} of test_failing_programs.py" in str(found.value)
    assert len(str(found.value).splitlines()) == 1
    assert not isinstance(found.value.__cause__, PairError)
    assert isinstance(found.value.__cause__, Exception)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("function", "fault", "which"),
    [
        *((name, "value", which) for which in ("model", "guide") for name in FUNCTIONS if name not in {*LATE, *LONG}),
        *(pytest.param(name, "value", "guide", marks=pytest.mark.slow) for name in LONG),
        *((name, "value", "model") for name in LONG),
        *(
            pytest.param(name, "value", which, marks=pytest.mark.slow)
            for which in ("model", "guide")
            for name in ("guide_quality", "mend")
        ),
        ("fit", "division", "model"),
        ("fit", "division", "guide"),
    ],
)
def test_a_program_that_fails_later_is_named(function, which, fault):
    whole = Failing()
    call(function, whole)
    total = whole.calls[which]
    act, text = ERRORS[fault]
    for first in {5, total - 2}:
        with pytest.raises(PairError, match=text) as found:
            call(function, Failing(which, first, act))
        assert f"in {which}, line " in str(found.value), (first, total)
        assert isinstance(found.value.__cause__, Exception)


@pytest.mark.parametrize("which", ["model", "guide"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_an_interruption_passes(function, which):
    for first in (1, 5):
        with pytest.raises(KeyboardInterrupt):
            call(function, Failing(which, first, lambda: _raise(KeyboardInterrupt)))


def test_check_finds_what_a_program_raises_and_names_the_line():
    for first in (1, 5):
        (finding,) = check(Failing().model, Failing("guide", first, ERRORS["division"][0]).guide, torch.zeros(4))[:1]
        assert "ZeroDivisionError: division by zero" in finding.message
        assert "in guide, line" in finding.message


def test_the_line_of_what_the_program_calls_is_named_too():
    pair = Failing("model", 1, ERRORS["division"][0])
    with pytest.raises(PairError, match=r"\(in <lambda>, line \d+ of .*\.py, called in model, line \d+ of .*\.py\)"):
        log_weights(pair.model, pair.guide, torch.zeros(4), 5)


def test_shapes_that_do_not_fit_at_a_site_are_the_programs_fault():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[..., None], 1.0).expand([len(x), 3]).to_event(1), obs=x)

    with pytest.raises(PairError, match="the pair cannot be run on the data: RuntimeError: The size of tensor"):
        log_weights(model, Failing().guide, torch.zeros(4), 5)


def test_a_method_of_the_pair_that_is_no_program_is_named():
    class Stated(Failing):
        def posterior(self, x):
            return {}["loc"]

        log_evidence = posterior

    pair, x = Stated(), torch.zeros(4)
    with pytest.raises(PairError, match=r"^posterior\(x\) fails on the data: KeyError: 'loc'"):
        to_datatree(pair.model, pair.guide, x, draws="exact", seed=0)
    with pytest.raises(PairError, match=r"log_evidence\(x\) fails on the data: KeyError: 'loc'"):
        inference.certify(pair.model, pair.guide, x, closed_form=True)


def test_a_gradient_that_cannot_be_had_is_the_programs_fault():
    scale = torch.ones((), requires_grad=True)
    kept = (2 * scale).exp()  # a graph that lives from step to step, as of a cache in a module

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, kept * pyro.param("width", torch.tensor(1.0)).exp()), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    with pytest.raises(PairError, match=r"cannot be run on the data: RuntimeError: Trying to backward .* second time"):
        fit(model, guide, torch.zeros(4), epochs=3, progress=False)


def test_an_error_of_the_caller_is_not_the_programs():
    from ppvae.inference.pair import Pair

    pair = Failing()
    with pytest.raises(ZeroDivisionError), Pair.on(pair.model, pair.guide, (torch.zeros(4),)) as view:
        view.log_weights(int(1 / (view.num_units - 4)))


def test_a_training_that_fails_keeps_its_checkpoint(tmp_path):
    path, x = tmp_path / "checkpoint.pt", torch.tensor([0.3, -0.5, 1.0, 0.1])
    whole = Failing()
    result = fit(whole.model, whole.guide, x, epochs=4, batch_size=2, progress=False)
    pyro.clear_param_store()
    broken = Failing("guide", whole.calls["guide"] - 2, ERRORS["value"][0])
    with pytest.raises(PairError, match="no such thing") as found:
        fit(broken.model, broken.guide, x, epochs=4, batch_size=2, checkpoint=path, progress=False)
    assert not isinstance(found.value, NonFiniteError)
    pyro.clear_param_store()
    pair = Failing()
    again = fit(pair.model, pair.guide, x, epochs=4, batch_size=2, checkpoint=path, resume=True, progress=False)
    assert again.steps == result.steps == 8
