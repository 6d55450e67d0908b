"""The flows of zuko in a pair: densities that integrate to one, and chains, search and attribution through them."""

import math

import pytest
import torch

from ppvae.inference import Annealing, annealed_evidence, attribute_gap
from ppvae.models import Bernoulli, FlowVAE
from ppvae.models.mixture_prior import MixturePriorVAE


@pytest.fixture
def flows():
    torch.manual_seed(3)
    x = torch.tensor([[0.0, 1, 1, 0, 1], [1, 1, 0, 0, 1]])
    return FlowVAE.for_data(x, Bernoulli(), latent_dim=2, hidden=(6,)), x


def grid(half_width=14.0, points=400):
    axis = torch.linspace(-half_width, half_width, points)
    return torch.cartesian_prod(axis, axis), 2 * math.log(2 * half_width / (points - 1))


def test_prior_and_guide_integrate_to_one(flows):
    pair, x = flows
    z, log_cell = grid()
    assert (torch.logsumexp(pair.prior(x).log_prob(z), 0) + log_cell).item() == pytest.approx(0.0, abs=1e-6)
    log_q = pair.proposal(x[:1].expand(len(z), -1)).log_prob(z)
    assert (torch.logsumexp(log_q, 0) + log_cell).item() == pytest.approx(0.0, abs=1e-6)


def test_the_priors_density_is_the_base_with_the_jacobian(flows):
    pair, x = flows
    transform = pair.prior_flow().transform
    for z in torch.randn(5, 2):
        u = transform(z)
        jacobian = torch.autograd.functional.jacobian(transform, z)
        expected = -0.5 * u.square().sum() - math.log(2 * math.pi) + torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(pair.prior(x).log_prob(z), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("start", ["guide", "prior"])
@pytest.mark.slow
def test_chains_find_the_integral_over_the_prior(flows, start):
    """Two data at |z| < 4.5."""
    pair, x = flows
    z, log_cell = grid()
    log_p = pair.prior(x).log_prob(z) + pair.decode(z).log_prob(x[:, None])
    truth = (torch.logsumexp(log_p, -1) + log_cell).detach()
    options = {"num_distributions": 20, "annealing": Annealing(start=start), "seed": 0}
    evidence = annealed_evidence(pair.model, pair.guide, x, **options)
    assert ((evidence.log_evidence - truth) / evidence.standard_error).abs().max() < 4.5
    assert evidence.standard_error.max() < 0.1


@pytest.mark.slow
def test_the_gap_is_attributed(flows):
    """The gap's parts sum to the gap; here the guide is untrained, so that most is amortisation."""
    pair, x = flows
    parts = attribute_gap(pair.model, pair.guide, x, seed=0).summary()
    assert parts["amortisation"] + parts["family"] == pytest.approx(parts["total"], abs=1e-6)
    assert parts["amortisation"] > parts["family"]


def test_each_flow_can_be_left_out(flows):
    _, x = flows
    pair = FlowVAE.for_data(x, Bernoulli(), latent_dim=2, hidden=(6,), prior_transforms=0, guide_transforms=0)
    assert pair.prior(x).log_prob(torch.zeros(2)).item() == pytest.approx(-math.log(2 * math.pi))
    assert pair.proposal(x).batch_shape == (2,)


def test_chains_start_from_a_prior_that_is_a_mixture():
    """Its constraint is that of its components; two data at |z| < 4.5."""
    torch.manual_seed(0)
    x = torch.tensor([[0.0, 1, 1, 0, 1], [1, 1, 0, 0, 1]])
    pair = MixturePriorVAE.for_data(x, Bernoulli(), latent_dim=2, hidden=(6,), num_components=3)
    z, log_cell = grid()
    log_p = pair.prior().log_prob(z) + pair.decode(z).log_prob(x[:, None])
    truth = (torch.logsumexp(log_p, -1) + log_cell).detach()
    options = {"num_distributions": 20, "annealing": Annealing(start="prior"), "seed": 0}
    evidence = annealed_evidence(pair.model, pair.guide, x, **options)
    assert ((evidence.log_evidence - truth) / evidence.standard_error).abs().max() < 4.5
