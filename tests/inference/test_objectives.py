"""Objectives against hand-derived gradients, closed forms, their limits, and Pyro's own where Pyro is right.

The toy pair is z ~ N(0, 1), x ~ N(θ z, 1) with q(z|x) = N(φ, e^(2s)): with a row of parameters for each datum, the
gradients of many equal data are so many independent replicates of one gradient.
"""

import dataclasses
import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from numpy.polynomial.hermite_e import hermegauss
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal

from ppvae.errors import DataError, OptionError, PairError
from ppvae.inference import fit
from ppvae.inference.svi.objectives import (
    IWAE,
    STL,
    TVO,
    VIMCO,
    VRIWAE,
    Beta,
    ByTurns,
    Cyclical,
    DReG,
    FreeBits,
    SemiAmortised,
    WakeWake,
    WarmUp,
)
from ppvae.models import VAE, Binomial, LinearGaussian

X = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64)
NAMES = ("theta", "loc", "log_scale")
START = (0.8, 0.4, -0.1)  # wider than the posterior, so that the weights have all moments


def model(x, size=None):
    theta = pyro.param("theta", lambda: torch.full((len(x),), START[0]))
    with pyro.plate("data", size or len(x), subsample=None if size is None else x):
        pyro.sample("x", dist.Normal(theta * pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=x)


def guide(x, size=None):
    loc = pyro.param("loc", lambda: torch.full((len(x),), START[1]))
    log_scale = pyro.param("log_scale", lambda: torch.full((len(x),), START[2]))
    with pyro.plate("data", size or len(x), subsample=None if size is None else x):
        pyro.sample("z", dist.Normal(loc, log_scale.exp()))


def gradients(objective, x=X, seed=0, programs=(model, guide), names=NAMES):
    """The loss, and its gradients in the parameters."""
    for name in names:
        if name in pyro.get_param_store():
            pyro.param(name).unconstrained().grad = None
    pyro.set_rng_seed(seed)
    loss = objective.loss_and_grads(*programs, x)
    return loss, [pyro.param(name).unconstrained().grad for name in names]


def by_hand(num_particles, x=X, seed=0):
    """Leaves, z, log p and log q with φ constant or not, under the noise of that seed."""
    leaves = [torch.full((len(x),), value, requires_grad=True) for value in START]
    theta, loc, log_scale = leaves
    pyro.set_rng_seed(seed)
    shape = (num_particles, len(x))
    z = loc + log_scale.exp() * torch.normal(torch.zeros(shape), torch.ones(shape))
    log_p = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(theta * z, 1.0).log_prob(x)
    log_q = dist.Normal(loc, log_scale.exp()).log_prob(z)
    path = dist.Normal(loc.detach(), log_scale.detach().exp()).log_prob(z)
    return leaves, z, log_p, log_q, path


def close(found, wanted, tolerance=1e-10):
    return all(torch.allclose(f, w, rtol=0, atol=tolerance) for f, w in zip(found, wanted, strict=True))


# --- gradients by hand, under the same noise --------------------------------------------------------------------------


def test_iwae_has_the_gradient_of_its_formula():
    leaves, _, log_p, log_q, _ = by_hand(4)
    loss = -((log_p - log_q).logsumexp(0) - math.log(4)).sum()
    value, found = gradients(IWAE(4))
    assert value == pytest.approx(loss.item(), abs=1e-12)
    assert close(found, torch.autograd.grad(loss, leaves))


def test_stl_has_the_gradient_of_the_path_alone():
    leaves, _, log_p, log_q, path = by_hand(4)
    value, found = gradients(STL(4))
    assert value == pytest.approx(-(log_p - log_q).mean(0).sum().item(), abs=1e-12)
    assert close(found, torch.autograd.grad(-(log_p - path).mean(0).sum(), leaves))


def test_dreg_weights_paths_by_squares_and_the_model_by_weights():
    leaves, z, log_p, log_q, path = by_hand(4)
    weights = (log_p - log_q).softmax(0).detach()
    (theta_gradient,) = torch.autograd.grad(-(weights * log_p).sum(), leaves[:1], retain_graph=True)
    (of_z,) = torch.autograd.grad((log_p - path).sum(), z, retain_graph=True)
    guide_gradients = torch.autograd.grad(z, leaves[1:], -(weights**2) * of_z)
    value, found = gradients(DReG(4))
    assert value == pytest.approx(-((log_p - log_q).logsumexp(0) - math.log(4)).sum().item(), abs=1e-12)
    assert close(found, [theta_gradient, *guide_gradients])


@pytest.mark.parametrize("objective", [IWAE(1), VRIWAE(0.5, 1), TVO(1), Beta(1.0), Beta(WarmUp(1, start=1.0))])
def test_the_elbo_to_the_bit(objective):
    assert_same(gradients(objective), gradients(Trace_ELBO()))


def assert_same(found, wanted):
    assert found[0] == wanted[0]
    assert all(torch.equal(f, w) for f, w in zip(found[1], wanted[1], strict=True))


@pytest.mark.parametrize("objective", [STL(1), DReG(1)])
def test_one_particle_has_the_value_of_the_elbo(objective):
    value, _ = gradients(objective)
    assert value == pytest.approx(gradients(Trace_ELBO())[0], abs=1e-12)


# --- between the ELBO and the importance-weighted bound ---------------------------------------------------------------


def test_renyis_bound_has_its_limits_and_the_gradient_of_its_formula():
    mean = gradients(Trace_ELBO(num_particles=4, vectorize_particles=True, max_plate_nesting=1))
    assert_near(gradients(VRIWAE(0.0, 4)), gradients(IWAE(4)), 1e-12)
    assert_near(gradients(VRIWAE(1.0, 4)), mean, 1e-10)
    assert_near(gradients(VRIWAE(1 - 1e-7, 4)), mean, 1e-5)
    leaves, _, log_p, log_q, _ = by_hand(4)
    loss = -((0.3 * (log_p - log_q)).logsumexp(0) - math.log(4)).sum() / 0.3
    assert_near(gradients(VRIWAE(0.7, 4)), (loss.item(), torch.autograd.grad(loss, leaves)), 1e-10)


def test_tvo_lies_between_and_has_its_limits():
    elbo, bound = gradients(VRIWAE(1.0, 6)), gradients(IWAE(6))
    assert_near(gradients(TVO(6, num_partitions=1)), elbo, 1e-10)
    assert_near(gradients(TVO(6, num_partitions=4000, smallest=1e-4)), bound, 1e-2)
    values = [-elbo[0], *(-gradients(TVO(6, n))[0] for n in (2, 5)), -bound[0]]
    assert values == sorted(values)
    leaves, _, log_p, log_q, _ = by_hand(6)
    log_w = log_p - log_q
    loss = -(0.1 * log_w.mean(0) + 0.9 * ((0.1 * log_w).softmax(0) * log_w).sum(0)).sum()
    assert_near(gradients(TVO(6, 2, smallest=0.1)), (loss.item(), torch.autograd.grad(loss, leaves)), 1e-10)


def assert_near(found, wanted, tolerance):
    assert found[0] == pytest.approx(wanted[0], abs=tolerance)
    assert close(found[1], wanted[1], tolerance)


# --- discrete latents, against enumeration ----------------------------------------------------------------------------


def bernoulli_model(x):
    a = pyro.param("a", lambda: torch.full((len(x),), -0.4))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(logits=a))
        pyro.sample("x", dist.Normal(2 * z, 1.0), obs=x)


