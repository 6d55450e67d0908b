"""Guides with gradient steps: a function of the datum alone, whose amortisation gap is all but gone.

Seeds are fixed, and truths are closed forms of a linear pair.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

from ppvae.errors import PairError
from ppvae.inference import Attempts, Mended, check, importance_evidence, log_weights, mend
from ppvae.inference.mending.mended import GRADIENT_STEPS, with_family
from ppvae.inference.mending.stepped_guide import placed_at
from ppvae.inference.pair import Pair

WEIGHT = torch.tensor([[1.0, 0.8], [0.6, 0.9], [0.3, 0.2]])
NOISE = 0.8


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ WEIGHT.to(z).T, NOISE).to_event(1), obs=x)


def guide(x):
    """The prior, for every datum: an encoder that has learnt nothing and has no parameters."""
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))


def data(num_data=50, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(num_data, 2, generator=generator)
    return z @ WEIGHT.to(z).T + NOISE * torch.randn(num_data, 3, generator=generator)


def log_evidence(x):
    weight = WEIGHT.to(x)
    covariance = NOISE**2 * torch.eye(3) + weight @ weight.T
    return dist.MultivariateNormal(torch.zeros(3), covariance).log_prob(x)


def family_gap():
    """KL of the best mean-field Gaussian: half of Σ log Λ_ii − log |Λ|."""
    weight = WEIGHT.to(torch.get_default_dtype())
    precision = torch.eye(2) + weight.T @ weight / NOISE**2
    return float((precision.diag().log().sum() - precision.logdet()) / 2)


@pytest.fixture(scope="module")
def mended():
    """The frozen encoder, mended by gradient steps alone; the data."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    x = data()
    found = mend(
        model, guide, x, steps=80, learning_rate=0.05, seed=0, attempts=Attempts(only=("gradient steps",), rounds=1)
    )
    yield found, x
    torch.set_default_dtype(default)


def test_the_amortisation_of_a_frozen_encoder_is_won_back(mended):
    """All but the family's part, which no member of the family can win."""
    found, x = mended
    before, after = (float((log_evidence(x[::5]) - elbo).mean()) for elbo in (found.elbo_before, found.elbo))
    assert before - family_gap() > 0.5
    assert (before - after) / (before - family_gap()) > 0.8
    assert found.families == (("gradient steps", "mended_0"),)


def test_a_datum_has_the_same_density_whatever_data_come_with_it(mended):
    found, x = mended
    z = {"z": torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(1))}
    with torch.no_grad():
        with Pair.on(found.model, found.guide, (x[:4],)) as few:
            some = few.log_guide(z, 3)
        with Pair.on(found.model, found.guide, (x,)) as every:
            other = every.rows(torch.arange(4)).log_guide(z, 3)
            padded = torch.cat([z["z"], torch.zeros(3, len(x) - 4, 2)], 1)
            whole = every.log_guide({"z": padded}, 3)[:, :4]
    torch.testing.assert_close(some, other, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(some, whole, atol=1e-9, rtol=1e-9)


@pytest.mark.slow
def test_it_estimates_log_p_and_is_saved_and_loaded_to_the_bit(mended, tmp_path):
    """10 data within 5 standard errors: a false alarm at a rate of 6e-6."""
    found, x = mended
    evidence = importance_evidence(found.model, found.guide, x[::5], 500, seed=1)
    error = evidence.log_evidence - log_evidence(x[::5])
    assert bool((error.abs() < 5 * evidence.standard_error + 1e-3).all())
    found.save(tmp_path / "mended.pt")
    again = Mended.load(tmp_path / "mended.pt", model, guide, x[:10])
    assert torch.equal(*(log_weights(m.model, m.guide, x[:10], 5, seed=0) for m in (found, again)))
    assert not check(found.model, found.guide, x)


@pytest.mark.slow
def test_a_guide_that_was_mended_is_mended_again_under_another_name(mended):
    found, x = mended
    attempts = Attempts(only=("full covariance",), rounds=1)
    more = mend(found.model, found.guide, x, steps=200, learning_rate=0.02, seed=0, attempts=attempts)
    assert more.families == (("full covariance", "mended_1"),)
    assert more.steps[0].gain > 0
    torch.testing.assert_close(more.elbo_before.mean(), found.elbo.mean(), atol=0.1, rtol=0)


def test_noise_leads_to_the_draw_of_a_normal_and_of_maps_of_one():
    eps = torch.tensor([0.5, -1.0])
    loc, scale = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 2.0])
    torch.testing.assert_close(placed_at(dist.Normal(loc, scale).to_event(1), eps), loc + scale * eps)
    torch.testing.assert_close(placed_at(dist.LogNormal(loc, scale), eps), (loc + scale * eps).exp())
    tril = torch.tensor([[1.0, 0.0], [0.5, 2.0]])
    torch.testing.assert_close(placed_at(dist.MultivariateNormal(loc, scale_tril=tril), eps), loc + tril @ eps)
    with pytest.raises(PairError, match="draws a Gamma"):
        placed_at(dist.Gamma(loc, scale), eps)


def test_latents_that_the_data_share_are_refused():
    def shared(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.tensor([0.1, 0.2, 0.5])
    auto = AutoNormal(shared)
    auto(x)
    with pytest.raises(PairError, match="nothing is amortised"):
        with_family(shared, auto, (x,), GRADIENT_STEPS, "mended")
