"""Latents that all data share: the unit is the data set, and log p(x) is one number, (1,)."""

import math

import pyro
import pyro.distributions as dist
import torch
import torch.distributions as td
from torch import Tensor

from .program import Program
from .quadrature import hermite_plane, line, moments, plane


def _design() -> Tensor:
    t = torch.linspace(-1, 1, 10)
    return torch.stack([torch.ones(10), t], -1)


def _response() -> Tensor:
    return 0.4 - 1.1 * torch.linspace(-1, 1, 10) + 0.3 * torch.cos(3.0 * torch.arange(10.0))


def _regression_moments(design, y, prior_scale, noise):
    precision = torch.eye(2) / prior_scale**2 + design.T @ design / noise**2
    covariance = torch.linalg.inv(precision)
    return covariance @ (design.T @ y) / noise**2, covariance


def _regression_case(model, guide, x, **known) -> Program:
    """beta ~ N(0, 1.5² I₂), y ~ N(design beta, 0.4²)."""
    design, y = _design(), _response()
    truth = td.MultivariateNormal(torch.zeros(10), 2.25 * design @ design.T + 0.16 * torch.eye(10)).log_prob(y)
    loc, covariance = _regression_moments(design, y, 1.5, 0.4)

    def joint(beta):
        return (
            td.Normal(0.0, 1.5).log_prob(beta).sum(-1)
            + td.Normal(beta @ design.T, 0.4).log_prob(y).sum(-1, True)[..., 0]
        )

    def again():
        return hermite_plane(joint, loc.unsqueeze(0), 1.5 * covariance)

    return Program(model, guide, x, truth.reshape(1), again, unit="data set", **known)


def linear_regression_without_a_plate() -> Program:
    """One vector of weights, one observed vector, no plate at all; `design @ beta` runs for one particle at a time."""

    def model(design, y):
        beta = pyro.sample("beta", dist.Normal(torch.zeros(2), 1.5).to_event(1))
        pyro.sample("y", dist.Normal(design @ beta, 0.4).to_event(1), obs=y)

    def guide(design, y):
        loc, covariance = _regression_moments(design, y, 1.5, 0.4)
        pyro.sample("beta", dist.MultivariateNormal(loc, 1.1 * covariance))

    return _regression_case(model, guide, (_design(), _response()), num_particles=500, tolerance=0.04)


def linear_regression_by_two_sites() -> Program:
    """Slope and intercept as sites of their own, correlated in the posterior, the data in a plate."""

    def model(design, y):
        a = pyro.sample("intercept", dist.Normal(0.0, 1.5))
        b = pyro.sample("slope", dist.Normal(0.0, 1.5))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(a + b * design[:, 1], 0.4), obs=y)

    def guide(design, y):
        loc, covariance = _regression_moments(design, y, 1.5, 0.4)
        a = pyro.sample("intercept", dist.Normal(loc[0], 1.1 * covariance[0, 0].sqrt()))
        gain = covariance[0, 1] / covariance[0, 0]
        rest = covariance[1, 1] - gain * covariance[0, 1]
        pyro.sample("slope", dist.Normal(loc[1] + gain * (a - loc[0]), 1.1 * rest.sqrt()))

    return _regression_case(model, guide, (_design(), _response()))


def linear_regression_with_a_subsampled_plate() -> Program:
    """Three of ten data a step, as in stochastic VI: measured on all ten, each counted once."""

    def model(design, y):
        beta = pyro.sample("beta", dist.Normal(torch.zeros(2), 1.5).to_event(1))
        with pyro.plate("data", len(y), subsample_size=3) as index:
            loc = (design[index] * beta.unsqueeze(-2)).sum(-1)
            pyro.sample("y", dist.Normal(loc, 0.4), obs=y[index])

    def guide(design, y):
        loc, covariance = _regression_moments(design, y, 1.5, 0.4)
        pyro.sample("beta", dist.MultivariateNormal(loc, 1.1 * covariance))

    return _regression_case(model, guide, (_design(), _response()), num_particles=1000, tolerance=0.04)


def logistic_regression() -> Program:
    """beta ~ N(0, I₂), y ~ Bernoulli(design beta): two latents, quadrature on the plane."""
    design, y = _design(), torch.tensor([1.0, 1, 0, 1, 1, 0, 1, 0, 0, 0])

    def joint(beta):
        return td.Normal(0.0, 1.0).log_prob(beta).sum(-1) + (td.Bernoulli(logits=beta @ design.T).log_prob(y).sum(-1))

    loc, covariance = moments(joint, (-6, -6), (6, 6))

    def model(design, y):
        beta = pyro.sample("beta", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", len(y)):
            logits = design @ beta
            pyro.sample("y", dist.Bernoulli(logits=logits), obs=y)

    def guide(design, y):
        pyro.sample("beta", dist.MultivariateNormal(loc, 1.1 * covariance))

    return Program(
        model,
        guide,
        (design, y),
        plane(joint, (-7, -7), (7, 7)),
        lambda: hermite_plane(joint, loc.unsqueeze(0), 1.5 * covariance),
        unit="data set",
        num_particles=600,
        tolerance=0.05,
    )


def coin_without_a_plate() -> Program:
    """A loop over the flips, a site each: Pyro's first tutorial."""
    flips = torch.tensor([1.0, 1, 0, 1, 1, 0, 1])

    def model(flips):
        fairness = pyro.sample("fairness", dist.Beta(4.0, 4.0))
        for i in range(len(flips)):
            pyro.sample(f"flip_{i}", dist.Bernoulli(fairness), obs=flips[i])

    def guide(flips):
        a, b = 4.0 + flips.sum(), 4.0 + (1 - flips).sum()
        pyro.sample("fairness", dist.Beta(0.9 * a, 0.9 * b))

    def log_beta(a, b):
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    def joint(p):
        return td.Beta(4.0, 4.0).log_prob(p) + 5 * p.log() + 2 * torch.log1p(-p)

    truth = torch.tensor([log_beta(9.0, 6.0) - log_beta(4.0, 4.0)])
    return Program(
        model, guide, flips, truth, lambda: line(joint, 0, 1), unit="data set", num_particles=500, tolerance=0.03
    )


def batch_dims_without_a_plate() -> Program:
    """A latent of each row, none of them in a plate: the data set is the unit, and its density a product."""
    x = torch.tensor([0.4, -1.1, 0.9, 2.0])

    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(0.8 * x, torch.full((len(x),), 0.48)))

    truth = td.Normal(0.0, math.sqrt(1.25)).log_prob(x).sum().reshape(1)

    def joint(z):
        return td.Normal(0.0, 1.0).log_prob(z) + td.Normal(z, 0.5).log_prob(x)

    return Program(model, guide, x, truth, lambda: line(joint, -8, 8).sum().reshape(1), unit="data set", tolerance=0.03)


PROGRAMS = (
    batch_dims_without_a_plate,
    linear_regression_without_a_plate,
    linear_regression_by_two_sites,
    linear_regression_with_a_subsampled_plate,
    logistic_regression,
    coin_without_a_plate,
)
