"""`attribute_gap` where a latent depends on a site that the guide enumerates: the family's part is not split."""

import dataclasses
from typing import Any

import pairs
import pytest
import torch
import truths_inference as truths

from ppvae.inference import Optimiser, importance_evidence
from ppvae.inference.gap.attribution import attribute_gap
from ppvae.inference.gap.gap_parts import GapAttribution
from ppvae.inference.mending.mending_data import MendingData
from ppvae.inference.mending.mending_plan import planned

KNOWN, UNKNOWN = ("total", "amortisation", "family"), ("covariance", "flow", "rest")


def gap_of(pair: pairs.Pair, **options: Any) -> GapAttribution:
    return attribute_gap(pair.model, pair.guide, pair.data, seed=0, **options)


@pytest.fixture(scope="module")
def quick() -> GapAttribution:
    """Two of the data, with a budget of one step; too few draws for a k-hat."""
    with torch.random.fork_rng():
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        found = gap_of(pairs.build("semi_supervised").rows([0, 1]), optimiser=Optimiser(steps=1), num_draws=20)
        torch.set_default_dtype(default)
    return found


def test_the_parts_against_truth():
    """log p(x) is a closed form, and of the labelled data all parts are: their q(z|x) is one diagonal normal."""
    pair = pairs.build("semi_supervised")
    net: Any = pair.modules[0]
    gap = gap_of(pair)
    error = gap.standard_error
    torch.testing.assert_close(gap.total, gap.amortisation + gap.family, atol=1e-12, rtol=0)
    assert gap.resolved.all()
    assert ((gap.log_evidence - pair.truth).abs() < truths.Z_LIMIT * gap.log_evidence_standard_error).all()
    by_draws = importance_evidence(pair.model, pair.guide, pair.data, 20_000, seed=7)
    off, its_error = gap.total - (pair.truth - by_draws.elbo), torch.hypot(error["total"], by_draws.elbo_standard_error)
    assert (off.abs() < truths.Z_LIMIT * its_error).all()
    for part in KNOWN:
        assert (getattr(gap, part) > -3 * error[part]).all()
    labels = pair.context[0]
    seen = labels >= 0
    x, y = pair.x[seen], labels[seen]
    W, b = (value.detach() for value in net.decoder.parameters())
    weight, noise = W[:, :2], pairs.zoo.NOISE**2 * torch.eye(3)
    loc, cov = truths.gaussian_posterior(x - W.T[2 + y], weight, b, noise, torch.zeros(2), torch.eye(2))
    loc_q, scale_q = (value.detach() for value in net.encode(x, y))
    total = truths.gaussian_kl(loc_q, torch.diag_embed(scale_q**2), loc, cov)
    precision = torch.linalg.inv(cov)
    family = (precision.diagonal(dim1=-2, dim2=-1).log().sum(-1) - torch.logdet(precision)) / 2
    assert family > 0.05
    for part, truth in (("total", total), ("family", family), ("amortisation", total - family)):
        # 0.02 nats for what the tolerance leaves below the optimum.
        assert ((getattr(gap, part)[seen] - truth).abs() < truths.Z_LIMIT * error[part][seen] + 0.02).all(), part


def test_a_guide_that_is_exact_for_each_value_has_no_gap():
    gap = gap_of(pairs.build("mixture_conditional"), num_draws=100)
    for part in KNOWN:
        assert getattr(gap, part).abs().max() < 1e-9


def test_the_split_of_the_family_is_not_known(quick):
    assert quick.parts == KNOWN
    assert set(quick.standard_error) == set(KNOWN)
    for part in UNKNOWN:
        assert getattr(quick, part).isnan().all()
        assert not quick.resolved_part(part).any()
    for found in (quick.summary(), quick.to_dataset().data_vars):
        assert set(KNOWN) < set(found)
        assert not any(name.startswith(UNKNOWN) for name in found)
    assert "family " in repr(quick)
    assert "covariance " not in repr(quick)
    assert sum("the family's part is not split further" in remark for remark in quick.remarks()) == 1


def test_evidence_of_the_best_member_is_held_to_its_k_hat(quick):
    assert torch.equal(quick.log_evidence, quick.refinement.evidence.log_evidence)
    assert torch.equal(quick.reliable, quick.refinement.evidence.trusted)
    assert not quick.reliable.any()
    said = "log p(x) is not to be trusted for 2 of 2 data, and with it total and family; they are probably larger"
    assert any(said in remark for remark in quick.remarks())


def test_evidence_that_is_given_is_taken():
    pair = pairs.build("semi_supervised").rows([0, 1])
    evidence = importance_evidence(pair.model, pair.guide, pair.data, 500, seed=1)
    gap = gap_of(pair, evidence=evidence, optimiser=Optimiser(steps=1), num_draws=10)
    assert torch.equal(gap.total, evidence.log_evidence - gap.elbo)
    low = dataclasses.replace(gap, log_evidence=gap.log_evidence - 50)
    assert any("lies above log p(x) by more than three standard errors for 2 of 2 data" in r for r in low.remarks())
    assert not any("lies above log p(x)" in remark for remark in gap.remarks())


def test_mending_is_planned_from_what_is_known():
    pair = pairs.build("semi_supervised").rows([0, 1] * 5)
    data = MendingData.of(pair.model, pair.guide, pair.data, None)
    steps = planned(pair.model, pair.guide, data, steps=4, memory_mb=64.0)
    assert {step.cause for step in steps} == {"amortisation", "family", ""}
