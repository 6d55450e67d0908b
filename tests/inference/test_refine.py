"""`refine`: gradients, distributions rebuilt, maps, convergence, closed forms, and the edges of its domain."""

import math
from typing import Any

import pairs
import pyro
import pyro.distributions as dist
import pytest
import torch
import truths_inference as truths
from gate import slow_but
from torch import Tensor

from ppvae.errors import DataError, OptionError, PairError
from ppvae.inference import Optimiser, attribute_gap, importance_evidence, log_weights
from ppvae.inference.gap.ascent import ROUND, ascend, paired
from ppvae.inference.gap.flows import MapFamily, forward, inverse, moments
from ppvae.inference.gap.guide_family import GuideFamily, shifted
from ppvae.inference.gap.refinement import refine
from ppvae.inference.pair import Pair
from ppvae.inference.pair.randomness import generator_kept


def mean_field(scale: float = 0.7, num_data: int = 3) -> tuple[Any, Any, Tensor, Tensor]:
    """z ~ N(0, I₂), x ~ N(Wz, ½²I₂), its posterior correlated; q is diagonal and wrong; and the posterior precision."""
    W = torch.tensor([[1.0, 0.8], [0.2, 0.9]])
    precision = torch.eye(2) + W.T @ W / 0.25

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ W.T, 0.5).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.3 * x, scale).to_event(1))

    x = torch.randn(num_data, 2, generator=torch.Generator().manual_seed(1))
    return model, guide, x, precision


def everyone(n: int) -> Tensor:
    return torch.arange(n)


def test_the_gradient_is_the_one_derived_by_hand():
    """q = N(μ + a, s e^b): z = μ + a + s e^b ε. With log q's own parameters held still, ∂/∂z log w is
    −P(z − m) + ε/(s e^b), so that ∂/∂a is its mean and ∂/∂b the mean of its product with s e^b ε."""
    model, guide, x, precision = mean_field()
    a = torch.tensor([[0.1, -0.2], [0.3, 0.0], [0.0, 0.5]]).requires_grad_()
    b = torch.tensor([[0.2, 0.1], [-0.3, 0.4], [0.0, -0.1]]).requires_grad_()
    with Pair.on(model, guide, (x,)) as density:
        family = GuideFamily(density)
        with generator_kept(3):
            elbo = family.log_weights((a, b), everyone(3), 7).mean(0)
    assert [(o.parameter, o.shape) for o in family.offsets] == [("loc", (2,)), ("scale", (2,))]
    gradients = torch.autograd.grad(elbo.sum(), (a, b))
    with generator_kept(3), torch.no_grad():
        std = 0.7 * b.exp()
        eps = torch.normal(torch.zeros(7, 3, 2), torch.ones(7, 3, 2))
        z = 0.3 * x + a + std * eps
        W = torch.tensor([[1.0, 0.8], [0.2, 0.9]])
        slope = (x @ W / 0.25) - z @ precision + eps / std
    torch.testing.assert_close(gradients[0], slope.mean(0))
    torch.testing.assert_close(gradients[1], (slope * std * eps).mean(0))


def test_the_gradient_of_a_map_is_the_one_derived_by_hand():
    """u' = b + Lε on N(0, I): with log q' held still, ∂/∂b is the mean of s = ∂ log w/∂u', ∂/∂L that of sεᵀ below."""
    model, guide, x, precision = mean_field()
    with Pair.on(model, guide, (x,), start="guide") as density:
        centre, spread = 0.3 * x, torch.full((3, 2), 0.7)
        family = MapFamily(density, centre, spread)
        parameters = tuple((p + 0.2).requires_grad_() for p in family.start)
        with generator_kept(4):
            elbo = family.log_weights(parameters, everyone(3), 6).mean(0)
        gradients = torch.autograd.grad(elbo.sum(), parameters)
        with generator_kept(4):
            eps = (density.draw("guide", 6) - centre) / spread
    L = torch.tensor([[math.exp(0.2), 0.0], [0.2, math.exp(0.2)]])
    u = centre + spread * (eps @ L.T + 0.2)
    W = torch.tensor([[1.0, 0.8], [0.2, 0.9]])
    # −∂ log q'/∂u' = (s L)⁻ᵀ ε
    slope = (x @ W / 0.25) - u @ precision + (eps @ torch.linalg.inv(L)) / spread
    below = torch.zeros(3, 2, 2)
    below[:, 1, 0] = (slope[..., 1] * spread[:, 1] * eps[..., 0]).mean(0)
    torch.testing.assert_close(gradients[0], (slope * spread).mean(0))
    torch.testing.assert_close(gradients[1], (slope * spread * eps * math.exp(0.2)).mean(0))
    torch.testing.assert_close(gradients[2], below)


