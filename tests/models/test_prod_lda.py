"""Words of documents of given lengths, against scipy's multinomial."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ppvae.models.prod_lda import Words

LENGTH = torch.tensor([4.0, 7.0], dtype=torch.float64)
LOGITS = torch.tensor([[0.1, -0.5, 0.3], [1.0, 0.0, -2.0]], dtype=torch.float64)


def test_the_density_is_scipys():
    x = torch.tensor([[1.0, 0, 3], [5, 2, 0]])
    p = LOGITS.softmax(-1).numpy()
    expected = [stats.multinomial(int(n), row).logpmf(one) for n, row, one in zip(LENGTH, p, x.numpy(), strict=True)]
    torch.testing.assert_close(Words(LENGTH, LOGITS).log_prob(x), torch.tensor(np.array(expected)))


def test_other_lengths_have_no_probability():
    assert Words(LENGTH, LOGITS).log_prob(torch.ones(2, 3)).tolist() == [-math.inf, -math.inf]


def test_draws_have_their_lengths_and_moments():
    """Mean and covariance of 20 000 draws at |z| < 4.5: 12 numbers, a false alarm of 1e-4."""
    torch.manual_seed(0)
    words = Words(LENGTH, LOGITS)
    x = words.sample((20_000,))
    assert torch.equal(x.sum(-1), LENGTH.expand(20_000, 2))
    p = LOGITS.softmax(-1)
    variance = LENGTH[:, None] * p * (1 - p)
    assert ((x.mean(0) - words.mean) / (variance / 20_000).sqrt()).abs().max() < 4.5
    product = (x[..., 0] - words.mean[:, 0]) * (x[..., 1] - words.mean[:, 1])
    z = (product.mean(0) + LENGTH * p[:, 0] * p[:, 1]) / (product.std(0) / math.sqrt(20_000))
    assert z.abs().max() < 4.5
    assert x[:, 0].var(0)[0].item() == pytest.approx(variance[0, 0].item(), rel=0.06)
