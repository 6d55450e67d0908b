"""`importance_evidence`: readings of the log weights, exact guides, pieces, memory, and the edges of its domain."""

import dataclasses
import math
import subprocess
import sys
import textwrap
from typing import Any

import pairs
import pytest
import torch
import truths_inference as truths
from gate import slow_but
from replicates import replicates

from ppvae.errors import DataError, OptionError
from ppvae.inference import importance_evidence, log_weights


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
    # The two errors that count the tail of the weights, without what they add for it.
    delta = evidence.delta_standard_error
    of_tail = evidence.standard_error**2 - delta**2
    found = {name: getattr(evidence, name) for name in expected}
    found |= {"standard_error": delta, "gap_standard_error": (evidence.gap_standard_error**2 - of_tail).sqrt()}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-11)
    assert evidence.num_particles == K


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


@pytest.mark.parametrize("name", slow_but(["plated", "parts"], ["linear_shifted", "plated", "conditional", "parts"]))
def test_pieces_give_the_estimate_of_the_whole(name):
    """Budgets of 10 kB and 512 MB, the former a few draws at a time; |z| < 4.5 for each datum."""
    pair = pairs.build(name)
    whole = importance_evidence(pair.model, pair.guide, pair.data, 600, seed=1, memory_mb=512)
    pieces = importance_evidence(pair.model, pair.guide, pair.data, 600, seed=2, memory_mb=0.01)
    for evidence in (whole, pieces):
        assert ((evidence.log_evidence - pair.truth) / evidence.standard_error).abs().max() < truths.Z_LIMIT
    torch.testing.assert_close(pieces.delta_standard_error, whole.delta_standard_error, rtol=0.25, atol=0)
    torch.testing.assert_close(pieces.ess, whole.ess, rtol=0.25, atol=0)
    assert torch.equal(pieces.bound_k, whole.bound_k)
    assert ((pieces.bound - whole.bound).abs() < 7 * whole.bound_standard_error).all()


def test_errors_hold_when_pieces_are_small():
    """400 replicates with about ten draws a piece: errors against the spread, 3.5 % sd of the ratio."""
    evidence, truth = replicates(pairs.linear(shift=0.6), 400, 200, seed=3, memory_mb=1)
    assert (evidence.delta_standard_error**2).mean().sqrt() / evidence.log_evidence.std() == pytest.approx(1, abs=0.16)
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
