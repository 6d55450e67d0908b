"""Programs with more sites on some data, or at some draws, than on others."""

import math

import pyro
import pyro.distributions as dist
import torch
import torch.distributions as td
from pyro import poutine
from torch import Tensor

from .program import REFUSED, Program
from .quadrature import hermite_line


def loop_to_the_greatest_length() -> Program:
    """z_t ~ N(0, 1), x_t ~ N(z_t, 1) for t < length, in a loop as long as the longest of 80 data: datum 7."""
    torch.manual_seed(91)
    x, lengths = torch.randn(80, 4), torch.full((80,), 2)
    lengths[7] = 4

    def model(x, lengths):
        with pyro.plate("data", len(x)):
            for t in range(int(lengths.max())):
                with poutine.mask(mask=t < lengths):
                    z = pyro.sample(f"z_{t}", dist.Normal(0.0, 1.0))
                    pyro.sample(f"x_{t}", dist.Normal(z, 1.0), obs=x[:, t])

    def guide(x, lengths):
        with pyro.plate("data", len(x)):
            for t in range(int(lengths.max())):
                with poutine.mask(mask=t < lengths):
                    pyro.sample(f"z_{t}", dist.Normal(x[:, t] / 2, 0.75))

    present = torch.arange(4) < lengths.unsqueeze(-1)
    truth = (td.Normal(0.0, math.sqrt(2)).log_prob(x) * present).sum(-1)

    def again() -> Tensor:
        """Each entry by a rule."""
        entry = x.reshape(-1)
        prior = td.Normal(0.0, 1.0)
        joint = hermite_line(lambda z: prior.log_prob(z) + td.Normal(z, 1.0).log_prob(entry), entry / 2, 1.0)
        return (joint.reshape(x.shape) * present).sum(-1)

    return Program(model, guide, (x, lengths), truth, again, num_particles=3000)


def loop_until_a_coin_falls() -> Program:
    """A geometric number of steps, each a coin that is drawn: the number of sites is drawn too."""

    def model(x):
        steps = 0
        while pyro.sample(f"stop_{steps}", dist.Bernoulli(0.5)) == 0:
            steps += 1
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(float(steps), 1.0), obs=x)

    def guide(x):
        steps = 0
        while pyro.sample(f"stop_{steps}", dist.Bernoulli(0.4)) == 0:
            steps += 1

    return Program(model, guide, torch.tensor([2.2, 1.7]), REFUSED)


PROGRAMS = (
    loop_to_the_greatest_length,
    loop_until_a_coin_falls,
)
