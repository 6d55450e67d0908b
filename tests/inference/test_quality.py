"""Guides that are wrong in a known way are told so, and every measure is that of the closed form."""

import math
from collections import Counter
from dataclasses import replace

import pairs
import planted
import pyro
import pyro.distributions as dist
import pytest
import torch
import truths_inference as truths

from ppvae.errors import DataError, OptionError
from ppvae.inference.posterior.faults import WORDS
from ppvae.inference.posterior.quality import NUMBERS, Quality, guide_quality
from ppvae.inference.posterior.reference import sample_posterior

DATA = 20


@pytest.fixture(scope="module")
def reference():
    """Exact posterior draws of `planted.correlated`, by Hamiltonian Monte Carlo, and their data."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    x = 1.5 * torch.randn(DATA, 4, generator=torch.Generator().manual_seed(0))
    found = sample_posterior(planted.correlated, planted.correlated_guide(), x, num_draws=300, warm_up=150, seed=0)
    torch.set_default_dtype(default)
    return x, found


def judge(reference, seed=1, rows=slice(None), **wrong):
    x, posterior = reference
    guide = planted.correlated_guide(**wrong)
    return guide_quality(planted.correlated, guide, x[rows], posterior.rows(rows), seed=seed)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({}, ("good",)),
        ({"mean_field": True}, ("correlation missed", "too narrow")),
        pytest.param({"scale": 0.8}, ("too narrow",), marks=pytest.mark.slow),
        pytest.param({"scale": 0.6}, ("too narrow",), marks=pytest.mark.slow),
        pytest.param({"scale": 1.25}, ("too wide",), marks=pytest.mark.slow),
        ({"shift": 0.5}, ("shifted",)),
    ],
)
def test_the_right_fault_is_named(reference, wrong, words):
    """20 of 20, each with guide draws of its own: the confusion table has nothing off its diagonal."""
    assert reference[1].converged.all()
    quality = judge(reference, **wrong)
    assert Counter(quality.verdicts) == {words: DATA}
    every = "every fault counted: correlation missed 20, too narrow 20 of 20 data."
    assert (every in quality.remarks()) == (len(words) == 2)


@pytest.mark.slow
def test_a_missed_mode_is_named():
    """20 of 20: the guide is a Gaussian at one mode of two."""
    model, guide = planted.two_modes(1.0, 0.5)
    quality = guide_quality(model, guide, torch.ones(DATA), seed=0)
    assert quality.judged.all()
    assert {words[0] for words in quality.verdicts} == {"mode missed"}
    assert ((quality.missed_mass - 0.5).abs() < 0.15).all()  # the guide's own tail reaches over the valley
    assert "without a mode that the posterior has for 20 of 20 data" in quality.remarks()[0]


def test_measures_of_two_gaussians(reference):
    """q = N(m + shift, s² S) against N(m, S): every measure in closed form, within 4.5 of its errors."""
    x, _ = reference
    quality = judge(reference, scale=0.8, shift=0.5)
    assert {words[0] for words in quality.verdicts} == {"shifted"}
    assert all("too narrow" in words for words in quality.verdicts)
    loc, cov = planted.correlated_posterior(x)
    move = torch.tensor([0.0, 0.5, 0.0]) * cov.diagonal().sqrt()
    gap = float(truths.gaussian_kl(loc[:1] + move, 0.64 * cov, loc[:1], cov))
    opposite = float(truths.gaussian_kl(loc[:1], cov, loc[:1] + move, 0.64 * cov))
    for name, truth in {
        "bias": torch.tensor([0.0, 0.5, 0.0]).expand(DATA, 3),
        "sd_ratio": torch.full((DATA, 3), 0.8),
        "kl_guide": gap,
        "kl_posterior": opposite,
        "log_evidence": truths.gaussian_evidence(x, *planted._NUMBERS),
    }.items():
        z = (getattr(quality, name) - truth) / getattr(quality, f"{name}_standard_error")
        assert z.abs().max() < truths.Z_LIMIT, name
        assert 0.3 < z.square().mean() < 3, name
    assert torch.allclose(quality.shift_nats, (move @ torch.linalg.inv(cov) @ move / 2).expand(DATA), rtol=0.15)
    assert torch.allclose(quality.scale_nats, torch.tensor(truths.gaussian_scale_kl(0.8, 3)).expand(DATA), rtol=0.35)
    assert (quality.correlation_nats < 0.01).all()
    assert (quality.missed_correlation < 0.1).all()
    best = (1 + quality.total_variation) / 2
    assert (quality.accuracy < best + truths.Z_LIMIT * quality.accuracy_standard_error).all()
    assert (quality.accuracy > best - 0.05).all()  # Gaussians are what quadratic discriminants tell apart best


def test_wasserstein_is_in_posterior_standard_deviations(reference):
    """W₁ of a shift by 0.5 sd is 0.5; of a scale s, (1 − s)·E|N(0, 1)|, of equals about 1/√n."""
    some = slice(0, 3)
    shifted = judge(reference, rows=some, shift=0.5).wasserstein
    assert torch.allclose(shifted[:, 1], torch.tensor(0.5), atol=0.1)
    assert (shifted[:, [0, 2]] < 0.1).all()
    narrow = judge(reference, rows=some, scale=0.6).wasserstein
    assert torch.allclose(narrow, torch.tensor(0.4 * math.sqrt(2 / math.pi)), atol=0.08)


def test_missed_correlation_of_mean_field(reference):
    _, cov = planted.correlated_posterior(torch.zeros(1, 4))
    rho = float(cov[0, 1].abs() / (cov[0, 0] * cov[1, 1]).sqrt())
    quality = judge(reference, rows=slice(0, 5), mean_field=True)
    z = (quality.missed_correlation - rho) / quality.missed_correlation_standard_error
    assert z.abs().max() < truths.Z_LIMIT
    assert torch.allclose(quality.correlation_nats, quality.kl_guide, atol=0.1)


@pytest.mark.slow
def test_a_shape_of_its_own():
    """Two modes and a Gaussian guide of the posterior's own mean and variance: neither shifted nor narrow nor wide."""
    model, laplace = planted.two_modes(1.0, 0.6)
    posterior = sample_posterior(model, laplace, torch.ones(1), seed=0)
    u = posterior.unconstrained

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(u.mean(), u.std()).expand((len(x),)))

    quality = guide_quality(model, guide, torch.ones(1), posterior, seed=1)
    assert quality.verdicts == (("different shape",),)
    assert (quality.bias.abs() < 0.1).all()
    assert ((quality.sd_ratio - 1).abs() < 0.05).all()
    assert "of a different shape" in quality.remarks()[0]


