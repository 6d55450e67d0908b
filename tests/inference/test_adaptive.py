"""estimate_evidence: within the tolerance of the truth, at a stated rate; and one clear sentence where it cannot be."""

import math

import pairs
import pyro
import pyro.distributions as dist
import pytest
import torch
import truths_inference as truths
from gate import slow_but
from pairs import Pair
from torch import Tensor

from ppvae.errors import DataError, OptionError, PairError
from ppvae.inference.evidence import adaptive, ledger, preconditioned, rounds, streaming
from ppvae.inference.evidence.adaptive import estimate_evidence

IMPORTANCE, MIXTURE, ANNEALING, NOTHING = range(4)


def gaussian(dim: int, scale: float = 1.0, shift: float = 0.0, mean_field: bool = False) -> Pair:
    """z ~ N(0, I), x ~ N(Wz, ¼I); the guide is the posterior, or its optimal mean field, made wrong in a known way."""
    weight = torch.randn(dim, dim, generator=torch.Generator().manual_seed(0)) / math.sqrt(dim)
    numbers = weight, torch.zeros(dim), 0.25 * torch.eye(dim), torch.zeros(dim), torch.eye(dim)
    _, cov = truths.gaussian_posterior(torch.zeros(1, dim), *numbers)
    move = shift * torch.linalg.cholesky(cov)[:, 0]
    guide_cov = torch.diag(1 / torch.linalg.inv(cov).diagonal()) if mean_field else cov

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(dim), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight.T, 0.5).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        loc, _ = truths.gaussian_posterior(x, *numbers)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc + move, scale**2 * guide_cov))

    x = torch.randn(3, dim, generator=torch.Generator().manual_seed(1))
    return Pair(model, guide, x, log_evidence=lambda x: truths.gaussian_evidence(x, *numbers))