def test_natural_units_are_those_of_the_fisher_information():
    """Of a Gaussian's mean s², of its log scale ½; of Gamma's log concentration 1/(a² ψ'(a)), of its log rate 1/a."""
    model, guide, x, _precision = mean_field(num_data=2)
    pyro.set_rng_seed(1)
    with Pair.on(model, guide, (x,)) as density:
        loc, log_scale = GuideFamily(density).units((torch.zeros(2, 2),) * 2, everyone(2), 20_000)
    torch.testing.assert_close(loc, torch.full((2, 2), 0.7), rtol=0.03, atol=0)
    torch.testing.assert_close(log_scale, torch.full((2, 2), math.sqrt(0.5)), rtol=0.03, atol=0)
    pair = pairs.build("gamma_poisson")
    a = 0.8 * (2.5 + pair.x)
    with Pair.on(pair.model, pair.guide, (pair.x,)) as density:
        family = GuideFamily(density)
        concentration, rate = family.units(family.start, everyone(4), 20_000)
    torch.testing.assert_close(concentration, (a**2 * torch.polygamma(1, a)).rsqrt(), rtol=0.05, atol=0)
    torch.testing.assert_close(rate, a.rsqrt(), rtol=0.05, atol=0)


P, R = torch.tensor([0.5, 2.0], dtype=torch.float64), torch.tensor([0.3, -1.0], dtype=torch.float64)
DISTRIBUTIONS = {
    "normal": (lambda: dist.Normal(R, P), {"loc": R + 1, "scale": P * math.e}),
    "independent": (lambda: dist.Normal(R, P).to_event(1), {"loc": R + 1, "scale": P * math.e}),
    "masked": (lambda: dist.Normal(R, P).mask(torch.tensor([True, False])), {"loc": R + 1, "scale": P * math.e}),
    "lognormal": (lambda: dist.LogNormal(R, P), {"loc": R + 1, "scale": P * math.e}),
    "gamma": (lambda: dist.Gamma(P, P), {"concentration": P * math.e, "rate": P * math.e}),
    "inverse gamma": (lambda: dist.InverseGamma(P, P), {"concentration": P * math.e, "rate": P * math.e}),
    "beta": (lambda: dist.Beta(P, P), {"concentration1": P * math.e, "concentration0": P * math.e}),
    "dirichlet": (lambda: dist.Dirichlet(P), {"concentration": P * math.e}),
    "student": (
        lambda: dist.StudentT(P, R, P),
        {"df": P * math.e, "loc": R + 1, "scale": P * math.e},
    ),
    "relaxed": (lambda: dist.RelaxedBernoulli(torch.tensor(0.4), logits=R), {"logits": R + 1}),
    "affine beta": (
        lambda: dist.AffineBeta(P, P, 1.0, 3.0),
        {"concentration1": P * math.e, "concentration0": P * math.e},
    ),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_every_parameter_of_a_distribution_is_shifted(name):
    build, expected = DISTRIBUTIONS[name]
    fn = build()
    moved = shifted(fn, {parameter: torch.ones(2) for parameter in expected})
    still = shifted(fn, {parameter: torch.zeros(2) for parameter in expected})
    assert moved.batch_shape == fn.batch_shape
    assert moved.event_shape == fn.event_shape
    value = fn.sample()
    torch.testing.assert_close(still.log_prob(value), fn.log_prob(value))
    base = moved
    while not all(hasattr(base, parameter) for parameter in expected):
        base = base.base_dist
    for parameter, truth in expected.items():
        torch.testing.assert_close(getattr(base, parameter), truth)


def test_multivariate_distributions_are_shifted_by_their_factors():
    """A Cholesky factor's diagonal by its logarithm, and what is below it as it is; a low-rank one by its parts."""
    L = torch.tensor([[2.0, 0.0], [0.5, 1.0]])
    full = shifted(
        dist.MultivariateNormal(R, covariance_matrix=L @ L.T), {"loc": torch.ones(2), "scale_tril": torch.ones(2, 2)}
    )
    torch.testing.assert_close(full.loc, R + 1)
    torch.testing.assert_close(full.scale_tril, torch.tensor([[2 * math.e, 0.0], [1.5, math.e]]))
    low = dist.LowRankMultivariateNormal(R, torch.ones(2, 1), P)
    moved = shifted(low, {"cov_factor": torch.ones(2, 1), "cov_diag": torch.ones(2)})
    torch.testing.assert_close(moved.covariance_matrix, torch.full((2, 2), 4.0) + torch.diag(P * math.e))


def test_a_transformed_distribution_is_shifted_at_its_base():
    exp = dist.transforms.ExpTransform()
    fn = dist.TransformedDistribution(dist.Normal(R, P), [exp])
    moved = shifted(fn, {"loc": torch.ones(2)})
    torch.testing.assert_close(moved.log_prob(P), dist.LogNormal(R + 1, P).log_prob(P))


def test_what_moves_the_support_is_left_alone():
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Uniform(0.0, 1.0).expand([len(x)]))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def beta(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.AffineBeta(2.0, 3.0, 0.0, 1.0))

    with Pair.on(model, beta, (torch.zeros(2),)) as density:
        family = GuideFamily(density)
    assert [offset.parameter for offset in family.offsets] == ["concentration1", "concentration0"]
    with (
        Pair.on(model, model_as_guide, (torch.zeros(2),)) as density,
        pytest.raises(PairError, match="no parameter that could be freed without moving its support"),
    ):
        GuideFamily(density)