def bernoulli_guide(x):
    b = pyro.param("b", lambda: torch.full((len(x),), 0.3))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Bernoulli(logits=b))


def enumerated(num_particles, x=1.5):
    """All outcomes of K draws: leaves, their probability, and log p and log q of each draw."""
    a, b = torch.tensor(-0.4, requires_grad=True), torch.tensor(0.3, requires_grad=True)
    z = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * num_particles)
    log_p = dist.Bernoulli(logits=a).log_prob(z) + dist.Normal(2 * z, 1.0).log_prob(torch.tensor(x))
    log_q = dist.Bernoulli(logits=b).log_prob(z)
    return (a, b), log_q.sum(-1).exp(), log_p, log_q


@pytest.mark.parametrize("kind", [VIMCO, WakeWake])
def test_discrete_latents_have_the_gradient_of_the_sum_over_all_outcomes(kind):
    """|z| < 4.5 for two parameters of 20 000 replicates: a false alarm in 70 000 runs."""
    leaves, mass, log_p, log_q = enumerated(3)
    if kind is VIMCO:
        total = -(mass * ((log_p - log_q).logsumexp(-1) - math.log(3))).sum()
    else:
        weights = (log_p - log_q).softmax(-1).detach()
        total = -(mass.detach() * (weights * (log_p + log_q)).sum(-1)).sum()
    wanted = torch.stack(torch.autograd.grad(total, leaves))
    x = torch.full((20_000,), 1.5)
    value, found = gradients(kind(3), x, programs=(bernoulli_model, bernoulli_guide), names=("a", "b"))
    found = torch.stack(found)
    assert (((found.mean(1) - wanted) / found.std(1) * 20_000**0.5).abs() < 4.5).all()
    exact = -(mass * ((log_p - log_q).logsumexp(-1) - math.log(3))).sum().item()
    assert value / 20_000 == pytest.approx(exact, abs=0.02)


