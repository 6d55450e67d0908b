"""The errors, intervals and bounds of `importance_evidence` against closed forms, quadrature and replicates.

Replicates are copies of one datum: each has its own particles. Each docstring states how often chance alone would
fail the test; the seeds are fixed.
"""

import copy
import math

import numpy as np
import pairs
import pytest
import torch
import truths_inference as truths
from arviz_stats.base import array_stats
from gate import slow_but
from replicates import replicates

from ppvae.inference import importance_evidence, log_weights
from ppvae.inference.evidence.streaming import Running
from ppvae.models import LinearGaussian


@pytest.mark.parametrize(("scale", "tolerance"), [(1.25, 0.02), (1.6, 0.02), (0.9, 0.05)])
def test_standard_error_is_the_one_of_the_closed_form(scale, tolerance):
    """Var(w)/p² = (s/√(2 − 1/s²))² − 1 for d = 2. The mean of 300 standard errors at K = 2000 is within `tolerance`."""
    evidence, _ = replicates(pairs.linear(scale=scale), 300, 2000, seed=1)
    truth = math.sqrt(truths.relative_weight_variance(scale, 2) / 2000)
    assert evidence.delta_standard_error.mean().item() == pytest.approx(truth, rel=tolerance)
    assert evidence.batch_standard_error.mean().item() == pytest.approx(truth, rel=2 * tolerance)


def test_elbo_error_is_the_one_of_the_closed_form():
    """log w = const − (s² − 1) χ²_2 / 2, so that sd(log w) = s² − 1."""
    evidence, _ = replicates(pairs.linear(scale=1.25), 300, 2000, seed=2)
    assert evidence.elbo_standard_error.mean().item() == pytest.approx((1.25**2 - 1) / math.sqrt(2000), rel=0.01)


@pytest.mark.parametrize(
    "name",
    slow_but(["linear_wide"], ["linear_wide", "linear_shifted", "linear_turned", "gamma_poisson", "banana", "parts"]),
)
def test_errors_match_the_spread_of_replicates(name):
    """The sd of 1000 estimates has a relative error of 1/√2000 = 2.2 %, more with tails: 12 % is above five of them."""
    evidence, truth = replicates(pairs.build(name), 1000, 1000, seed=3)
    delta = evidence.delta_standard_error
    of_gap = (evidence.gap_standard_error**2 - evidence.standard_error**2 + delta**2).sqrt()
    for estimate, error in (
        (evidence.log_evidence, delta),
        (evidence.log_evidence, evidence.batch_standard_error),
        (evidence.jackknife, delta),
        (evidence.elbo, evidence.elbo_standard_error),
        (evidence.gap, of_gap),
    ):
        assert (error**2).mean().sqrt().item() / estimate.std().item() == pytest.approx(1, abs=0.12)
    # And the estimates are centred: the bias of −SE²/2 is far below one standard error of the mean here.
    assert abs(truths.z_score(evidence.jackknife, truth)) < truths.Z_LIMIT


COVERED = [
    "linear_narrow",
    "linear_wide",
    "linear_shifted",
    "linear_turned",
    "hierarchy",
    "plated",
    "gamma_poisson",
    "beta_binomial",
    "banana",
    "mixture_in_model",
    "parts",
]


@pytest.mark.parametrize("name", slow_but(["linear_narrow", "gamma_poisson", "parts"], COVERED))
def test_the_interval_covers(name):
    """2000 replicates: a true coverage of 94 % would fail once in 1000 times, one of 91 % passes once in 100."""
    evidence, truth = replicates(pairs.build(name), 2000, 400, seed=4)
    lower, upper = evidence.interval(0.95)
    covered = int(((lower <= truth) & (truth <= upper)).sum())
    assert truths.binomial_alarm(covered, 2000, 0.94) > 1e-3
    # Nor does it cover by saying nothing: nearly all ends are finite, and no wider than twice the plain interval.
    finite = torch.isfinite(upper)
    assert finite.double().mean() > 0.95
    plain = 2 * 1.96 * evidence.delta_standard_error
    assert ((upper - lower) / plain)[finite].median() < 2


