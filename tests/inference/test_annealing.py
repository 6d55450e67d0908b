"""The two directions of annealed importance sampling: unbiased for p(x) and 1/p(x), and on either side of log p(x).

Chains are independent, so that a mean of weights is held to |z| < 4.5 (`agrees`: false alarm 7e-6). The number of
distributions is small on purpose: the identities hold for any.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pairs
import pyro
import pyro.distributions as dist
import pytest
import torch
import truths_inference as truths
from scipy import integrate
from torch import Tensor

from ppvae.inference.pair import Pair
from ppvae.inference.pair.unconstrained import Point, evaluate
from ppvae.inference.sampling import annealing
from ppvae.inference.sampling.annealing import backward, forward
from ppvae.inference.sampling.hmc import Info
from ppvae.inference.sampling.pilot import Tuning, tune

STARTS: list[Any] = ["guide", "prior"]
SCHEDULES: list[Any] = ["adaptive", "sigmoid", "linear"]


def agrees(sample: Tensor, mean: float) -> None:
    assert abs(truths.z_score(sample, mean)) < truths.Z_LIMIT


def linear(dim: int, scale: float = 1.2, shift: float = 0.5) -> pairs.Pair:
    """z ~ N(0, I_d), x ~ N(Wz, ½² I_{d+2}); the guide is the posterior, wider and moved along every axis."""
    torch.manual_seed(dim)
    weight = torch.randn(dim + 2, dim) / math.sqrt(dim)
    numbers = weight, torch.zeros(dim + 2), 0.25 * torch.eye(dim + 2), torch.zeros(dim), torch.eye(dim)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(dim), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight.T, 0.5).to_event(1), obs=x)

    def guide(x):
        loc, cov = truths.gaussian_posterior(x, *numbers)
        move = shift * torch.linalg.cholesky(cov) @ torch.ones(dim) / math.sqrt(dim)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc + move, scale**2 * cov))

    x = torch.randn(2, dim) @ weight.T + 0.5 * torch.randn(2, dim + 2)
    return pairs.Pair(model, guide, x, log_evidence=lambda x: truths.gaussian_evidence(x, *numbers))


def gaussian_posterior_draws(pair: pairs.Pair, dim: int, num_chains: int) -> Tensor:
    """The pair's own guide without its width and its shift is the posterior."""
    torch.manual_seed(dim)
    exact = linear(dim, 1.0, 0.0)
    with Pair.on(exact.model, exact.guide, pair.args, start="guide") as density:
        return density.draw("guide", num_chains)


# --- identities --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hierarchy_exact", "conditional_exact", "gamma_poisson_exact"])
def test_from_an_exact_guide_every_weight_is_the_evidence(name):
    """All distributions of the bridge are then the posterior, in both directions."""
    pair = pairs.build(name)
    with Pair.on(pair.model, pair.guide, pair.args, start="guide") as density:
        tuning = tune(density, "guide", 6)
        log_w, _, _, _ = forward(density, tuning, "guide", 20)
        back = backward(density, tuning, "guide", density.draw("guide", 20))
    torch.testing.assert_close(log_w, pair.truth.expand(20, -1), rtol=0, atol=1e-9)
    torch.testing.assert_close(back, pair.truth.expand(20, -1), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("name", "start"), [("nested", "guide"), ("feed_forward", "prior")])
def test_without_continuous_latents_every_weight_is_the_evidence(name, start):
    pair = pairs.build(name)
    with Pair.on(pair.model, pair.guide, pair.args, start=start) as density:
        tuning = tune(density, start, 4)
        log_w, point, _, _ = forward(density, tuning, start, 3)
        back = backward(density, tuning, start, point.u)
    torch.testing.assert_close(log_w, pair.truth.expand(3, -1), rtol=0, atol=1e-10)
    torch.testing.assert_close(back, log_w, rtol=0, atol=1e-10)


