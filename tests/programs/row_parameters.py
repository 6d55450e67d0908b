"""Guides that are not amortised: a row of parameters for each datum."""

import math

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints

from .plates import SCALE, case, latent, posterior, reading, readings
from .program import Program


def subsampled_parameters_per_datum() -> Program:
    """One row of parameters a datum, picked by the indices of a subsampling plate, and trained."""

    def model(x):
        with pyro.plate("data", 6, subsample_size=3) as index:
            pyro.sample("x", reading(pyro.sample("z", latent())), obs=x[index])

    def guide(x):
        loc = pyro.param("loc", torch.ones(6))
        scale = pyro.param("scale", 0.7 * torch.ones(6), constraint=constraints.positive)
        with pyro.plate("data", 6, subsample_size=3) as index:
            pyro.sample("z", dist.Normal(loc[index], scale[index]))

    return case(model, guide, train=300, num_particles=6000, tolerance=0.05)


def parameters_per_datum_in_closures() -> Program:
    """One row of parameters a datum, in tensors of the closure, set to the right values and not trained."""
    loc, scale = posterior(readings()).loc, torch.linspace(1.0, 1.3, 6) * math.sqrt(SCALE**2 / (1 + SCALE**2))

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", reading(pyro.sample("z", latent())), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale))

    return case(model, guide, num_particles=1000, tolerance=0.05)


PROGRAMS = (
    subsampled_parameters_per_datum,
    parameters_per_datum_in_closures,
)