@pytest.mark.parametrize("scale", slow_but([0.62], [0.7, 0.62]))
def test_the_interval_covers_where_the_weights_have_no_variance(scale):
    """k = 1 − s² above ½: the standard error has no limit, and the plain interval covers 75 to 90 %.

    2000 replicates at K = 400, those without an upper end among them; false alarm 1e-3 if the coverage is 94 %.
    """
    evidence, truth = replicates(pairs.linear(scale=scale), 2000, 400, seed=4)
    lower, upper = evidence.interval()
    covered = int(((lower <= truth) & (truth <= upper)).sum())
    assert truths.binomial_alarm(covered, 2000, 0.94) > 1e-3
    plain = (evidence.log_evidence - truth).abs() < 1.96 * evidence.delta_standard_error
    assert plain.double().mean() < 0.92
    assert torch.isfinite(upper).double().mean() > 0.6


@pytest.mark.parametrize("confidence", slow_but([0.5], [0.5, 0.99]))
def test_the_interval_covers_at_other_levels(confidence):
    evidence, truth = replicates(pairs.linear(scale=1.25), 2000, 400, seed=5)
    lower, upper = evidence.interval(confidence)
    covered = int(((lower <= truth) & (truth <= upper)).sum())
    assert truths.binomial_alarm(covered, 2000, confidence - 0.01) > 1e-3
    assert truths.binomial_alarm(2000 - covered, 2000, 1 - confidence - 0.03) > 1e-3 or confidence > 0.9


def test_a_guide_far_too_narrow_is_called_unreliable():
    """s = ½ in two dimensions: k = 1 − s² = 0.75. Of 400 replicates a share of 0.6 is expected, sd 0.025."""
    evidence, _ = replicates(pairs.linear(scale=0.5), 400, 5000, seed=6)
    assert (~evidence.reliable).double().mean() > 0.5
    assert evidence.pareto_k.mean().item() == pytest.approx(0.74, abs=0.04)
    _, upper = evidence.interval()
    assert torch.isposinf(upper[~evidence.reliable]).all()
    assert evidence.remarks()


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.25])
def test_pareto_k_is_that_of_arviz(scale):
    """The same draws, in one piece or many, and psislw on the log weights themselves."""
    pair = pairs.linear(scale=scale).replicated(20)
    for memory_mb in (0.5, 64):
        evidence = importance_evidence(pair.model, pair.guide, pair.x, 1000, seed=7, memory_mb=memory_mb)
        log_w = log_weights(pair.model, pair.guide, pair.x, 1000, seed=7, memory_mb=memory_mb).T.numpy()
        theirs = torch.as_tensor(np.asarray(array_stats.psislw(-log_w.copy(), axis=-1)[1]))
        torch.testing.assert_close(evidence.pareto_k, theirs, rtol=0, atol=1e-6)
        assert evidence.reliable.equal(evidence.pareto_k < 0.7)


def test_the_estimate_of_the_evidence_is_unbiased_before_the_logarithm():
    """E p̂ = p(x), even at K = 10; 4000 replicates, false alarm 7e-6."""
    evidence, truth = replicates(pairs.linear(shift=1.0), 4000, 10, seed=9)
    assert abs(truths.z_score((evidence.log_evidence - truth).exp(), 1.0)) < truths.Z_LIMIT


def test_the_jackknife_takes_most_of_the_bias():
    """A shift of one posterior sd: Var(w)/p² = e − 1, so that the bias at K = 10 is about −0.07, and 7 sd are seen."""
    evidence, truth = replicates(pairs.linear(shift=1.0), 4000, 10, seed=10)
    plain, corrected = evidence.log_evidence - truth, evidence.jackknife - truth
    assert truths.z_score(plain, 0.0) < -7
    assert abs(corrected.mean()) < abs(plain.mean()) / 2
    assert evidence.jackknife.std() < 1.3 * evidence.log_evidence.std()


@pytest.mark.parametrize("num_particles", [1, 2, 3, 64, 100])
def test_bounds_run_from_the_elbo_to_the_evidence(num_particles):
    pair = pairs.build("linear_shifted")
    evidence = importance_evidence(pair.model, pair.guide, pair.x, num_particles, seed=0)
    sizes = evidence.bound_k.tolist()
    # Powers of two, none left out for as long as eight blocks of that size or more can be averaged, and then K.
    assert (sizes[0], sizes[-1]) == (1, num_particles)
    powers = sizes[:-1] or sizes
    assert powers == [2**level for level in range(len(powers))]
    assert len(powers) >= sum(8 * 2**level <= num_particles for level in range(20))
    assert evidence.bound.shape == evidence.bound_standard_error.shape == (len(sizes), len(pair.x))
    assert torch.equal(evidence.bound[0], evidence.elbo)
    assert torch.equal(evidence.bound[-1], evidence.log_evidence)


