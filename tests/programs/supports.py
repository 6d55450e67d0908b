"""Latents whose support is bounded, and guides that reach more or less of it."""

from functools import partial

import pyro
import pyro.distributions as dist
import torch
import torch.distributions as td

from .program import Program
from .quadrature import line


def half_normal_by_inverse_transform() -> Program:
    """z = Φ⁻¹((1 + u)/2) of a uniform site called u, x ~ N(z, 1): z is half normal."""
    x = torch.tensor([0.3, -1.2, 0.8, 1.9])

    def model(x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Uniform(torch.zeros(len(x)), 1.0))
            z = td.Normal(0.0, 1.0).icdf((1 + u) / 2)
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("u", dist.Beta((1 + x / 2).clamp(min=1.0), (1 - x / 2).clamp(min=1.0)))

    def joint(z):
        return td.HalfNormal(1.0).log_prob(z) + td.Normal(z, 1.0).log_prob(x)

    truth = td.Normal(0.0, 2**0.5).log_prob(x) + (2 * td.Normal(0.0, 1.0).cdf(x / 2**0.5)).log()
    return Program(model, guide, x, truth, lambda: line(joint, 0, 12), num_particles=5000, tolerance=0.05)


def _shifted_case(model, posterior) -> Program:
    """z = 1 + y, y ~ Exponential(1), x ~ N(z, 0.5): torch says that the support of z is the whole line."""
    x = torch.tensor([1.1, 1.3, 2.0])

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", posterior(x))

    def joint(z):
        return torch.where(z >= 1, 1 - z, -torch.inf) + td.Normal(z, 0.5).log_prob(x)

    # exp(1 - z) N(x; z, 0.5) = exp(1 - x + 0.125) N(z; x - 0.25, 0.5), from z = 1 on.
    truth = 1.125 - x + td.Normal(0.0, 1.0).cdf((x - 1.25) / 0.5).log()
    return Program(model, guide, x, truth, lambda: line(joint, 1, 12), num_particles=10_000, tolerance=0.05)


def _shifted_exponential(x, validate_args=None):
    with pyro.plate("data", len(x)):
        base = dist.Exponential(torch.ones(len(x)), validate_args=validate_args)
        z = pyro.sample("z", dist.TransformedDistribution(base, [td.AffineTransform(1.0, 1.0)]))
        pyro.sample("x", dist.Normal(z, 0.5, validate_args=validate_args), obs=x)


def shifted_exponential() -> Program:
    """A guide of the same form."""

    def posterior(x):
        base = dist.Exponential(1.3 * torch.ones(len(x)))
        return dist.TransformedDistribution(base, [td.AffineTransform(1.0, 1.0)])

    return _shifted_case(_shifted_exponential, posterior)


def shifted_exponential_below_its_shift() -> Program:
    """A normal guide reaches below 1, where an exponential's formula has a density of more than one."""
    return _shifted_case(partial(_shifted_exponential, validate_args=False), lambda x: dist.Normal(x + 0.2, 0.5))


PROGRAMS = (
    half_normal_by_inverse_transform,
    shifted_exponential,
    shifted_exponential_below_its_shift,
)