def model_as_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Uniform(0.0, 1.0))


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_a_map_and_its_inverse(dim):
    """Back and forth, and log |det| against autograd's Jacobian."""

    nothing: Any = None
    like = torch.zeros(3, dim)
    family = MapFamily(nothing, like, like + 1, couplings=True)
    eps = torch.randn(3, 4, dim)
    mapped, log_det = forward(family.start, eps)
    torch.testing.assert_close(mapped, eps)
    assert log_det.abs().max() == 0
    parameters = tuple(p + 0.3 * torch.randn_like(p) for p in family.start)
    mapped, log_det = forward(parameters, eps)
    assert (mapped - eps).abs().min() > 1e-6
    back, log_det_back = inverse(parameters, mapped)
    torch.testing.assert_close(back, eps)
    torch.testing.assert_close(log_det_back, log_det)
    one = tuple(p[:1] for p in parameters)
    jacobian = torch.autograd.functional.jacobian(lambda e: forward(one, e[None, None])[0][0, 0], eps[0, 0])
    torch.testing.assert_close(log_det[0, 0], torch.linalg.slogdet(jacobian)[1])


def test_weights_of_the_map_onto_the_posterior_are_the_evidence():
    """u' = m + chol(P⁻¹) ε, whose density is the posterior's: each weight is log p(x), with gradients and without."""
    model, guide, x, _precision = mean_field()
    W = torch.tensor([[1.0, 0.8], [0.2, 0.9]])
    numbers = (W, torch.zeros(2), 0.25 * torch.eye(2), torch.zeros(2), torch.eye(2))
    loc, cov = truths.gaussian_posterior(x, *numbers)
    with Pair.on(model, guide, (x,), start="guide") as density:
        centre, spread = 0.3 * x, torch.full((3, 2), 0.7)
        L = torch.linalg.cholesky(cov) / 0.7
        parameters = ((loc - centre) / spread, L.diagonal().log().expand(3, 2), L.expand(3, 2, 2))
        family = MapFamily(density, centre, spread, parameters)
        expected = truths.gaussian_evidence(x, *numbers).expand(5, 3)
        torch.testing.assert_close(family.log_weights(parameters, everyone(3), 5).detach(), expected)
        with torch.no_grad():
            torch.testing.assert_close(family.log_weights(parameters, everyone(3), 5), expected)


