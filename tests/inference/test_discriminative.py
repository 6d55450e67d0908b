"""Discriminative calibration: the stated risk on exact pairs, bounds below the true KL, the stated power, and where.

Repetitions come cheaply: simulations are independent, so that one set of R·M of them is R sets of M.
"""

import math

import numpy as np
import pytest
import torch
from calibrated_pairs import correlated, diagonal
from scipy import stats

from ppvae.errors import OptionError
from ppvae.inference import discriminative_calibration
from ppvae.inference.calibration.calibrate import SimulatedData
from ppvae.inference.calibration.classifier_scores import Candidates, candidates, known, scored
from ppvae.inference.calibration.discriminative import discriminate
from ppvae.inference.calibration.simulation import unit_names
from ppvae.inference.pair import Pair
from ppvae.progress import Progress


def repeated(pair, x, num_runs, size, num_draws=5, seed=0):
    """So many independent runs of `size` simulations each."""
    torch.manual_seed(seed)
    total = num_runs * size
    with Pair.on(*pair, (x,), start="prior") as on, torch.no_grad(), Progress("", total, "", False) as bar:
        job = SimulatedData(total, num_draws, 256.0)
        sets, names = candidates(job.pairs(on, None), num_draws, 256.0, bar), unit_names(on)
    fields = ("z", "log_w", "log_q", "mean", "elbo")
    cut = (Candidates(*(getattr(sets, f)[i : i + size] for f in fields)) for i in range(0, total, size))
    return [discriminate(one, names) for one in cut]


def scaled_kl(scale):
    """KL(p ‖ q) of N(0, 1) from N(0, scale²)."""
    return math.log(scale) + 1 / (2 * scale**2) - 0.5


def test_p_values_of_exchangeable_candidates_are_uniform():
    """150 sets of 60 simulations of noise: Kolmogorov and Smirnov's p-value above 1e-4, with a seed."""
    generator = np.random.default_rng(0)
    learnt = [scored(generator.standard_t(3, size=(60, 4, 3)), generator)[1] for _ in range(150)]
    fixed = [known(generator.standard_normal((60, 4)), generator)[1] for _ in range(150)]
    ties = [known(np.zeros((60, 4)), generator)[1] for _ in range(150)]
    for p in (learnt, fixed, ties):
        assert stats.kstest(p, "uniform").pvalue > 1e-4


@pytest.mark.slow
def test_an_exact_guide_is_faulted_no_more_often_than_is_promised():
    """200 pairs that are exact: more than 22 alarms at 5 % have probability below 1e-3, more than 24 below 2e-4."""
    found = repeated(diagonal(3), torch.zeros(1, 3), 200, 200)
    assert stats.binom.sf(24, 200, 0.05) < 3e-4
    assert sum(one.faulty for one in found) <= 24
    assert sum(bool(one.units_faulty) for one in found) <= 24
    assert sum(one.depth_p_value <= 0.05 for one in found) <= 24
    assert stats.kstest([one.learnt_p_value for one in found], "uniform").pvalue > 1e-4
    assert stats.kstest([one.score_p_value for one in found], "uniform").pvalue > 1e-4


@pytest.mark.parametrize("num_draws", [1, 5])
def test_the_divergence_is_a_lower_bound_that_grows_with_the_draws(num_draws):
    """A guide of 0.6 of the width: below KL(p ‖ q) = 0.378 and log(1 + L); near D_L, which is known by quadrature."""
    (one,) = repeated(diagonal(1, {0: 0.6}), torch.zeros(1, 1), 1, 1500, num_draws)
    mean, error = one.divergence
    assert mean - 4 * error < scaled_kl(0.6)
    assert mean < math.log(1 + num_draws)
    assert one.faulty
    assert float(one.learnt_score.mean()) < mean + 4 * error
    if num_draws == 1:
        assert abs(mean - _two_label_information(0.6)) < 4 * error


def _two_label_information(scale):
    """D_1 of N(0, 1) and N(0, scale²) by quadrature: E_{p(a) q(b)} log 2 w(a)/(w(a) + w(b))."""
    a = torch.linspace(-7, 7, 1401)
    log_p = torch.distributions.Normal(0.0, 1.0).log_prob(a)
    log_q = torch.distributions.Normal(0.0, scale).log_prob(a)
    log_w = log_p - log_q
    inner = math.log(2) - torch.nn.functional.softplus(log_w[None] - log_w[:, None])
    return float((log_p.exp()[:, None] * log_q.exp()[None] * inner).sum() * 0.01**2)


def test_a_fault_is_placed():
    """Of three units the second is shifted, and says so; without a density too; coverage is the closed form."""
    (one,) = repeated(diagonal(3, shift={1: 0.7}), torch.zeros(1, 3), 1, 1000)
    assert one.units_faulty == ("z[1]",)
    assert "units with faults: z[1]." in one.remarks()
    assert one.learnt_p_value < 0.01
    (narrow,) = repeated(diagonal(1, {0: 0.5}), torch.zeros(1, 1), 1, 2000, num_draws=19)
    inside, error = narrow.coverage(0.95)
    # Depth is a rank among 20 by |z|: u* is within the guide's central 95 % with probability 2Φ(0.5 · 1.96) − 1.
    assert abs(inside - (2 * stats.norm.cdf(0.5 * stats.norm.ppf(0.975)) - 1)) < 4 * error + 0.03
    assert narrow.depth_p_value < 1e-6


def test_a_missed_correlation_is_seen_and_no_unit_is_accused():
    model, guide, _ = correlated(0.0)
    (one,) = repeated((model, guide), torch.zeros(1, 1), 1, 300)
    assert one.faulty
    assert one.units_faulty == ()
    assert "no unit is at fault by itself" in one.remarks()[1]


@pytest.mark.slow
def test_the_power_that_is_stated_is_the_power_there_is():
    """A scale of 0.9 in each of three units, a shift of 0.25 in one of fifty, and a divergence at the stated limit."""
    limit = repeated(diagonal(3, {0: 0.9}), torch.zeros(1, 3), 40, 500)
    kl, detectable = scaled_kl(0.9), limit[0].detectable
    assert 0.6 * detectable < kl < 2 * detectable
    found = sum(one.faulty for one in limit) / 40
    assert 0.55 < found < 0.98
    wide = repeated(diagonal(3, {0: 0.9, 1: 0.9, 2: 0.9}), torch.zeros(1, 3), 20, 500, seed=1)
    assert sum(one.faulty for one in wide) >= 18
    shifted = repeated(diagonal(50, shift={12: 0.25}), torch.zeros(1, 50), 5, 500, seed=2)
    assert sum(one.faulty for one in shifted) == 5


def test_a_seed_says_all_and_options_are_checked():
    pair, x = diagonal(2, {0: 0.8}), torch.zeros(3, 2)
    before = torch.get_rng_state()
    one, two = (discriminative_calibration(*pair, x, num_simulations=100, seed=3) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one.score, two.score)
    assert one.summary() == two.summary()
    assert {"divergence", "p_value", "detectable", "coverage_0.95"} <= one.summary().keys()
    assert "Discrimination" in repr(one)
    with pytest.raises(OptionError, match="num_simulations"):
        discriminative_calibration(*pair, x, num_simulations=99)