def two_modes(dim: int) -> Pair:
    """x₁ ~ N(z₁², 0.3²), the rest x ~ N(z, 0.3²): two equal modes at ±z₁, of which the guide knows the positive one."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(dim), 1.0).to_event(1))
            loc = torch.cat([z[..., :1] ** 2, z[..., 1:]], -1)
            pyro.sample("x", dist.Normal(loc, 0.3).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        first = x[:, :1].clamp(min=0.1).sqrt()
        with pyro.plate("data", len(x)):
            loc = torch.cat([first, x[:, 1:] / 1.09], -1)
            scale = torch.cat([0.15 / first, 0.3 / math.sqrt(1.09) * torch.ones_like(x[:, 1:])], -1)
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    def log_evidence(x: Tensor) -> Tensor:
        z = torch.linspace(-8, 8, 20001)
        joint = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z**2, 0.3).log_prob(x[:, :1])
        first = torch.logsumexp(joint, -1) + math.log(float(z[1] - z[0]))
        return first + dist.Normal(0.0, math.sqrt(1.09)).log_prob(x[:, 1:]).sum(-1)

    x = torch.zeros(2, dim)
    x[:, 0] = torch.tensor([2.0, 1.0])
    return Pair(model, guide, x, log_evidence=log_evidence)


SMALL = {
    "exact": pairs.linear,
    "wide": lambda: pairs.linear(scale=1.25),
    "narrow": lambda: pairs.linear(scale=0.5),
    "shifted": lambda: pairs.linear(shift=2.0),
    "gamma_poisson": lambda: pairs.build("gamma_poisson"),
    "beta_binomial": lambda: pairs.build("beta_binomial"),
    "mixture_in_model": lambda: pairs.build("mixture_in_model"),
    "banana": lambda: pairs.build("banana"),
    "hierarchy": lambda: pairs.build("hierarchy"),
    "two modes": lambda: two_modes(1),
}
LARGE = {
    "10 latents": lambda: gaussian(10, mean_field=True),
    "10 latents, narrow": lambda: gaussian(10, scale=0.5),
    "10 latents, shifted": lambda: gaussian(10, shift=2.0),
    "50 latents": lambda: gaussian(50, mean_field=True),
}


def assert_promise_kept(pair: Pair, times: int) -> None:
    """The promise is 95 % of what is settled; were it 94 %, this would be a false alarm once in 100 000 runs."""
    many = pair.replicated(times, 1)
    evidence = estimate_evidence(many.model, many.guide, many.data, tolerance=0.1, seed=1)
    truth = pair.rows([1]).truth.item()
    settled = evidence.settled_by != NOTHING
    assert settled.double().mean() > 0.98
    within = ((evidence.log_evidence - truth).abs() <= 0.1) | ~settled
    lower, upper = evidence.interval()
    covered = (lower <= truth + 1e-9) & (truth <= upper + 1e-9)
    assert (torch.maximum(evidence.log_evidence - lower, upper - evidence.log_evidence) <= 0.1)[settled].all()
    for hits in (int(within.sum()), int(covered.sum())):
        assert truths.binomial_alarm(hits, times, 0.94) > 1e-5


@pytest.mark.parametrize(
    "name", slow_but(["exact", "gamma_poisson", "mixture_in_model", "hierarchy", "two modes"], SMALL)
)
def test_within_the_tolerance_at_the_stated_rate(name: str) -> None:
    assert_promise_kept(SMALL[name](), 200)


@pytest.mark.parametrize("scale", slow_but([0.7], [0.7, 0.8]))
def test_draws_that_settle_are_not_the_lucky_ones(scale: float) -> None:
    """Of 500 replicates, those that draws settle, under a guide too narrow: covered in 95 %, and not too low.

    Were the coverage 94 %, the first would be a false alarm once in 100 000 runs. Without a round that decides, those
    that the guide's draws settle lie 0.04 nats too low at 0.7, 83 % covered.
    """
    pair = pairs.linear(scale=scale)
    many = pair.replicated(500, 1)
    evidence = estimate_evidence(many.model, many.guide, many.data, seed=2)
    truth, by_draws = pair.rows([1]).truth.item(), evidence.settled_by <= MIXTURE
    assert by_draws.double().mean() > 0.9
    lower, upper = (end[by_draws] for end in evidence.interval())
    covered = int(((lower <= truth) & (truth <= upper)).sum())
    assert truths.binomial_alarm(covered, len(lower), 0.94) > 1e-5
    assert abs((evidence.log_evidence[by_draws] - truth).mean()) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_within_the_tolerance_in_a_thousand_replicates(name: str) -> None:
    assert_promise_kept(SMALL[name](), 1000)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_many_latents_within_the_tolerance(name: str) -> None:
    assert_promise_kept(LARGE[name](), 100)


def test_each_datum_is_settled_by_what_it_needs() -> None:
    """Draws for an exact guide, the mixture for a missed mode, chains for a narrow guide in ten dimensions."""
    found = {
        IMPORTANCE: pairs.linear(),
        MIXTURE: two_modes(1),
        ANNEALING: gaussian(10, scale=0.5),
    }
    costs = []
    for by, pair in found.items():
        evidence = estimate_evidence(pair.model, pair.guide, pair.x, seed=0)
        assert (evidence.settled_by == by).all()
        assert ((evidence.log_evidence - pair.truth).abs() < 0.1).all()
        assert ((evidence.num_distributions > 0) == (by == ANNEALING)).all()
        assert evidence.remarks() == []
        costs.append(evidence.cost.max().item())
    assert costs[0] == 1150  # the search, 200 draws that decide, 450 that report
    assert costs == sorted(costs)


def test_a_smaller_tolerance_costs_more_and_is_kept() -> None:
    pair = pairs.build("linear_wide")
    coarse, fine = (estimate_evidence(pair.model, pair.guide, pair.x, tolerance=t, seed=0) for t in (0.1, 0.02))
    assert (fine.cost > coarse.cost).all()
    assert ((fine.log_evidence - pair.truth).abs() < 0.02).all()


def test_the_budget_is_kept_and_its_end_is_said() -> None:
    pair = gaussian(10, scale=0.5)
    for budget in (100, 1500, 25_000):
        evidence = estimate_evidence(pair.model, pair.guide, pair.x, tolerance=1e-4, budget=budget, seed=0)
        assert (evidence.cost <= budget).all()
        assert (evidence.settled_by == NOTHING).all()
        assert any("3 of 3 data is not known to within the tolerance" in remark for remark in evidence.remarks())
    # The chains of the last round are a good estimate for all that.
    assert ((evidence.log_evidence - pair.truth).abs() < 0.1).all()


def test_a_seed_fixes_everything_and_leaves_the_generators_alone() -> None:
    pair = gaussian(10, scale=0.5)
    state = torch.get_rng_state()
    first, second = (estimate_evidence(pair.model, pair.guide, pair.x, seed=3) for _ in range(2))
    assert torch.equal(first.log_evidence, second.log_evidence)
    assert torch.equal(torch.get_rng_state(), state)


def test_pieces_of_the_data_are_settled_alike() -> None:
    """With memory for one datum at a time all data come back, each with its own truth."""
    pair = gaussian(10, scale=0.5).rows([0, 1])
    evidence = estimate_evidence(pair.model, pair.guide, pair.x, seed=0, memory_mb=0.6)
    assert ((evidence.log_evidence - pair.truth).abs() < 0.1).all()
    assert (evidence.settled_by == ANNEALING).all()


@pytest.mark.slow
def test_chains_that_spread_too_far_get_a_new_fit_and_more_distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four curved posteriors, annealed whatever the draws say, and held to a spread that three of them exceed."""
    monkeypatch.setattr(adaptive, "MOST_DRAWS", 0)
    monkeypatch.setattr(preconditioned, "WIDE", 0.04)
    pair = pairs.build("banana")
    evidence = estimate_evidence(pair.model, pair.guide, pair.x, tolerance=0.02, seed=1)
    assert ((evidence.log_evidence - pair.truth).abs() < 0.02).all()
    assert (evidence.settled_by == ANNEALING).all()
    assert evidence.num_distributions.tolist() == [64, 64, 64, 16]
    assert (evidence.spread <= 0.04).all()
    # What the budget does not cover is not begun.
    poor = estimate_evidence(pair.model, pair.guide, pair.x, tolerance=0.02, budget=25_000, seed=1)
    assert (poor.cost <= 25_000).all()
    assert poor.settled_by.tolist() == [NOTHING, NOTHING, NOTHING, ANNEALING]


