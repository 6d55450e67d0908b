"""Compiled log weights are those of the programs under the same noise, and their mean is p(x)."""

import pairs
import pyro
import pyro.distributions as dist
import pytest
import torch

from ppvae.errors import OptionError
from ppvae.inference import importance_evidence
from ppvae.inference.pair import Pair, as_batch, block_code
from ppvae.inference.pair.weight_code import WeightCode
from ppvae.models import LinearGaussian

NO_END = 1e12  # weights to come: enough for any pair
AGREEMENT = {torch.float32: 1e-6, torch.float64: 1e-12}
QUICK = ("vae_bernoulli", "discrete_vae")
# Data that cannot be cut, or depend on each other; and pairs without a density.
WITHOUT = {"mixture", "nested", "chain", "autoencoder", "feed_forward"}
OTHERS = tuple(name for name in pairs.BUILDERS | pairs.OF_MODELS if name not in {*QUICK, *WITHOUT})


def demand_law(name, dtype):
    """The first block by both ways with the same noise; or programs are run, and it is said why."""
    torch.set_default_dtype(dtype)
    torch.manual_seed(0)
    known = pairs.build(name)
    with Pair.on(known.model, known.guide, as_batch(known.data)) as pair, torch.no_grad():
        try:
            code = WeightCode(pair, 4)
        except block_code.NoGraph:
            pair.evaluations.compile("auto", pair, 0, NO_END)
            assert pair.evaluations.log_weights(pair, 3, 64.0).shape == (3, pair.num_units)
            assert pair.evaluations.name.startswith("eager: ")
            return
        for part, count in ((pair, 4), (pair.rows(torch.tensor([1, 0])), 5)):
            prepared = code.prepare(part, count)
            by_code, by_programs = code.trial(part, prepared)
            finite = by_programs.isfinite()
            assert torch.equal(finite, by_code.isfinite())
            scale = AGREEMENT[dtype] * (1 + float(by_programs[finite].abs().max()))
            torch.testing.assert_close(by_code[finite], by_programs[finite], rtol=0, atol=scale)
            assert code(part, prepared).shape == (count, part.num_units)


@pytest.mark.parametrize("name", QUICK)
def test_recorded_weights_are_those_of_the_programs(name, uncompiled):
    demand_law(name, torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", AGREEMENT, ids=["float32", "float64"])
@pytest.mark.parametrize("name", OTHERS)
def test_recorded_weights_of_every_pair_of_the_laws(name, dtype, uncompiled):
    demand_law(name, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", AGREEMENT, ids=["float32", "float64"])
@pytest.mark.parametrize("name", ["vae_bernoulli", "hierarchy", "flow_vae", "counts"])
def test_compiled_weights_are_those_of_the_programs(name, dtype):
    demand_law(name, dtype)


def line():
    torch.manual_seed(0)
    pair = LinearGaussian(num_features=3, latent_dim=2).double()
    return pair, torch.randn(40, 3, dtype=torch.float64)


def test_the_mean_weight_is_the_evidence_of_an_exact_pair(uncompiled):
    """40 data at 4 standard errors each: a false alarm in 400; blocks of 32, 64 and 40 rows, the last filled up."""
    pair, x = line()
    found = importance_evidence(pair.model, pair.guide, x, 3000, compile=True, seed=0)
    assert uncompiled
    truth = pair.log_evidence(x).detach()
    assert bool(((found.log_evidence - truth).abs() < 4 * found.standard_error).all())
    again = importance_evidence(pair.model, pair.guide, x, 3000, compile=True, seed=0)
    assert torch.equal(found.log_evidence, again.log_evidence)


def test_draws_are_fresh_in_every_block(uncompiled, monkeypatch):
    """No two of 400 weights of a datum are the same, however small the blocks are."""
    pair, x = line()
    monkeypatch.setattr(block_code, "BLOCK_BYTES", 2**14)
    with Pair.on(pair.model, pair.guide, (x,)) as view, torch.no_grad():
        view.evaluations.compile(True, view, 0, 0)
        log_w = view.evaluations.log_weights(view, 400, 64.0)
    assert log_w.shape == (400, 40)
    assert all(len(column.unique()) == 400 for column in log_w.T)


def test_few_weights_are_not_compiled():
    pair, x = line()
    with Pair.on(pair.model, pair.guide, (x,)) as view:
        view.evaluations.compile("auto", view, 0, 40 * 5000)
        assert "too few to pay for compiling" in view.evaluations.name


def coupled():
    """Data that share a latent."""

    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0), obs=x)

    return model, lambda x: pyro.sample("w", dist.Normal(x.mean(), 0.5))


def test_what_cannot_be_compiled_is_said(uncompiled):
    model, guide = coupled()
    x = torch.zeros(5)
    with pytest.raises(OptionError, match=r"compile=True cannot be had: .*depend on each other"):
        importance_evidence(model, guide, x, 200, compile=True)
    with Pair.on(model, guide, (x,)) as view, torch.no_grad():
        view.evaluations.compile("auto", view, 0, NO_END)
        assert view.evaluations.log_weights(view, 7, 64.0).shape == (7, 1)
        assert "depend on each other" in " ".join(view.evaluations.remarks)


def test_low_precision_is_not_compiled():
    pair, x = line()
    with pytest.raises(OptionError, match="precision='full' only"):
        importance_evidence(pair.model, pair.guide, x, 200, precision="bfloat16", compile=True)


class Hidden:
    """Something that changes and cannot be seen: slots are not watched."""

    __slots__ = ("value",)


def test_what_changes_unseen_is_found(uncompiled):
    hidden = Hidden()
    hidden.value = 1.0

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(hidden.value * z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.7))

    with Pair.on(model, guide, (torch.ones(6),)) as view, torch.no_grad():
        view.evaluations.compile("auto", view, 0, NO_END)
        view.evaluations.log_weights(view, 8, 64.0)
        assert view.evaluations.name == "compiled"
        hidden.value = 2.0
        view.evaluations.log_weights(view.rows(slice(0, 3)), 8, 64.0)
        hidden.value = 1.0
        assert "compiled and eager numbers differ (log weight)" in view.evaluations.name


@pytest.mark.parametrize("dtype", AGREEMENT, ids=["float32", "float64"])
def test_weights_are_held_to_the_rounding_of_their_type(dtype, monkeypatch, uncompiled):
    """Apart by 1e-7 of the largest: rounding in float32, and another function in float64."""
    torch.set_default_dtype(dtype)
    torch.manual_seed(0)
    known, trial = LinearGaussian(num_features=3, latent_dim=2), WeightCode.trial

    def apart(self, pair, prepared):
        by_code, by_programs = trial(self, pair, prepared)
        return by_code + 1e-7 * by_programs.abs().max(), by_programs

    monkeypatch.setattr(WeightCode, "trial", apart)
    with Pair.on(known.model, known.guide, as_batch(torch.randn(4, 3))) as pair, torch.no_grad():
        pair.evaluations.compile("auto", pair, 0, NO_END)
        assert pair.evaluations.log_weights(pair, 3, 64.0).shape == (3, 4)
        assert pair.evaluations.name.startswith("compiled" if dtype == torch.float32 else "eager: compiled and eager")