def test_weights_of_a_flow_are_the_same_with_gradients_and_without():
    model, guide, x, _ = mean_field()
    with Pair.on(model, guide, (x,), start="guide") as density:
        family = MapFamily(density, 0.3 * x, torch.full((3, 2), 0.7), couplings=True)
        parameters = tuple(p + 0.1 * torch.randn_like(p) for p in family.start)
        with generator_kept(1):
            with_gradients = family.log_weights(parameters, everyone(3), 5).detach()
        with generator_kept(1), torch.no_grad():
            torch.testing.assert_close(family.log_weights(parameters, everyone(3), 5), with_gradients)


def test_a_refined_guide_knows_its_data_in_any_order():
    model, guide, x, _ = mean_field()
    best = refine(model, guide, x, optimiser=Optimiser(steps=50), num_draws=10, seed=0)
    whole: Any = pyro.poutine.trace(best.guide).get_trace(x).nodes["z"]
    some: Any = pyro.poutine.trace(best.guide).get_trace(x[[2, 0]]).nodes["z"]
    for name in ("loc", "scale"):
        parameter = getattr(whole["fn"].base_dist, name)
        torch.testing.assert_close(getattr(some["fn"].base_dist, name), parameter[[2, 0]])
    moved = whole["fn"].base_dist.loc - 0.3 * x
    assert (moved[0] - moved[2]).abs().max() > 0.1


@pytest.mark.parametrize(
    "name",
    slow_but(
        ["gamma_poisson", "conditional", "stored"],
        ["linear_narrow", "gamma_poisson", "beta_binomial", "hierarchy", "conditional", "methods", "stored"],
    ),
)
def test_where_the_posterior_is_in_the_family_it_is_found(name):
    """Gaussian, Gamma, Beta, hierarchical, with context, with parameters in a module and in the store."""
    pair = pairs.build(name)
    best = refine(pair.model, pair.guide, pair.data, seed=0)
    assert best.converged.all()
    assert best.remarks() == []
    torch.testing.assert_close(best.elbo, pair.truth, rtol=0, atol=2e-3)
    torch.testing.assert_close(best.gain, pair.true_gap, rtol=0, atol=0.06)
    # The refined guide is a guide: on all data, on some in another order.
    evidence = importance_evidence(pair.model, best.guide, pair.data, 50, seed=1)
    torch.testing.assert_close(evidence.elbo, pair.truth, rtol=0, atol=0.01)
    some = pair.rows([2, 0])
    assert (log_weights(pair.model, best.guide, some.data, 20) - some.truth).abs().max() < 0.3


def test_the_best_diagonal_gaussian():
    """N(m, diag P⁻¹): the gap that is left is ½ (Σ log P_ii − log det P)."""
    model, guide, x, precision = mean_field()
    best = refine(model, guide, x, optimiser=Optimiser(tolerance=0.01), num_draws=4000, seed=0)
    left = (precision.diagonal().log().sum() - torch.logdet(precision)) / 2
    W = torch.tensor([[1.0, 0.8], [0.2, 0.9]])
    truth = truths.gaussian_evidence(x, W, torch.zeros(2), 0.25 * torch.eye(2), torch.zeros(2), torch.eye(2))
    assert best.converged.all()
    assert ((truth - left - best.elbo).abs() < 4.5 * best.elbo_standard_error + 0.002).all()
    members = best.members
    assert list(members) == ["amortised", "guide"]
    torch.testing.assert_close(members["amortised"].elbo + best.gain, best.elbo)
    for member in members.values():
        torch.testing.assert_close(member.evidence.elbo, member.elbo)
        torch.testing.assert_close(member.evidence.elbo_standard_error, member.elbo_standard_error)