def test_the_next_round_is_as_large_as_the_error_asks() -> None:
    """Half widths shrink like 1/√n: the next one is within the tolerance, and not by more than twice the draws."""
    log_w = 0.5 * torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    found = streaming.evidence_of(log_w)
    half = ledger.half_width(found)
    for tolerance in (0.05, 0.01, 0.002):
        num_draws = ledger.wanted(found, tolerance)
        shrunk = half * (1000 / num_draws).sqrt()
        assert (shrunk <= tolerance).all()
        assert ((shrunk >= tolerance / 2) | (num_draws == 1000)).all()


def test_the_gap_and_the_elbo_are_the_guides() -> None:
    pair = pairs.linear(shift=2.0)
    evidence = estimate_evidence(pair.model, pair.guide, pair.x, seed=0)
    assert ((evidence.gap - pair.true_gap).abs() < 4.5 * evidence.gap_standard_error + 0.1).all()
    dataset = evidence.to_dataset()
    assert dataset.attrs["method"] == "adaptive"
    assert dataset["settled_by"].dims == ("datum",)


def test_a_mode_that_the_guide_misses_is_found_in_few_dimensions() -> None:
    """Importance sampling from the guide alone would say log p − log 2 with nearly equal weights."""
    pair = two_modes(1)
    evidence = estimate_evidence(pair.model, pair.guide, pair.x, seed=0)
    assert ((evidence.log_evidence - pair.truth).abs() < 0.1).all()
    assert (evidence.settled_by == MIXTURE).all()


