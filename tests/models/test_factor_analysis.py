"""Factor analysis against scikit-learn's, and its starting point."""

from itertools import pairwise

import pytest
import torch
from sklearn.datasets import load_wine
from sklearn.decomposition import FactorAnalysis as Reference

from ppvae.errors import OptionError
from ppvae.inference import certify
from ppvae.models import FactorAnalysis


@pytest.fixture(scope="module")
def wine():
    values = load_wine().data
    return torch.tensor((values - values.mean(0)) / values.std(0))


@pytest.fixture(scope="module")
def reference(wine):
    return Reference(3, tol=1e-10, max_iter=10_000, svd_method="lapack").fit(wine.numpy())


def test_the_evidence_of_each_datum_is_scikit_learns(wine, reference):
    pair = FactorAnalysis(13, 3)
    with torch.no_grad():
        pair.weight.copy_(torch.from_numpy(reference.components_.T))
        pair.bias.copy_(torch.from_numpy(reference.mean_))
        pair.log_noise_scale.copy_(torch.from_numpy(reference.noise_variance_).log() / 2)
    expected = torch.from_numpy(reference.score_samples(wine.numpy()))
    torch.testing.assert_close(pair.log_evidence(wine).detach(), expected, rtol=0, atol=1e-9)


def test_em_reaches_the_maximum_that_scikit_learn_finds(wine, reference):
    pair = FactorAnalysis.for_data(wine, 3, num_steps=1000)
    assert pair.log_evidence(wine).mean().item() == pytest.approx(reference.score(wine.numpy()), abs=1e-5)
    torch.testing.assert_close(pair.exact_elbo(wine), pair.log_evidence(wine))


def test_steps_of_em_never_lower_the_likelihood_and_units_do_not_matter(wine):
    scale = torch.logspace(-3, 3, 13)
    means = [FactorAnalysis.for_data(wine * scale, 3, num_steps=n).log_evidence(wine * scale).mean() for n in range(8)]
    assert all(b >= a - 1e-9 for a, b in pairwise(means))
    same = FactorAnalysis.for_data(wine, 3, num_steps=7).log_evidence(wine).mean() - scale.log().sum()
    assert means[-1].item() == pytest.approx(same.item(), abs=1e-6)


def test_a_feature_that_does_not_vary_has_a_likelihood(wine):
    x = torch.cat([wine, torch.ones(len(wine), 1)], -1)
    assert FactorAnalysis.for_data(x, 2).log_evidence(x).isfinite().all()


def test_a_certificate_can_be_the_closed_form(wine):
    pair = FactorAnalysis.for_data(wine, 3, full_covariance=False)
    bounds = certify(pair.model, pair.guide, wine, closed_form=True)
    assert bounds.kind == "exact"
    assert bounds.mean_lower == pytest.approx(pair.log_evidence(wine).mean().item(), abs=1e-9)


def test_the_number_of_factors_is_checked(wine):
    with pytest.raises(OptionError, match="give at most 12"):
        FactorAnalysis.for_data(wine, 13)
