"""`attribute_gap`: planted gaps come back, the parts add up, and what is not resolved says so."""

import dataclasses
import math
from typing import Any

import pairs
import pyro
import pyro.distributions as dist
import pytest
import torch
import truths_inference as truths
from torch import Tensor

from ppvae.errors import OptionError, PairError
from ppvae.inference import Optimiser, importance_evidence
from ppvae.inference.gap.attribution import attribute_gap
from ppvae.inference.gap.gap_parts import PARTS, GapAttribution
from ppvae.models import LinearGaussian

# What a planted gap must come back within, in nats.
NEAR = 0.05


def gap_of(pair: pairs.Pair, **options: Any) -> GapAttribution:
    return attribute_gap(pair.model, pair.guide, pair.data, seed=0, **options)


def near(values: Tensor, truth: Tensor | float) -> bool:
    """Whether the mean over the data is within 0.05 nats of the truth."""
    return abs(float(values.mean()) - float(torch.as_tensor(truth).mean())) < NEAR


def adds_up(gap: GapAttribution) -> bool:
    whole = gap.amortisation + gap.family
    inside = gap.covariance + gap.flow + gap.rest
    assert torch.allclose(gap.refinement.elbo, gap.log_evidence - gap.rest, atol=1e-12)
    return torch.allclose(whole, gap.total, atol=1e-12) and torch.allclose(inside, gap.family, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gamma_poisson", "linear_narrow", "linear_shifted", "beta_binomial", "hierarchy"])
def test_where_the_posterior_is_in_the_family_all_is_amortisation(name):
    pair = pairs.build(name).rows(slice(0, 3))
    gap = gap_of(pair)
    assert near(gap.amortisation, pair.true_gap)
    for part in (gap.family, gap.covariance, gap.flow, gap.rest):
        assert near(part, 0.0)
    assert gap.resolved.all()
    assert gap.remarks() == []
    assert adds_up(gap)
    # An independent estimate of the whole.
    evidence = importance_evidence(pair.model, pair.guide, pair.data, 5000, seed=7)
    error = torch.hypot(gap.standard_error["total"], evidence.gap_standard_error)
    assert ((gap.total - evidence.gap).abs() < truths.Z_LIMIT * error + 1e-9).all()


def rotated(shift: float, scale: float) -> tuple[pairs.Pair, float]:
    """A correlated posterior N(m, P⁻¹) under a diagonal guide; and the family's gap, ½ (Σ log P_ii − log det P).

    The best diagonal member is N(m, diag P⁻¹); the guide is `shift` of its standard deviations off in each coordinate
    and `scale` times as wide, which costs Σ ½ (scale² − 1 − log scale² + shift²) more.
    """
    W = torch.tensor([[1.0, 0.9, 0.0], [0.2, 0.9, 0.4], [-0.3, 0.1, 0.8]])
    numbers = (W, torch.zeros(3), 0.25 * torch.eye(3), torch.zeros(3), torch.eye(3))
    precision = torch.eye(3) + W.T @ W / 0.25
    std = precision.diagonal().rsqrt()

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ W.T, 0.5).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        loc, _ = truths.gaussian_posterior(x, *numbers)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc + shift * std, scale * std).to_event(1))

    def log_evidence(x: Tensor) -> Tensor:
        return truths.gaussian_evidence(x, *numbers)

    def gap(x: Tensor) -> Tensor:
        loc, cov = truths.gaussian_posterior(x, *numbers)
        return truths.gaussian_kl(loc + shift * std, torch.diag((scale * std) ** 2), loc, cov)

    x = torch.randn(3, 3, generator=torch.Generator().manual_seed(2))
    family = (precision.diagonal().log().sum() - torch.logdet(precision)) / 2
    return pairs.Pair(model, guide, x, log_evidence=log_evidence, gap=gap), float(family)


def test_a_rotated_posterior_under_a_mean_field_guide():
    """The closed forms of both parts; full covariance wins all of the family's."""
    pair, family = rotated(shift=0.8, scale=0.7)
    gap = gap_of(pair)
    assert family > 0.3
    assert near(gap.family, family)
    assert near(gap.amortisation, pair.true_gap - family)
    assert near(gap.covariance, family)
    assert near(gap.flow, 0.0)
    assert near(gap.rest, 0.0)
    assert adds_up(gap)
    assert gap.resolved.all()
    for part in PARTS:
        truth = {"total": pair.true_gap, "family": family, "covariance": family, "flow": 0.0, "rest": 0.0}
        expected = torch.as_tensor(truth.get(part, pair.true_gap - family))
        # 0.02 nats for what the tolerance leaves below the optimum.
        assert ((getattr(gap, part) - expected).abs() < truths.Z_LIMIT * gap.standard_error[part] + 0.02).all()


