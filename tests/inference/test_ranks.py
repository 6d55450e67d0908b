"""Ranks: uniform under weighted exchangeability for every K; p-values and bands that are what they say."""

import numpy as np
import pytest
import torch
from arviz_stats.ecdf_utils import simulate_confidence_bands
from scipy import stats

from ppvae.inference.calibration import ranks


def test_one_rank_by_hand():
    exact = torch.tensor([[1.0]])
    draws = torch.tensor([0.0, 1.0, 3.0, -2.0]).reshape(4, 1, 1)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.25, 0.15])[:, None]
    xi = torch.rand(1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    torch.manual_seed(0)
    # 0 and −2 lie below, 1 is tied.
    torch.testing.assert_close(ranks.weighted_pit(exact, draws, weights), 0.35 + xi * 0.4)


@pytest.mark.parametrize("num_draws", [1, 3, 20])
def test_weighted_ranks_are_uniform_for_every_number_of_draws(num_draws):
    """p = N(0, 1), v = exp(1.5 u), so that u* ~ N(1.5, 1): 20 000 ranks, Kolmogorov-Smirnov at 1e-5."""
    exact, draws = 1.5 + torch.randn(20_000, 1), torch.randn(num_draws, 20_000, 1)
    weights = ranks.normalised(1.5 * torch.cat([exact[None], draws])[..., 0])
    pit = ranks.weighted_pit(exact, draws, weights)
    assert stats.kstest(pit[:, 0].numpy(), "uniform").pvalue > 1e-5


def test_ties_are_spread():
    """Values on a grid of three: ranks of an exact draw are uniform all the same."""
    exact, draws = torch.randint(3, (20_000, 1)), torch.randint(3, (4, 20_000, 1))
    pit = ranks.weighted_pit(exact, draws, torch.full((5, 20_000), 0.2))
    assert stats.kstest(pit[:, 0].numpy(), "uniform").pvalue > 1e-5


def test_the_band_is_the_one_that_simulation_finds():
    """arviz-stats simulates the pointwise probability of the 95 % band; 8000 of its trials leave an error of 10 %."""
    z = ranks.points(100)
    simulated = simulate_confidence_bands(100, 1, z, 0.95, 8000, np.random.default_rng(0))
    tails, p = ranks._table(100)
    assert 2 * np.interp(0.05, p, tails) == pytest.approx(1 - simulated, rel=0.1)


@pytest.mark.parametrize("num_simulations", [30, 100, 400])
def test_uniforms_leave_the_band_as_often_as_is_said(num_simulations):
    """4000 ECDFs, within 4.5 standard deviations; counts have steps, which may make it somewhat rarer."""
    z, lower, upper = ranks.band(num_simulations, 0.05)
    u = np.sort(np.random.default_rng(0).uniform(size=(4000, num_simulations)))
    ecdf = np.stack([np.searchsorted(row, z, side="right") for row in u]) / num_simulations
    outside = ((ecdf < lower - 1e-12) | (ecdf > upper + 1e-12)).any(-1).mean()
    assert 0.03 < outside < 0.05 + 4.5 * (0.05 * 0.95 / 4000) ** 0.5
    # The band and the p-value are the same verdict, but for what interpolation decides.
    assert abs((ranks.shape_p_value(u.T) <= 0.05).mean() - outside) < 0.005


def test_two_points_by_enumeration():
    """M = 3: counts at 1/3 and 2/3, all of them, against the chain."""
    lower, upper = ranks._tails(3)
    for tail in (0.02, 0.05, 0.31):
        stays = 0.0
        for a in range(4):
            for b in range(a, 4):
                inside = min(lower[a, 0], upper[a, 0], lower[b, 1], upper[b, 1]) > tail
                stays += inside * stats.multinomial.pmf([a, b - a, 3 - b], 3, [1 / 3] * 3)
        assert ranks._stays_inside(3, tail) == pytest.approx(stays, abs=1e-12)


@pytest.mark.parametrize("num_simulations", [40, 1000])
def test_p_values_are_uniform_where_it_matters(num_simulations):
    p = ranks.p_values(np.random.default_rng(1).uniform(size=(num_simulations, 4000)))
    for level in (0.05, 0.01, 0.002):
        error = 4.5 * (level * (1 - level) / 4000) ** 0.5
        assert (np.abs((p <= level).mean(0) - level) < error + 0.1 * level).all()


def test_the_mean_is_not_moved_by_the_spread():
    """Ranks of a guide half as wide: the mean's test keeps its level."""
    s = 2 * np.random.default_rng(2).standard_normal((200, 4000))
    p = ranks.p_values(stats.norm.cdf(s).clip(1e-16, 1 - 1e-15))
    assert abs((p[:, 1] <= 0.05).mean() - 0.05) < 4.5 * (0.05 * 0.95 / 4000) ** 0.5
    assert (p[:, 2] < 1e-6).all()


def test_holm_by_hand():
    p = np.array([[0.04, 0.01], [0.03, 0.005]])
    assert ranks.holm(p) == pytest.approx(np.array([[0.06, 0.03], [0.06, 0.02]]))


def test_a_tail_below_the_table_is_bounded():
    pit = np.full((50, 1), 0.999)
    assert 0 < ranks.shape_p_value(pit)[0] < 1e-80