def test_bounds_rise_with_k_and_stay_below_the_evidence():
    """Means of 600 replicates; the steps up to k = 16 are seen with more than five sd each, the later within errors."""
    evidence, truth = replicates(pairs.linear(shift=1.0), 600, 256, seed=11)
    for j, k in enumerate(evidence.bound_k.tolist()[1:], start=1):
        step = evidence.bound[j] - evidence.bound[j - 1]
        assert truths.z_score(step, 0.0) > (5 if k <= 16 else -truths.Z_LIMIT)
    for bound in evidence.bound:
        assert truths.z_score(bound, truth) < truths.Z_LIMIT
    assert evidence.bound[0].mean().item() == pytest.approx(truth - 0.5, abs=0.02)


@pytest.mark.parametrize("memory_mb", [0.03, 64.0])
def test_the_bound_of_two_particles_is_the_quadrature(memory_mb):
    """L_2 in one dimension by Gauss-Hermite; 400 replicates of K = 101 (an odd draw over), false alarm 7e-6."""
    evidence, truth = replicates(pairs.line(1.25), 400, 101, seed=12, memory_mb=memory_mb)
    assert abs(truths.z_score(evidence.bound[1], truth + truths.bound_of_two(1.25))) < truths.Z_LIMIT
    spread = evidence.bound[1].std().item()
    assert (evidence.bound_standard_error[1] ** 2).mean().sqrt().item() / spread == pytest.approx(1, abs=0.15)


def test_the_bound_of_k_is_the_mean_estimate_from_k_particles():
    """L_8 read from K = 512 against log p̂ of K = 8: the same expectation; 600 and 4000 replicates."""
    many, _ = replicates(pairs.linear(shift=1.0), 600, 512, seed=13)
    few, _ = replicates(pairs.linear(shift=1.0), 4000, 8, seed=14)
    bound = many.bound[many.bound_k.tolist().index(8)]
    error = math.sqrt(bound.var() / 600 + few.log_evidence.var() / 4000)
    assert abs(bound.mean() - few.log_evidence.mean()) < truths.Z_LIMIT * error


@pytest.mark.parametrize(("dim", "scale"), [(1, 0.5), (2, 0.6), (5, 0.7)])
def test_the_standard_error_counts_a_heavy_tail(dim, scale):
    """Of 400 normal guides too narrow, those called reliable: at most 3 % are off by more than three standard errors.

    By the delta method's error it is 1.5 to 40 %. The true share is 1 % or less at these sizes, so that chance alone
    fails this in fewer than 1 of 1000 runs.
    """
    torch.manual_seed(0)
    squares = torch.randn(5000, dim, 400).square().sum(1)
    running = Running(5000, 400)
    running.add(dim * math.log(scale) + (1 - scale**2) * squares / 2)  # log w with p(x) = 1
    evidence = running.evidence()
    off = evidence.log_evidence.abs()[evidence.reliable]
    assert len(off) > 100
    honest = (off > 3 * evidence.standard_error[evidence.reliable]).double().mean()
    plain = (off > 3 * evidence.delta_standard_error[evidence.reliable]).double().mean()
    assert honest <= 0.03
    assert honest < plain


def test_with_an_exact_guide_the_interval_holds_the_rounding_of_single_precision():
    """No chance but in the rounding: 300 data of which none may be missed, and no wider than a thousandth of a nat."""
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    pair = LinearGaussian(num_features=20, latent_dim=5).set_exact_guide()
    x = torch.randn(300, 20)
    for num_particles in (400, 1000):
        evidence = importance_evidence(pair.model, pair.guide, x, num_particles, seed=1)
        truth = copy.deepcopy(pair).double().log_evidence(x.double()).detach()
        lower, upper = evidence.interval()
        assert ((lower <= truth) & (truth <= upper)).all()
        assert ((upper - lower) < 1e-3).all()
        assert ((evidence.log_evidence - truth).abs() > 1.96 * evidence.standard_error).any()
