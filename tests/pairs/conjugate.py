"""Pairs whose latents are not Gaussian: conjugate ones, one of bounded support, one with a curved posterior."""

import pyro
import pyro.distributions as dist
import torch
import truths_inference as truths
from scipy import stats
from torch import Tensor

from .pair import Pair


def gamma_poisson(factor: float = 0.8) -> Pair:
    """λ ~ Gamma(a, b), x ~ Poisson(λ): the evidence is negative binomial.

    The guide is Gamma(factor (a + x), factor (b + 1)): the posterior's mean, and a variance 1/factor as large.
    """
    shape, rate = 2.5, 0.7

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(shape, rate))
            pyro.sample("x", dist.Poisson(z), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Gamma(factor * (shape + x), factor * (rate + 1)))

    def log_evidence(x: Tensor) -> Tensor:
        return torch.as_tensor(stats.nbinom.logpmf(x.numpy(), shape, rate / (1 + rate))).to(x)

    def gap(x: Tensor) -> Tensor:
        q = dist.Gamma(factor * (shape + x), factor * (rate + 1))
        return torch.distributions.kl_divergence(q, dist.Gamma(shape + x, rate + 1))

    x = torch.tensor([0.0, 1.0, 3.0, 11.0])
    return Pair(model, guide, x, log_evidence=log_evidence, gap=gap, exact=factor == 1.0)


def beta_binomial(factor: float = 0.8) -> Pair:
    """p ~ Beta(a, b), x ~ Binomial(n, p): the guide is Beta(factor (a + x), factor (b + n − x))."""
    a, b, n = 2.0, 3.0, 10

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Beta(a, b))
            pyro.sample("x", dist.Binomial(n, z), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Beta(factor * (a + x), factor * (b + n - x)))

    def log_evidence(x: Tensor) -> Tensor:
        return torch.as_tensor(stats.betabinom.logpmf(x.numpy(), n, a, b)).to(x)

    def gap(x: Tensor) -> Tensor:
        q = dist.Beta(factor * (a + x), factor * (b + n - x))
        return torch.distributions.kl_divergence(q, dist.Beta(a + x, b + n - x))

    x = torch.tensor([0.0, 2.0, 7.0, 10.0])
    return Pair(model, guide, x, log_evidence=log_evidence, gap=gap, exact=factor == 1.0)


def banana(std: float = 0.5) -> Pair:
    """z ~ N(0, I₂), x ~ N((z₁, z₂ + z₁²/2, tanh(z₁ z₂)), ½²): a curved posterior, its evidence by quadrature.

    The guide is an isotropic Gaussian, wider than the posterior in its tails so that the weights are bounded.
    """
    sigma = 0.5

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            first, second = z[..., 0], z[..., 1]
            loc = torch.stack([first, second + first**2 / 2, torch.tanh(first * second)], -1)
            pyro.sample("x", dist.Normal(loc, sigma).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        first = 0.8 * x[:, 0]
        loc = torch.stack([first, 0.8 * (x[:, 1] - first**2 / 2)], -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, std).to_event(1))

    def log_evidence(x: Tensor) -> Tensor:
        return truths.grid_evidence(model, x, "z", half_width=7.0, points=300)

    x = torch.tensor([[0.0, 0.0, 0.0], [1.2, 0.5, 0.3], [-1.0, 1.5, -0.8], [0.4, -0.9, 0.0]])
    return Pair(model, guide, x, log_evidence=log_evidence)


def uniform(low: list[float], high: list[float]) -> Pair:
    """z ~ U(0, 1), x ~ N(z, 0.3²); the guide of each datum is uniform on [low, high], which may leave the support."""
    sigma = 0.3

    def model(x: Tensor, low: Tensor, high: Tensor) -> None:
        with pyro.plate("data", len(x)):
            # Unvalidated, a draw outside the support has log density −inf instead of an exception.
            z = pyro.sample("z", dist.Uniform(0.0, 1.0, validate_args=False))
            pyro.sample("x", dist.Normal(z, sigma), obs=x)

    def guide(x: Tensor, low: Tensor, high: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Uniform(low, high))

    def log_evidence(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        density = dist.Normal(x, sigma)
        return torch.log(density.cdf(torch.ones_like(x)) - density.cdf(torch.zeros_like(x)))

    x = torch.tensor([0.2, 0.9, 0.5])[: len(low)]
    return Pair(model, guide, x, (torch.tensor(low), torch.tensor(high)), log_evidence)