def test_what_has_no_reference_is_not_judged(reference):
    x, posterior = reference
    rhat = posterior.rhat.clone()
    rhat[1] = 1.2
    quality = guide_quality(
        planted.correlated, planted.correlated_guide(), x[:3], replace(posterior, rhat=rhat).rows([0, 1, 2]), seed=0
    )
    assert quality.verdicts == (("good",), ("cannot tell",), ("good",))
    assert quality.judged.tolist() == [True, False, True]
    for name in NUMBERS:
        assert getattr(quality, name)[1].isnan().all() == (name != "pareto_k")
        assert getattr(quality, name)[::2].isfinite().all()
    assert quality.remarks() == [
        "as a posterior, the guide is good for 2 of 3 data.",
        "1 of 3 data have no reference: their chains did not converge.",
    ]
    summary = quality.summary()
    assert (summary["num_data"], summary["num_judged"], summary["good"], summary["cannot_tell"]) == (3, 2, 2, 1)
    assert math.isfinite(summary["kl_guide"])


def test_too_few_draws_cannot_tell(reference):
    x, posterior = reference
    short = replace(
        posterior,
        unconstrained=posterior.unconstrained[:, :10],
        log_joint=posterior.log_joint[:, :10],
        draws={name: value[:, :10] for name, value in posterior.draws.items()},
    )
    quality = guide_quality(planted.correlated, planted.correlated_guide(), x, short, seed=0)
    assert Counter(quality.verdicts) == {("cannot tell",): DATA}
    assert "Monte Carlo error is too large" in quality.remarks()[-1]


def test_the_record(reference):
    quality = judge(reference, rows=slice(0, 2), scale=0.6)
    dataset = quality.to_dataset()
    assert dataset["verdict"].values.tolist() == ["too narrow"] * 2
    assert dataset["bias"].dims == ("datum", "coordinate")
    assert dataset["coordinate"].values.tolist() == ["z[0]", "z[1]", "z[2]"]
    assert dataset["kl_guide"].attrs["units"] == "nats"
    assert set(dataset.data_vars) == {"verdict", *NUMBERS}
    summary = quality.summary()
    assert summary["too_narrow"] == 2
    assert sum(summary[word.replace(" ", "_")] for word in WORDS) == 2
    assert summary["kl_guide"] == pytest.approx(float(quality.kl_guide.mean()))


def test_reproducible_and_the_same_in_small_pieces(reference):
    before = torch.get_rng_state()
    first, again = (judge(reference, rows=slice(0, 2), scale=0.8) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    for name in NUMBERS:
        assert torch.equal(getattr(first, name), getattr(again, name))
    x, posterior = reference
    guide = planted.correlated_guide(scale=0.8)
    rows = slice(0, 2)
    small = guide_quality(planted.correlated, guide, x[rows], posterior.rows(rows), seed=4, memory_mb=0.05)
    assert isinstance(small, Quality)
    assert torch.allclose(small.kl_guide, first.kl_guide, atol=0.05)


def test_one_coordinate_constrained_support_and_no_reference_given():
    """`gamma_poisson` with the variance 1/0.8 too large; its closed-form gap."""
    pair = pairs.build("gamma_poisson")
    quality = guide_quality(pair.model, pair.guide, pair.x[:2], seed=0)
    assert quality.coordinates == ("z",)
    z = (quality.kl_guide - pair.true_gap[:2]) / quality.kl_guide_standard_error
    assert z.abs().max() < truths.Z_LIMIT
    z = (quality.log_evidence - pair.truth[:2]) / quality.log_evidence_standard_error
    assert z.abs().max() < truths.Z_LIMIT
    assert (quality.missed_correlation == 0).all()


def test_bad_arguments(reference):
    x, posterior = reference
    guide = planted.correlated_guide()
    with pytest.raises(OptionError, match="reference holds 20 data of 3 coordinates, and the pair has 2 of 3"):
        guide_quality(planted.correlated, guide, x[:2], posterior)
    with pytest.raises(DataError, match="NaN"):
        guide_quality(planted.correlated, guide, x * math.nan, posterior)
