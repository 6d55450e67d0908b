"""Compiled log densities and their gradients are those of the programs, or the programs are run and it is said why."""

from dataclasses import replace

import numpy as np
import pairs
import pyro
import pyro.distributions as dist
import pytest
import torch
from gate import slow_but

from ppvae.errors import OptionError
from ppvae.inference import Annealing, annealed_evidence, estimate_evidence
from ppvae.inference.pair import Evaluations, Pair, as_batch, evaluate, evaluations
from ppvae.models import LinearGaussian

NO_END = 1e12  # evaluations to come: enough for any pair
# Relative to the largest value: asked for are 1e-6 in float32 and 1e-12 in float64.
AGREEMENT = {torch.float32: 1e-6, torch.float64: 1e-12}
QUICK = ("vae_bernoulli",)
# Without latents on a continuum, without a density, or of a guide that is never started from.
WITHOUT = {"mixture", "nested", "chain", "discrete_vae", "autoencoder", "feed_forward"}
OTHERS = tuple(name for name in pairs.BUILDERS | pairs.OF_MODELS if name not in {*QUICK, *WITHOUT})
# Their programs take a value of the data into Python: a component, a kind of column, a length, a label (one_hot).
EAGER = {"gaussian_mixture_component", "hi_vae", "markov", "conditional_vae", "semi_supervised"}


def both(pair, u, start="guide"):
    """The densities at u by the programs and by compiled code."""
    eager = evaluate(replace(pair, evaluations=Evaluations()).path(start), u)
    pair.evaluations.compile("auto", pair, NO_END, NO_END)
    return eager, evaluate(pair.path(start), u)


def demand_equal(eager, compiled, close):
    """The same values and gradients, up to a share of the largest."""
    for one, other in ((compiled.values, eager.values), (compiled.gradients, eager.gradients)):
        torch.testing.assert_close(one, other, rtol=0, atol=close * (1 + float(other.abs().max())))


def demand_law(name, dtype):
    torch.set_default_dtype(dtype)
    torch.manual_seed(0)
    known = pairs.build(name)
    with Pair.on(known.model, known.guide, as_batch(known.data), start="guide") as pair:
        for start in ("guide", "prior"):
            # Other chains and other data than those that it is recorded with.
            for part in (pair, pair.rows(torch.tensor([1, 0]))):
                u = part.draw("guide", 3 if part is pair else 5)
                demand_equal(*both(part, u, start), AGREEMENT[dtype])
        assert pair.evaluations.name.startswith("eager: " if name in EAGER else "compiled")


@pytest.mark.parametrize("name", QUICK)
def test_recorded_densities_are_those_of_the_programs(name, uncompiled):
    demand_law(name, torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", AGREEMENT, ids=["float32", "float64"])
@pytest.mark.parametrize("name", OTHERS)
def test_recorded_densities_of_every_pair_of_the_laws(name, dtype, uncompiled):
    demand_law(name, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", AGREEMENT, ids=["float32", "float64"])
@pytest.mark.parametrize("name", [*QUICK, "hierarchy", "parts", "flow_vae", "convolutional", "counts", "item_response"])
def test_compiled_densities_are_those_of_the_programs(name, dtype):
    demand_law(name, dtype)


def of_data(observe):
    """A pair whose model observes x in a way of its own."""

    def model(x):
        with pyro.plate("data", len(x)):
            observe(x, pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0)))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[..., 0] / 2, 0.7))

    return model, guide


def observed(loc, x):
    pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


def plain(x, z):
    observed(z[..., None], x)


def one_batch_dim(x, z):
    observed(z.view(len(x), 1), x)


def global_latent():
    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x @ w, 1.0), obs=x[:, 0])

    return model, lambda x: pyro.sample("w", dist.Normal(torch.zeros(3), 0.5).to_event(1))


def of_a_fixed_size():
    def model(x):
        with pyro.plate("data", 6):
            observed(pyro.sample("z", dist.Normal(torch.zeros(6), 1.0))[..., None], x)

    def guide(x):
        with pyro.plate("data", 6):
            pyro.sample("z", dist.Normal(torch.linspace(-1, 1, 6), 0.7))

    return model, guide


def one_draw_a_run():
    """A size in Python lets no draws be run at once."""

    def model(x):
        with pyro.plate("data", 6):
            z = pyro.sample("z", dist.Normal(torch.zeros(6), 1.0))
            observed(torch.stack([z[i] * torch.ones(3) for i in range(6)]), x)

    return model, of_a_fixed_size()[1]


