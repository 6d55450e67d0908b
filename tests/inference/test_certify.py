"""Certificates against closed forms: coverage, unbiasedness, the kinds, and what is said when the width is missed.

Every datum of a simulated certificate has latents, chains and bounds of its own, so that it is a replicate.
"""

import importlib
import math
from dataclasses import replace

import pairs
import pyro
import pyro.distributions as dist
import pytest
import torch
import truths_inference as truths
from gate import slow_but
from pairs.pair import Pair

from ppvae.errors import DataError, OptionError, PairError
from ppvae.inference import Annealing, Sampling
from ppvae.inference.bounds.bidirectional import BidirectionalWeights, Effort, gather
from ppvae.inference.bounds.certify import certify
from ppvae.inference.bounds.markov import Groups, above, below, margin, sandwich
from ppvae.inference.calibration.simulation import simulate
from ppvae.models import LinearGaussian

pilot = importlib.import_module("ppvae.inference.bounds.chosen_effort")
# No chains: importance sampling.
DRAWS_ALONE = Sampling(max_distributions=1)


def gaussian(dim, scale=1.0, shift=0.0, num_features=None):
    """z ~ N(0, I), x ~ N(Wz, ½² I); the guide is the posterior, `scale` times as wide and `shift` sd off."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(num_features or dim, dim, generator=generator, dtype=torch.float64) / math.sqrt(dim)
    size = len(weight)
    numbers = (weight, torch.zeros(size), 0.25 * torch.eye(size), torch.zeros(dim), torch.eye(dim))
    _, cov = truths.gaussian_posterior(torch.zeros(1, size), *numbers)
    root = torch.linalg.cholesky(cov)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(dim), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight.T, 0.5).to_event(1), obs=x)

    def guide(x):
        loc, _ = truths.gaussian_posterior(x, *numbers)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc + shift * root[:, 0], scale_tril=scale * root))

    return Pair(model, guide, torch.zeros(1, size), log_evidence=lambda x: truths.gaussian_evidence(x, *numbers))


def both_sides(pair, num_data, effort, start="guide", seed=0, num_steps=2):
    """Weights of `num_data` data drawn from the model, and log p(x) of each."""
    many = pair.replicated(num_data)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        drawn = simulate(many.model, many.guide, many.data)
        bridge = BidirectionalWeights(many.model, many.guide, start, num_steps, 64.0, False)
        log_w, exact = gather(bridge.weights(drawn.batch, drawn.latents, effort, ""))
    return log_w, exact, pair.log_evidence(*drawn.batch).detach()


COVERED = {
    "linear_narrow": lambda: pairs.build("linear_narrow"),
    "linear_shifted": lambda: pairs.build("linear_shifted"),
    "linear_far": lambda: pairs.linear(scale=0.5, shift=1.5),
    "gaussian_10": lambda: gaussian(10, scale=0.8),
    "hierarchy": lambda: pairs.build("hierarchy"),
    "plated": lambda: pairs.build("plated"),
    "conditional": lambda: pairs.build("conditional"),
    "gamma_poisson": lambda: pairs.build("gamma_poisson"),
    "beta_binomial": lambda: pairs.build("beta_binomial"),
    "mixture_in_model": lambda: pairs.build("mixture_in_model"),
    "parts": lambda: pairs.build("parts"),
}


@pytest.mark.parametrize(
    ("name", "confidence"),
    slow_but(
        [*((name, 0.5) for name in COVERED), ("linear_far", 0.95), ("gamma_poisson", 0.95)],
        [(name, confidence) for confidence in (0.5, 0.95) for name in COVERED],
    ),
)
def test_a_simulated_certificate_covers(name, confidence, monkeypatch):
    """1000 data each, from few draws so that it has to work for it; false alarm 1e-3 were the coverage as stated."""
    monkeypatch.setattr(pilot, "IMPORTANCE_DRAWS", 4)
    pair = COVERED[name]().replicated(1000)
    certificate = certify(pair.model, pair.guide, like=pair.data, confidence=confidence, sampling=DRAWS_ALONE, seed=5)
    assert (certificate.kind, certificate.confidence) == ("simulated", pytest.approx(confidence))
    truth = pair.log_evidence(certificate.x, *pair.context).detach()
    covered = int(((certificate.lower <= truth) & (truth <= certificate.upper)).sum())
    assert truths.binomial_alarm(covered, 1000, confidence) > 1e-3
    assert certificate.mean_lower <= truth.mean() <= certificate.mean_upper


@pytest.mark.slow
def test_a_simulated_certificate_covers_by_quadrature(monkeypatch):
    """The banana: 1000 data whose evidence is an integral over a grid; false alarm 1e-3."""
    monkeypatch.setattr(pilot, "IMPORTANCE_DRAWS", 4)
    pair = pairs.build("banana").replicated(1000)
    certificate = certify(pair.model, pair.guide, like=pair.data, confidence=0.5, sampling=DRAWS_ALONE, seed=5)
    truth = torch.cat([truths.grid_evidence(pair.model, x, "z", 9.0, 120) for x in certificate.x.split(100)])
    covered = int(((certificate.lower <= truth) & (truth <= certificate.upper)).sum())
    assert truths.binomial_alarm(covered, 1000, 0.5) > 1e-3
    assert certificate.mean_lower <= truth.mean() <= certificate.mean_upper


@pytest.mark.parametrize(
    ("name", "effort"),
    [
        ("linear_far", Effort(2, 1)),
        pytest.param("linear_far", Effort(2, 3), marks=pytest.mark.slow),
        ("gaussian_10", Effort(2, 1)),
        ("gamma_poisson", Effort(2, 1)),
        ("mixture_in_model", Effort(2, 1)),
    ],
)
def test_the_mean_of_ten_is_covered(name, effort):
    """1000 means of ten data, from two chains each; false alarm 1e-3 were the coverage as stated."""
    log_w, exact, truth = both_sides(COVERED[name](), 10_000, effort, seed=6)
    sides = sandwich(log_w, exact, Groups(1, 2))
    for confidence in (0.5, 0.95):
        risk = (1 - confidence) / 2
        lower = sides.below_mean.reshape(-1, 10).mean(-1) - margin(risk, 2 * 10)
        upper = sides.above.reshape(-1, 10).mean(-1) + margin(risk, 10)
        means = truth.reshape(-1, 10).mean(-1)
        covered = int(((lower <= means) & (means <= upper)).sum())
        assert truths.binomial_alarm(covered, 1000, confidence) > 1e-3


@pytest.mark.parametrize(
    ("name", "start", "effort"),
    [
        ("linear_shifted", "guide", Effort(1, 1)),
        ("linear_shifted", "guide", Effort(6, 1)),
        ("linear_shifted", "guide", Effort(3, 3)),
        pytest.param("linear_shifted", "prior", Effort(3, 5), marks=pytest.mark.slow),
        pytest.param("gamma_poisson", "guide", Effort(1, 2), marks=pytest.mark.slow),
        ("gamma_poisson", "prior", Effort(3, 4)),
        pytest.param("beta_binomial", "prior", Effort(3, 4), marks=pytest.mark.slow),
        pytest.param("mixture_in_model", "prior", Effort(3, 4), marks=pytest.mark.slow),
        pytest.param("hierarchy", "guide", Effort(3, 3), marks=pytest.mark.slow),
        pytest.param("plated", "guide", Effort(3, 3), marks=pytest.mark.slow),
        ("conditional", "guide", Effort(3, 3)),
    ],
)
def test_both_sides_are_unbiased_before_the_logarithm(name, start, effort):
    """E p̂/p = E p/p̃ = 1 and E log p̂ ≤ log p ≤ E log p̃; 2500 data, |z| < 4.5 (1.5e-4 over all of them)."""
    log_w, exact, truth = both_sides(COVERED[name](), 2500, effort, start, seed=7)
    lower, upper = below(log_w, 1) - truth, above(log_w, exact) - truth
    assert abs(truths.z_score(lower.exp(), 1.0)) < truths.Z_LIMIT
    assert abs(truths.z_score((-upper).exp(), 1.0)) < truths.Z_LIMIT
    # And the two are on their sides.
    assert truths.z_score(lower, 0.0) < 2
    assert truths.z_score(upper, 0.0) > -2
    assert truths.z_score(upper - lower, 0.0) > 3


@pytest.mark.parametrize("scale", slow_but([0.8], [1.0, 0.8, 0.5]))
def test_the_width_of_importance_sampling(scale):
    """Probabilistic PCA with five latents, 1000 draws: the mean of log p̃ − log p̂ over 1000 data.

    It is 0 at scale 1, 0.0014 at 0.8 and 1.06 at 0.5. The reference draws the weights themselves, from their closed
    form; false alarm 7e-6.
    """
    log_w, exact, truth = both_sides(gaussian(5, scale=scale), 1000, Effort(1000, 1), seed=8)
    sides = sandwich(log_w, exact, Groups(1, 1))
    theirs = sandwich(
        truths.relative_weights(scale, 5, 1000, 4000, False),
        truths.relative_weights(scale, 5, 1, 4000, True)[0],
        Groups(1, 1),
    )
    error = (sides.shortfall.var() / 1000 + theirs.shortfall.var() / 4000).sqrt()
    assert abs(sides.shortfall.mean() - theirs.shortfall.mean()) <= truths.Z_LIMIT * error + 1e-9
    assert sides.shortfall.mean().item() == pytest.approx({1.0: 0.0, 0.8: 0.0015, 0.5: 1.1}[scale], rel=0.15, abs=1e-9)
    assert truths.z_score(sides.estimate - truth + 1e-12 * torch.randn(1000), 0.0) < truths.Z_LIMIT
    assert truths.z_score(sides.above - truth + 1e-12 * torch.randn(1000), 0.0) > -truths.Z_LIMIT


@pytest.mark.slow
def test_fifty_latents_from_the_prior():
    """Annealing where importance sampling is hopeless: the width is reached, and the truth inside."""
    pair = gaussian(50).replicated(60)
    sampling = Sampling(start="prior", num_chains=4)
    certificate = certify(pair.model, pair.guide, like=pair.data, width=0.5, sampling=sampling, seed=0)
    truth = pair.log_evidence(certificate.x)
    assert certificate.num_distributions > 1
    assert certificate.reached
    assert certificate.mean_lower <= truth.mean() <= certificate.mean_upper
    assert ((certificate.lower <= truth) & (truth <= certificate.upper)).double().mean() > 0.95
    # Without the chains the same budget of draws leaves many nats.
    none = replace(sampling, max_distributions=1)
    poor = certify(pair.model, pair.guide, like=pair.data, width=0.5, sampling=none, seed=0)
    assert poor.mean_upper - poor.mean_lower > 5
    assert not poor.reached


@pytest.mark.parametrize(
    ("name", "num_draws"),
    slow_but(
        [("linear_narrow", 2), ("gamma_poisson", 64), ("mixture_in_model", 2)],
        [(name, draws) for draws in (2, 64) for name in ("linear_narrow", "gamma_poisson", "mixture_in_model")],
    ),
)
def test_a_real_certificate_covers(name, num_draws, monkeypatch):
    """1000 given data at a risk of 25 % below; false alarm 1e-3. Two draws have no tail, and so no upper end."""
    monkeypatch.setattr(pilot, "IMPORTANCE_DRAWS", num_draws)
    pair = pairs.build(name).replicated(1000)
    given = simulate(pair.model, pair.guide, pair.x, seed=1).batch[0]
    certificate = certify(pair.model, pair.guide, given, confidence=0.5, sampling=DRAWS_ALONE, seed=9)
    truth = pair.log_evidence(given)
    assert certificate.kind == "real"
    assert torch.equal(certificate.x, given)
    assert truths.binomial_alarm(int((certificate.lower <= truth).sum()), 1000, 0.75) > 1e-3
    ends = certificate.upper.isfinite()
    assert truths.binomial_alarm(int((truth <= certificate.upper)[ends].sum()), int(ends.sum()), 0.75) > 1e-3
    assert certificate.mean_lower <= truth.mean()
    assert (ends.sum() > 500) == (num_draws == 64)
    assert any("no upper end" in remark for remark in certificate.remarks()) == (num_draws == 2)


def test_exact_where_the_pair_knows():
    torch.manual_seed(0)
    pair = LinearGaussian(num_features=3, latent_dim=2)
    x = torch.randn(5, 3)
    certificate = certify(pair.model, pair.guide, x, closed_form=True)
    assert (certificate.kind, certificate.confidence, certificate.reached) == ("exact", 1.0, True)
    torch.testing.assert_close(certificate.lower, pair.log_evidence(x).detach())
    assert torch.equal(certificate.lower, certificate.upper)
    assert certificate.mean_lower == certificate.mean_upper == pytest.approx(pair.log_evidence(x).mean().item())
    assert certificate.remarks() == []
    drawn = certify(pair.model, pair.guide, like=x, seed=0, closed_form=True)
    assert drawn.kind == "exact"
    torch.testing.assert_close(drawn.lower, pair.log_evidence(drawn.x).detach())
    assert not torch.equal(drawn.x, x)


@pytest.mark.parametrize("name", ["mixture", "nested", "chain", "feed_forward"])
def test_exact_where_nothing_is_left_to_draw(name):
    pair = pairs.build(name)
    certificate = certify(pair.model, pair.guide, pair.data)
    assert certificate.kind == "exact"
    torch.testing.assert_close(certificate.lower, pair.truth)


def test_a_wrong_closed_form_is_refused():
    class Wrong:
        log_evidence = staticmethod(lambda x: torch.zeros(3))

        def model(self, x):
            return pair.model(x)

    pair = pairs.build("line")
    with pytest.raises(PairError, match=r"log_evidence.*one number for each of the 4 data"):
        certify(Wrong().model, pair.guide, pair.x, closed_form=True)


def test_the_programs_are_believed_and_not_the_closed_form():
    """An object whose log_evidence is 1 nat too high: its bounds come from its programs unless it is asked for."""

    class TooHigh(LinearGaussian):
        def log_evidence(self, x):
            return super().log_evidence(x) + 1.0

    pair = TooHigh(num_features=3, latent_dim=2).set_exact_guide()
    x = torch.randn(40, 3)
    certificate = certify(pair.model, pair.guide, like=x, sampling=DRAWS_ALONE, seed=0)
    truth = LinearGaussian.log_evidence(pair, certificate.x).mean().item()
    assert certificate.kind == "simulated"
    assert certificate.mean_lower <= truth <= certificate.mean_upper < truth + 1
    with pytest.raises(OptionError, match="closed_form"):
        certify(lambda x: pair.model(x), pair.guide, x, closed_form=True)


def test_a_closed_form_is_that_of_the_model_only():
    """Another program of the same object is not what log_evidence speaks of."""

    class Several(LinearGaussian):
        def other(self, x):
            return self.model(2 * x)

    pair = Several(num_features=3, latent_dim=2)
    with pytest.raises(PairError, match="not an entry of x"):
        certify(pair.other, pair.guide, like=torch.zeros(2, 3))
    certificate = certify(pair.other, pair.guide, torch.ones(2, 3), sampling=DRAWS_ALONE, seed=0)
    assert certificate.kind == "real"
    assert certificate.num_twins == 0
    assert any("observes" in note for note in certificate.notes)


def test_a_single_datum():
    pair = pairs.build("linear_wide").rows(slice(0, 1))
    simulated = certify(pair.model, pair.guide, like=pair.x, sampling=DRAWS_ALONE, seed=0)
    truth = pair.log_evidence(simulated.x)
    assert simulated.lower.shape == (1,)
    assert simulated.lower <= truth <= simulated.upper
    assert simulated.mean_lower <= truth <= simulated.mean_upper
    assert math.isnan(simulated.shortfall_error)
    # Of one datum the upper end has a risk as stated: here 1 in 1000.
    real = certify(pair.model, pair.guide, pair.x, confidence=0.998, sampling=DRAWS_ALONE, seed=0)
    assert real.lower <= pair.truth <= real.upper
    assert real.upper == pytest.approx(real.mean_upper)
    assert real.mean_upper - real.mean_lower < 0.2


@pytest.mark.slow
def test_refinement_stops_when_the_width_is_reached():
    """From the prior: importance sampling for a wide interval, and more distributions for a narrow one."""
    pair = gaussian(8).replicated(60)
    options = {"like": pair.data, "sampling": Sampling(start="prior", num_chains=4, max_distributions=128), "seed": 0}
    wide, narrow = (certify(pair.model, pair.guide, width=w, **options) for w in (10.0, 0.3))
    assert (wide.num_distributions, wide.transitions) == (1, 0)
    assert wide.num_chains == pilot.IMPORTANCE_DRAWS
    assert 32 <= narrow.num_distributions <= 128
    assert narrow.num_chains == 4
    assert narrow.reached
    assert wide.reached
    for certificate in (wide, narrow):
        truth = pair.log_evidence(certificate.x)
        assert certificate.mean_lower <= truth.mean() <= certificate.mean_upper
    # All transitions: of the pilots of 32, 64 … and of the certificate, with five chains a datum on drawn data.
    steps = [2**k for k in range(5, int(math.log2(narrow.num_distributions)) + 1)]
    assert narrow.transitions == 5 * (32 * sum(t - 1 for t in steps) + 60 * (steps[-1] - 1))


def test_settings_are_chosen_on_other_data(monkeypatch):
    """The data of the certificate are simulated after, and apart from, those of the pilot, and sandwiched once."""
    seen = []

    def watched(self, batch, *rest):
        seen.append(batch[0])
        return weights(self, batch, *rest)

    weights = BidirectionalWeights.weights
    monkeypatch.setattr(BidirectionalWeights, "weights", watched)
    pair = gaussian(4).replicated(40)
    certificate = certify(
        pair.model, pair.guide, like=pair.x, sampling=Sampling(start="prior", max_distributions=32), seed=0
    )
    pilots = seen[:-1]
    assert torch.equal(seen[-1], certificate.x)
    assert len(pilots) == 2
    for pilot in pilots:
        assert not (pilot[:, None] == certificate.x[None]).all(-1).any()


def test_memory_and_chunks_do_not_change_the_law():
    """The data in many pieces, the chains too: unbiased as before; 150 data, |z| < 4.5."""
    pair = pairs.build("linear_shifted").replicated(150)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        drawn = simulate(pair.model, pair.guide, pair.x)
        for memory_mb, effort in ((0.6, Effort(64, 1)), (0.2, Effort(4, 3))):
            bridge = BidirectionalWeights(pair.model, pair.guide, "guide", 2, memory_mb, False)
            parts = list(bridge.weights(drawn.batch, drawn.latents, effort, ""))
            assert len(parts) > 5
            log_w, exact = gather(parts)
            assert log_w.shape == (effort.num_chains, 150)
            truth = pair.log_evidence(drawn.batch[0])
            assert abs(truths.z_score((below(log_w, 1) - truth).exp(), 1.0)) < truths.Z_LIMIT
            assert abs(truths.z_score((truth - above(log_w, exact)).exp(), 1.0)) < truths.Z_LIMIT


def test_few_data_cannot_be_narrow():
    pair = pairs.build("linear_wide")
    certificate = certify(pair.model, pair.guide, like=pair.x, seed=0)
    assert certificate.least_width == pytest.approx(math.log(40) / 6 * (1 + 1 / 16))
    assert not certificate.reached
    assert certificate.num_distributions == 1  # nothing could be won
    (remark,) = [r for r in certificate.remarks() if "the margins alone" in r]
    assert "give at least 79 data" in remark
    enough = pair.replicated(79)
    assert certify(pair.model, pair.guide, like=enough.x, seed=0).reached


def test_a_spent_budget_is_said():
    pair = gaussian(10).replicated(100)
    certificate = certify(
        pair.model, pair.guide, like=pair.x, sampling=Sampling(start="prior", max_distributions=1), seed=0
    )
    assert not certificate.reached
    assert any("the budget is spent" in remark for remark in certificate.remarks())


def test_remarks_say_what_is_certified():
    pair = pairs.build("linear_wide")
    simulated = certify(pair.model, pair.guide, like=pair.x, seed=0)
    assert any("drawn from the model" in remark for remark in simulated.remarks())
    real = certify(pair.model, pair.guide, pair.x, sampling=Sampling(num_twins=20, max_distributions=1), seed=0)
    (promise,) = [remark for remark in real.remarks() if "the lower bound holds with its confidence" in remark]
    assert "an unbiased estimate of a number that is at least the mean of log p(x)" in promise
    assert "only if the chains reach all of the posterior and k-hat < 0.5" in promise
    assert real.num_twins == 20
    assert real.upper.isfinite().all()
    assert math.isfinite(real.mean_upper)


def test_a_datum_of_probability_zero():
    """It has no bounds but −inf, says so, and leaves the others theirs."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Beta(2.0, 2.0))
            pyro.sample("x", dist.Uniform(z - 1, z + 1, validate_args=False), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Beta(torch.full_like(x, 2.0), 2.0))

    certificate = certify(model, guide, torch.tensor([0.5, 7.0, 0.2]), sampling=DRAWS_ALONE, seed=0)
    assert certificate.lower[1] == certificate.log_evidence[1] == -math.inf
    assert certificate.lower[[0, 2]].isfinite().all()
    assert certificate.upper[[0, 2]].isfinite().all()
    assert certificate.upper[1] == math.inf
    assert certificate.mean_lower == -math.inf
    assert not certificate.reached
    assert any("no weight is positive for 1 of 3 data" in remark for remark in certificate.remarks())


