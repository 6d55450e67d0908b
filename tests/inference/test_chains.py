"""Where chains start, how they are scaled, and what a walk reports."""

import math

import pairs
import pytest
import torch

from ppvae.inference import chains
from ppvae.inference.chains import Kernel, covariance_factor, settle, starts, walk, warm_up
from ppvae.inference.density import density_of


def nothing():
    pass


def test_half_start_from_the_prior_and_half_from_the_guide_widened():
    """`linear`: prior N(0, I), guide N(m, S); 400 chains, standard deviations within 4.5/√(2·200) of theirs."""
    pair = pairs.linear(num_data=3)
    with density_of(pair.model, pair.guide, (pair.x,)) as density:
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
    monkeypatch.setattr(chains, "DENSE_LIMIT", 2)
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
    with density_of(pair.model, pair.guide, (pair.x,)) as density:
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
    with density_of(pair.model, pair.guide, (pair.x,)) as density:
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
    with density_of(pair.model, pair.guide, (pair.x,)) as density:
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


def test_settling_aims_where_it_is_told():
    pair = pairs.linear(num_data=2)
    with density_of(pair.model, pair.guide, (pair.x,)) as density:
        torch.manual_seed(0)
        u, kernel = warm_up(density, *starts(density, 16, None), 200, 0.8, nothing)
        u, finer = settle(density, u, kernel._replace(num_steps=None), 200, 0.98, nothing)
        found = walk(density, u, finer, 100, 1, nothing)
    assert torch.allclose(found.acceptance, torch.tensor(0.98), atol=0.02)
    assert (finer.log_step < kernel.log_step).all()
