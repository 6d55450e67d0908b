"""NaN in the data: masked by the program it is a missing value; where it reaches a density there is no number."""

import math

import pyro
import pyro.distributions as dist
import torch
import torch.distributions as td
from pyro import poutine
from torch import Tensor

from .program import REFUSED, Program
from .quadrature import hermite_line

NAN = math.nan


def _x() -> Tensor:
    return torch.tensor([[0.7, NAN, 0.2], [-1.1, -0.6, NAN], [NAN, NAN, 1.4], [0.3, 0.5, 0.1]])


def _truth(x: Tensor) -> Tensor:
    """z ~ N(0, 1), each reading that is there ~ N(z, 0.6²): row by row the Gaussian of those that are there."""
    rows = [row[~torch.isnan(row)] for row in x]
    return torch.stack(
        [
            td.MultivariateNormal(
                torch.zeros(len(row)), torch.ones(len(row), len(row)) + 0.36 * torch.eye(len(row))
            ).log_prob(row)
            for row in rows
        ]
    )


def _guide(x):
    """The posterior given what is there, a twentieth wider."""
    seen = ~torch.isnan(x)
    precision = 1 + seen.sum(-1) / 0.36
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.nan_to_num(x).sum(-1) / 0.36 / precision, 1.05 / precision.sqrt()))


def _case(model, guide=_guide) -> Program:
    x = _x()

    def joint(z):
        seen = ~torch.isnan(x)
        log_p = td.Normal(z.unsqueeze(-1), 0.6).log_prob(torch.nan_to_num(x))
        return td.Normal(0.0, 1.0).log_prob(z) + torch.where(seen, log_p, torch.zeros(())).sum(-1)

    return Program(model, guide, x, _truth(x), lambda: hermite_line(joint, torch.zeros(4), 0.8), num_particles=1000)


def masked_by_a_handler() -> Program:
    """`poutine.mask` about the observation, nought in place of NaN."""

    def model(x):
        seen = ~torch.isnan(x)
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0))
            with pyro.plate("readings", x.shape[1], dim=-1), poutine.mask(mask=seen):
                pyro.sample("x", dist.Normal(z, 0.6), obs=torch.nan_to_num(x))

    def guide(x):
        seen = ~torch.isnan(x)
        precision = 1 + seen.sum(-1, keepdim=True) / 0.36
        with pyro.plate("data", len(x), dim=-2):
            loc = torch.nan_to_num(x).sum(-1, keepdim=True) / 0.36 / precision
            pyro.sample("z", dist.Normal(loc, 1.05 / precision.sqrt()))

    return _case(model, guide)


def masked_distribution() -> Program:
    """`.mask(...)` on the distribution, then `to_event`."""

    def model(x):
        seen = ~torch.isnan(x)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            reading = dist.Normal(z.unsqueeze(-1), 0.6).mask(seen).to_event(1)
            pyro.sample("x", reading, obs=torch.where(seen, x, torch.zeros_like(x)))

    return _case(model)


def masked_with_the_nan_inside() -> Program:
    """The observed value keeps its NaN: the mask alone hides it, with the distribution's validation off."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            reading = dist.Normal(z.unsqueeze(-1), 0.6, validate_args=False).mask(~torch.isnan(x)).to_event(1)
            pyro.sample("x", reading, obs=x)

    return _case(model)


def site_for_each_column() -> Program:
    """A site for each column, masked row by row, with an arbitrary number in place of NaN."""

    def model(x):
        seen = ~torch.isnan(x)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            for j in range(x.shape[1]):
                with poutine.mask(mask=seen[..., j]):
                    pyro.sample(f"x_{j}", dist.Normal(z, 0.6), obs=torch.nan_to_num(x[..., j], nan=99.0))

    return _case(model)


def nan_in_the_likelihood() -> Program:
    """Nothing masks the NaN."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1), 0.6, validate_args=False).to_event(1), obs=x)

    return Program(model, _guide, _x(), REFUSED)


def nan_in_the_encoder() -> Program:
    """The model masks, the guide's mean becomes NaN."""

    def model(x):
        seen = ~torch.isnan(x)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            reading = dist.Normal(z.unsqueeze(-1), 0.6).mask(seen).to_event(1)
            pyro.sample("x", reading, obs=torch.nan_to_num(x))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.7 * x.mean(-1), 0.5))

    return Program(model, guide, _x(), REFUSED)


PROGRAMS = (
    masked_by_a_handler,
    masked_distribution,
    masked_with_the_nan_inside,
    site_for_each_column,
    nan_in_the_likelihood,
    nan_in_the_encoder,
)
