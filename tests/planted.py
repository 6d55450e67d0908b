"""Posteriors that are hard to sample, and guides that are wrong in a known way."""

import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
import truths_inference as truths
from torch import Tensor

Program = Callable[[Tensor], None]

# z ~ N(0, I₃), x ~ N(Wz, ½I₄): a posterior whose first two coordinates have the correlation −0.78.
_NUMBERS = (
    torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.9, 0.5], [0.0, 0.3, 1.0], [0.5, 0.5, 0.2]], dtype=torch.float64),
    torch.zeros(4, dtype=torch.float64),
    0.5 * torch.eye(4, dtype=torch.float64),
    torch.zeros(3, dtype=torch.float64),
    torch.eye(3, dtype=torch.float64),
)


def correlated(x: Tensor) -> None:
    """The model of `_NUMBERS`."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ _NUMBERS[0].T, math.sqrt(0.5)).to_event(1), obs=x)


def correlated_posterior(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of its posterior."""
    return truths.gaussian_posterior(x, *_NUMBERS)


def correlated_guide(scale: float = 1.0, shift: float = 0.0, mean_field: bool = False) -> Program:
    """Its posterior, `scale` times as wide, its second coordinate `shift` sd off; or the best mean field."""
    _, cov = correlated_posterior(torch.zeros(1, 4))
    used = torch.diag(1 / torch.linalg.inv(cov).diagonal()) if mean_field else scale**2 * cov
    move = torch.tensor([0.0, shift, 0.0]) * cov.diagonal().sqrt()

    def guide(x: Tensor) -> None:
        loc, _ = correlated_posterior(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc + move, used))

    return guide


def funnel(dim: int = 9) -> tuple[Program, Program]:
    """Neal's funnel: v ~ N(0, 3²), z | v ~ N(0, exp(v) I); x says nothing."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            v = pyro.sample("v", dist.Normal(0.0, 3.0))
            scale = (v / 2).exp().unsqueeze(-1)
            pyro.sample("z", dist.Normal(torch.zeros(dim), scale).to_event(1))
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("v", dist.Normal(0.0, 1.0))
            pyro.sample("z", dist.Normal(torch.zeros(dim), 1.0).to_event(1))

    return model, guide


def two_modes(x: float, noise: float) -> tuple[Program, Program]:
    """z ~ N(0, 1), x ~ N(z², noise²): modes at ±√(x − noise²/2); the guide is a Gaussian at the upper one."""
    mode = math.sqrt(x - noise**2 / 2)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z**2, noise), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.full_like(x, mode), noise / (2 * mode)))

    return model, guide


def leaning(noise: float = 0.4, lean: float = 0.53) -> tuple[Program, Program]:
    """z ~ N(0, 1), x ~ N((z², z), diag(noise², lean²)): two modes, of which the second number chooses one.

    The guide is a Gaussian at the upper one; the lower has exp(−2 x₂ √x₁ / lean²) of its mass, or nearly so.
    """

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            mean = torch.stack([z**2, z], -1)
            pyro.sample("x", dist.Normal(mean, torch.tensor([noise, lean])).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            mode = (x[:, 0] - noise**2 / 2).sqrt()
            pyro.sample("z", dist.Normal(mode, noise / (2 * mode)))

    return model, guide


def waves(num_data: int, num_features: int = 12, noise: float = 0.1) -> tuple[Program, Program, Tensor]:
    """z ~ N(0, I₂), x ~ N(sin(Wz + b), noise²), W and b at random, and data of it; the guide is a regression of z on x.

    The posterior is narrow, and log p(x, z) has a dozen other hills in z, most of no mass.
    """
    draw = torch.Generator().manual_seed(0)
    weight, bias = 1.5 * torch.randn(num_features, 2, generator=draw), torch.randn(num_features, generator=draw)
    z = torch.randn(4000, 2, generator=draw)
    x = (z @ weight.T + bias).sin() + noise * torch.randn(4000, num_features, generator=draw)
    design = torch.cat([x, torch.ones(4000, 1)], 1)
    back = torch.linalg.lstsq(design, z).solution
    spread = (z - design @ back).std(0)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal((z @ weight.T + bias).sin(), noise).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ back[:-1] + back[-1], spread).to_event(1))

    return model, guide, x[:num_data]