LAYOUTS = {
    "fold": lambda: of_data(one_batch_dim),
    "vectorised": global_latent,
    "some of a fixed size": of_a_fixed_size,
    "vectorised data": one_draw_a_run,
}


@pytest.mark.parametrize("layout", slow_but(["fold", "vectorised"], LAYOUTS))
def test_every_layout(layout, uncompiled):
    model, guide = LAYOUTS[layout]()
    x = torch.randn(6, 3)
    with Pair.on(model, guide, (x,), start="guide") as pair:
        for part in (pair, pair.rows(torch.tensor([1, 4]))):
            demand_equal(*both(part, part.draw("guide", 5)), AGREEMENT[torch.float64])
        loop = replace(pair, model_layout="loop", guide_layout="loop", evaluations=Evaluations())
        demand_equal(*both(loop, loop.draw("guide", 2)), AGREEMENT[torch.float64])
        assert pair.evaluations.name == loop.evaluations.name == "compiled"


def test_one_code_serves_every_number_of_chains_and_data(uncompiled):
    model, guide = of_data(plain)
    with Pair.on(model, guide, (torch.randn(20, 3),), start="guide") as pair:
        for num_chains, num_data in ((4, 20), (1, 20), (7, 3), (64, 1), (5, 20)):
            part = pair.rows(slice(20 - num_data, 20))
            demand_equal(*both(part, part.draw("guide", num_chains)), AGREEMENT[torch.float64])
    assert len(uncompiled) == 1  # log q(u|x) and log p(x, u) together


def by_item(x, z):
    observed(z[..., None] * (2 if x.sum().item() > 100 else 1), x)


def by_condition(x, z):
    observed(z[..., None] * (2 if z.sum() > 100 else 1), x)


def by_numpy(x, z):
    observed(z[..., None] * torch.from_numpy(np.sin(x.numpy())), x)


def by_array(x, z):
    observed(z[..., None] * torch.as_tensor(np.asarray(z.detach().sin()))[..., None], x)


def by_list(x, z):
    observed(z[..., None] + torch.tensor(x.tolist()), x)


def by_mask(x, z):
    shown = torch.zeros_like(x)
    shown[x > 0] = x[x > 0]
    observed(z[..., None] + shown, x)


def by_chance(x, z):
    observed(z[..., None] + 0 * torch.rand(()), x)


REFUSED = {
    by_item: "takes the value of a tensor into Python",
    by_condition: "takes the value of a tensor into Python",
    by_numpy: "out of torch",
    by_array: "out of torch",
    by_list: "out of torch",
    by_mask: "a mask as an index",
    by_chance: "random numbers",
}


@pytest.mark.parametrize("observe", REFUSED, ids=lambda observe: observe.__name__)
def test_what_depends_on_values_in_python_is_refused(observe, uncompiled):
    model, guide = of_data(observe)
    with Pair.on(model, guide, (torch.randn(6, 3),), start="guide") as pair:
        u = pair.draw("guide", 3)
        eager, found = both(pair, u)
        assert torch.equal(eager.values, found.values)
        assert torch.equal(eager.gradients, found.gradients)
        assert REFUSED[observe] in pair.evaluations.name
        assert REFUSED[observe] in " ".join(pair.evaluations.remarks)
        must = replace(pair, evaluations=Evaluations())
        must.evaluations.compile(True, must, 0, 0)
        with pytest.raises(OptionError, match=f"compile=True cannot be had: .*{REFUSED[observe]}"):
            evaluate(must.joint, u)


class Scale:
    """A setting that a program reads."""

    value = 1.0


def test_a_python_value_that_changes_is_seen(uncompiled):
    scale = Scale()
    scale.value = 1.0
    model, guide = of_data(lambda x, z: observed(scale.value * z[..., None], x))
    with Pair.on(model, guide, (torch.randn(6, 3),)) as pair:
        u = pair.draw("guide", 3)
        both(pair, u)
        scale.value = 2.0
        eager, found = both(pair, u)
        scale.value = 1.0  # or Pyro's densities are said to be others at the end
        assert torch.equal(eager.values, found.values)
        assert "a Python value that the programs read has changed (value)" in pair.evaluations.name


class Hidden:
    """Something that changes and cannot be seen: slots are not watched."""

    __slots__ = ("factor",)


def hidden_pair():
    hidden = Hidden()
    hidden.factor = 1.0
    return hidden, *of_data(lambda x, z: observed(hidden.factor * z[..., None], x))


