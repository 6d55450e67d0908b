"""The classifier's accuracy for equals, and for Gaussians whose best classifier is known."""

import math

import pytest
import torch
import truths_inference as truths

from ppvae.inference.posterior.c2st import classifier_accuracy


@pytest.mark.slow
def test_equal_distributions_cannot_be_told_apart():
    """200 tests of equals: scores of mean 0 within 4.5/√200, none beyond 4.5, and beyond 1.96 not more than 5 %.

    The error is meant to be large enough: a spread of the scores between 0.7 and 1, plus 4.5/√400.
    """
    torch.manual_seed(0)
    found = [classifier_accuracy(torch.randn(400, 3), torch.randn(400, 3)) for _ in range(200)]
    z = torch.tensor([(accuracy - 0.5) / error for accuracy, error in found])
    assert z.mean().abs() < truths.Z_LIMIT / math.sqrt(200)
    assert z.abs().max() < truths.Z_LIMIT
    assert (z.abs() > 1.96).double().mean() <= 0.05
    assert 0.6 < z.std() < 1.1


def test_the_classifier_reaches_the_best_accuracy():
    """N(0, I) against N(μ, I): Φ(|μ|/2)."""
    torch.manual_seed(0)
    for away in (0.5, 1.0, 3.0):
        q = torch.randn(2000, 2) + torch.tensor([away, 0.0])
        accuracy, error = classifier_accuracy(q, torch.randn(3000, 2))
        best = torch.special.ndtr(torch.tensor(away / 2)).item()
        assert abs(accuracy - best) < truths.Z_LIMIT * error