@pytest.mark.parametrize("start", STARTS)
def test_with_one_distribution_it_is_importance_sampling(start):
    pair = pairs.build("hierarchy")
    with Pair.on(pair.model, pair.guide, pair.args, start=start) as density:
        tuning = tune(density, start, 1)
        torch.testing.assert_close(tuning.betas, torch.tensor([0.0, 1.0])[:, None].expand(2, 5))
        torch.manual_seed(3)
        log_w, point, _, _ = forward(density, tuning, start, 8)
        torch.manual_seed(3)
        u = density.draw(start, 8)
        log_start, log_joint = torch.stack(density.path(start)(u)).detach()
        assert torch.equal(point.u, u)
        torch.testing.assert_close(log_w, log_joint - log_start, rtol=0, atol=1e-10)
        torch.testing.assert_close(backward(density, tuning, start, u), log_joint - log_start, rtol=0, atol=1e-10)


class Perfect:
    """A transition that draws from π_β itself, N(βx/(1 + β), 1/(1 + β)) for z ~ N(0, 1), x ~ N(z, 1) from the prior."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.betas: list[Tensor] = []

    def __call__(self, terms, point, coefficients, step_size, scale, num_steps, follow) -> tuple[Point, Info]:
        beta = coefficients[1]
        torch.testing.assert_close(coefficients[0], 1 - beta)
        self.betas.append(beta)
        loc, variance = beta * self.x / (1 + beta), 1 / (1 + beta)
        u = (loc + variance.sqrt() * torch.randn(point.u.shape[:2]))[..., None]
        one = torch.ones(u.shape[:2])
        return evaluate(terms, u), Info(one, one.bool(), 0 * one, one)


def mean_increment(x: Tensor, beta: Tensor) -> Tensor:
    """E log p(x|z) under π_β = N(βx/(1 + β), 1/(1 + β))."""
    return -math.log(2 * math.pi) / 2 - ((x / (1 + beta)) ** 2 + 1 / (1 + beta)) / 2


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_with_perfect_transitions_the_mean_log_weight_is_a_riemann_sum(schedule, monkeypatch):
    """Forward Σ Δβ_t E log p(x|z) at the colder end β_{t−1} of each step, backward at β_t: below and above log p(x)."""
    pair = pairs.build("line")
    x = pair.x
    with Pair.on(pair.model, pair.guide, pair.args, start="prior") as density:
        tuning = tune(density, "prior", 5, schedule)
        betas, calls = tuning.betas, []
        for direction in ("forward", "backward"):
            perfect = Perfect(x)
            monkeypatch.setattr(annealing, "transition", perfect)
            if direction == "forward":
                log_w, _, acceptance, _ = forward(density, tuning, "prior", 20_000, after_each=lambda: calls.append(1))
                torch.testing.assert_close(acceptance, torch.ones(4))
                at, order = betas[:-1], range(1, 5)
            else:
                draws = x / 2 + math.sqrt(0.5) * torch.randn(20_000, 4)
                log_w = backward(density, tuning, "prior", draws[..., None], after_each=lambda: calls.append(1))
                at, order = betas[1:], range(4, 0, -1)
            torch.testing.assert_close(torch.stack(perfect.betas), betas[list(order)], rtol=0, atol=0)
            truth = (betas.diff(dim=0) * mean_increment(x, at)).sum(0)
            for n in range(4):
                agrees(log_w[:, n], truth[n].item())
                agrees(
                    (log_w[:, n] - pair.truth[n]).exp()
                    if direction == "forward"
                    else (pair.truth[n] - log_w[:, n]).exp(),
                    1,
                )
            assert ((truth < pair.truth) if direction == "forward" else (truth > pair.truth)).all()
        assert len(calls) == 8


# --- unbiasedness ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dim", "start", "num_distributions"),
    [
        (2, "guide", 2),
        (2, "prior", 8),
        (10, "guide", 6),
        (10, "prior", 25),
        (50, "guide", 12),
        pytest.param(50, "prior", 80, marks=pytest.mark.slow),
    ],
)
def test_linear_gaussian_pairs_in_both_directions(dim, start: Any, num_distributions):
    """E w = p(x) and E 1/w = 1/p(x); the mean log weights lie below and above; and both from transitions that err."""
    pair = linear(dim)
    num_chains = 1200 if dim < 50 else 500
    torch.manual_seed(1)
    with Pair.on(pair.model, pair.guide, pair.args, start=start) as density:
        tuning = tune(density, start, num_distributions)
        log_w, _, acceptance, _ = forward(density, tuning, start, num_chains)
        back = backward(density, tuning, start, gaussian_posterior_draws(pair, dim, num_chains))
    assert log_w.dtype == torch.float64
    assert (acceptance > 0.3).all()
    assert (acceptance < 0.999).all()
    for n in range(2):
        below, above = log_w[:, n] - pair.truth[n], back[:, n] - pair.truth[n]
        assert below.std() < 2.5  # so that the mean weight has a usable error
        agrees(below.exp(), 1.0)
        agrees((-above).exp(), 1.0)
        assert truths.z_score(below, 0.0) < -3
        assert truths.z_score(above, 0.0) > 3


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", ["mixture_conditional_wide", "banana"])
def test_pairs_of_other_kinds(name, start):
    pair = pairs.build(name)
    torch.manual_seed(2)
    with Pair.on(pair.model, pair.guide, pair.args, start=start) as density:
        log_w, _, _, _ = forward(density, tune(density, start, 8), start, 1000)
    for n, truth in enumerate(pair.truth):
        agrees((log_w[:, n] - truth).exp(), 1.0)


def gamma_posterior(x: Tensor) -> Any:
    return dist.Gamma(2.5 + x, 1.7)


def beta_posterior(x: Tensor) -> Any:
    return dist.Beta(2 + x, 13 - x)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("name", "posterior"), [("gamma_poisson", gamma_posterior), ("beta_binomial", beta_posterior)])
def test_conjugate_pairs_in_both_directions(name, posterior: Callable[[Tensor], Any], start):
    pair = pairs.build(name)
    torch.manual_seed(0)
    with Pair.on(pair.model, pair.guide, pair.args, start=start) as density:
        tuning = tune(density, start, 5)
        u = density.unconstrained({"z": posterior(pair.x).sample((2000,))}, 2000)
        back = backward(density, tuning, start, u)
        log_w, _, _, _ = forward(density, tuning, start, 2000)
    for n, truth in enumerate(pair.truth):
        agrees((log_w[:, n] - truth).exp(), 1.0)
        agrees((truth - back[:, n]).exp(), 1.0)
        assert log_w[:, n].mean() < truth < back[:, n].mean()


def test_backward_through_a_sum_over_classes():
    """The posterior of z in the mixture of factor analysers is a mixture of three normals."""
    pair, exact = pairs.build("mixture_in_model"), pairs.build("mixture_conditional")
    torch.manual_seed(0)
    with Pair.on(exact.model, exact.guide, exact.args, start="guide") as density:
        # Draws of p(z | c, x) with the wrong odds of c: rejection makes them exact.
        u = density.draw("guide", 8000)
        log_start, log_joint = torch.stack(density.path("guide")(u)).detach()
    ratio = log_joint - log_start
    keep = torch.rand_like(ratio).log() < ratio - ratio.max(0).values
    most = int(keep.sum(0).min())
    assert most > 300
    draws = torch.stack([u[keep[:, n], n][:most] for n in range(len(pair.x))], 1)
    with Pair.on(pair.model, pair.guide, pair.args, start="guide") as density:
        back = backward(density, tune(density, "guide", 5), "guide", draws)
    for n, truth in enumerate(pair.truth):
        agrees((truth - back[:, n]).exp(), 1.0)


@pytest.mark.parametrize(("start", "fewest"), [("guide", 3), ("prior", 8)])
def test_more_distributions_bring_both_sides_to_the_truth(start: Any, fewest):
    """The distance between the sides falls like 1/T."""
    pair = linear(5, scale=1.5, shift=2.0).rows([0])
    torch.manual_seed(0)
    draws = gaussian_posterior_draws(pair, 5, 600)
    gaps = []
    with Pair.on(pair.model, pair.guide, pair.args, start=start) as density:
        tuning = tune(density, start, 10)
        for num_distributions in (fewest, 4 * fewest):
            finer = tuning.with_distributions(num_distributions)
            log_w, _, _, _ = forward(density, finer, start, 600)
            back = backward(density, finer, start, draws)
            gaps.append((back.mean() - log_w.mean()).item())
    assert gaps[0] > 2.5 * gaps[1] > 0
    assert (torch.logsumexp(log_w, 0) - math.log(600) - pair.truth).abs() < 0.15


# --- schedules and the pilot -------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", STARTS)
def test_schedules_rise_from_zero_to_one(start):
    pair = pairs.build("gamma_poisson")
    with Pair.on(pair.model, pair.guide, pair.args, start=start) as density:
        tuning = tune(density, start, 7, "linear")
    assert tuning.betas.shape == (8, 4)
    assert (tuning.node_betas[0] == 0).all()
    assert (tuning.node_betas[-1] == 1).all()
    assert (tuning.node_betas.diff(dim=0) >= 0).all()
    assert (tuning.node_lengths.diff(dim=0) >= 0).all()
    assert (tuning.length > 0).all()
    for num_distributions in (1, 2, 30):
        even = torch.linspace(0, 1, num_distributions + 1)[:, None].expand(-1, 4)
        for schedule in SCHEDULES:
            betas = tuning.with_distributions(num_distributions, schedule).betas
            assert betas.shape == even.shape
            assert (betas[0] == 0).all()
            assert (betas[-1] == 1).all()
            assert (betas.diff(dim=0) > 0).all()
            if schedule == "linear":
                torch.testing.assert_close(betas, even)
            if schedule == "sigmoid":
                low, high = torch.sigmoid(torch.tensor([-4.0, 4.0]))
                torch.testing.assert_close(betas, (torch.sigmoid(4 * (2 * even - 1)) - low) / (high - low))


def numbers(tuning: Tuning) -> list[Tensor]:
    """All that a tuning holds but how trajectories are followed."""
    return [part for part in vars(tuning).values() if isinstance(part, Tensor)]


def by_hand(betas: list[list[float]], lengths: list[list[float]], scales: Tensor | None = None) -> Tuning:
    """A tuning of two data that was not estimated."""
    nodes, length = torch.tensor(betas).T, torch.tensor(lengths).T
    log_scale = torch.zeros(*nodes.shape, 1) if scales is None else scales
    return Tuning(nodes, nodes, torch.arange(nodes.numel()).reshape(nodes.shape).double(), log_scale, length)


def test_the_adaptive_schedule_takes_steps_of_equal_length():
    """Datum 0 has all of its first 3 nats before β = 0.1, datum 1 is even; between nodes the length grows linearly."""
    tuning = by_hand([[0.0, 0.1, 1.0], [0.0, 0.5, 1.0]], [[0.0, 3.0, 4.0], [0.0, 1.0, 2.0]]).with_distributions(4)
    truth = torch.tensor([[0.0, 0.1 / 3, 0.2 / 3, 0.1, 1.0], [0.0, 0.25, 0.5, 0.75, 1.0]]).T
    torch.testing.assert_close(tuning.betas, truth)


def test_step_and_scale_are_interpolated_between_the_nodes_of_each_datum():
    log_scale = torch.tensor([[[0.0, 1.0], [2.0, 0.0]], [[2.0, 1.0], [4.0, 4.0]], [[2.0, 3.0], [4.0, 0.0]]])
    tuning = by_hand([[0.0, 0.1, 1.0], [0.0, 0.5, 1.0]], [[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]], log_scale)
    step, scale = tuning.at(torch.tensor([0.05, 0.875]))
    torch.testing.assert_close(step.log(), torch.tensor([1.0, 4.5]))  # of 0 and 2; of 3 and 5
    torch.testing.assert_close(scale.log(), torch.tensor([[1.0, 1.0], [4.0, 1.0]]))
    for beta, row in ((0.0, 0), (1.0, 2)):
        step, scale = tuning.at(torch.full((2,), beta))
        torch.testing.assert_close(step.log(), tuning.log_step[row])
        torch.testing.assert_close(scale.log(), log_scale[row])


def test_the_pilot_measures_the_length_of_the_path():
    """Λ = ∫ σ(β) dβ; from N(0, 1) to N(x/2, ½): σ² = Var log p(x|z) = m²v + v²/2, m = x/(1 + β), v = 1/(1 + β)."""
    pair = pairs.build("line")
    with Pair.on(pair.model, pair.guide, (pair.x.repeat_interleave(40),), start="prior") as density:
        torch.manual_seed(0)
        tuning = tune(density, "prior", 10)
    for n, x in enumerate(pair.x.tolist()):
        truth, _ = integrate.quad(lambda b, x=x: math.sqrt(x**2 / (1 + b) ** 3 + 1 / (1 + b) ** 2 / 2), 0, 1)
        assert tuning.length[40 * n : 40 * (n + 1)].mean().item() == pytest.approx(truth, rel=0.15)


def test_the_pilot_learns_the_scales_of_the_posterior():
    """Axes whose posterior scales differ by 30; the scale at β = 1 is right within a factor of two."""
    sigma = torch.tensor([0.03, 1.0])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, sigma).to_event(1), obs=x)

    x = torch.tensor([[0.3, -0.2], [1.0, 2.0]])
    torch.manual_seed(0)
    with Pair.on(model, lambda x: model_prior(x), (x,), start="prior") as density:
        tuning = tune(density, "prior", 20)
        log_w, _, acceptance, _ = forward(density, tuning, "prior", 500)
    posterior = (1 / (1 + 1 / sigma**2)).sqrt()
    ratio = tuning.log_scale[-1].exp() / posterior
    assert (ratio > 0.5).all()
    assert (ratio < 2).all()
    assert (acceptance > 0.4).all()
    for n in range(2):
        truth = dist.Normal(0.0, (1 + sigma**2).sqrt()).log_prob(x[n]).sum()
        agrees((log_w[:, n] - truth).exp(), 1.0)


def model_prior(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))


# --- the pilot and the chains that count --------------------------------------------------------------------------


@pytest.mark.parametrize("start", STARTS)
def test_nothing_in_the_weighted_transitions_depends_on_the_weighted_chains(start, monkeypatch):
    """Whatever is drawn, the transitions are the same, from the tuning alone; and the chains are drawn afresh."""
    pair = pairs.build("banana")
    seen: list[tuple[Tensor, ...]] = []

    def spy(terms, point, *frozen):
        seen.append(frozen)
        return original(terms, point, *frozen)

    original = annealing.transition
    with Pair.on(pair.model, pair.guide, pair.args, start=start) as density:
        torch.manual_seed(0)
        tuning = tune(density, start, 6)
        before = [part.clone() for part in numbers(tuning)]
        monkeypatch.setattr(annealing, "transition", spy)
        runs, calls = [], []
        for seed, num_chains in ((1, 7), (2, 7), (1, 3)):
            torch.manual_seed(seed)
            runs.append(forward(density, tuning, start, num_chains)[1].u)
            calls.append(seen[-5:])
            assert len(seen) == 5
            seen.clear()
        backward(density, tuning, start, density.draw(start, 4))
        calls.append(seen[::-1])
        # The same chains with another tuning run in between are the same chains.
        tune(density, start, 6)
        torch.manual_seed(1)
        assert torch.equal(forward(density, tuning, start, 7)[1].u, runs[0])
    assert not torch.equal(runs[0], runs[1])
    for call in calls[1:]:
        for now, then in zip(call, calls[0], strict=True):
            assert now[-2:] == then[-2:]  # the number of steps, and how trajectories are followed
            assert all(torch.equal(a, b) for a, b in zip(now[:-2], then[:-2], strict=True))
    for t, frozen in enumerate(calls[0], start=1):
        step, scale = tuning.at(tuning.betas[t])
        assert torch.equal(frozen[0], torch.stack([1 - tuning.betas[t], tuning.betas[t]]))
        assert torch.equal(frozen[1], step)
        assert torch.equal(frozen[2], scale)
    assert all(torch.equal(a, b) for a, b in zip(before, numbers(tuning), strict=True))


def test_the_number_of_distributions_does_not_change_what_the_pilot_does():
    pair = pairs.build("gamma_poisson")
    with Pair.on(pair.model, pair.guide, pair.args, start="guide") as density:
        torch.manual_seed(0)
        few = tune(density, "guide", 3)
        torch.manual_seed(0)
        many = tune(density, "guide", 50)
    for name in ("node_betas", "log_step", "log_scale", "node_lengths"):
        assert torch.equal(getattr(few, name), getattr(many, name))
    assert torch.equal(few.with_distributions(50).betas, many.betas)
    assert few.with_distributions(9, "linear").betas[1, 0] == pytest.approx(1 / 9)


# --- places of no density ----------------------------------------------------------------------------------------


def below(x: Tensor) -> None:
    """z ~ Exp(1), x ~ U(0, z): p(x) = ∫_x^∞ e^{−z}/z dz."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Exponential(1.0))
        pyro.sample("x", dist.Uniform(0.0, z, validate_args=False), obs=x)


