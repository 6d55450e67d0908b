"""The map onto the simplex near its corners, in single precision, against double precision and closed forms."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

from ppvae.inference import estimate_evidence, importance_evidence
from ppvae.inference.pair import Pair, as_batch, bijection_to


def corners(num_points=2000, num_entries=10, dtype=torch.float32):
    """log y of points of the simplex whose largest entry is 1 to within rounding, and y."""
    torch.manual_seed(0)
    logits = 12 * torch.randn(num_points, num_entries, dtype=torch.float64)
    log_y = logits.log_softmax(-1)
    return log_y, log_y.exp().to(dtype)


def test_the_coordinates_of_a_point_near_a_corner_are_those_of_its_logarithms():
    log_y, y = corners()
    u = bijection_to(constraints.simplex).inv(y)
    count = torch.arange(9, 0, -1, dtype=torch.float64)
    rest = log_y[:, 1:].flip(-1).logcumsumexp(-1).flip(-1)
    known = log_y[:, :-1] - rest + count.log()
    torch.testing.assert_close(u.double(), known, rtol=1e-5, atol=1e-5)


def test_a_point_comes_back_with_all_digits_of_every_entry():
    _, y = corners()
    bijection = bijection_to(constraints.simplex)
    again = bijection(bijection.inv(y))
    torch.testing.assert_close(again, y, rtol=1e-4, atol=0)  # u is as large as 60, rounded at 4e-6


@pytest.mark.parametrize("extra", [(), (4,)])
def test_log_det_is_that_of_the_jacobian(extra):
    torch.manual_seed(1)
    bijection = bijection_to(constraints.independent(constraints.simplex, len(extra)))
    u = torch.randn(*extra, 3, dtype=torch.float64)
    stated = bijection.log_abs_det_jacobian(u, bijection(u))
    rows = u.reshape(-1, 3)
    single = bijection_to(constraints.simplex)
    true = sum(
        torch.linalg.slogdet(torch.autograd.functional.jacobian(lambda row: single(row)[:-1], row))[1] for row in rows
    )
    torch.testing.assert_close(stated, true)


def test_it_is_the_map_of_torch_where_that_is_exact():
    torch.manual_seed(2)
    u = torch.randn(100, 5, dtype=torch.float64)
    theirs, ours = torch.distributions.biject_to(constraints.simplex), bijection_to(constraints.simplex)
    y = theirs(u)
    torch.testing.assert_close(ours(u), y)
    torch.testing.assert_close(ours.inv(y), theirs.inv(y))
    torch.testing.assert_close(ours.log_abs_det_jacobian(u, y), theirs.log_abs_det_jacobian(u, y))
    assert ours(1000 * u).min() > 0


def sharp_pair():
    """A relaxed code in single precision whose posterior, and guide, is a corner; the likelihood is known."""
    logits = torch.full((10,), -8.0)
    logits[1] = 8.0

    def model(x):
        with pyro.plate("data", len(x)):
            v = pyro.sample("v", dist.RelaxedOneHotCategorical(torch.tensor(0.5), logits=logits))
            pyro.sample("x", dist.Normal(0 * v[..., 0], 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("v", dist.RelaxedOneHotCategorical(torch.tensor(0.5), logits=logits))

    return model, guide


def test_every_draw_of_a_sharp_relaxed_code_has_its_density():
    model, guide = sharp_pair()
    x = torch.tensor([0.5])
    torch.manual_seed(0)
    with Pair.on(model, guide, as_batch(x)) as pair, torch.no_grad():
        for source in ("guide", "prior"):
            log_guide, log_prior, log_joint = pair.ends(pair.draw(source, 5000)).cpu()
            assert log_joint.isfinite().all()
            torch.testing.assert_close(log_guide, log_prior)
            log_likelihood = torch.full_like(log_joint, -0.125 - 0.5 * math.log(2 * math.pi))
            torch.testing.assert_close(log_joint - log_prior, log_likelihood, rtol=0, atol=2e-3)


def test_evidence_of_a_sharp_relaxed_code_is_known():
    model, guide = sharp_pair()
    x = torch.tensor([0.5, -1.0])
    exact = -0.5 * x.double().square() - 0.5 * math.log(2 * math.pi)
    for found in (
        estimate_evidence(model, guide, x, seed=0),
        importance_evidence(model, guide, x, num_particles=2000, seed=0),
    ):
        torch.testing.assert_close(found.log_evidence, exact, rtol=0, atol=1e-3)
        assert found.trusted.all()
