"""A prior that is one everywhere: the integral ∫ p(x|z) dz, from every estimator that needs no draw of the prior."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

from ppvae.errors import PairError
from ppvae.inference import Annealing, DrawsFrom, annealed_evidence, certify, check, sample_posterior, to_datatree

X = torch.tensor([0.4, -0.3, 1.1, 0.6])


def model(x):
    loc = pyro.sample("loc", dist.ImproperUniform(constraints.real, (), ()))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0), obs=x)


def guide(x):
    pyro.sample("loc", dist.Normal(x.mean(), 0.8))


def test_check_says_what_the_number_is():
    finding = check(model, guide, X)[0]
    assert (finding.code, finding.site, finding.fatal) == ("unnormalised", "loc", False)


def test_chains_from_the_guide_find_the_integral():
    """∫ Π N(x_n; z, 1) dz = (2π)^(−(N−1)/2) N^(−1/2) exp(−Σ (x_n − x̄)²/2), by completing the square."""
    x = X.double()
    truth = -((x - x.mean()) ** 2).sum() / 2 - (len(x) - 1) / 2 * math.log(2 * math.pi) - math.log(len(x)) / 2
    found = annealed_evidence(model, guide, x, num_distributions=20, num_chains=64, seed=0)
    assert abs(found.log_evidence[0] - truth) < 4 * found.standard_error[0] < 0.2


def test_what_needs_a_draw_of_the_prior_is_refused_in_a_sentence():
    with pytest.raises(PairError, match="prior of 'loc' is improper"):
        annealed_evidence(model, guide, X, annealing=Annealing(start="prior"), seed=0)
    with pytest.raises(PairError, match="no data can be drawn from the model"):
        certify(model, guide, like=X, seed=0)


def test_reference_draws_and_their_tree():
    """The posterior is N(x̄, 1/N); of 4 × 500 draws the mean is within 4 of its standard errors, ESS taken as 200."""
    posterior = sample_posterior(model, guide, X.double(), num_draws=500, warm_up=200, seed=0)
    assert abs(posterior.draws["loc"].mean() - X.double().mean()) < 4 * 0.5 / math.sqrt(200)
    tree = to_datatree(model, guide, X.double(), draws=DrawsFrom(num_draws=10, num_chains=2), seed=0)
    assert "prior" not in tree.children
    assert "posterior_predictive" in tree.children