def above(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Exponential(torch.ones(len(x))))


@pytest.mark.parametrize("start", STARTS)
def test_chains_that_start_at_zero_density_have_no_weight_and_the_mean_is_right(start):
    """Part of the draws has z < x; x = −1 is impossible whatever z is, and its neighbours do not notice."""
    x = torch.tensor([0.5, -1.0, 1.5])
    truth = [math.log(integrate.quad(lambda z: math.exp(-z) / z, value, math.inf)[0]) for value in (0.5, 1.5)]
    torch.manual_seed(0)
    with Pair.on(below, above, (x,), start=start) as density:
        tuning = tune(density, start, 6)
        assert all(part.isfinite().all() for part in numbers(tuning))
        log_w, point, acceptance, _ = forward(density, tuning, start, 3000)
        # A step of no length adds nothing, not 0 · ∞.
        still = replace(tuning, betas=torch.tensor([0.0, 0.0, 0.5, 0.5, 1.0])[:, None].expand(-1, 3))
        assert torch.isneginf(forward(density, still, start, 5)[0][:, 1]).all()
    assert torch.isneginf(log_w[:, 1]).all()
    assert acceptance.isfinite().all()
    assert not log_w.isnan().any()
    for n, value in zip((0, 2), truth, strict=True):
        lost = torch.isneginf(log_w[:, n])
        assert lost.double().mean().item() == pytest.approx(1 - math.exp(-x[n].item()), abs=0.05)
        agrees((log_w[:, n] - value).exp(), 1.0)
        # Chains without weight move on all the same.
        assert torch.isneginf(point.values[1, :, n]).sum() < 0.9 * lost.sum()


def test_an_impossible_datum_leaves_the_chains_of_the_others_as_they_are():
    """Bit by bit: the same seed with a possible datum in its place."""
    results = []
    for middle in (0.7, -1.0):
        x = torch.tensor([0.5, middle, 1.5])
        with Pair.on(below, above, (x,), start="guide") as density:
            torch.manual_seed(0)
            tuning = by_hand([[0.0, 0.5, 1.0]] * 3, [[0.0, 1.0, 2.0]] * 3)
            tuning = Tuning(
                tuning.betas, tuning.node_betas, torch.zeros(3, 3), torch.zeros(3, 3, 1), tuning.node_lengths
            )
            results.append(forward(density, tuning.with_distributions(5), "guide", 50)[0])
    assert torch.equal(results[0][:, [0, 2]], results[1][:, [0, 2]])
    assert not torch.equal(results[0][:, 1], results[1][:, 1])
