"""Latents whose support is bounded, and guides that reach more or less of it."""

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


PROGRAMS = (half_normal_by_inverse_transform,)
