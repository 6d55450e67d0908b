"""The guides that mending makes: they begin as the guide that they wrap, and their densities are densities.

All draws come from fixed seeds; what is compared with quadrature or a closed form has no Monte Carlo error.
"""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from gate import slow_but
from pyro.infer.autoguide import AutoNormal

from ppvae.inference import check, importance_evidence, log_weights
from ppvae.inference.mending.mended import CORRECTION, COVARIANCE, FLOW, with_family
from ppvae.inference.pair import Pair
from ppvae.models import LinearGaussian

FAMILIES = (CORRECTION, COVARIANCE, FLOW)


class Positive:
    """x ~ Poisson(z), z ~ Gamma(2, 0.5), one positive latent; the guide is a log-normal that reads x."""

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(2.0, 0.5))
            pyro.sample("x", dist.Poisson(z.unsqueeze(-1).expand((*z.shape, 3))).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.LogNormal((x.mean(-1) + 0.5).log(), 0.6))


class TwoSites:
    """x ~ N(a + b, 1), a ~ N(0, 1), b ~ N(0, 1): the two latents of a datum are correlated in the posterior."""

    def model(self, x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            b = pyro.sample("b", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(a + b, 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x / 3, 0.7))
            pyro.sample("b", dist.Normal(x / 3 - 0.1 * a, 0.7))


class Groups:
    """A datum is a row of three groups: m ~ N(0, 1), t_g ~ N(m, 1), x_g ~ N(t_g, 1)."""

    def model(self, x):
        with pyro.plate("data", len(x), dim=-2):
            m = pyro.sample("m", dist.Normal(torch.zeros(1), 1.0))
            with pyro.plate("groups", 3, dim=-1):
                t = pyro.sample("t", dist.Normal(m, 1.0))
                pyro.sample("x", dist.Normal(t, 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("m", dist.Normal(x.mean(-1, keepdim=True) / 2, 0.7))
            with pyro.plate("groups", 3, dim=-1):
                pyro.sample("t", dist.Normal(x / 2, 0.7))


class Simplex:
    """x ~ Multinomial(z), z ~ Dirichlet: a latent whose coordinates are not those of its values."""

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Dirichlet(torch.ones(3)))
            pyro.sample("x", dist.Multinomial(5, z, validate_args=False), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Dirichlet(x + 2.0))


def linear():
    torch.manual_seed(0)
    pair = LinearGaussian(3, 2, full_covariance=False)
    with torch.no_grad():
        pair.guide_weight.normal_()
    return pair


COUNTS = torch.tensor([[0.0, 1, 2], [3, 4, 5], [9, 7, 8], [1, 1, 0]])
PAIRS = {
    "positive": (Positive, COUNTS),
    "two sites": (TwoSites, torch.tensor([-1.0, 0.3, 2.0, 0.5])),
    "groups": (Groups, torch.tensor([[0.0, 1, 2], [-1, 0, 1], [1, 1, 1.5], [-2, 1, 0]])),
    "simplex": (Simplex, torch.tensor([[5.0, 0, 0], [1, 2, 2], [0, 3, 2], [2, 2, 1]])),
    "linear": (linear, torch.randn(4, 3, generator=torch.Generator().manual_seed(1))),
}


def made(name, family, change=0.0):
    """The pair with a guide of a family, whose networks' last layers are drawn at random if ``change`` is above 0."""
    make, x = PAIRS[name]
    x, pair = x.to(torch.get_default_dtype()), make()
    pyro.clear_param_store()
    torch.manual_seed(3)
    guide = with_family(pair.model, pair.guide, (x,), family, "mended")
    with torch.no_grad():
        for parameter in guide.networks.parameters():
            if change and not parameter.any():
                parameter.normal_(0, change)
    return pair, guide, x


@pytest.mark.parametrize(
    ("name", "family"),
    slow_but(
        [
            *(("groups", family) for family in FAMILIES),
            ("positive", FLOW),
            ("two sites", COVARIANCE),
            ("simplex", CORRECTION),
            ("linear", FLOW),
        ],
        [(name, family) for name in PAIRS for family in FAMILIES],
    ),
)
def test_it_begins_as_the_guide_that_it_wraps_and_keeps_the_contract(name, family):
    pair, guide, x = made(name, family)
    before, after = (log_weights(pair.model, program, x, 20, seed=0) for program in (pair.guide, guide))
    torch.testing.assert_close(before, after, atol=2e-4, rtol=1e-4)
    assert not check(pair.model, guide, x)


def log_q(pair, guide, x, values, num_draws):
    """log q(z|x) at values by site, ``(num_draws, num_data)``."""
    with torch.no_grad(), Pair.on(pair.model, guide, (x,)) as found:
        return found.log_guide(values, num_draws)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_density_of_a_positive_latent_integrates_to_one(family):
    pair, guide, x = made("positive", family, change=0.1)
    u = torch.linspace(-12, 12, 6001)
    z = u.exp().unsqueeze(-1).expand(-1, len(x))
    mass = torch.trapezoid((log_q(pair, guide, x, {"z": z}, len(u)) + u.unsqueeze(-1)).exp(), u, dim=0)
    torch.testing.assert_close(mass, torch.ones_like(mass), atol=1e-3, rtol=0)
    other = torch.trapezoid(
        (log_q(pair, pair.guide, x, {"z": z}, len(u)) + u.unsqueeze(-1)).exp() * u[:, None], u, dim=0
    )
    moved = torch.trapezoid((log_q(pair, guide, x, {"z": z}, len(u)) + u.unsqueeze(-1)).exp() * u[:, None], u, dim=0)
    assert bool(((other - moved).abs() > 1e-3).any())  # it is another density


@pytest.mark.parametrize("family", FAMILIES)
def test_the_density_of_two_sites_integrates_to_one(family):
    pair, guide, x = made("two sites", family, change=0.15)
    grid = torch.linspace(-9, 9, 301)
    a, b = (v.reshape(-1, 1).expand(-1, len(x)) for v in torch.meshgrid(grid, grid, indexing="ij"))
    density = log_q(pair, guide, x, {"a": a, "b": b}, len(a)).exp().reshape(301, 301, len(x))
    mass = torch.trapezoid(torch.trapezoid(density, grid, dim=0), grid, dim=0)
    torch.testing.assert_close(mass, torch.ones_like(mass), atol=2e-3, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_density_of_a_plane_integrates_to_one(family):
    pair, guide, x = made("linear", family, change=0.1)
    grid = torch.linspace(-15, 15, 241)
    plane = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 1, 2)
    density = log_q(pair, guide, x, {"z": plane.expand(-1, 4, 2)}, len(plane)).exp()
    mass = torch.trapezoid(torch.trapezoid(density.reshape(241, 241, 4), grid, dim=0), grid, dim=0)
    torch.testing.assert_close(mass, torch.ones_like(mass), atol=2e-3, rtol=0)


def test_full_covariance_of_a_gaussian_guide_is_the_gaussian_of_that_covariance():
    pair, guide, x = made("linear", COVARIANCE, change=0.2)
    network = guide.networks["sites"]["z"]
    with torch.no_grad():
        hidden = guide.networks["trunk"](guide.reader.features(pair.guide, (x,)))
        numbers = network.numbers(network(hidden), hidden, [])
        loc, scale = x @ pair.guide_weight.T + pair.guide_bias, pair.guide_log_scale.exp()
        factor = scale[:, None] * (numbers.lower.tril(-1) + numbers.log_scale.exp().diag_embed())
        truth = dist.MultivariateNormal(loc + scale * numbers.shift, scale_tril=factor)
        z = truth.sample((50,))
    torch.testing.assert_close(log_q(pair, guide, x, {"z": z}, 50), truth.log_prob(z).double(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("family", "name"),
    slow_but(
        [(CORRECTION, "groups"), (COVARIANCE, "two sites"), (FLOW, "simplex")],
        [(family, name) for family in FAMILIES for name in ("groups", "simplex", "two sites")],
    ),
)
def test_draws_have_the_density_that_they_are_given(name, family):
    """E_q[p(x, z)/q(z|x)] = p(x), the same from the guide as it was and from the changed one.

    Both estimates of each of four data agree within 5 of their common standard errors: nine cases of four data raise a
    false alarm at a rate of 2e-5.
    """
    pair, guide, x = made(name, family, change=0.05)
    one, other = (importance_evidence(pair.model, program, x, 4000, seed=1) for program in (pair.guide, guide))
    error = torch.hypot(one.standard_error, other.standard_error)
    assert bool(((one.log_evidence - other.log_evidence).abs() < 5 * error + 1e-4).all())
    assert not check(pair.model, guide, x)


def test_gradients_reach_every_network_and_the_guide_itself():
    pair, guide, x = made("linear", FLOW, change=0.1)
    leaves = [*guide.networks.parameters(), pair.guide_weight, pair.guide_log_scale]
    with torch.enable_grad(), Pair.on(pair.model, guide, (x,)) as found:
        gradients = torch.autograd.grad(found.log_weights(10).sum(), leaves)
    assert all(bool(torch.isfinite(g).all() and g.any()) for g in gradients)


def test_shared_latents_of_an_automatic_guide_become_dependent():
    """Sites outside every plate: the map of the second reads the draw of the first, and the density stays one."""

    def model(x):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        b = pyro.sample("b", dist.Gamma(2.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(a, b), obs=x)

    x = torch.tensor([0.2, 1.0, -0.5])
    pyro.clear_param_store()
    torch.manual_seed(0)
    auto = AutoNormal(model)
    auto(x)
    guide = with_family(model, auto, (x,), FLOW, "mended")
    with torch.no_grad():
        for parameter in guide.networks.parameters():
            parameter.normal_(0, 0.1)
    assert not check(model, guide, x)
    one, other = (importance_evidence(model, program, x, 20_000, seed=0) for program in (auto, guide))
    error = math.hypot(float(one.standard_error), float(other.standard_error))
    assert abs(float(one.log_evidence - other.log_evidence)) < 5 * error