def test_tvo_of_a_discrete_latent_is_the_enumerated_one_up_to_one_over_k():
    """|z| < 4.5 beside a bias of at most 4/K, for two parameters of 50 replicates: a false alarm in 70 000 runs."""
    a, b = torch.tensor(-0.4, requires_grad=True), torch.tensor(0.3, requires_grad=True)
    z, x, objective = torch.tensor([0.0, 1.0]), torch.full((50,), 1.5), TVO(2000, num_partitions=3, smallest=0.2)
    log_p = dist.Bernoulli(logits=a).log_prob(z) + dist.Normal(2 * z, 1.0).log_prob(x[:2])
    log_q = dist.Bernoulli(logits=b).log_prob(z)
    exact = torch.zeros(())
    for left, right in itertools.pairwise(objective.partition):
        between = ((1 - left) * log_q + left * log_p).softmax(0)
        exact = exact + (right - left) * (between * (log_p - log_q)).sum()
    wanted = torch.stack(torch.autograd.grad(-exact, (a, b)))
    value, found = gradients(objective, x, programs=(bernoulli_model, bernoulli_guide), names=("a", "b"))
    found = torch.stack(found)
    error = found.std(1) / 50**0.5
    assert ((found.mean(1) - wanted).abs() < 4.5 * error + 4 / 2000).all()
    assert (error < 0.02).all()
    assert value / 50 == pytest.approx(-exact.item(), abs=0.02)


def test_tvo_has_the_gradient_of_its_formula_where_no_draw_is_differentiable():
    """By hand for K = 3, one latent of two values: means and covariances under the weights of each β."""
    objective = TVO(3, num_partitions=2, smallest=0.3)
    _, found = gradients(
        objective, torch.full((4,), 1.5), programs=(bernoulli_model, bernoulli_guide), names=("a", "b")
    )
    pyro.set_rng_seed(0)
    z = dist.Bernoulli(logits=torch.full((3, 4), 0.3)).sample()
    of_p, of_q = z - torch.sigmoid(torch.tensor(-0.4)), z - torch.sigmoid(torch.tensor(0.3))
    log_w = dist.Bernoulli(logits=-0.4).log_prob(z) + dist.Normal(2 * z, 1.0).log_prob(torch.tensor(1.5))
    log_w = log_w - dist.Bernoulli(logits=0.3).log_prob(z)
    wanted = torch.zeros(2, 4)
    for beta, width in ((0.0, 0.3), (0.3, 0.7)):
        share = (beta * log_w).exp() / (beta * log_w).exp().sum(0)
        mean = lambda f: (share * f).sum(0)  # noqa: B023, E731
        covariance = lambda f: mean(f * log_w) - mean(f) * mean(log_w)  # noqa: B023, E731
        wanted[0] -= width * (mean(of_p) + beta * covariance(of_p))
        wanted[1] -= width * (-mean(of_q) + (1 - beta) * covariance(of_q))
    assert close(found, wanted)


def test_vimco_leaves_each_particle_out_by_the_geometric_mean_of_the_others():
    x = torch.full((5,), 1.5)
    objective = VIMCO(4)
    _, (of_a, of_b) = gradients(objective, x, programs=(bernoulli_model, bernoulli_guide), names=("a", "b"))
    pyro.set_rng_seed(0)
    z = dist.Bernoulli(logits=torch.full((4, 5), 0.3)).sample()
    w = (dist.Bernoulli(logits=-0.4).log_prob(z) + dist.Normal(2 * z, 1.0).log_prob(x)).exp()
    w = w / dist.Bernoulli(logits=0.3).log_prob(z).exp()
    for n in range(5):
        total_a = total_b = 0.0
        for k in range(4):
            others = torch.cat([w[:k, n], w[k + 1 :, n]])
            signal = w[:, n].mean().log() - ((others.sum() + others.log().mean().exp()) / 4).log()
            share = w[k, n] / w[:, n].sum()
            total_a -= share * (z[k, n] - torch.sigmoid(torch.tensor(-0.4)))
            total_b -= (signal - share) * (z[k, n] - torch.sigmoid(torch.tensor(0.3)))
        assert of_a[n] == pytest.approx(total_a.item(), abs=1e-10)
        assert of_b[n] == pytest.approx(total_b.item(), abs=1e-10)


def test_wake_phase_leads_to_the_posterior_of_each_datum():
    """Mini-batches of a pair whose posterior is known: z | x has log odds −0.4 + 2 x − 2."""
    x = torch.tensor([-1.0, 0.5, 1.0, 2.5])

    def guide(x):
        slope, shift = pyro.param("slope", torch.tensor(0.0)), pyro.param("shift", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=slope * x + shift))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(logits=torch.tensor(-0.4)).expand([len(x)]))
            pyro.sample("x", dist.Normal(2 * z, 1.0), obs=x)

    for kind in (WakeWake, VIMCO):
        pyro.clear_param_store()
        options = {"epochs": 10, "batch_size": 100, "learning_rate": 0.1, "precision": "64-true", "progress": False}
        result = fit(model, guide, x.repeat(200), loss=kind(8), **options)
        assert result.parameters["slope"].item() == pytest.approx(2.0, abs=0.3)
        assert result.parameters["shift"].item() == pytest.approx(-2.4, abs=0.3)