@pytest.mark.parametrize("name", ["mixture_in_model", "mixture_in_guide", "parts", "plated"])
@pytest.mark.slow
def test_enumerated_sites_and_plates_inside_a_datum(name):
    """The refined ELBO is the mean of the refined guide's log weights, above the guide's and below log p(x)."""
    pair = pairs.build(name)
    best = refine(pair.model, pair.guide, pair.data, seed=0)
    assert best.converged.all()
    assert (best.gain > 0).all()
    assert (best.elbo < pair.truth + 4.5 * best.elbo_standard_error).all()
    log_w = log_weights(pair.model, best.guide, pair.data, 4000, seed=5)
    error = torch.hypot(log_w.std(0) / math.sqrt(4000), best.elbo_standard_error)
    assert ((log_w.mean(0) - best.elbo).abs() < 4.5 * error + 1e-9).all()


@pytest.mark.slow
def test_families_are_nested_on_a_curved_posterior():
    """ELBO(guide) ≤ ELBO(refined) ≤ ELBO(full) ≤ ELBO(flow) ≤ log p(x), within errors; the flow bends to the banana."""
    pair = pairs.build("banana").rows(slice(0, 2))
    best = refine(
        pair.model, pair.guide, pair.x, family="flow", optimiser=Optimiser(tolerance=0.02), num_draws=2000, seed=0
    )
    members = best.members
    assert list(members) == ["amortised", "guide", "full", "flow"]
    for member in members.values():
        assert (member.gain > -4.5 * member.gain_standard_error - 1e-12).all()
    assert (best.elbo < pair.truth + 4.5 * best.elbo_standard_error).all()
    assert members["guide"].gain.mean() > 0.1
    left = (pair.truth - members["full"].elbo).mean()
    assert (pair.truth - best.elbo).mean() < 0.6 * left


def test_a_budget_of_two_steps_has_not_converged():
    pair = pairs.build("linear_shifted")
    best = refine(pair.model, pair.guide, pair.x, optimiser=Optimiser(steps=2), seed=0)
    assert not best.converged.any()
    assert (best.steps == 2).all()
    assert "was not reached for 6 of 6 data" in best.remarks()[0]
    # A round that is too short, or steps that are too small to get anywhere, prove nothing.
    assert not refine(pair.model, pair.guide, pair.x, optimiser=Optimiser(steps=ROUND - 1), seed=0).converged.any()
    slow = refine(pair.model, pair.guide, pair.x, optimiser=Optimiser(steps=ROUND, learning_rate=1e-4), seed=0)
    assert not slow.converged.any()


def test_a_guide_that_is_best_already_is_left_and_has_converged_after_a_round():
    pair = pairs.build("linear_exact")
    best = refine(pair.model, pair.guide, pair.x, seed=0)
    assert best.converged.all()
    assert (best.steps == ROUND).all()
    torch.testing.assert_close(best.elbo, pair.truth, rtol=0, atol=1e-5)  # what the last, unneeded steps cost


class Quadratic:
    """log w = −½ (θ − θ*)² and some noise, with data of which one has no finite density and one no finite gradient."""

    start = (torch.zeros(4, 1, dtype=torch.float64),)
    goal = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)

    def __init__(self, bad: dict[int, float]) -> None:
        self.bad = bad

    def log_weights(self, parameters: Any, index: Any, num_particles: int) -> Tensor:
        distance = parameters[0][:, 0] - self.goal[index]
        log_w = (-(distance**2) / 2).expand(num_particles, -1)
        factor = torch.ones(len(index), dtype=torch.float64)
        for datum, value in self.bad.items():
            factor[index == datum] = value
        return log_w * factor

    def units(self, parameters: Any, index: Any, num_particles: int) -> Any:
        return tuple(torch.ones_like(p) for p in parameters)


def how(steps: int) -> Optimiser:
    return Optimiser(num_particles=4, steps=steps, learning_rate=0.05, tolerance=0.01)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_bad_datum_leaves_the_others_unharmed(value):
    clean = ascend(Quadratic({}), how(1000), 64)
    hurt = ascend(Quadratic({1: value}), how(1000), 64)
    others = [0, 2, 3]
    assert clean.converged.all()
    torch.testing.assert_close(clean.parameters[0][:, 0], Quadratic.goal, rtol=0, atol=0.02)
    assert torch.equal(hurt.parameters[0][others], clean.parameters[0][others])
    assert hurt.converged.tolist() == [True, False, True, True]
    assert torch.isfinite(hurt.parameters[0]).all()


