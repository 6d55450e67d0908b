"""The 2PL model on the items of LSAT 6, whose maximum likelihood is published."""

import pytest
import torch

from ppvae.datasets import load_dataset
from ppvae.datasets.embedded import lsat6
from ppvae.errors import DataError
from ppvae.inference import estimate_evidence, fit
from ppvae.models import ItemResponse

# Maximum likelihood estimates and log-likelihood (Bock & Lieberman, 1970; the same as R's ltm and mirt print).
SLOPE, INTERCEPT, LOG_LIKELIHOOD = [0.826, 0.723, 0.891, 0.688, 0.657], [2.773, 0.990, 0.249, 1.285, 2.053], -2466.653


@pytest.fixture
def answers():
    return torch.tensor(lsat6()[0], dtype=torch.float64)


@pytest.fixture
def pair(answers):
    made = ItemResponse.for_data(answers)
    with torch.no_grad():
        made.slope.copy_(torch.tensor(SLOPE))
        made.intercept.copy_(torch.tensor(INTERCEPT))
    return made


def test_the_log_likelihood_of_lsat6_is_the_published_one(pair, answers):
    assert pair.log_evidence(answers).sum().item() == pytest.approx(LOG_LIKELIHOOD, abs=1e-3)


def test_quadrature_has_converged(pair, answers):
    x = answers.unique(dim=0)
    torch.testing.assert_close(pair.log_evidence(x, 61), pair.log_evidence(x, 31), rtol=0, atol=1e-8)


def test_a_missing_answer_is_summed_out(pair, answers):
    x = answers[:1].clone()
    both = x.repeat(2, 1)
    both[:, 2] = torch.tensor([0.0, 1.0])
    x[0, 2] = torch.nan
    torch.testing.assert_close(pair.log_evidence(x), torch.logsumexp(pair.log_evidence(both), 0, keepdim=True))


def test_training_comes_near_the_maximum_and_the_estimate_is_the_quadrature(answers):
    """The ELBO's maximum lies below that of the likelihood, which no parameters exceed; 32 patterns, |z| < 4.5."""
    torch.manual_seed(0)
    pair = ItemResponse.for_data(answers)
    fit(pair.model, pair.guide, answers, epochs=60, batch_size=200, learning_rate=0.01, seed=0)
    log_likelihood = pair.log_evidence(answers).sum().item()
    assert LOG_LIKELIHOOD - 3.0 < log_likelihood < LOG_LIKELIHOOD + 1e-3
    x = answers.unique(dim=0)
    evidence = estimate_evidence(pair.model, pair.guide, x, tolerance=0.02, seed=0)
    z = (evidence.log_evidence - pair.log_evidence(x)) / evidence.standard_error
    assert z.abs().max() < 4.5


def test_the_data_set_is_the_published_table():
    data = load_dataset("lsat6")
    assert (len(data.train), len(data.validation), len(data.test)) == (800, 100, 100)
    assert torch.cat([data.train, data.validation, data.test]).sum(0).tolist() == [924, 709, 553, 763, 870]


def test_answers_are_zero_or_one():
    with pytest.raises(DataError, match="outside the support of Bernoulli"):
        ItemResponse.for_data(torch.full((3, 2), 2.0))