# --- in all layouts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [IWAE, STL, DReG, VIMCO, WakeWake, lambda k: FreeBits(0.05, k), lambda k: SemiAmortised(1, num_particles=k)]
)
def test_all_layouts_have_the_same_gradients(kind):
    """Fewer than 16 normal numbers at once come from the generator in one order, however they are cut."""
    torch.manual_seed(0)
    pair, x = LinearGaussian(3, 2, full_covariance=False), torch.randn(2, 3)
    objective, found = kind(3), []
    objective.loss(pair.model, pair.guide, x)
    seen = objective._pair
    assert seen.model_layout == seen.guide_layout == "broadcast"
    for one in ("broadcast", "fold", "loop"):
        objective._pair = dataclasses.replace(seen, model_layout=one, guide_layout=one)
        pair.zero_grad()
        pyro.set_rng_seed(1)
        loss = objective.loss_and_grads(pair.model, pair.guide, x)
        found.append([torch.tensor(loss), *(p.grad.clone() for p in pair.parameters())])
    assert close(found[1], found[0], 1e-9)
    assert close(found[2], found[0], 1e-9)


# --- variance and expectation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [STL(), STL(4), DReG(4)])
def test_no_variance_at_the_exact_posterior(objective):
    torch.manual_seed(0)
    pair, x = LinearGaussian(5, 2), torch.randn(7, 5)
    pair.set_exact_guide()
    for seed in range(3):
        pair.zero_grad()
        pyro.set_rng_seed(seed)
        objective.loss_and_grads(pair.model, pair.guide, x)
        for name, leaf in pair.named_parameters():
            if name.startswith("guide"):
                assert leaf.grad.abs().max() < 1e-10
    pair.zero_grad()
    Trace_ELBO().loss_and_grads(pair.model, pair.guide, x)
    assert pair.guide_weight.grad.abs().max() > 0.1  # Pyro's own ELBO has the score's variance


# x ~ N(z, 1), z ~ N(y, 1), y ~ N(0, 1), whose guide draws z first, and then y given z.
CHAIN = ("slope", "log_z", "share", "log_y")


def chain_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(pyro.sample("y", dist.Normal(0.0, 1.0)), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def chain_guide_at(values):
    def chain_guide(x):
        slope, log_z, share, log_y = (pyro.param(n, torch.tensor(v)) for n, v in zip(CHAIN, values, strict=True))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(slope * x, log_z.exp()))
            pyro.sample("y", dist.Normal(share * z, log_y.exp()))

    return chain_guide


@pytest.mark.parametrize("objective", [STL(3), DReG(3)])
def test_a_draw_that_depends_on_another_has_no_variance_either(objective):
    exact = chain_guide_at((2 / 3, math.log(2 / 3) / 2, 0.5, math.log(0.5) / 2))
    _, found = gradients(objective, programs=(chain_model, exact), names=CHAIN)
    assert max(g.abs().max() for g in found) < 1e-10


def test_dreg_weighs_the_path_through_a_chain_of_draws_once():
    values = (0.5, 0.1, 0.3, -0.2)
    leaves = [torch.tensor(v, requires_grad=True) for v in values]
    slope, log_z, share, log_y = leaves
    pyro.set_rng_seed(0)
    noise = [torch.normal(torch.zeros(3, 3), torch.ones(3, 3)) for _ in range(2)]
    z = slope * X + log_z.exp() * noise[0]
    y = share * z + log_y.exp() * noise[1]
    one, two = (v.detach().requires_grad_() for v in (z, y))
    constant = [leaf.detach() for leaf in leaves]
    log_p = (
        dist.Normal(0.0, 1.0).log_prob(two) + dist.Normal(two, 1.0).log_prob(one) + dist.Normal(one, 1.0).log_prob(X)
    )
    log_q = dist.Normal(constant[0] * X, constant[1].exp()).log_prob(one)
    log_q = log_q + dist.Normal(constant[2] * one, constant[3].exp()).log_prob(two)
    weights = (log_p - log_q).softmax(0).detach()
    partial = torch.autograd.grad((log_p - log_q).sum(), (one, two))
    wanted = torch.autograd.grad((z, y), leaves, [-(weights**2) * g for g in partial])
    value, found = gradients(DReG(3), programs=(chain_model, chain_guide_at(values)), names=CHAIN)
    assert value == pytest.approx(-((log_p - log_q).logsumexp(0) - math.log(3)).sum().item(), abs=1e-12)
    assert close(found, wanted)


def rows(objective, num_rows, seed=0, x=1.5):
    """Gradients in every parameter of so many equal data: independent replicates, ``(parameters, num_rows)``."""
    pyro.clear_param_store()
    _, found = gradients(objective, torch.full((num_rows,), x), seed)
    return torch.stack(found)