@pytest.mark.slow
def test_an_encoder_frozen_at_random():
    """A diagonal guide with random weights, on a pair whose ELBOs are all closed forms."""
    torch.manual_seed(3)
    pair = LinearGaussian(4, 2, full_covariance=False)
    x = torch.randn(4, 4)
    with torch.no_grad():
        pair.log_noise_scale.fill_(-0.5)
        pair.guide_weight.normal_().mul_(0.7)
        pair.guide_bias.normal_()
        pair.guide_log_scale.fill_(-1.0)
    frozen = pair.exact_elbo(x).detach()
    gap = attribute_gap(
        pair.model, pair.guide, x, seed=0, num_draws=40_000
    )  # so bad a guide's weights vary by ten nats
    evidence, best = pair.log_evidence(x).detach(), pair.set_best_guide().exact_elbo(x).detach()
    assert (best - frozen).mean() > 1
    assert near(gap.amortisation, best - frozen)
    assert near(gap.family, evidence - best)
    assert near(gap.covariance, evidence - best)
    assert gap.resolved.all()


@pytest.mark.slow
def test_an_enumerated_mixture():
    """The parts add up to log p(x) − ELBO, with c summed out."""
    pair = pairs.build("mixture_in_model").rows(slice(0, 2))
    gap = gap_of(pair)
    assert adds_up(gap)
    evidence = importance_evidence(pair.model, pair.guide, pair.data, 20_000, seed=7)
    error = torch.hypot(gap.standard_error["total"], evidence.gap_standard_error)
    assert ((gap.total - evidence.gap).abs() < truths.Z_LIMIT * error).all()
    assert ((gap.log_evidence - pair.truth).abs() < truths.Z_LIMIT * gap.log_evidence_standard_error + 1e-9).all()
    assert (gap.amortisation > 0).all()


@pytest.fixture(scope="module")
def quick() -> GapAttribution:
    """A budget of two steps."""
    with torch.random.fork_rng():
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        pair = pairs.build("linear_shifted")
        found = gap_of(pair, optimiser=Optimiser(steps=2), num_draws=200)
        torch.set_default_dtype(default)
    return found


def test_a_budget_of_two_steps_is_not_resolved(quick):
    assert not quick.resolved.any()
    for part in ("amortisation", "family", "covariance", "flow", "rest"):
        assert not quick.resolved_part(part).any()
    assert torch.equal(quick.resolved_part("total"), quick.reliable)
    assert any("amortisation is not resolved for 6 of 6 data" in remark for remark in quick.remarks())
    assert quick.summary()["amortisation_resolved"] == 0.0


def with_(gap: GapAttribution, **changes: Tensor) -> GapAttribution:
    """The same with other flags: `guide=…` and so on for a member's convergence, `reliable=…`, `log_evidence=…`."""
    best: Any = None
    for name, member in gap.refinement.members.items():
        best = dataclasses.replace(member, converged=changes.pop(name, torch.ones(6, dtype=torch.bool)), poorer=best)
    return dataclasses.replace(gap, refinement=best, **{"reliable": torch.ones(6, dtype=torch.bool), **changes})


@pytest.mark.parametrize(
    ("missing", "unresolved"),
    [
        ("guide", {"amortisation", "family", "covariance"}),
        ("full", {"covariance", "flow"}),
        ("flow", {"flow", "rest"}),
        ("reliable", {"total", "family", "rest"}),
    ],
)
def test_a_part_is_resolved_where_all_it_stands_on_is(quick, missing, unresolved):
    """The third datum lacks one thing."""
    flags = torch.ones(6, dtype=torch.bool)
    flags[2] = False
    gap = with_(quick, **{missing: flags})
    for part in PARTS:
        expected = flags if part in unresolved else torch.ones(6, dtype=torch.bool)
        assert torch.equal(gap.resolved_part(part), expected), part
    assert torch.equal(gap.resolved, gap.resolved_part("family"))
    assert gap.summary()["family_resolved"] == (5 / 6 if "family" in unresolved else 1.0)
    assert gap.remarks()
    assert with_(quick).remarks() == []