def test_the_record():
    pair = pairs.build("linear_wide").replicated(50)
    certificate = certify(pair.model, pair.guide, like=pair.x, seed=0)
    summary = certificate.summary()
    assert summary["mean_width"] == pytest.approx(certificate.mean_upper - certificate.mean_lower)
    assert summary["num_data"] == 50
    assert summary["kind"] == "simulated"
    assert summary["median_datum_width"] == pytest.approx((certificate.upper - certificate.lower).median().item())
    dataset = certificate.to_dataset()
    assert dataset.sizes == {"datum": 50}
    assert dataset.attrs["kind"] == "simulated"
    assert dataset.lower.attrs["units"] == "nats"
    assert (dataset.lower < dataset.log_evidence).all()
    assert (dataset.log_evidence < dataset.upper).all()


def test_seeds():
    pair = pairs.build("linear_wide").replicated(20)
    first, same, other = (certify(pair.model, pair.guide, like=pair.x, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.lower, same.lower)
    assert not torch.equal(first.lower, other.lower)
    state = torch.get_rng_state()
    certify(pair.model, pair.guide, pair.x, seed=1)
    assert torch.equal(state, torch.get_rng_state())


def test_refusals():
    pair = pairs.build("line")
    cases = [
        ({}, "neither x nor like is given: give x"),
        ({"x": pair.x, "like": pair.x}, "both x and like are given"),
        ({"x": pair.x, "confidence": 1.0}, "confidence must lie between 0 and 1; it is 1.0"),
        ({"x": pair.x, "confidence": -0.5}, "confidence"),
        ({"x": pair.x, "width": 0.0}, "width must be a positive number of nats"),
        ({"x": pair.x, "width": math.nan}, "width"),
        ({"x": pair.x, "sampling": Annealing()}, r"sampling must be the record ppvae.inference.Sampling\(...\); it is"),
        ({"x": pair.x, "memory_mb": -1.0}, "memory_mb"),
    ]
    for options, message in cases:
        with pytest.raises(OptionError, match=message):
            certify(pair.model, pair.guide, **options)
    with pytest.raises(DataError, match="NaN"):
        certify(pair.model, pair.guide, torch.tensor([0.0, math.nan]))
    with pytest.raises(DataError, match="no data"):
        certify(pair.model, pair.guide, like=pair.x[:0])


def test_pairs_that_cannot_be_certified():
    def reads(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=2 * x)

    def discrete(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Poisson(3.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def poisson(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Poisson(torch.full_like(x, 3.0)))

    line = pairs.build("line")
    with pytest.raises(PairError, match="observe x as it is"):
        certify(reads, line.guide, like=line.x)
    assert any("observes" in note for note in certify(reads, line.guide, line.x, sampling=DRAWS_ALONE).notes)
    with pytest.raises(PairError, match="'z' is discrete"):
        certify(discrete, poisson, line.x)


@pytest.mark.parametrize("factor", [False, True])
def test_given_data_need_none_that_are_drawn(factor):
    """No data can be drawn from a model that does not observe the covariates in x, nor from one with a factor."""

    def model(x):
        covariate, y = x.unbind(-1)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z + covariate, 1.0), obs=y)
            if factor:
                pyro.factor("bonus", torch.full((len(x),), 0.7))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x[:, 1] - x[:, 0]) / 2, 0.8))

    x = torch.tensor([[0.0, 1.0], [2.0, 1.0], [-1.0, 0.5]])
    truth = dist.Normal(x[:, 0], 2**0.5).log_prob(x[:, 1]) + 0.7 * factor
    certificate = certify(model, guide, x, confidence=0.998, sampling=DRAWS_ALONE, seed=0)
    assert certificate.mean_lower <= truth.mean() <= certificate.mean_upper < certificate.mean_lower + 0.1
    assert (certificate.lower <= truth).all()
    assert (truth <= certificate.upper).all()
    assert (certificate.num_twins, certificate.reached) == (0, True)
    remarks = certificate.remarks()
    assert any("unnormalised" in remark for remark in remarks) == factor
    with pytest.raises(PairError, match="no data can be drawn"):
        certify(model, guide, like=x, seed=0)