@pytest.mark.parametrize("objective", [STL(), DReG(5)])
def test_the_gradient_is_unbiased(objective):
    """|z| < 4.5 for three parameters: a false alarm in 50 000 runs."""
    other = Trace_ELBO() if isinstance(objective, STL) else IWAE(5)
    one, two = rows(objective, 20_000), rows(other, 20_000)  # the same noise: differences are paired
    z = (one - two).mean(1) / (one - two).std(1).clamp(min=1e-15) * 20_000**0.5
    assert torch.allclose(one[0], two[0])  # the model's gradient is the same
    assert (z[1:].abs() < 4.5).all()
    assert (one[1:].std(1) < two[1:].std(1)).all()


def test_the_bound_of_two_particles_is_its_integral():
    """Quadrature over both draws; |z| < 4.5: a false alarm in 150 000 runs."""
    nodes, mass = (torch.as_tensor(a) for a in hermegauss(60))
    mass = mass / mass.sum()
    x = torch.tensor(1.5)
    z = START[1] + math.exp(START[2]) * nodes
    log_w = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(START[0] * z, 1.0).log_prob(x)
    log_w = log_w - dist.Normal(START[1], math.exp(START[2])).log_prob(z)
    both = torch.logaddexp(log_w[:, None], log_w[None]) - math.log(2)
    truth = float((mass[:, None] * mass[None] * both).sum())
    n = 20_000
    objective = IWAE(2)
    pyro.set_rng_seed(0)
    estimate = -objective.loss(model, guide, x.expand(n).clone()) / n
    spread = float((mass[:, None] * mass[None] * (both - truth) ** 2).sum()) ** 0.5
    assert abs(estimate - truth) < 4.5 * spread / n**0.5
    evidence = float(dist.Normal(0.0, (1 + START[0] ** 2) ** 0.5).log_prob(x))
    assert truth < evidence


@pytest.mark.slow
def test_signal_to_noise_of_the_guide_falls_for_iwae_and_rises_for_dreg():
    """Slopes −1/2 and +1/2 of log SNR in log K, from 20 000 replicates at each K."""
    counts = torch.tensor([8.0, 32.0, 128.0])

    def slope(kind):
        snr = []
        for k in counts:
            found = rows(kind(int(k)), 20_000)[1]
            snr.append(found.mean().abs() / found.std())
        logs = counts.log() - counts.log().mean()
        return float((logs * torch.stack(snr).log()).sum() / (logs**2).sum())

    assert slope(IWAE) == pytest.approx(-0.5, abs=0.15)
    assert slope(DReG) == pytest.approx(0.5, abs=0.1)


# --- mini-batches -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [IWAE, STL, DReG, VIMCO, WakeWake, lambda k: FreeBits(0.05, k), lambda k: SemiAmortised(1, num_particles=k)]
)
def test_a_subsampling_plate_scales_the_sum_outside_the_logarithm(kind):
    sized = (lambda x: model(x, 30), lambda x: guide(x, 30))
    whole, subset = gradients(kind(4)), gradients(kind(4), programs=sized)
    assert subset[0] == pytest.approx(10 * whole[0], rel=1e-12)
    assert close(subset[1], [10 * g for g in whole[1]], 1e-9)


def test_where_pyros_iwae_is_above_log_p_this_one_is_not():
    """80 data in mini-batches of 8: the mean over an epoch is the bound of all data."""
    torch.manual_seed(0)
    x, size = 1.3 * torch.randn(80), 80
    model_ = lambda x: plain_model(x, size)  # noqa: E731
    guide_ = lambda x: plain_guide(x, size)  # noqa: E731
    evidence = float(dist.Normal(0.0, math.sqrt(2)).log_prob(x).sum())
    ours, pyros = IWAE(100), RenyiELBO(alpha=0.0, num_particles=100, vectorize_particles=True, max_plate_nesting=1)
    mean = [-sum(o.loss(model_, guide_, part) for part in x.split(8)) / 10 for o in (ours, pyros)]
    assert evidence - 3 < mean[0] < evidence + 0.5
    assert mean[1] > evidence + 10


def plain_model(x, size):
    with pyro.plate("data", size, subsample=x):
        pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=x)


def plain_guide(x, size):
    with pyro.plate("data", size, subsample=x):
        pyro.sample("z", dist.Normal(0.3 * x, 1.0))


