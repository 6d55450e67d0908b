"""The record `Evidence`: its interval, its summary over data, its remarks, its xarray form."""

import dataclasses
import math
from typing import Any

import numpy as np
import pairs
import pytest
import torch
import truths_inference as truths
from gate import slow_but
from replicates import replicates

from ppvae.errors import OptionError
from ppvae.inference import Evidence, importance_evidence
from ppvae.inference.evidence.estimates import AnnealedEvidence
from ppvae.inference.evidence.streaming import Running


def test_the_record_is_frozen_and_of_double_precision():
    pair = pairs.build("linear_wide")
    evidence: Any = importance_evidence(pair.model, pair.guide, pair.x, 100, seed=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        evidence.elbo = evidence.log_evidence
    for field in dataclasses.fields(evidence):
        value = getattr(evidence, field.name)
        if isinstance(value, torch.Tensor) and field.name != "bound_k":
            whole = {"num_draws": torch.int64, "confirmed": torch.bool}
            assert value.dtype == whole.get(field.name, torch.float64)
            assert value.shape[-1] == len(pair.x)
    assert torch.equal(evidence.gap, evidence.log_evidence - evidence.elbo)


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


def test_nothing_is_said_of_a_good_estimate():
    pair = pairs.build("linear_wide")
    assert importance_evidence(pair.model, pair.guide, pair.x, 5000, seed=0).remarks() == []


def chains(log_w: torch.Tensor) -> Evidence:
    """The record of annealed chains with these log weights, ``(num_chains, num_data)``."""
    running = Running(*log_w.shape)
    running.add(log_w)
    still = torch.ones(log_w.shape[1])
    return AnnealedEvidence.of(running.evidence(), acceptance=0.7 * still, path_length=still)


@pytest.mark.parametrize("num_chains", [8, 16, 64])
@pytest.mark.parametrize("spread", slow_but([0.1, 1.4], [0.1, 0.5, 1.0, 1.4]))
def test_the_interval_of_chains_covers(spread, num_chains):
    """log w ~ N(−σ²/2, σ²), so that log E[w] = 0: 95 % in 1500 replicates, held to 94 % (alarm below 1e-4)."""
    torch.manual_seed(num_chains)
    evidence = chains(spread * torch.randn(num_chains, 1500) - spread**2 / 2)
    lower, upper = evidence.interval()
    hits = int(((lower <= 0) & (upper >= 0)).sum())
    assert truths.binomial_alarm(hits, 1500, 0.94) > 1e-4
    plain = (evidence.log_evidence.abs() <= 1.96 * evidence.standard_error).double().mean()
    assert spread < 1 or plain < 0.935  # what the rule is there for


def test_the_interval_of_chains_is_students_where_they_agree():
    """SE = sd(log w)/√C to first order, and the quantile is Student's with C − 1 degrees of freedom."""
    log_w = 1e-3 * torch.randn(10, 1, generator=torch.Generator().manual_seed(0))
    lower, upper = chains(log_w).interval(0.9)
    half = 1.833 * float(log_w.std()) / math.sqrt(10)
    assert float(upper - lower) == pytest.approx(2 * half, rel=2e-3)


def test_chains_that_spread_too_far_have_no_upper_end_and_say_so():
    torch.manual_seed(0)
    wild, tame = 3 * torch.randn(40, 1), 0.3 * torch.randn(40, 1)
    evidence = chains(torch.cat([wild, tame], 1))
    assert evidence.reliable.tolist() == [False, True]
    assert evidence.interval()[1].isinf().tolist() == [True, False]
    (remark,) = evidence.remarks()
    assert "spread over 1.5 nats or more for 1 of 2 data" in remark
    assert chains(tame).remarks() == []
    (few,) = chains(tame[:5]).remarks()
    assert "5 chains are too few" in few


def test_chains_that_do_not_move_say_so():
    evidence = chains(0.1 * torch.randn(40, 2, generator=torch.Generator().manual_seed(0)))
    evidence = dataclasses.replace(evidence, acceptance=torch.tensor([0.02, 0.7]))
    (remark,) = evidence.remarks()
    assert "hardly moved for 1 of 2 data" in remark


def test_one_chain_claims_no_precision():
    lower, upper = chains(torch.zeros(1, 3)).interval()
    assert lower.isneginf().all()
    assert upper.isposinf().all()


def test_printing_says_what_was_found_in_a_few_lines():
    pair = pairs.linear(scale=0.5)
    evidence = importance_evidence(pair.model, pair.guide, pair.x, 300, seed=0)
    for shown in (repr(evidence), str(evidence)):
        assert "tensor" not in shown
        assert len(shown.splitlines()) <= 10
        assert "log_evidence" in shown
        assert f"trusted: {int(evidence.trusted.sum())} of {len(pair.x)} data" in shown


def test_doubts_are_said_in_words_for_each_datum():
    torch.manual_seed(0)
    evidence = chains(torch.stack([3 * torch.randn(40), 0.3 * torch.randn(40), 0.3 * torch.randn(40)], 1))
    missed = torch.tensor([0.0, 0.5, 0.5])
    evidence = dataclasses.replace(evidence, missed=missed, confirmed=torch.tensor([False, False, True]))
    assert evidence.trusted.tolist() == [False, False, True]
    first, second, third = evidence.doubts()
    assert "spread" in first
    assert second == "the guide misses a part of the posterior"
    assert third == ""


def test_rows_and_concatenate_are_each_others_inverse():
    pair = pairs.build("linear_wide")
    evidence = importance_evidence(pair.model, pair.guide, pair.x, 100, seed=0)
    order = torch.tensor([3, 1, 0, 2, 5, 4])
    again = type(evidence).concatenate([evidence.rows(order[:2]), evidence.rows(order[2:])]).rows(order.argsort())
    assert torch.equal(again.bound, evidence.bound)
    assert torch.equal(again.num_draws, evidence.num_draws)