def test_chains_that_miss_what_the_prior_found_are_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the draws too few to settle two modes, the chains would say log p − log 2; the draws know better."""
    monkeypatch.setattr(adaptive, "MOST_DRAWS", 0)
    monkeypatch.setattr(adaptive, "SEARCH", 0)
    monkeypatch.setattr(rounds, "FIRST_DRAWS", 1000)
    pair = two_modes(1)
    evidence = estimate_evidence(pair.model, pair.guide, pair.x, seed=0)
    assert evidence.contradicted.all()
    assert (evidence.settled_by == NOTHING).all()
    assert (evidence.num_distributions == 0).all()
    assert ((evidence.log_evidence - pair.truth).abs() < 4 * evidence.standard_error).all()
    (remark,) = evidence.remarks()
    assert "draws of the prior find a part of the posterior" in remark


def test_a_mode_that_no_draw_of_the_prior_meets_is_found() -> None:
    """In ten dimensions: climbs lead to the second mode, and nothing confirms that there is no third."""
    pair = two_modes(10)
    evidence = estimate_evidence(pair.model, pair.guide, pair.x, seed=0)
    assert ((evidence.log_evidence - pair.truth).abs() < 0.15).all()
    assert not evidence.trusted.any()
    (remark,) = evidence.remarks()
    assert "the guide misses a part of the posterior for 2 of 2 data" in remark


def test_a_posterior_on_the_boundary() -> None:
    """z ~ U(0, 1), x ~ N(z, 0.3²) observed far outside: the posterior piles up at the ends of the support."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Uniform(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 0.3), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Beta(torch.where(x > 1, 5.0, 1.0), torch.where(x < 0, 5.0, 1.0)))

    x = torch.tensor([-2.0, 0.5, 3.0])
    density = dist.Normal(x, 0.3)
    # Φ(a) − Φ(b) far in the tail, by the complementary error function.
    low, high = (torch.special.log_ndtr(-(torch.tensor(end) - x).abs() / 0.3) for end in (0.0, 1.0))
    near, far = torch.maximum(low, high), torch.minimum(low, high)
    truth = torch.where(
        (x > 0) & (x < 1),
        (density.cdf(torch.ones(3)) - density.cdf(torch.zeros(3))).log(),
        near + (-(far - near).exp()).log1p(),
    )
    evidence = estimate_evidence(model, guide, x, seed=0)
    assert ((evidence.log_evidence - truth).abs() < 0.1).all()
    assert evidence.remarks() == []


def zero_likelihood(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Uniform(torch.zeros(len(x)), 1.0))
        pyro.sample("x", dist.Uniform(z, z + 1, validate_args=False), obs=x)


def zero_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Uniform(torch.zeros(len(x)), 1.0))


def test_a_datum_of_probability_zero_harms_no_other() -> None:
    """z ~ U(0, 1), x ~ U(z, z + 1): p(0.5) = ½, and 5 cannot be."""
    x = torch.tensor([0.5, 5.0, 1.2])
    with pyro.validation_enabled(False):
        evidence = estimate_evidence(zero_likelihood, zero_guide, x, seed=0)
    assert (evidence.log_evidence[[0, 2]] - torch.tensor([0.5, 0.8]).log()).abs().max() < 0.1
    assert evidence.log_evidence[1] == -math.inf
    assert evidence.settled_by.tolist() == [IMPORTANCE, NOTHING, IMPORTANCE]
    assert evidence.cost[1] == 700  # the search, and the draws that decide
    assert len(evidence.remarks()) == 1
    assert "probability zero" in evidence.remarks()[0]


