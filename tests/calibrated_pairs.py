"""Pairs whose guide is the posterior, or is wrong by a scale, a shift or a correlation that is known."""

import math

import pyro
import pyro.distributions as dist
import torch
import truths_inference as truths


def diagonal(dim, scale=None, shift=None):
    """z ~ N(0, I), x_j ~ N(z_j, 1); the guide is the posterior N(x/2, I/2), scaled and shifted (in sd) by dimension."""
    std = math.sqrt(0.5)
    scales, shifts = torch.ones(dim), torch.zeros(dim)
    for vector, given in ((scales, scale), (shifts, shift)):
        for j, value in (given or {}).items():
            vector[j] = value

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(dim), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2 + shifts * std, scales * std).to_event(1))

    return model, guide


def correlated(rho):
    """z ~ N(0, I₂), x ~ N(z₁ + z₂, 0.3²): a guide with the posterior's means and marginal sd, and correlation rho."""
    weight, noise = torch.ones(1, 2), 0.09 * torch.eye(1)
    numbers = (weight, torch.zeros(1), noise, torch.zeros(2), torch.eye(2))
    _, cov = truths.gaussian_posterior(torch.zeros(1, 1), *numbers)
    true = float(cov[0, 1] / cov[0, 0])
    wrong = cov[0, 0] * torch.tensor([[1.0, rho], [rho, 1.0]])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight.T, 0.3).to_event(1), obs=x)

    def guide(x):
        loc, _ = truths.gaussian_posterior(x, *numbers)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc, wrong))

    return model, guide, true
