"""Delta sites in the guide: point estimates, which have no density, and deterministic maps, which have one."""

import math

import pyro
import pyro.distributions as dist
import torch
import torch.distributions as td
from torch import nn

from .program import REFUSED, Program
from .quadrature import hermite_plane, line, plane

AUXILIARY = {"is_auxiliary": True}
MIXING = torch.tensor([[1.0, 0.4], [-0.3, 0.8], [0.2, 0.2]], dtype=torch.float64)


def _linear(x):
    """z ~ N(0, I₂), x ~ N(W z, 0.6² I₃)."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ MIXING.to(x).T, 0.6).to_event(1), obs=x)


def _vectors():
    return torch.tensor([[0.3, -0.1, 0.6], [1.5, 0.2, -0.4]], dtype=torch.float64)


def point_estimate_of_a_vector() -> Program:
    """A vector-valued point mass, a parameter that all data share."""

    def guide(x):
        loc = pyro.param("loc", torch.zeros(2, dtype=x.dtype))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(loc.expand(len(x), 2), event_dim=1))

    return Program(_linear, guide, _vectors(), REFUSED, train=5)


def point_estimate_by_an_encoder() -> Program:
    """An autoencoder: a deterministic encoder in place of the guide's distribution."""
    encoder = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(encoder(x)).to_event(1))

    return Program(_linear, guide, _vectors(), REFUSED)


def point_estimate_of_one_latent_of_two() -> Program:
    """One latent has a density in the guide and the other has none."""

    def model(x):
        with pyro.plate("data", len(x)):
            scale = pyro.sample("scale", dist.Gamma(3.0, 3.0))
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, scale), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("scale", dist.Delta(0.8 + 0.1 * x.abs()))
            pyro.sample("z", dist.Normal(0.6 * x, 0.6))

    return Program(model, guide, torch.tensor([0.2, -1.0, 1.7], dtype=torch.float64), REFUSED)


def point_estimate_of_a_shared_latent() -> Program:
    """The mean of all data as a point estimate (MAP), the local latents with a density."""

    def model(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(mean, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        mean = pyro.sample("mean", dist.Delta(pyro.param("mean_hat", torch.tensor(0.1, dtype=x.dtype))))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((4 * x + mean) / 5, 0.5))

    return Program(model, guide, torch.tensor([0.2, -1.0, 1.7], dtype=torch.float64), REFUSED, unit="data set")


def _rates(x):
    """z ~ Gamma(6, 4), x ~ Exponential(z)."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Gamma(6.0, 4.0))
        pyro.sample("x", dist.Exponential(z), obs=x)


def _log_normal_flow(jacobian: bool):
    def guide(x):
        loc, scale = torch.log(7.0 / (4.0 + x)) - 0.07, 0.42
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 1.0), infer=AUXILIARY)
            z = torch.exp(loc + scale * a)
            log_density = -(loc + scale * a + math.log(scale)) if jacobian else torch.zeros_like(z)
            pyro.sample("z", dist.Delta(z, log_density=log_density))

    return guide


def flow_onto_the_positive_line() -> Program:
    """z = exp(m + s a) by hand, with log |da/dz| as the Delta's density: a log-normal guide."""
    x = torch.tensor([0.2, 1.0, 4.0], dtype=torch.float64)
    truth = math.log(6) + 6 * math.log(4) - 7 * torch.log(4 + x)

    def joint(u):
        return td.Gamma(6.0, 4.0).log_prob(u.exp()) + td.Exponential(u.exp()).log_prob(x) + u

    return Program(_rates, _log_normal_flow(True), x, truth, lambda: line(joint, -8, 4), tolerance=0.04)


def flow_without_its_jacobian() -> Program:
    """The same map with the Jacobian forgotten: the density of a is no density of z."""
    x = torch.tensor([0.2, 1.0, 4.0], dtype=torch.float64)
    return Program(_rates, _log_normal_flow(False), x, REFUSED, finding=True)


def _posterior(x):
    precision = torch.eye(2).to(x) + MIXING.to(x).T @ MIXING.to(x) / 0.36
    covariance = torch.linalg.inv(precision)
    return (x @ MIXING.to(x) / 0.36) @ covariance, covariance


def _affine_flow(jacobian: bool):
    def guide(x):
        loc, covariance = _posterior(x)
        tril = torch.linalg.cholesky(covariance)
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.zeros_like(loc), 1.0).to_event(1), infer=AUXILIARY)
            log_density = -tril.diagonal().log().sum() if jacobian else torch.zeros((), dtype=x.dtype)
            z = loc + a @ tril.T
            pyro.sample("z", dist.Delta(z, log_density=log_density.expand(z.shape[:-1]), event_dim=1))

    return guide


def flow_of_a_vector() -> Program:
    """z = m(x) + L a with −log det L: the exact posterior, so that each weight is p(x)."""
    x = _vectors()
    covariance = MIXING.to(x) @ MIXING.to(x).T + 0.36 * torch.eye(3).to(x)
    truth = td.MultivariateNormal(torch.zeros(3).to(x), covariance).log_prob(x)

    def joint(z):
        return td.Normal(0.0, 1.0).log_prob(z).sum(-1) + td.Normal(z @ MIXING.to(x).T, 0.6).log_prob(x).sum(-1)

    def again():
        loc, spread = _posterior(x)
        by_nodes = hermite_plane(joint, loc, 1.5 * spread)
        assert torch.allclose(by_nodes, plane(joint, (-6, -6), (6, 6)), atol=1e-8)
        return by_nodes

    return Program(_linear, _affine_flow(True), x, truth, again, num_particles=50, tolerance=1e-6)


def flow_of_a_vector_without_its_jacobian() -> Program:
    """The same with the determinant left at nought."""
    return Program(_linear, _affine_flow(False), _vectors(), REFUSED, finding=True)


PROGRAMS = (
    point_estimate_of_a_vector,
    point_estimate_by_an_encoder,
    point_estimate_of_one_latent_of_two,
    point_estimate_of_a_shared_latent,
    flow_onto_the_positive_line,
    flow_without_its_jacobian,
    flow_of_a_vector,
    flow_of_a_vector_without_its_jacobian,
)