def peaked(dtype: torch.dtype) -> tuple[Pair, Tensor]:
    """x ~ N(z, 10⁻³) beside a second number that lies thousands of standard deviations off: log p ~ −10⁶ and −10."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(torch.cat([z, torch.zeros_like(z)], -1), 1e-3).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, :1], 1.2e-3).to_event(1))

    x = torch.tensor([[0.3, 1.5], [0.3, 0.001]], dtype=dtype)
    truth = dist.Normal(0.0, math.sqrt(1 + 1e-6)).log_prob(x[:, 0].double())
    return Pair(model, guide, x), truth + dist.Normal(0.0, 1e-3).log_prob(x[:, 1].double())


def test_log_weights_of_minus_a_million() -> None:
    pair, truth = peaked(torch.float64)
    evidence = estimate_evidence(pair.model, pair.guide, pair.x, seed=0)
    assert truth[0] < -1e6
    assert ((evidence.log_evidence - truth).abs() < 0.1).all()
    assert evidence.remarks() == []


def test_single_precision_says_where_it_is_too_coarse() -> None:
    pair, truth = peaked(torch.float32)
    evidence = estimate_evidence(pair.model, pair.guide, pair.x, seed=0)
    assert evidence.settled_by.tolist() == [NOTHING, IMPORTANCE]
    assert (evidence.log_evidence[1] - truth[1]).abs() < 0.1
    assert len(evidence.remarks()) == 1
    assert "run the pair in double precision" in evidence.remarks()[0]


def test_without_continuous_latents_all_is_exact() -> None:
    for name in ("mixture", "nested", "chain"):
        pair = pairs.build(name)
        evidence = estimate_evidence(pair.model, pair.guide, pair.data, seed=0)
        assert torch.allclose(evidence.log_evidence, pair.truth, atol=1e-9)
        assert (evidence.settled_by == IMPORTANCE).all()
        assert evidence.remarks() == []


def coin_model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.Bernoulli(0.3 * torch.ones(len(x))))
        z = pyro.sample("z", dist.Normal(2 * c, 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


def coin_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.Bernoulli(0.5 * torch.ones(len(x))))
        pyro.sample("z", dist.Normal(0.8 * x + 0.4 * c, 0.6))


def test_a_discrete_latent_that_is_drawn_leaves_draws_alone() -> None:
    x = torch.tensor([0.0, 1.0, 2.5])
    evidence = estimate_evidence(coin_model, coin_guide, x, tolerance=0.05, seed=0)
    parts = [math.log(p) + dist.Normal(2.0 * c, math.sqrt(1.25)).log_prob(x) for c, p in ((0, 0.7), (1, 0.3))]
    assert ((evidence.log_evidence - torch.logsumexp(torch.stack(parts), 0)).abs() < 0.05).all()
    assert not evidence.annealable.any()
    assert len(evidence.remarks()) == 1
    assert "draws of the guide alone" in evidence.remarks()[0]


def test_context_is_passed_on() -> None:
    pair = pairs.build("conditional")
    evidence = estimate_evidence(pair.model, pair.guide, pair.data, seed=0)
    assert ((evidence.log_evidence - pair.truth).abs() < 0.1).all()


def test_refusals() -> None:
    pair = pairs.linear()
    for tolerance in (0.0, -1.0, math.nan):
        with pytest.raises(OptionError, match="tolerance must be a positive number"):
            estimate_evidence(pair.model, pair.guide, pair.x, tolerance=tolerance)
    for budget in (0, 99, True):
        with pytest.raises(OptionError, match="budget must be an integer of at least 100"):
            estimate_evidence(pair.model, pair.guide, pair.x, budget=budget)
    with pytest.raises(OptionError, match="memory_mb"):
        estimate_evidence(pair.model, pair.guide, pair.x, memory_mb=0.0)
    with pytest.raises(DataError, match="NaN"):
        estimate_evidence(pair.model, pair.guide, pair.x.clone().fill_(math.nan))
    with pytest.raises(PairError, match="'z'"):
        estimate_evidence(pair.model, lambda x: None, pair.x)


def test_one_lucky_draw_among_many_data_does_not_contradict_their_chains() -> None:
    """P(p̂ ≥ p/δ) ≤ δ is of one datum: of 1000 data one may lie beyond 1/1000, and must not count as a mode."""
    chains = streaming.evidence_of(torch.zeros(32, 1000, dtype=torch.float64))
    lucky = torch.full((200, 1000), -math.inf, dtype=torch.float64)
    lucky[0] = math.log(200)  # p̂ = 1 …
    lucky[0, 3] += math.log(1000)  # … and of one datum 1000, by a single draw
    book = ledger.Ledger(chains, ledger.Goal(0.1, 100, 64.0))
    book.num_distributions[:] = 16
    adaptive._contradict(book, streaming.evidence_of(lucky))
    assert not book.contradicted.any()
    lucky[0, 3] += math.log(1e6)
    adaptive._contradict(book, streaming.evidence_of(lucky))
    assert book.contradicted.nonzero()[:, 0].tolist() == [3]