@pytest.mark.parametrize("kind", [IWAE, STL, DReG])
def test_programs_that_subsample_for_themselves(kind):
    """With the exact posterior the loss is that of the data which were shown, whichever they are."""
    x = torch.tensor([0.0, 1.0, 3.0, 7.0])

    def chooses(sample):
        def program(x):
            with pyro.plate("data", len(x), subsample_size=2) as shown:
                sample(x[shown])

        return program

    @chooses
    def model(x):
        pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=x)

    @chooses
    def guide(x):
        pyro.sample("z", dist.Normal(pyro.param("slope", torch.tensor(0.5)) * x, 0.5**0.5))

    log_p = dist.Normal(0.0, 2**0.5).log_prob(x)
    sums = {round(-2 * float(log_p[i] + log_p[j]), 6) for i in range(4) for j in range(i)}
    objective = kind(3)
    assert len({round(objective.loss(model, guide, x), 6) for _ in range(20)} | sums) == len(sums) == 6


def test_shared_latents_are_one_unit_and_cannot_be_subsampled():
    def shared(size):
        def model(x):
            m = pyro.sample("m", dist.Normal(0.0, 1.0))
            with pyro.plate("data", size, subsample=x):
                pyro.sample("x", dist.Normal(m, 1.0), obs=x)

        return model

    def guide(x):
        pyro.sample("m", dist.Normal(pyro.param("a", torch.tensor(0.2)), 0.5))

    x = torch.tensor([0.1, 0.4, -0.3])
    pyro.set_rng_seed(0)
    m = 0.2 + 0.5 * torch.normal(torch.zeros(4, 1), torch.ones(4, 1))
    log_w = dist.Normal(0.0, 1.0).log_prob(m) - dist.Normal(0.2, 0.5).log_prob(m)
    log_w = log_w.sum(1) + dist.Normal(m, 1.0).log_prob(x).sum(1)
    pyro.set_rng_seed(0)
    assert IWAE(4).loss(shared(3), guide, x) == pytest.approx(-float(log_w.logsumexp(0) - math.log(4)))
    with pytest.raises(PairError, match="different scales"):
        IWAE(4).loss(shared(30), guide, x)


# --- what cannot be done is said --------------------------------------------------------------------------------------


def test_a_discrete_draw_has_no_path():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.Bernoulli(0.3)), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=pyro.param("a", torch.tensor(0.2)) * x))

    for objective in (IWAE(3), STL(), DReG(3)):
        with pytest.raises(PairError, match="no reparameterised draw"):
            objective.loss(model, guide, X)


def test_dropout_in_the_guide_is_refused_where_it_is_run_twice():
    network = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))

    def guide(x):
        pyro.module("network", network)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(network(x.unsqueeze(-1)).squeeze(-1), 1.0))

    with pytest.raises(PairError, match="dropout"):
        STL().loss(model, guide, X)
    network.eval()
    assert math.isfinite(STL().loss(model, guide, X))
    network.train()
    assert math.isfinite(IWAE(2).loss(model, guide, X))


def test_a_flow_by_points_is_refused_and_pyros_automatic_normal_is_not():
    def guide(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
            scale = pyro.param("scale", torch.tensor(0.7))
            pyro.sample("z", dist.Delta(a * scale, log_density=-scale.log().expand(a.shape)))

    with pytest.raises(PairError, match="TransformedDistribution"):
        STL().loss(model, guide, X)
    automatic = AutoNormal(lambda x: model(x))
    assert math.isfinite(DReG(3).loss(model, automatic, X))


# --- weights of the KL ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("elbo", [None, TraceMeanField_ELBO()])
def test_beta_is_linear_in_its_weight(elbo):
    at = {weight: gradients(Beta(weight, elbo)) for weight in (0.0, 0.5, 1.0, 4.0)}
    assert at[1.0][0] == gradients(elbo or Trace_ELBO())[0]
    leaves, z, *_ = by_hand(1)
    likelihood = -dist.Normal(leaves[0] * z, 1.0).log_prob(X).sum()
    assert at[0.0][0] == pytest.approx(likelihood.item(), abs=1e-12)
    assert close(at[0.0][1], torch.autograd.grad(likelihood, leaves))
    for weight in (0.5, 4.0):
        mixed = [(1 - weight) * a + weight * b for a, b in zip(at[0.0][1], at[1.0][1], strict=True)]
        assert close(at[weight][1], mixed)


def test_beta_weighs_what_the_guide_sums_out_and_not_what_the_model_does():
    """Against enumeration: z in {0, 1} with q = Bernoulli(r); d is the model's own."""
    x, r = torch.tensor([0.2, 1.7]), torch.tensor(0.7)

    @pyro.infer.config_enumerate
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.4))
            d = pyro.sample("d", dist.Bernoulli(0.2))
            pyro.sample("x", dist.Normal(z + 3 * d, 1.0), obs=x)

    @pyro.infer.config_enumerate
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(pyro.param("r", r)).expand([len(x)]))

    def at(z):
        parts = [math.log(w) + dist.Normal(z + 3.0 * d, 1.0).log_prob(x) for d, w in ((0, 0.8), (1, 0.2))]
        return torch.logsumexp(torch.stack(parts), 0)

    likelihood = (0.3 * at(0) + 0.7 * at(1)).sum()
    kl = 2 * float(torch.distributions.kl_divergence(dist.Bernoulli(0.7), dist.Bernoulli(0.4)))
    assert Beta(0.5).loss(model, guide, x) == pytest.approx(float(0.5 * kl - likelihood), abs=1e-10)
    assert TraceEnum_ELBO(max_plate_nesting=1).loss(model, guide, x) == pytest.approx(float(kl - likelihood))


