"""Latents with no density on a continuum: draws of the prior find what the guide never draws."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.distributions as td

from ppvae.inference import check, estimate_evidence, importance_evidence

X = torch.tensor([2.9, 0.1])
ESTIMATORS = [importance_evidence, estimate_evidence]


def model(x):
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(3 * k, 1.0), obs=x)


def guide_of(probability):
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Bernoulli(probability(x)))

    return guide


def truth():
    each = torch.stack([td.Normal(0.0, 1.0).log_prob(X), td.Normal(3.0, 1.0).log_prob(X)])
    return torch.logsumexp(each, 0) - math.log(2)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_class_that_the_guide_never_draws_is_found_and_told(estimator):
    guide = guide_of(lambda x: torch.full_like(x, 1e-8))
    evidence = estimator(model, guide, X, seed=0)
    assert evidence.trusted.tolist() == [False, True]
    assert any("misses a part of the posterior for 1 of 2 data" in remark for remark in evidence.remarks())
    # Four standard errors of at least 500 draws of the prior, half of which have all weight: 4 / √500.
    torch.testing.assert_close(evidence.log_evidence[0], truth()[0], rtol=0, atol=0.18, check_dtype=False)
    torch.testing.assert_close(evidence.bound[-1], evidence.log_evidence)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_guide_that_draws_both_classes_is_confirmed(estimator):
    guide = guide_of(lambda x: torch.sigmoid(2 * x - 3))
    evidence = estimator(model, guide, X, seed=0)
    assert evidence.trusted.all()
    assert (evidence.missed == 0).all()
    assert ((evidence.log_evidence - truth()).abs() < 4 * evidence.standard_error + 1e-6).all()


def test_a_guide_that_goes_round_a_circle_twice_is_found():
    def circle(x):
        with pyro.plate("data", len(x)):
            angle = pyro.sample("angle", dist.VonMises(torch.tensor(0.0), torch.tensor(1.0)))
            pyro.sample("x", dist.VonMises(angle, torch.tensor(2.0)), obs=x)

    def around(turns):
        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("angle", dist.Uniform(-turns * math.pi * torch.ones(len(x)), turns * math.pi))

        return guide

    assert [finding.code for finding in check(circle, around(2), X)] == ["support"]
    assert not check(circle, around(1), X)