class Misled(Quadratic):
    """Its gradient points away from the goal."""

    def log_weights(self, parameters: Any, index: Any, num_particles: int) -> Tensor:
        log_w = super().log_weights(parameters, index, num_particles)
        return -log_w if torch.is_grad_enabled() else log_w


def test_an_ascent_that_goes_down_returns_and_has_not_converged():
    ascent = ascend(Misled({}), how(2 * ROUND), 64)
    assert torch.equal(ascent.parameters[0], Misled.start[0])
    assert not ascent.converged.any()


class Stumbling(Quadratic):
    """The gradient of one datum is not finite, once."""

    stumbled = False

    def log_weights(self, parameters: Any, index: Any, num_particles: int) -> Tensor:
        log_w = super().log_weights(parameters, index, num_particles)
        if torch.is_grad_enabled() and not self.stumbled:
            self.stumbled = True
            return log_w * torch.where(index == 1, math.nan, 1.0)
        return log_w


def test_a_step_whose_gradient_is_not_finite_is_left_out():
    ascent = ascend(Stumbling({}), how(1000), 64)
    assert ascent.converged.all()
    assert torch.equal(ascent.steps, ascend(Quadratic({}), how(1000), 64).steps)  # no round was lost
    torch.testing.assert_close(ascent.parameters[0][:, 0], Quadratic.goal, rtol=0, atol=0.02)


def test_steps_are_counted_and_progress_adds_up_to_the_budget():
    told: list[int] = []
    ascent = ascend(Quadratic({1: math.nan}), how(1000), 64, told.append)
    assert sum(told) == 4 * 1000
    assert ascent.steps[1] == 1000
    assert (ascent.steps[[0, 2, 3]] < 1000).all()


def test_a_datum_of_probability_zero():
    """Its ELBO is −inf, it has not converged, and the others are what they are without it."""
    pair = pairs.uniform([0.1, 2.0, 0.2], [0.6, 3.0, 0.9])

    def guide(x: Tensor, low: Tensor, high: Tensor) -> None:
        # A Beta on [0, 1], moved out of the prior's support for the second datum.
        shift = dist.transforms.AffineTransform((low > 1).to(x), 1.0)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.TransformedDistribution(dist.Beta(2.0 + low, 2.0 + high), [shift]))

    best = refine(pair.model, guide, pair.data, optimiser=Optimiser(steps=600), seed=0)
    assert best.converged.tolist() == [True, False, True]
    assert best.elbo[1] == -math.inf
    assert torch.isfinite(best.elbo[[0, 2]]).all()
    assert (best.elbo < pair.truth)[[0, 2]].all()