def test_a_schedule_follows_the_steps_of_pyros_svi():
    objective = Beta(WarmUp(2))
    svi = SVI(model, guide, pyro.optim.SGD({"lr": 0.0}), loss=objective)
    found = []
    for _ in range(3):
        pyro.set_rng_seed(0)
        found.append(svi.step(X))
    wanted = [gradients(Beta(weight))[0] for weight in (0.0, 0.5, 1.0)]
    assert found == pytest.approx(wanted, abs=1e-12)
    assert objective.steps == 3


def test_a_schedule_must_give_weights():
    with pytest.raises(OptionError, match="weight of step 3"):
        Beta(lambda step: 1.0 - step).at_step(3)
    with pytest.raises(OptionError, match="differentiable"):
        Beta(1.0, RenyiELBO())
    with pytest.raises(OptionError, match="rising"):
        Cyclical(10, rising=0.0)


def trained(loss, epochs=6, compile=False, **options):
    torch.manual_seed(0)
    pair, x = LinearGaussian(3, 1), torch.randn(40, 3)
    options |= {"learning_rate": 0.02, "batch_size": 10, "precision": "64-true", "progress": False}
    result = fit(pair.model, pair.guide, x, loss=loss, epochs=epochs, compile=compile, validation=x[:10], **options)
    return result, torch.cat([p.detach().reshape(-1) for p in pair.parameters()])


def test_fit_warms_up_and_goes_on_where_it_was(tmp_path):
    path = tmp_path / "checkpoint.pt"
    _, whole = trained(Beta(WarmUp(18)))
    trained(Beta(WarmUp(18)), epochs=3, checkpoint=path)
    _, resumed = trained(Beta(WarmUp(18)), checkpoint=path, resume=True)
    assert torch.equal(whole, resumed)
    assert not torch.allclose(whole, trained(Beta(1.0))[1], atol=1e-4)


