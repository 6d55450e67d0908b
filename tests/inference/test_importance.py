"""`importance_evidence` against closed forms, quadrature, and its own promises about errors.

Replicates are copies of one datum: each has its own particles. Where a test is statistical its docstring states how
often chance alone would fail it; the seeds are fixed.
"""

import dataclasses
import math
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pairs
import pytest
import torch
import truths_inference as truths
from arviz_stats.base import array_stats

from ppvae.errors import DataError, OptionError
from ppvae.inference import importance_evidence, log_weights


def replicates(pair, times, num_particles, seed, **options):
    """Independent estimates of one log p(x), and that log p(x)."""
    many = pair.replicated(times)
    evidence = importance_evidence(many.model, many.guide, many.data, num_particles, seed=seed, **options)
    return evidence, pair.rows([0]).truth.item()


# One tensor, many readings ---------------------------------------------------------------------------------------


def test_every_number_is_a_reading_of_the_log_weights():
    pair, K = pairs.build("linear_narrow"), 64
    log_w = log_weights(pair.model, pair.guide, pair.x, K, seed=5)
    evidence = importance_evidence(pair.model, pair.guide, pair.x, K, seed=5)
    w = log_w.exp()
    relative = w / w.mean(0)
    expected = {
        "log_evidence": w.mean(0).log(),
        "standard_error": relative.std(0) / math.sqrt(K),
        "elbo": log_w.mean(0),
        "elbo_standard_error": log_w.std(0) / math.sqrt(K),
        "ess": w.sum(0) ** 2 / (w**2).sum(0),
        # The influence of a draw on log p̂ − ELBO is w/p̂ − 1 − (log w − ELBO).
        "gap_standard_error": (relative - log_w).std(0) / math.sqrt(K),
    }
    for name, value in expected.items():
        torch.testing.assert_close(getattr(evidence, name), value, rtol=1e-9, atol=1e-11)
    assert evidence.num_particles == K


