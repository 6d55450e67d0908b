"""Where chains start, at first and anew, how they are scaled, and what a walk reports."""

import math

import pairs
import planted
import pyro
import pyro.distributions as dist
import pytest
import torch

from ppvae.inference.pair import Pair
from ppvae.inference.sampling import warmup
from ppvae.inference.sampling.resampling import Places, _side_by_side, _starts, annealed_places, systematic
from ppvae.inference.sampling.warmup import Kernel, covariance_factor, settle, starts, walk, warm_up


def nothing():
    pass


def test_half_start_from_the_prior_and_half_from_the_guide_widened():
    """`linear`: prior N(0, I), guide N(m, S); 400 chains, standard deviations within 4.5/√(2·200) of theirs."""
    pair = pairs.linear(num_data=3)
    with Pair.on(pair.model, pair.guide, (pair.x,), start="guide") as density:
        torch.manual_seed(0)
        u, kernel = starts(density, 400, None)
        guide = density.draw("guide", 4000)
    prior, wide = u[:200], u[200:]
    assert torch.allclose(prior.std(0), torch.ones(3, 2), rtol=0.23)
    assert torch.allclose(wide.std(0), 2 * guide.std(0), rtol=0.23)
    assert torch.allclose(wide.mean(0), guide.mean(0), atol=0.3)
    assert kernel.factor.shape == (3, 2, 2)
    assert torch.allclose(kernel.factor[0].diag(), guide[:, 0].std(0), rtol=0.15)


def test_the_factor_is_that_of_the_covariance_shrunk_to_its_diagonal():
    torch.manual_seed(0)
    u = torch.randn(600, 2, 3) @ torch.tensor([[1.0, 0.9, 0.0], [0.0, 0.4, 0.0], [0.0, 0.0, 2.0]])
    L = covariance_factor(u)
    product = L @ L.mT
    for n in range(2):
        cov = torch.cov(u[:, n].T, correction=0)
        share = 300 / 303
        expected = share * cov + (1 - share) * torch.diag(cov.diag())
        assert torch.allclose(product[n], expected, atol=1e-10)
    assert torch.equal(L, L.tril())


def test_many_coordinates_have_a_diagonal_factor(monkeypatch):
    monkeypatch.setattr(warmup, "DENSE_LIMIT", 2)
    torch.manual_seed(0)
    u = torch.randn(50, 1, 3)
    assert torch.allclose(covariance_factor(u)[0], torch.diag(u[:, 0].std(0, correction=0)))


def test_a_coordinate_that_stands_still_has_a_factor():
    u = torch.randn(50, 1, 2)
    u[..., 1] = 3.0
    assert covariance_factor(u).isfinite().all()
    u[0] = 1e160  # a chain astray: its square is not a number
    assert covariance_factor(u).isfinite().all()


@pytest.mark.parametrize(("step", "given", "length"), [(0.5, None, 3), (0.5, 7, 7), (100.0, None, 1), (1e-6, None, 16)])
def test_length_of_a_trajectory(step, given, length):
    """(π/2)/ε steps, at least 1 and at most 16, unless given."""
    kernel = Kernel(torch.full((1, 3), math.log(step)), torch.eye(2).expand(3, 2, 2), given)
    assert kernel.length == length


def test_warm_up_finds_the_covariance_and_the_acceptance():
    """The whitened posterior of `linear` is round, and the frozen kernel accepts what it aimed at."""
    pair = pairs.linear(num_data=3)
    with Pair.on(pair.model, pair.guide, (pair.x,), start="guide") as density:
        torch.manual_seed(0)
        u, kernel = warm_up(density, *starts(density, 16, None), 300, 0.8, nothing)
        found = walk(density, u, kernel, 200, 1, nothing)
        truth = density.draw("guide", 20_000)  # exact
    assert kernel.log_step.shape == (1, 3)
    assert torch.allclose(found.acceptance, torch.tensor(0.8), atol=0.05)
    for n in range(3):
        cov = torch.cov(truth[:, n].T)
        white = torch.linalg.solve(kernel.factor[n], torch.linalg.solve(kernel.factor[n], cov).T)
        assert torch.allclose(white, torch.eye(2), atol=0.3)


def test_a_walk_keeps_every_few_states_and_all_energies():
    """H = log-joint and kinetic energy; the energies of d standard normal momenta exceed −log p by d/2 on average."""
    pair = pairs.linear(num_data=2)
    with Pair.on(pair.model, pair.guide, (pair.x,), start="guide") as density:
        torch.manual_seed(0)
        u, kernel = warm_up(density, *starts(density, 8, None), 100, 0.8, nothing)
        found = walk(density, u, kernel, 60, 3, nothing)
        again = density.joint(found.u[:, 7])[0]
    assert found.u.shape == (8, 60, 2, 2)
    assert found.energy.shape == (8, 180, 2)
    assert torch.allclose(found.log_joint[:, 7], again)
    kinetic = found.energy.mean((0, 1)) + found.log_joint.mean((0, 1))
    assert torch.allclose(kinetic, torch.ones(2), atol=0.35)
    assert found.divergences.tolist() == [0, 0]
    assert (found.acceptance < 1).all()


