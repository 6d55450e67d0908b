"""Hierarchies: shared latents with one latent below for each datum. The unit is the data set."""

import math

import pyro
import pyro.distributions as dist
import torch
import torch.distributions as td
from torch import Tensor

from .program import Program
from .quadrature import line, moments, plane


def _groups() -> Tensor:
    return torch.tensor([[0.8, 1.2, 0.5], [-0.3, 0.4, 0.1], [1.9, 2.2, 1.4], [0.6, -0.2, 0.9]])


def hierarchical_normal() -> Program:
    """mean ~ N(0, 1.5²), theta_i ~ N(mean, 0.8²), x_ij ~ N(theta_i, 0.5²): one Gaussian of twelve numbers."""
    x = _groups()
    truth = td.MultivariateNormal(
        torch.zeros(12),
        2.25 * torch.ones(12, 12) + torch.block_diag(*[0.64 * torch.ones(3, 3)] * 4) + 0.25 * torch.eye(12),
    ).log_prob(x.reshape(-1))

    def model(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.5))
        with pyro.plate("groups", len(x)):
            theta = pyro.sample("theta", dist.Normal(mean, 0.8))
            pyro.sample("x", dist.Normal(theta.unsqueeze(-1), 0.5).to_event(1), obs=x)

    def guide(x):
        precision = 1 / 2.25 + len(x) / (0.64 + 0.25 / 3)
        loc = x.mean(-1).sum() / (0.64 + 0.25 / 3) / precision
        mean = pyro.sample("mean", dist.Normal(loc, 1.1 / math.sqrt(precision)))
        with pyro.plate("groups", len(x)):
            below = 1 / 0.64 + 3 / 0.25
            pyro.sample("theta", dist.Normal((mean / 0.64 + x.sum(-1) / 0.25) / below, 1.05 / math.sqrt(below)))

    def joint(mean):
        """theta integrated out group by group, by a rule within the rule."""
        total = td.Normal(0.0, 1.5).log_prob(mean)
        for row in x:
            total = total + line(
                lambda theta, row=row: (
                    td.Normal(mean.T, 0.8).log_prob(theta) + td.Normal(theta.unsqueeze(-1), 0.5).log_prob(row).sum(-1)
                ),
                -5,
                6,
                400,
            ).unsqueeze(-1)
        return total

    return Program(model, guide, x, truth.reshape(1), lambda: line(joint, -8, 8, 800), unit="data set", tolerance=0.03)


def _log_beta(a, b):
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