def test_the_pair_is_left_as_it_was():
    """Its parameters, their gradients, the training mode, and the global generator."""
    pair = pairs.build("vae_bernoulli")
    module: Any = pair.modules[0]
    before = [p.clone() for p in module.parameters()]
    state = torch.get_rng_state()
    first = refine(pair.model, pair.guide, pair.x, optimiser=Optimiser(steps=20), seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    assert all(torch.equal(p, old) for p, old in zip(module.parameters(), before, strict=True))
    assert module.training
    again = refine(pair.model, pair.guide, pair.x, optimiser=Optimiser(steps=20), seed=3)
    other = refine(pair.model, pair.guide, pair.x, optimiser=Optimiser(steps=20), seed=4)
    assert torch.equal(first.elbo, again.elbo)
    assert not torch.equal(first.elbo, other.elbo)


@pytest.mark.slow
def test_pieces_find_what_the_whole_finds():
    """A budget that cuts the data to single ones."""
    pair = pairs.build("linear_narrow").rows(slice(0, 2))
    best = refine(pair.model, pair.guide, pair.data, seed=0, memory_mb=0.02, num_draws=50)
    assert best.converged.all()
    torch.testing.assert_close(best.elbo, pair.truth, rtol=0, atol=2e-3)


def test_common_random_numbers():
    pair = pairs.build("linear_shifted")
    with Pair.on(pair.model, pair.guide, (pair.x,)) as density:
        family = GuideFamily(density)
        same = tuple(p.clone() for p in family.start)
        first, second = paired(family, family.start, same, everyone(6), 10, 4)
    assert first.shape == (10, 6)
    assert torch.equal(first, second)
    assert not torch.equal(first[:4], first[4:8])


def test_moments_are_those_of_the_guide():
    model, guide, x, _ = mean_field()
    with Pair.on(model, guide, (x,), start="guide") as density:
        centre, spread = moments(density, 20_000, 5000)
    torch.testing.assert_close(centre, 0.3 * x, rtol=0, atol=4.5 * 0.7 / math.sqrt(20_000))
    torch.testing.assert_close(spread, torch.full((3, 2), 0.7), rtol=0.03, atol=0)


@pytest.mark.slow
def test_a_table_with_as_many_rows_as_data_is_no_part_of_a_datum():
    """The guide is the posterior but for a shift, which is taken away: a gain of 0.1² / (2 · 0.2) = 0.025 nats."""
    table, x, category = torch.tensor([-2.0, 0.0, 2.0]), torch.tensor([-1.5, 2.2, 0.3]), torch.tensor([0, 2, 1])

    def model(x, category, table):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(table[category], 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x, category, table):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((4 * x + table[category]) / 5 + 0.1, math.sqrt(0.2)))

    gap = attribute_gap(model, guide, (x, category, table), optimiser=Optimiser(steps=200), seed=0).summary()
    assert abs(gap["amortisation"] - 0.025) < 4.5 * gap["amortisation_standard_error"] < 0.02
    refined = refine(model, guide, (x, category, table), optimiser=Optimiser(steps=200), seed=0)
    evidence = importance_evidence(model, refined.guide, (x[[2, 0]], category[[2, 0]], table), 100, seed=0)
    assert torch.allclose(evidence.log_evidence, dist.Normal(table[category], 1.25**0.5).log_prob(x)[[2, 0]])
    with pytest.raises(DataError, match=r"^x holds a datum .*used on\.$"):  # and no shapes of Pyro's
        importance_evidence(model, refined.guide, (x + 1, category, table), 100, seed=0)


def test_an_unknown_datum_is_refused():
    pair = pairs.build("linear_exact")
    best = refine(pair.model, pair.guide, pair.x, optimiser=Optimiser(steps=1), num_draws=10)
    with pytest.raises(DataError, match="the first in row 1: refine"):
        best.guide(torch.cat([pair.x[:1], pair.x[1:] + 1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "fuller"}, "family must be one of 'guide', 'full', 'flow'; it is 'fuller'"),
        (
            {"optimiser": {"steps": 5}},
            r"optimiser must be the record ppvae.inference.Optimiser\(...\); it is of type dict",
        ),
        ({"num_draws": 1}, "num_draws must be an integer of at least 2"),
        ({"memory_mb": 0.0}, "memory_mb must be a positive number"),
    ],
)
def test_bad_options(options, message):
    pair = pairs.build("linear_exact")
    with pytest.raises(OptionError, match=message):
        refine(pair.model, pair.guide, pair.x, **options)


@pytest.mark.parametrize(
    ("name", "family", "message"),
    [
        ("mixture", "guide", "draws no continuous latent"),
        ("feed_forward", "guide", "draws no continuous latent"),
        ("autoencoder", "guide", "z: the guide puts it at a single point"),
        ("mixture_conditional", "full", "'z' depends on a site that the guide enumerates"),
        ("semi_supervised", "flow", "'z' depends on a site that the guide enumerates"),
    ],
)
def test_pairs_that_cannot_be_refined(name, family, message):
    pair = pairs.build(name)
    with pytest.raises(PairError, match=message):
        refine(pair.model, pair.guide, pair.data, family=family)


def test_draws_without_a_gradient_are_refused():
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Poisson(2.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Poisson(3.0))

    with pytest.raises(PairError, match="'z' is drawn from Poisson, whose draws have no gradient"):
        refine(model, guide, torch.zeros(2))


def test_bad_data():
    pair = pairs.build("linear_exact")
    with pytest.raises(DataError, match="x holds 1 values that are NaN"):
        refine(pair.model, pair.guide, torch.full((1, 5), 0.0).index_fill(1, torch.tensor([2]), math.nan))
