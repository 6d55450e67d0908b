"""The plateau rule: what it takes for noise is stated, and slow progress is not lost."""

import pytest
import torch
from scipy import stats

from ppvae.inference.svi.early_stopping import MARGIN, Plateau


def test_noise_is_rarely_an_improvement():
    """Independent noise passes as an improvement with probability Φ(−2) = 2.3 %.

    2000 trials: a count outside the central 1 − 1e-6 of the binomial is a false alarm.
    """
    torch.manual_seed(1)
    trials, count = 2000, 0
    for _ in range(trials):
        rule = Plateau(patience=1)
        rule.improves(torch.randn(500))
        count += rule.improves(torch.randn(500))
    low, high = stats.binom.ppf([5e-7, 1 - 5e-7], trials, stats.norm.sf(MARGIN))
    assert low <= count <= high


def test_slow_progress_adds_up():
    """Steps of 0.45 standard errors each are invisible one by one, and seen once they add up to more than two."""
    noise = torch.tensor([1.0, -1.0]).repeat(200)
    error = float(noise.std()) / 400**0.5
    rule = Plateau(patience=100)
    rule.improves(torch.zeros(400))
    assert [rule.improves(noise + n * 0.45 * error) for n in range(1, 6)] == [False, False, False, False, True]


def test_common_random_numbers_show_small_steps():
    """With the same noise in both evaluations any uniform improvement is seen."""
    torch.manual_seed(3)
    noise = torch.randn(50)
    rule = Plateau(patience=2)
    assert rule.improves(noise)
    assert rule.improves(noise + 1e-3)
    assert not rule.improves(noise)
    assert not rule.improves(noise)
    assert rule.reached


@pytest.mark.parametrize("bad", [torch.nan, -torch.inf, torch.inf])
def test_what_is_not_finite_is_no_improvement(bad):
    rule = Plateau(patience=1)
    rule.improves(torch.zeros(3))
    assert not rule.improves(torch.tensor([1.0, 2.0, bad]))


def test_goes_on_from_its_state():
    rule = Plateau(patience=2)
    rule.improves(torch.ones(3))
    rule.improves(torch.zeros(3))
    again = Plateau(patience=2)
    again.load_state_dict(rule.state_dict())
    assert not again.improves(torch.zeros(3))
    assert again.reached