def _rates_case(batches: bool) -> Program:
    """a, b ~ LogNormal(0.5, 0.5²), p_i ~ Beta(a, b), x_i ~ Binomial(n_i, p_i)."""
    x, n = torch.tensor([2.0, 5.0, 1.0, 7.0]), torch.tensor([8.0, 9.0, 6.0, 10.0])
    choices = torch.lgamma(n + 1) - torch.lgamma(x + 1) - torch.lgamma(n - x + 1)

    def joint(z):
        a, b = z.exp().unsqueeze(-1).unbind(-2)
        log_p = choices + _log_beta(a + x, b + n - x) - _log_beta(a, b)
        return td.Normal(0.5, 0.5).log_prob(z).sum(-1) + log_p.sum(-1)

    loc, covariance = moments(joint, (-2.5, -2.5), (3.5, 3.5))

    def model(x, n):
        a, b = pyro.sample("a", dist.LogNormal(0.5, 0.5)), pyro.sample("b", dist.LogNormal(0.5, 0.5))
        with pyro.plate("batches", len(x), subsample_size=2 if batches else None) as i:
            p = pyro.sample("p", dist.Beta(a, b))
            pyro.sample("x", dist.Binomial(n[i], p), obs=x[i])

    def guide(x, n):
        log_a = dist.LogNormal(loc[0], 1.1 * covariance[0, 0].sqrt())
        a = pyro.sample("a", log_a)
        gain = covariance[0, 1] / covariance[0, 0]
        rest = covariance[1, 1] - gain * covariance[0, 1]
        b = pyro.sample("b", dist.LogNormal(loc[1] + gain * (a.log() - loc[0]), 1.1 * rest.sqrt()))
        with pyro.plate("batches", len(x), subsample_size=2 if batches else None) as i:
            pyro.sample("p", dist.Beta(a + x[i], b + n[i] - x[i]))

    def again():
        """p_i by a rule too, over a coarser plane of a and b."""
        side = torch.linspace(-2.5, 3.5, 41)
        z = torch.cartesian_prod(side, side)
        total = td.Normal(0.5, 0.5).log_prob(z).sum(-1)
        for k in range(4):

            def inner(u, k=k):
                prior = td.Beta(*z.exp().unbind(-1)).log_prob(torch.sigmoid(u))
                slope = torch.nn.functional.logsigmoid(u) + torch.nn.functional.logsigmoid(-u)
                return prior + slope + td.Binomial(int(n[k]), logits=u).log_prob(x[k].expand(len(u), 1))

            total = total + line(inner, -16, 16, 400)
        return (torch.logsumexp(total, 0) + 2 * math.log(0.15)).reshape(1)

    truth = plane(joint, (-3.5, -3.5), (4.5, 4.5))
    return Program(
        model,
        guide,
        (x, n),
        truth,
        again,
        again_tolerance=1e-4,
        unit="data set",
        tolerance=0.04,
    )


def beta_binomial_hierarchy() -> Program:
    """Rates of groups under a Beta with unknown shape: the rates in closed form, the shape on a plane."""
    return _rates_case(batches=False)


def beta_binomial_hierarchy_in_batches() -> Program:
    """The same with a subsampling plate in both programs."""
    return _rates_case(batches=True)


def random_intercepts_in_a_loop() -> Program:
    """A sequential plate: `for i in pyro.plate(...)`, a site for each group, and a shared mean."""
    x = _groups()[:3]
    truth = td.MultivariateNormal(
        torch.zeros(9), torch.ones(9, 9) + torch.block_diag(*[0.49 * torch.ones(3, 3)] * 3) + 0.36 * torch.eye(9)
    ).log_prob(x.reshape(-1))

    def model(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        for i in pyro.plate("groups", len(x)):
            theta = pyro.sample(f"theta_{i}", dist.Normal(mean, 0.7))
            with pyro.plate(f"members_{i}", x.shape[1]):
                pyro.sample(f"x_{i}", dist.Normal(theta, 0.6), obs=x[i])

    def guide(x):
        precision = 1 + len(x) / (0.49 + 0.12)
        loc = x.mean(-1).sum() / (0.49 + 0.12) / precision
        mean = pyro.sample("mean", dist.Normal(loc, 1.1 / math.sqrt(precision)))
        for i in pyro.plate("groups", len(x)):
            below = 1 / 0.49 + 3 / 0.36
            loc = (mean / 0.49 + x[i].sum() / 0.36) / below
            pyro.sample(f"theta_{i}", dist.Normal(loc, 1.05 / math.sqrt(below)))

    def joint(mean):
        total = td.Normal(0.0, 1.0).log_prob(mean)
        for row in x:
            total = total + td.MultivariateNormal(
                torch.zeros(3), 0.49 * torch.ones(3, 3) + 0.36 * torch.eye(3)
            ).log_prob(row - mean).unsqueeze(-1)
        return total

    return Program(
        model,
        guide,
        x,
        truth.reshape(1),
        lambda: line(joint, -8, 8),
        unit="data set",
        num_particles=600,
        tolerance=0.05,
    )


PROGRAMS = (
    hierarchical_normal,
    beta_binomial_hierarchy,
    beta_binomial_hierarchy_in_batches,
    random_intercepts_in_a_loop,
)