def test_divergences_are_counted():
    """A step of thirty posterior widths ends at an H some 30⁴/8 nats higher; the H before it is what it was."""
    pair = pairs.linear(num_data=2)
    with Pair.on(pair.model, pair.guide, (pair.x,), start="guide") as density:
        torch.manual_seed(0)
        u, kernel = warm_up(density, *starts(density, 8, None), 60, 0.8, nothing)
        wild = kernel._replace(log_step=torch.tensor([[math.log(30.0), -1.0]]), num_steps=1)
        found = walk(density, u, wild, 10, 1, nothing)
    assert found.divergences[0] > 70
    assert found.divergences[1] == 0
    assert found.acceptance[0] < 0.05
    kinetic = found.energy[:, 1:] + found.log_joint[:, :-1]
    assert (kinetic > 0).all()
    assert (kinetic < 30).all()


@pytest.mark.slow
def test_settling_aims_where_it_is_told():
    pair = pairs.linear(num_data=2)
    with Pair.on(pair.model, pair.guide, (pair.x,), start="guide") as density:
        torch.manual_seed(0)
        u, kernel = warm_up(density, *starts(density, 16, None), 200, 0.8, nothing)
        u, finer = settle(density, u, kernel._replace(num_steps=None), 200, 0.98, nothing)
        found = walk(density, u, finer, 100, 1, nothing)
    assert torch.allclose(found.acceptance, torch.tensor(0.98), atol=0.02)
    assert (finer.log_step < kernel.log_step).all()


def test_each_place_is_kept_as_often_as_its_weight_asks():
    """⌊C W⌋ or ⌈C W⌉ times, C W on average: of 2000 columns the mean is within 4.5 · ½/√2000 = 0.05 of it."""
    torch.manual_seed(0)
    weights = torch.rand(30, 1).pow(4)
    weights[[3, 29]] = 0.0
    kept = systematic(weights.expand(30, 2000), 16)
    counts = torch.stack([(kept == k).sum(0) for k in range(30)])
    wanted = 16 * weights / weights.sum()
    assert (counts >= wanted.floor()).all()
    assert (counts <= wanted.ceil()).all()
    assert torch.allclose(counts.double().mean(1, keepdim=True), wanted, atol=0.05)
    assert kept.shape == (16, 2000)


def test_data_are_resampled_each_by_its_own_weights():
    weights = torch.eye(4)[:, [2, 0, 3]]
    assert systematic(weights, 5).tolist() == [[2, 0, 3]] * 5


def test_places_of_a_mode_lie_side_by_side():
    """Three modes in turn, of which one is astray, come out one after the other."""
    torch.manual_seed(0)
    mode = torch.arange(60) % 3
    u = torch.randn(60, 2, 2) + torch.tensor([0.0, 12.0, 1e30])[mode][:, None, None]
    for column in mode[_side_by_side(u)].T:
        assert (column.diff() != 0).sum() == 2


def test_places_carry_the_mass_of_two_modes():
    """Equal modes; half of the places come from a guide that knows but one of them, so that its share is ¾ at most."""
    x = torch.full((4,), 2.0)
    model, guide = planted.two_modes(2.0, 0.4)
    with Pair.on(model, guide, (x,), start="guide") as density:
        torch.manual_seed(0)
        places = annealed_places(density, 16, 64.0)
        starts = places.starts(16)
    assert places.u.shape == (128, 4, 1)
    assert places.found.all()
    assert torch.allclose(places.weights.sum(0), torch.ones(4))
    upper = (places.weights * (places.u[..., 0] > 0)).sum(0)
    assert ((upper > 0.4) & (upper < 0.9)).all()
    count = (starts[..., 0] > 0).sum(0)
    assert ((count - 16 * upper).abs() <= 1.0).all()


def test_weight_that_draws_leave_behind():
    """A tenth of the weight lies 30 standard deviations off; the rest is among the draws."""
    torch.manual_seed(0)
    places = torch.randn(40, 3, 2)
    places[:4, 0] += 30.0
    places[5, 1] = float("nan")
    weights = torch.full((40, 3), 1 / 40)
    left = Places(places, weights, torch.ones(3, dtype=torch.bool)).left_behind(torch.randn(8, 200, 3, 2))
    assert torch.allclose(left, torch.tensor([0.1, 1 / 40, 0.0]))


def test_a_masked_prior_is_no_start():
    pair = pairs.linear(num_data=3)

    def masked(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1).mask(torch.tensor(False)))
            pyro.sample("x", dist.Normal(z @ torch.ones(2, x.shape[-1]), 1.0).to_event(1), obs=x)

    for model, expected in ((pair.model, ("prior", "guide")), (masked, ("guide",))):
        with Pair.on(model, pair.guide, (pair.x,), start="guide") as density:
            assert _starts(density) == expected


@pytest.mark.slow
def test_constrained_supports_and_sums_are_in_the_weights():
    """A rate, and a discrete site summed out: places are in u, one at a time fits the memory, and weights are even."""
    for name, memory_mb in (("gamma_poisson", 0.01), ("mixture_conditional", 64.0)):
        pair = pairs.build(name).rows([0, 1])
        with Pair.on(pair.model, pair.guide, pair.args, start="guide") as density:
            torch.manual_seed(0)
            places = annealed_places(density, 4, memory_mb)
        assert places.u.shape == (32, 2, density.dim)
        assert (1 / places.weights.square().sum(0) > 10).all()