def test_what_changes_unseen_is_found_at_the_next_data(uncompiled):
    hidden, model, guide = hidden_pair()
    with Pair.on(model, guide, (torch.randn(6, 3),)) as pair:
        both(pair, pair.draw("guide", 3))
        assert pair.evaluations.name == "compiled"
        hidden.factor = 2.0
        part = pair.rows(slice(2, 5))
        eager, found = both(part, part.draw("guide", 3))
        hidden.factor = 1.0
        assert torch.equal(eager.values, found.values)
        assert "compiled and eager numbers differ" in pair.evaluations.name


def test_what_changes_unseen_among_the_same_data_is_an_error(uncompiled):
    hidden, model, guide = hidden_pair()
    with Pair.on(model, guide, (torch.zeros(6, 3),)) as pair:
        u = pair.draw("guide", 3)
        both(pair, u)
        hidden.factor = 2.0
        for _ in range(evaluations.TRIAL_EVERY - 1):
            evaluate(pair.path("guide"), u)
        with pytest.raises(OptionError, match="Call with compile=False"):
            evaluate(pair.path("guide"), u)
        hidden.factor = 1.0


def test_a_failed_check_is_evaluated_by_the_programs(uncompiled):
    """A scale that is not positive raises in the programs, and so it does where they are compiled."""

    def observe(x, z):
        with pyro.validation_enabled():
            pyro.sample("x", dist.Normal(0.0, 3.0 + z[..., None]).expand((*z.shape, 3)).to_event(1), obs=x)

    model, guide = of_data(observe)
    with Pair.on(model, guide, (torch.zeros(6, 3),)) as pair:
        u = torch.zeros(2, 6, 1)
        demand_equal(*both(pair, u), 1e-12)
        assert pair.evaluations.name == "compiled"
        with pytest.raises(ValueError, match="scale"):
            evaluate(pair.joint, u - 5)


def test_few_evaluations_are_not_compiled_and_it_is_said():
    model, guide = of_data(plain)
    with Pair.on(model, guide, (torch.randn(6, 3),)) as pair:
        pair.evaluations.compile("auto", pair, 100, 1000)
        assert "100 evaluations are too few to pay for compiling" in pair.evaluations.name
        assert pair.evaluations.remarks == ()
        evaluate(pair.joint, pair.draw("guide", 3))
        assert (pair.evaluations.uses, pair.evaluations.rows) == (1, 18)
        pair.evaluations.compile(False, pair, NO_END, NO_END)
        assert pair.evaluations.name == "eager: compile=False"


def line():
    torch.manual_seed(0)
    pair = LinearGaussian(num_features=3, latent_dim=2)
    return pair, torch.randn(40, 3)


def test_annealed_evidence_by_recorded_densities_is_the_truth(uncompiled):
    """Ten data at 4 standard errors each: a false alarm in 1600."""
    pair, x = line()
    x = x[:10]
    options = {"num_chains": 32, "num_distributions": 4, "annealing": Annealing(start="prior"), "seed": 0}
    compiled = annealed_evidence(pair.model, pair.guide, x, compile=True, **options)
    eager = annealed_evidence(pair.model, pair.guide, x, compile=False, **options)
    assert uncompiled
    truth = pair.log_evidence(x)
    assert bool(((compiled.log_evidence - truth).abs() < 4 * compiled.standard_error).all())
    torch.testing.assert_close(compiled.log_evidence, eager.log_evidence, rtol=0, atol=1e-8)


@pytest.mark.slow
def test_compiled_evidence_has_the_same_bits_and_is_the_truth():
    pair, x = line()
    options = {"num_chains": 32, "num_distributions": 10, "annealing": Annealing(start="prior"), "seed": 0}
    first, second = (annealed_evidence(pair.model, pair.guide, x, compile=True, **options) for _ in range(2))
    assert torch.equal(first.log_evidence, second.log_evidence)
    assert bool(((first.log_evidence - pair.log_evidence(x)).abs() < 4 * first.standard_error).all())
    found = estimate_evidence(pair.model, pair.guide, x, tolerance=0.05, compile=True, seed=0)
    assert bool(((found.log_evidence - pair.log_evidence(x)).abs() < 0.1).all())


@pytest.mark.slow
def test_weights_of_compiled_chains_average_to_the_evidence(uncompiled):
    """E[w] = p(x): 20 000 chains of one datum; a false alarm in 16 000."""
    pair, x = line()
    x = x[:1].expand(200, -1).contiguous()
    options = {"num_chains": 100, "num_distributions": 4, "annealing": Annealing(start="prior"), "seed": 1}
    found = annealed_evidence(pair.model, pair.guide, x, compile=True, **options)
    ratio = (found.log_evidence - pair.log_evidence(x)).exp().detach()
    assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / 200**0.5