def test_evidence_that_is_too_low_is_remarked_on(quick):
    gap = with_(quick, log_evidence=quick.log_evidence - 5)
    assert "lies above log p(x) by more than three standard errors for 6 of 6 data" in gap.remarks()[0]


def test_errors_are_those_of_the_terms_that_differ(quick):
    members = quick.refinement.members
    at = quick.log_evidence_standard_error
    assert torch.equal(quick.standard_error["total"], torch.hypot(at, members["amortised"].elbo_standard_error))
    assert torch.equal(quick.standard_error["family"], torch.hypot(at, members["guide"].elbo_standard_error))
    assert torch.equal(quick.standard_error["rest"], torch.hypot(at, members["flow"].elbo_standard_error))
    assert torch.equal(quick.standard_error["amortisation"], members["guide"].gain_standard_error)
    # Common random numbers: the difference of neighbours is known better than either.
    assert (quick.standard_error["amortisation"] < members["guide"].elbo_standard_error / 2).all()


def test_the_summary_and_the_dataset(quick):
    summary, dataset = quick.summary(), quick.to_dataset()
    assert summary["num_data"] == 6
    for part in PARTS:
        values = getattr(quick, part)
        assert summary[part] == pytest.approx(float(values.mean()))
        monte_carlo = float(quick.standard_error[part].norm() / 6)
        assert summary[f"{part}_monte_carlo_error"] == pytest.approx(monte_carlo)
        assert summary[f"{part}_standard_error"] == pytest.approx(max(float(values.std() / math.sqrt(6)), monte_carlo))
        assert dataset[part].attrs["units"] == "nats"
        torch.testing.assert_close(torch.as_tensor(dataset[part].to_numpy()), values)
        assert dataset[f"{part}_resolved"].dtype == bool
    assert summary["total"] == pytest.approx(summary["amortisation"] + summary["family"])
    assert dataset.sizes == {"datum": 6}


def test_evidence_that_is_given_is_taken():
    pair = pairs.build("linear_shifted")
    evidence = importance_evidence(pair.model, pair.guide, pair.data, 500, seed=1)
    gap = gap_of(pair, evidence=evidence, optimiser=Optimiser(steps=1), num_draws=10)
    assert torch.equal(gap.log_evidence, evidence.log_evidence)
    assert torch.equal(gap.log_evidence_standard_error, evidence.standard_error)
    assert torch.equal(gap.reliable, evidence.reliable)


def test_weights_that_hardly_vary_need_no_tail():
    """k̂ of rounding errors says nothing; that of weights that vary says that log p(x) is not to be trusted."""
    pair = pairs.build("linear_exact")
    evidence = importance_evidence(pair.model, pair.guide, pair.data, 50, seed=1)
    heavy = torch.full((6,), 0.9)
    for error, reliable in ((1e-6, True), (0.1, False)):
        given = dataclasses.replace(evidence, pareto_k=heavy, standard_error=torch.full((6,), error))
        gap = gap_of(pair, evidence=given, optimiser=Optimiser(steps=1), num_draws=10)
        assert (gap.reliable == reliable).all()
    assert any("log p(x) is not to be trusted for 6 of 6 data" in remark for remark in gap.remarks())


def test_bad_input():
    pair = pairs.build("linear_shifted")
    evidence = importance_evidence(pair.model, pair.guide, pair.rows([0, 1]).data, 50, seed=1)
    with pytest.raises(OptionError, match="evidence is of 2 data and x holds 6"):
        gap_of(pair, evidence=evidence)
    with pytest.raises(PairError, match="draws no continuous latent"):
        gap_of(pairs.build("mixture"))
    with pytest.raises(PairError, match="z: the guide puts it at a single point"):
        gap_of(pairs.build("autoencoder"))


def test_an_unknown_part(quick):
    with pytest.raises(OptionError, match="part must be one of 'total'"):
        quick.resolved_part("approximation")


def test_a_guide_with_parameters_for_each_datum_has_nothing_amortised():
    pair = pairs.line()

    def guide(x):
        loc = pyro.param("loc", torch.zeros(len(x)))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0))

    gap = attribute_gap(pair.model, guide, pair.x, optimiser=Optimiser(steps=20), seed=0)
    assert any("the guide has parameters for each datum" in remark for remark in gap.remarks())
    amortised = gap_of(pair, optimiser=Optimiser(steps=20))
    assert not any("nothing is amortised" in remark for remark in amortised.remarks())
