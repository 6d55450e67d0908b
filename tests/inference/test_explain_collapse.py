"""Unused units whose cause was planted get that cause; what the trials are made of is held to closed forms.

Seeds are fixed. A trial that changes nothing on average is believed with a probability of 2.3 % (two standard errors),
and only if the unit is active after it.
"""

from functools import cache

import collapsed_pairs as planted
import pyro.distributions as dist
import pytest
import torch

from ppvae.errors import OptionError, PairError
from ppvae.inference import column_stability, explain_collapse, latent_units, log_weights
from ppvae.inference.collapse.growth import growth_ratio
from ppvae.inference.collapse.shared_information import explained_by, explained_share
from ppvae.inference.pair import Pair, cut, reads_its_data
from ppvae.inference.pair.changed_programs import spliced
from ppvae.models import LinearGaussian

CAUSES = {
    "too_short": ("optimiser", "longer"),
    "dead_unit": ("optimiser", "shaken start"),
    "heavy_kl": ("KL schedule", "KL warm-up"),
    "weight_one_too_early": ("KL schedule", "KL warm-up"),
    "wide_noise": ("likelihood", "learnt noise"),
    "strong_decoder": ("decoder", "blind decoder"),
    "surplus_unit": ("redundancy", "fewer units"),
}


@cache
def explained(name):
    torch.manual_seed(0)
    pair, x, options = getattr(planted, name)()
    before = {key: value.clone() for key, value in pair.state_dict().items()}
    options = {"steps": 300, "learning_rate": 0.02, "seed": 0} | options
    found = explain_collapse(pair.model, pair.guide, x, **options)
    assert all(torch.equal(value, before[key]) for key, value in pair.state_dict().items())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", CAUSES)
def test_a_planted_cause_is_named_and_its_cure_gains(name):
    found = explained(name)
    cause, cure = CAUSES[name]
    unused = [row for row in found.rows if row.verdict != "active"]
    assert unused
    for row in unused:
        assert (row.cause, row.cure) == (cause, cure)
        assert row.standard_error > 0
        assert row.nats > 2 * row.standard_error  # each of these causes is shown by a gain
        if cause in ("optimiser", "KL schedule", "likelihood"):
            assert row.gain == row.nats
        if cause == "redundancy":
            assert abs(row.gain) < max(0.05, 3 * row.gain_standard_error)
    assert not [row for row in found.rows if row.verdict == "active" and row.cause]
    assert cause in repr(found)
    assert len(found.remarks()) == 1


@pytest.mark.slow
def test_what_is_said_of_the_likelihood_agrees_with_the_trials():
    noise, short = explained("wide_noise"), explained("too_short")
    assert noise.growth - 2 * noise.growth_standard_error < 1
    assert short.growth - 2 * short.growth_standard_error > 1
    assert explained("surplus_unit").explained > 0.9


@pytest.mark.slow
def test_of_two_copies_one_is_redundant_though_both_are_active():
    found = explained("copied_unit")
    assert [row.verdict for row in found.rows] == ["active", "active"]
    assert len(found.of_cause("redundancy")) == 1
    assert found.explained > 0.99
    (row,) = [row for row in found.rows if row.cause]
    assert row.gain > -max(0.05, 2 * row.gain_standard_error)


@pytest.mark.slow
def test_a_healthy_pair_that_was_trained_has_nothing_to_be_explained():
    found = explained("healthy")
    assert not found.trials
    assert not any(row.cause for row in found.rows)


def linear(weight, noise=0.5, num_data=200, exact=True):
    """A linear pair with its exact guide, and data of it."""
    weight = weight.to(torch.get_default_dtype())
    pair = LinearGaussian(weight.shape[0], weight.shape[1])
    with torch.no_grad():
        pair.weight.copy_(weight)
        pair.log_noise_scale.fill_(torch.tensor(noise).log())
    z = torch.randn(num_data, weight.shape[1])
    x = z @ weight.T + noise * torch.randn(num_data, weight.shape[0])
    return (pair.set_exact_guide() if exact else pair), x


WEIGHT = torch.tensor([[1.5, 0.0], [1.0, 1.0], [0.0, 1.2]])


def test_a_healthy_pair_needs_no_trial():
    pair, x = linear(WEIGHT)
    found = explain_collapse(pair.model, pair.guide, x, seed=0)
    assert not found.trials
    assert found.summary()["active"] == 2
    assert "nothing to explain" in repr(found)