def test_the_record_is_frozen_and_of_double_precision():
    pair = pairs.build("linear_wide")
    evidence = importance_evidence(pair.model, pair.guide, pair.x, 100, seed=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        evidence.elbo = evidence.log_evidence  # type: ignore[misc]
    for field in dataclasses.fields(evidence):
        value = getattr(evidence, field.name)
        if isinstance(value, torch.Tensor) and field.name != "bound_k":
            assert value.dtype == torch.float64
            assert value.shape[-1] == len(pair.x)
    assert torch.equal(evidence.gap, evidence.log_evidence - evidence.elbo)


def test_a_seed_fixes_the_estimate_and_leaves_the_global_generator_alone():
    pair = pairs.build("linear_shifted")
    state = torch.get_rng_state()
    first = importance_evidence(pair.model, pair.guide, pair.x, 200, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    second = importance_evidence(pair.model, pair.guide, pair.x, 200, seed=3)
    other = importance_evidence(pair.model, pair.guide, pair.x, 200, seed=4)
    for name in ("log_evidence", "standard_error", "jackknife", "pareto_k", "bound", "batch_standard_error"):
        assert torch.equal(getattr(first, name), getattr(second, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))


# The exact guide -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", pairs.EXACT)
def test_with_the_exact_guide_nothing_is_left_to_chance(name):
    pair = pairs.build(name)
    evidence = importance_evidence(pair.model, pair.guide, pair.data, 500, seed=0)
    for estimate in (evidence.log_evidence, evidence.jackknife, evidence.elbo, *evidence.bound):
        torch.testing.assert_close(estimate, pair.truth, rtol=0, atol=1e-9)
    for error in (evidence.standard_error, evidence.batch_standard_error, evidence.elbo_standard_error):
        assert error.max() < 1e-7
    torch.testing.assert_close(evidence.ess, torch.full_like(evidence.ess, 500.0))
    assert evidence.reliable.all()
    lower, upper = evidence.interval()
    assert ((lower - 1e-9 <= pair.truth) & (pair.truth <= upper + 1e-9)).all()
    assert (upper - lower).max() < 1e-6


# Closed forms of the errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "tolerance"), [(1.25, 0.02), (1.6, 0.02), (0.9, 0.05)])
def test_standard_error_is_the_one_of_the_closed_form(scale, tolerance):
    """Var(w)/p² = (s/√(2 − 1/s²))² − 1 for d = 2. The mean of 300 standard errors at K = 2000 is within `tolerance`."""
    evidence, _ = replicates(pairs.linear(scale=scale), 300, 2000, seed=1)
    truth = math.sqrt(truths.relative_weight_variance(scale, 2) / 2000)
    assert evidence.standard_error.mean().item() == pytest.approx(truth, rel=tolerance)
    assert evidence.batch_standard_error.mean().item() == pytest.approx(truth, rel=2 * tolerance)


def test_elbo_error_is_the_one_of_the_closed_form():
    """log w = const − (s² − 1) χ²_2 / 2, so that sd(log w) = s² − 1."""
    evidence, _ = replicates(pairs.linear(scale=1.25), 300, 2000, seed=2)
    assert evidence.elbo_standard_error.mean().item() == pytest.approx((1.25**2 - 1) / math.sqrt(2000), rel=0.01)


@pytest.mark.parametrize("name", ["linear_wide", "linear_shifted", "linear_turned", "gamma_poisson", "banana", "parts"])
def test_errors_match_the_spread_of_replicates(name):
    """The sd of 1000 estimates has a relative error of 1/√2000 = 2.2 %, more with tails: 12 % is above five of them."""
    evidence, truth = replicates(pairs.build(name), 1000, 1000, seed=3)
    for estimate, error in (
        (evidence.log_evidence, evidence.standard_error),
        (evidence.log_evidence, evidence.batch_standard_error),
        (evidence.jackknife, evidence.standard_error),
        (evidence.elbo, evidence.elbo_standard_error),
        (evidence.gap, evidence.gap_standard_error),
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


@pytest.mark.parametrize("name", COVERED)
def test_the_interval_covers(name):
    """2000 replicates: a true coverage of 94 % would fail once in 1000 times, one of 91 % passes once in 100."""
    evidence, truth = replicates(pairs.build(name), 2000, 400, seed=4)
    lower, upper = evidence.interval(0.95)
    covered = int(((lower <= truth) & (truth <= upper)).sum())
    assert truths.binomial_alarm(covered, 2000, 0.94) > 1e-3
    # Nor does it cover by saying nothing: nearly all ends are finite, and no wider than twice the plain interval.
    finite = torch.isfinite(upper)
    assert finite.double().mean() > 0.95
    plain = 2 * 1.96 * evidence.standard_error
    assert ((upper - lower) / plain)[finite].median() < 2


@pytest.mark.parametrize("scale", [0.7, 0.62])
def test_the_interval_covers_where_the_weights_have_no_variance(scale):
    """k = 1 − s² above ½: the standard error has no limit, and the plain interval covers 75 to 90 %.

    2000 replicates at K = 400, those without an upper end among them; false alarm 1e-3 if the coverage is 94 %.
    """
    evidence, truth = replicates(pairs.linear(scale=scale), 2000, 400, seed=4)
    lower, upper = evidence.interval()
    covered = int(((lower <= truth) & (truth <= upper)).sum())
    assert truths.binomial_alarm(covered, 2000, 0.94) > 1e-3
    plain = (evidence.log_evidence - truth).abs() < 1.96 * evidence.standard_error
    assert plain.double().mean() < 0.92
    assert torch.isfinite(upper).double().mean() > 0.6


@pytest.mark.parametrize("confidence", [0.5, 0.99])
def test_the_interval_covers_at_other_levels(confidence):
    evidence, truth = replicates(pairs.linear(scale=1.25), 2000, 400, seed=5)
    lower, upper = evidence.interval(confidence)
    covered = int(((lower <= truth) & (truth <= upper)).sum())
    assert truths.binomial_alarm(covered, 2000, confidence - 0.01) > 1e-3
    assert truths.binomial_alarm(2000 - covered, 2000, 1 - confidence - 0.03) > 1e-3 or confidence > 0.9


def test_the_interval_widens_with_the_confidence():
    pair = pairs.build("linear_shifted")
    evidence = importance_evidence(pair.model, pair.guide, pair.x, 1000, seed=0)
    inner, outer, default = evidence.interval(0.5), evidence.interval(0.99), evidence.interval()
    assert ((outer[0] < inner[0]) & (inner[0] < evidence.log_evidence)).all()
    assert ((evidence.log_evidence < inner[1]) & (inner[1] < outer[1])).all()
    assert torch.equal(default[0], evidence.interval(0.95)[0])
    for confidence in (0.0, 1.0, -0.1, 95):
        with pytest.raises(OptionError, match="confidence"):
            evidence.interval(confidence)


# The tail --------------------------------------------------------------------------------------------------------


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


# Bias ------------------------------------------------------------------------------------------------------------


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


# The K-sample bounds ---------------------------------------------------------------------------------------------


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


# Summary ---------------------------------------------------------------------------------------------------------


def test_summary_of_identical_data_has_monte_carlo_error_alone():
    """1000 copies of a datum: total = Monte Carlo within 10 % (its sd is 2.2 %), and little is left for the data."""
    evidence, truth = replicates(pairs.linear(shift=0.6), 1000, 500, seed=15)
    summary = evidence.summary()
    for name in ("log_evidence", "elbo", "gap"):
        total, chance = summary[f"{name}_standard_error"], summary[f"{name}_monte_carlo_error"]
        assert total == pytest.approx(chance, rel=0.1)
        assert summary[f"{name}_data_error"] < 0.5 * chance
    assert abs(summary["log_evidence"] - truth) < truths.Z_LIMIT * summary["log_evidence_monte_carlo_error"] + 1e-3
    assert summary["gap"] == pytest.approx(summary["log_evidence"] - summary["elbo"], abs=1e-12)


def test_summary_with_the_exact_guide_has_data_error_alone():
    pair = pairs.linear(num_data=40)
    evidence = importance_evidence(pair.model, pair.guide, pair.x, 200, seed=0)
    summary, truth = evidence.summary(), pair.truth
    assert summary["log_evidence"] == pytest.approx(truth.mean().item(), abs=1e-9)
    assert summary["log_evidence_monte_carlo_error"] == pytest.approx(0, abs=1e-7)
    for error in ("standard_error", "data_error"):
        assert summary[f"log_evidence_{error}"] == pytest.approx(truth.std().item() / math.sqrt(40), rel=1e-6)
    assert summary["gap"] == pytest.approx(0, abs=1e-9)
    assert summary["pareto_k_share_above_0_7"] == 0


def test_summary_splits_the_error():
    pair = pairs.linear(shift=0.6, num_data=40)
    evidence = importance_evidence(pair.model, pair.guide, pair.x, 300, seed=0)
    summary = evidence.summary()
    for name, value, error in (
        ("log_evidence", evidence.log_evidence, evidence.standard_error),
        ("elbo", evidence.elbo, evidence.elbo_standard_error),
        ("gap", evidence.gap, evidence.gap_standard_error),
    ):
        total, chance, data = (
            summary[f"{name}_{kind}"] for kind in ("standard_error", "monte_carlo_error", "data_error")
        )
        assert summary[name] == pytest.approx(value.mean().item(), rel=1e-12)
        assert chance == pytest.approx(error.norm().item() / 40, rel=1e-9)
        assert total == pytest.approx(max(value.std().item() / math.sqrt(40), chance), rel=1e-9)
        assert data == pytest.approx(math.sqrt(max(total**2 - chance**2, 0)), rel=1e-6, abs=1e-12)
    assert summary["pareto_k_mean"] == pytest.approx(evidence.pareto_k.mean().item())
    assert summary["num_data"] == 40
    assert summary["num_particles"] == 300


def test_summary_of_one_datum_has_no_spread_to_speak_of():
    pair = pairs.linear(shift=0.6, num_data=1)
    evidence = importance_evidence(pair.model, pair.guide, pair.x, 300, seed=0)
    summary = evidence.summary()
    assert summary["log_evidence_standard_error"] == pytest.approx(evidence.standard_error.item())
    assert summary["log_evidence_monte_carlo_error"] == pytest.approx(evidence.standard_error.item())
    assert not any(math.isnan(value) for key, value in summary.items() if not key.endswith("data_error"))


def test_the_dataset_holds_the_same_numbers():
    pair = pairs.build("linear_wide")
    evidence = importance_evidence(pair.model, pair.guide, pair.x, 200, seed=0)
    dataset = evidence.to_dataset()
    for name in ("log_evidence", "standard_error", "jackknife", "elbo", "elbo_standard_error", "ess", "pareto_k"):
        np.testing.assert_array_equal(dataset[name].values, getattr(evidence, name).numpy())
        assert dataset[name].dims == ("datum",)
    np.testing.assert_array_equal(dataset["bound"].values, evidence.bound.numpy())
    assert dataset["bound"].dims == ("bound_k", "datum")
    assert dataset["bound_k"].values.tolist() == evidence.bound_k.tolist()
    assert dataset.sizes["datum"] == len(pair.x)


# Memory and pieces -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linear_shifted", "plated", "conditional", "parts"])
def test_pieces_give_the_estimate_of_the_whole(name):
    """Budgets of 10 kB and 512 MB, the former a few draws at a time; |z| < 4.5 for each datum."""
    pair = pairs.build(name)
    whole = importance_evidence(pair.model, pair.guide, pair.data, 600, seed=1, memory_mb=512)
    pieces = importance_evidence(pair.model, pair.guide, pair.data, 600, seed=2, memory_mb=0.01)
    for evidence in (whole, pieces):
        assert ((evidence.log_evidence - pair.truth) / evidence.standard_error).abs().max() < truths.Z_LIMIT
    torch.testing.assert_close(pieces.standard_error, whole.standard_error, rtol=0.25, atol=0)
    torch.testing.assert_close(pieces.ess, whole.ess, rtol=0.25, atol=0)
    assert torch.equal(pieces.bound_k, whole.bound_k)
    assert ((pieces.bound - whole.bound).abs() < 7 * whole.bound_standard_error).all()


def test_errors_hold_when_pieces_are_small():
    """400 replicates with about ten draws a piece: errors against the spread, 3.5 % sd of the ratio."""
    evidence, truth = replicates(pairs.linear(shift=0.6), 400, 200, seed=3, memory_mb=1)
    assert (evidence.standard_error**2).mean().sqrt() / evidence.log_evidence.std() == pytest.approx(1, abs=0.16)
    assert (evidence.batch_standard_error**2).mean().sqrt() / evidence.log_evidence.std() == pytest.approx(1, abs=0.16)
    assert abs(truths.z_score(evidence.jackknife, truth)) < truths.Z_LIMIT


MEMORY = """
import resource, sys, warnings
import torch
from ppvae.inference import importance_evidence
from ppvae.models import VAE
torch.set_num_threads(1)
torch.manual_seed(0)
x = torch.bernoulli(torch.full((64, 32), 0.5))
pair = VAE(num_features=32, latent_dim=4, hidden=(8,))
evidence = importance_evidence(pair.model, pair.guide, x, int(sys.argv[1]), seed=0, memory_mb=16)
assert torch.isfinite(evidence.log_evidence).all()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_particles(repository):
    """Peak memory at K = 100 000 within 10 % of that at K = 1000; the weights alone would be 51 MB."""
    peaks = []
    for num_particles in (1000, 100_000):
        command = [sys.executable, "-c", textwrap.dedent(MEMORY), str(num_particles)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=repository, timeout=200)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    assert peaks[1] < 1.1 * peaks[0]


# Edges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_particles", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("name", ["linear_shifted", "mixture", "conditional"])
def test_few_particles(name, num_particles):
    pair = pairs.build(name).rows(slice(0, 1))
    evidence = importance_evidence(pair.model, pair.guide, pair.data, num_particles, seed=0)
    assert torch.isfinite(evidence.log_evidence).all()
    assert torch.isfinite(evidence.elbo).all()
    assert (evidence.log_evidence >= evidence.elbo - 1e-12).all()
    lower, upper = evidence.interval()
    assert not (lower > evidence.log_evidence + 1e-12).any()
    assert not (upper < evidence.log_evidence - 1e-12).any()
    assert evidence.summary()["num_particles"] == num_particles
    evidence.to_dataset()
    if num_particles == 1:
        assert torch.equal(evidence.log_evidence, evidence.elbo)


def test_one_particle_claims_no_precision():
    """One draw says nothing about its own error: neither 0 nor a finite interval may be given for it."""
    pair = pairs.build("linear_shifted")
    evidence = importance_evidence(pair.model, pair.guide, pair.x, 1, seed=0)
    for error in (evidence.standard_error, evidence.elbo_standard_error, evidence.batch_standard_error):
        assert not (torch.isfinite(error)).any()
    assert not evidence.reliable.any()
    assert not torch.isfinite(evidence.interval()[1]).any()


@pytest.mark.parametrize("name", ["linear_wide", "hierarchy", "mixture", "banana"])
def test_single_precision_pairs(name):
    truth = pairs.build(name).truth
    torch.set_default_dtype(torch.float32)
    pair = pairs.build(name)
    evidence = importance_evidence(pair.model, pair.guide, pair.data, 5000, seed=0)
    assert evidence.log_evidence.dtype == torch.float64
    error = (evidence.log_evidence - truth).abs()
    assert (error < truths.Z_LIMIT * evidence.standard_error + 1e-4).all()


def test_draws_outside_the_support_lower_the_elbo_and_not_the_evidence():
    pair = pairs.uniform(low=[-0.5, 0.0], high=[1.5, 1.0])
    evidence = importance_evidence(pair.model, pair.guide, pair.data, 20_000, seed=0)
    z = (evidence.log_evidence - pair.truth) / evidence.standard_error
    assert z.abs().max() < truths.Z_LIMIT
    assert torch.isneginf(evidence.elbo[0])
    assert torch.isfinite(evidence.elbo[1])
    assert torch.isposinf(evidence.gap[0])
    assert torch.isfinite(evidence.jackknife).all()
    assert evidence.reliable.all()
    assert not torch.isnan(evidence.bound).any()


def test_a_guide_wholly_outside_the_support_says_so_and_harms_no_other_datum():
    pair = pairs.uniform(low=[0.0, 2.0, 0.0], high=[1.0, 3.0, 1.0])
    evidence = importance_evidence(pair.model, pair.guide, pair.data, 5000, seed=0)
    good = [0, 2]
    assert torch.isneginf(evidence.log_evidence[1])
    assert torch.isneginf(evidence.elbo[1])
    assert not evidence.reliable[1]
    assert torch.isposinf(evidence.interval()[1][1])
    assert evidence.remarks()
    z = (evidence.log_evidence - pair.truth)[good] / evidence.standard_error[good]
    assert z.abs().max() < truths.Z_LIMIT
    assert evidence.reliable[good].all()
    for name in ("standard_error", "batch_standard_error", "jackknife", "elbo_standard_error", "ess", "pareto_k"):
        assert torch.isfinite(getattr(evidence, name)[good]).all()
    assert torch.isfinite(evidence.bound[:, good]).all()


def test_nothing_is_said_of_a_good_estimate():
    pair = pairs.build("linear_wide")
    assert importance_evidence(pair.model, pair.guide, pair.x, 5000, seed=0).remarks() == []


def test_very_small_evidence_does_not_underflow():
    """log p(x) near −10⁶: exp of any weight is zero in double precision."""
    pair = pairs.linear(shift=0.3)
    far = dataclasses.replace(pair, x=1000 * pair.x)
    evidence = importance_evidence(far.model, far.guide, far.x, 2000, seed=0)
    assert far.truth.max() < -1e4
    assert ((evidence.log_evidence - far.truth) / evidence.standard_error).abs().max() < truths.Z_LIMIT
    assert evidence.reliable.all()


def test_refusals():
    pair = pairs.build("line")
    counts: list[Any] = [0, -3, 2.5]
    for count in counts:
        with pytest.raises(OptionError, match="num_particles"):
            importance_evidence(pair.model, pair.guide, pair.x, count)
    with pytest.raises(OptionError, match="memory_mb"):
        importance_evidence(pair.model, pair.guide, pair.x, 2, memory_mb=-1.0)
    for value in (math.nan, math.inf):
        with pytest.raises(DataError, match="x"):
            importance_evidence(pair.model, pair.guide, torch.tensor([0.0, value]), 2)
    with pytest.raises(DataError):
        importance_evidence(pair.model, pair.guide, pair.x[:0], 2)