def test_the_validation_elbo_is_not_weighted():
    result, _ = trained(Beta(0.0), epochs=30)
    assert str(result).startswith("Fit: Beta ")
    torch.manual_seed(0)
    LinearGaussian(3, 1)
    x = torch.randn(40, 3)[:10]
    exact = result.model.program.__self__.exact_elbo(x).mean().item()
    assert result.history[-1]["validation_elbo"] == pytest.approx(exact, abs=0.1)
    assert result.history[-1]["elbo"] > exact + 0.3


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [lambda: Beta(WarmUp(18)), lambda: DReG(4), lambda: IWAE(4), lambda: FreeBits(0.1), lambda: WakeWake(3)]
)
def test_compiled_steps_are_the_eager_ones(kind):
    compiled, one = trained(kind(), compile=True)
    _, other = trained(kind())
    assert compiled.step == "compiled"
    assert torch.allclose(one, other, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_counts_are_held_to_their_support_in_compiled_steps_too():
    """An objective checks the data in every step; the check is a part of the graph."""
    torch.manual_seed(0)
    x = torch.randint(0, 3, (20, 4)).double()
    pair = VAE.for_data(x, Binomial(2), latent_dim=2, hidden=(4,))
    objective = IWAE(3)
    result = fit(pair.model, pair.guide, x, loss=objective, epochs=2, compile=True, precision="64-true", progress=False)
    assert result.step == "compiled"
    with pytest.raises(DataError, match="outside the support"):
        objective.loss(pair.model, pair.guide, x + 1)


# --- free bits --------------------------------------------------------------------------------------------------------


def guide_gradients(pair, objective, x, seed=0):
    pair.zero_grad()
    pyro.set_rng_seed(seed)
    loss = objective.loss_and_grads(pair.model, pair.guide, x)
    return loss, [p.grad.clone() for name, p in pair.named_parameters() if name.startswith("guide")]


def test_free_bits_at_their_limits():
    torch.manual_seed(0)
    pair, x = LinearGaussian(3, 2, full_covariance=False), torch.randn(6, 3)
    with torch.no_grad():
        pair.guide_weight.normal_()
    none, elbo = guide_gradients(pair, FreeBits(0.0), x), guide_gradients(pair, TraceMeanField_ELBO(), x)
    assert none[0] == pytest.approx(elbo[0], abs=1e-10)
    assert close(none[1], elbo[1])
    many, reconstruction = guide_gradients(pair, FreeBits(50.0), x), guide_gradients(pair, Beta(0.0), x)
    assert many[0] == pytest.approx(reconstruction[0] + 6 * 2 * 50.0, abs=1e-9)
    assert close(many[1], reconstruction[1])


def test_free_bits_are_for_each_number_of_the_mean_datum():
    torch.manual_seed(0)
    pair, x = LinearGaussian(3, 2, full_covariance=False), torch.randn(6, 3)
    with torch.no_grad():
        pair.guide_weight[1] = 1.0
        pair.guide_log_scale[0] = 0.01
    loc, scale = (x @ pair.guide_weight.T).detach(), pair.guide_log_scale.detach().exp()
    kl = torch.distributions.kl_divergence(dist.Normal(loc, scale), dist.Normal(0.0, 1.0)).mean(0)
    assert kl[0] < 0.2 < kl[1]
    found, elbo = guide_gradients(pair, FreeBits(0.2), x)[0], guide_gradients(pair, TraceMeanField_ELBO(), x)[0]
    assert found - elbo == pytest.approx(6 * float(0.2 - kl[0]), abs=1e-9)


# --- the guide's own steps, and turns ---------------------------------------------------------------------------------


def test_no_steps_are_the_elbo_and_many_reach_the_evidence():
    leaves = [torch.full((3,), value, requires_grad=True) for value in START]
    pyro.set_rng_seed(0)
    noise = torch.normal(torch.zeros(6), torch.ones(6))[3:]  # after the guide's own draw
    q = dist.Normal(leaves[1], leaves[2].exp())
    z = leaves[1] + leaves[2].exp() * noise
    elbo = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(leaves[0] * z, 1.0).log_prob(X) - q.log_prob(z)
    wanted = torch.autograd.grad(-elbo.sum(), leaves)
    assert_near(gradients(SemiAmortised(num_steps=0)), (-elbo.sum().item(), wanted), 1e-10)
    evidence = dist.Normal(0.0, (1 + START[0] ** 2) ** 0.5).log_prob(X).sum().item()
    values = [-gradients(SemiAmortised(n, 0.1, num_particles=100))[0] for n in (0, 3, 100)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(evidence, abs=0.01)  # a normal is the posterior
    assert math.isfinite(SemiAmortised(3).loss(model, guide, X))


def test_the_gradient_goes_through_the_steps():
    """Against central differences of the loss under the same noise."""
    _, found = gradients(SemiAmortised(3, 0.1, num_particles=2))
    for name, gradient in zip(NAMES, found, strict=True):
        leaf = pyro.param(name).unconstrained()
        gradient = gradient.clone()
        values = []
        for h in (1e-5, -1e-5):
            with torch.no_grad():
                leaf[1] += h
            values.append(gradients(SemiAmortised(3, 0.1, num_particles=2))[0])
            with torch.no_grad():
                leaf[1] -= h
        assert gradient[1] == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-7)


def test_semi_amortised_needs_normals_of_x_alone():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(pyro.sample("y", dist.Normal(z, 1.0)), 1.0), obs=x)

    def guide(x, second=dist.Normal):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(pyro.param("a", torch.tensor(0.5)) * x, 1.0))
            pyro.sample("y", second(z, 1.0))

    with pytest.raises(PairError, match="depends on another draw"):
        SemiAmortised().loss(model, guide, X)
    with pytest.raises(PairError, match="no independent normal"):
        SemiAmortised().loss(model, lambda x: guide(x, dist.Cauchy), X)


def test_by_turns_one_program_has_a_gradient_and_the_other_has_none():
    value, wanted = gradients(Trace_ELBO())
    wanted = [g.clone() for g in wanted]
    objective, seen = ByTurns(num_steps=5, guide_steps=2), []
    for _ in range(6):
        found, (theta, *rest) = gradients(objective)
        assert found == pytest.approx(value, abs=1e-12)
        seen.append((theta is not None, rest[0] is not None))
        assert theta is None or torch.allclose(theta, wanted[0], atol=1e-12)
        assert rest[0] is None or close(rest, wanted[1:])
    assert seen == [(False, True), (False, True), (True, False), (False, True), (False, True), (True, True)]


def test_user_code_is_the_same_for_all():
    objectives = (
        *(kind(num_particles=8) for kind in (IWAE, DReG, STL, TVO, VIMCO, WakeWake)),
        *(SemiAmortised(2), ByTurns(10, 2), VRIWAE(0.5, 4), FreeBits(0.1), Beta(Cyclical(10)), TraceMeanField_ELBO()),
    )
    for loss in objectives:
        torch.manual_seed(0)
        pair, x = LinearGaussian(3, 2, full_covariance=False), torch.randn(30, 3)
        result = fit(pair.model, pair.guide, x, loss=loss, epochs=2, batch_size=10, progress=False)
        assert math.isfinite(result.history[-1]["elbo"])
        SVI(pair.model, pair.guide, pyro.optim.Adam({}), loss=loss).step(x)