def test_growth_is_the_ratio_of_the_linear_test():
    """The same data for both, so that the direction is the one that the closed form takes; exact up to Monte Carlo."""
    torch.manual_seed(1)
    pair, x = linear(torch.cat([WEIGHT[:, :1], torch.zeros(3, 1)], 1), num_data=500)
    with torch.no_grad():
        x = x + 1.5 * torch.randn(len(x), 1) @ torch.tensor([[0.0, 0.0, 1.0]])
    closed = column_stability(pair.weight, (2 * pair.log_noise_scale).exp(), x).ratio[1].item()
    with Pair.on(pair.model, pair.guide, (x,)) as one:
        ratio, error = growth_ratio(one, one)
    assert 0 < error < 0.1 * ratio
    assert ratio == pytest.approx(closed, rel=0.05)
    assert ratio > 5


@pytest.mark.parametrize("full_covariance", [False, True])
def test_a_cut_unit_is_its_prior_and_the_others_are_as_they_were(full_covariance):
    """Of the second unit log q = log p exactly; the draws of the first keep their mean and variance, |z| < 4.5."""
    torch.manual_seed(0)
    pair = LinearGaussian(3, 2, full_covariance=full_covariance)
    with torch.no_grad():
        pair.guide_weight.normal_()
        pair.guide_log_scale.fill_(-1.0)
    x = torch.randn(5, 3)
    with Pair.on(pair.model, pair.guide, (x,)) as one:
        guide = cut(one, {"z": torch.tensor([False, True])})
    units = latent_units(pair.model, guide, x, 2000, seed=0)
    whole = latent_units(pair.model, pair.guide, x, 2000, seed=0)
    assert abs(units.kl[1]) < 1e-9
    assert units.verdict[1] == "collapsed"
    assert abs(units.kl[0] - whole.kl[0]) < 4.5 * (units.standard_error["kl"][0] + whole.standard_error["kl"][0])
    with Pair.on(pair.model, guide, (x,)) as one:
        z = one.guide_values(20_000)["z"]
    assert (z[..., 1].mean(0).abs() < 4.5 / 20_000**0.5).all()
    mean = x @ pair.guide_weight[0] + pair.guide_bias[0]
    assert ((z[..., 0].mean(0) - mean).abs() < 4.5 * z[..., 0].std(0) / 20_000**0.5).all()


def test_the_elbo_of_a_pair_that_ignores_a_unit_does_not_change_when_it_is_cut():
    pair, x = linear(torch.cat([WEIGHT[:, :1], torch.zeros(3, 1)], 1), num_data=20)
    with Pair.on(pair.model, pair.guide, (x,)) as one:
        guide = cut(one, {"z": torch.tensor([False, True])})
    own, other = (log_weights(pair.model, g, x, 50, seed=0) for g in (pair.guide, guide))
    assert torch.allclose(own.mean(0), pair.log_evidence(x).double(), atol=1e-6)  # the guide is exact
    assert torch.allclose(other, own[:1].expand(50, -1), atol=1e-6)


def test_numbers_that_depend_on_each_other_are_not_cut_one_by_one():
    fn = dist.Dirichlet(torch.ones(3))
    with pytest.raises(PairError, match="depend on each other"):
        spliced(fn, fn, torch.tensor([True, False, False]))


def test_a_decoder_that_reads_x_is_told_from_one_that_does_not():
    x = planted.factors(20)
    row = x.mean(0)
    for pair, reads in ((planted.Autoregressive(), True), (planted.Linear(), False)):
        with torch.no_grad():
            getattr(pair, "L", pair.W).normal_()
        with Pair.on(pair.model, pair.guide, (x,)) as one:
            assert reads_its_data(one, row) == reads


def test_shares_of_variance_are_those_of_data_that_did_not_fit_them():
    z = torch.randn(400, 3)
    y = z[:, :1] + torch.randn(400, 1)
    assert explained_share(y, z[:, :1]) == pytest.approx(0.5, abs=0.1)
    assert explained_share(torch.randn(400, 1), z) < 0.02
    copies = torch.cat([z, z[:, :1] + 0.01 * torch.randn(400, 1)], 1)
    assert [share > 0.9 for share in explained_by(copies)] == [True, False, False, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"steps": 0}, "steps must be"), ({"kl_weight": 0.0}, "kl_weight must be")],
)
def test_bad_options_are_refused(options, message):
    pair, x = linear(WEIGHT, num_data=20)
    with pytest.raises(OptionError, match=message):
        explain_collapse(pair.model, pair.guide, x, **options)
