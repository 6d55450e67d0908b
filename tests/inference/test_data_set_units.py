"""Latents that all data share: every estimator against the closed form of a regression, and the interval's promise."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
import truths_inference as truths
from pairs.regression import NOISE, Regression
from torch import Tensor

from ppvae.errors import OptionError
from ppvae.inference import (
    Optimiser,
    Sampling,
    annealed_evidence,
    attribute_gap,
    calibrate,
    certify,
    estimate_evidence,
    importance_evidence,
    sample_posterior,
    to_datatree,
)


@pytest.mark.parametrize(
    "estimate",
    [importance_evidence, partial(annealed_evidence, num_distributions=40), estimate_evidence],
    ids=["importance", "annealed", "adaptive"],
)
def test_the_closed_form(estimate):
    pair = Regression()
    found = estimate(pair.model, pair.guide, pair.batch, seed=0)
    assert found.log_evidence.shape == (1,)
    assert abs(found.log_evidence.item() - pair.log_evidence) < truths.Z_LIMIT * found.standard_error.item()
    assert found.standard_error.item() < 0.1
    assert found.trusted.all()


def test_the_interval_covers():
    """90 % of 80 seeds, less 4 standard deviations of that share: one false alarm in 30 000."""
    pair, covered = Regression(), 0
    for seed in range(80):
        lower, upper = importance_evidence(pair.model, pair.guide, pair.batch, 100, seed=seed).interval(0.9)
        covered += int(lower <= pair.log_evidence <= upper)
    assert covered / 80 > 0.9 - 4 * math.sqrt(0.9 * 0.1 / 80)


def test_bounds_hold():
    """At a confidence of 99.8 %."""
    pair = Regression()
    sampling = Sampling(num_twins=8, max_distributions=1)
    certificate = certify(pair.model, pair.guide, pair.batch, confidence=0.998, width=1.0, sampling=sampling, seed=0)
    assert certificate.num_twins == 8
    assert certificate.mean_lower <= pair.log_evidence <= certificate.mean_upper


def test_all_of_the_gap_is_the_family_s():
    """The full covariance takes it away: nothing is amortised, and that is said."""
    pair = Regression()
    gap = attribute_gap(pair.model, pair.guide, pair.batch, optimiser=Optimiser(steps=60), seed=0)
    total = gap.summary()["total"]
    assert abs(total - pair.gap) < truths.Z_LIMIT * gap.summary()["total_monte_carlo_error"]
    assert any("amortis" in remark for remark in gap.remarks())


def test_the_gap_of_an_evidence_that_is_given():
    """It is of one data set, whatever the number of rows; of two it is refused."""
    pair = Regression()
    evidence = importance_evidence(pair.model, pair.guide, pair.batch, num_particles=2000, seed=0)
    gap = attribute_gap(pair.model, pair.guide, pair.batch, evidence=evidence, optimiser=Optimiser(steps=20), seed=0)
    assert torch.equal(gap.log_evidence, evidence.log_evidence)
    with pytest.raises(OptionError, match="evidence is of 2 data and x holds 12"):
        attribute_gap(pair.model, pair.guide, pair.batch, evidence=type(evidence).concatenate([evidence] * 2), seed=0)


def test_a_data_set_is_not_called_one_of_one_data():
    pair = Regression(widened=0.2)
    evidence = importance_evidence(pair.model, pair.guide, pair.batch, num_particles=200, seed=0)
    assert any("all data" in remark for remark in evidence.remarks())
    assert "1 data" not in repr(evidence)


def test_the_posterior_is_the_gaussian_one():
    pair = Regression()
    found = sample_posterior(pair.model, pair.guide, pair.batch, num_draws=60, warm_up=150, seed=0)
    assert found.converged.all()
    beta = found.draws["beta"].flatten(0, 2)
    error = pair.covariance.diagonal().sqrt() / found.ess_bulk.sqrt()
    assert ((beta.mean(0) - pair.mean).abs() < truths.Z_LIMIT * error).all()


def test_calibration_draws_whole_data_sets():
    """A guide that is the posterior of whatever data it is given: weights without spread, and a level of 0.1 %."""
    pair = Regression()

    def guide(y: Tensor, covariates: Tensor) -> None:
        loc = pair.covariance @ covariates.T @ y.unsqueeze(-1) / NOISE**2
        pyro.sample("beta", dist.MultivariateNormal(loc.squeeze(-1), pair.covariance))

    found = calibrate(pair.model, guide, pair.batch, anchor="prior", num_simulations=60, seed=0)
    assert found.prior is not None
    assert found.prior.gap.abs().max() < 1e-6
    assert found.summary()["prior_units_least_p"] > 0.001


def test_arviz_gets_the_shared_latent():
    pair = Regression()
    tree = to_datatree(pair.model, pair.guide, pair.batch, seed=0)
    beta = tree["posterior"]["beta"]
    assert beta.sizes["chain"] * beta.sizes["draw"] == 1000
    spread = 1.25 * pair.covariance.diagonal().sqrt()
    error = spread / 1000**0.5
    assert (abs(beta.values.reshape(-1, 2).mean(0) - pair.mean.numpy()) < truths.Z_LIMIT * error.numpy()).all()
