"""Gaussian pairs: evidence, posterior and KL(q || p(z | x)) are closed forms."""

import math

import pyro
import pyro.distributions as dist
import torch
import truths_inference as truths
from torch import Tensor

from .pair import Pair


def _rows(num_data: int, num_features: int, spread: float = 1.0) -> Tensor:
    return spread * torch.randn(num_data, num_features, generator=torch.Generator().manual_seed(20), dtype=torch.double)


def linear(scale: float = 1.0, shift: float = 0.0, angle: float = 0.0, num_data: int = 6) -> Pair:
    """z ~ N(0, I₂), x ~ N(Wz + b, σ²I₅); the guide is the exact posterior N(m, S) made wrong in a known way.

    Its covariance is s²RSRᵀ with the rotation R(angle), its mean m moved by `shift` posterior standard deviations. The
    tail index of the weights is k = 1 − λ, with λ the least eigenvalue of S⁻¹ times the guide's covariance: 1 − s² when
    nothing is rotated.
    """
    weight = torch.tensor([[1.2, 0.0], [0.6, -0.5], [-0.4, 0.4], [1.0, 0.3], [0.2, -0.4]])
    bias = torch.tensor([0.1, -0.2, 0.3, 0.0, 0.5])
    sigma = 0.7
    numbers = (weight, bias, sigma**2 * torch.eye(5), torch.zeros(2), torch.eye(2))
    _, cov = truths.gaussian_posterior(torch.zeros(1, 5), *numbers)
    move = shift * torch.linalg.cholesky(cov)[:, 0]
    cos, sin = math.cos(angle), math.sin(angle)
    turn = scale * torch.tensor([[cos, -sin], [sin, cos]])
    guide_cov = turn @ cov @ turn.T

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight.T + bias, sigma).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        loc, _ = truths.gaussian_posterior(x, *numbers)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc + move, guide_cov))

    def log_evidence(x: Tensor) -> Tensor:
        return truths.gaussian_evidence(x, *numbers)

    def gap(x: Tensor) -> Tensor:
        loc, cov = truths.gaussian_posterior(x, *numbers)
        return truths.gaussian_kl(loc + move, guide_cov, loc, cov)

    exact = scale == 1.0 and shift == 0.0 and angle == 0.0
    return Pair(model, guide, _rows(num_data, 5).to(weight), log_evidence=log_evidence, gap=gap, exact=exact)


def line(scale: float = 1.25) -> Pair:
    """z ~ N(0, 1), x ~ N(z, 1), both scalars; the guide is N(x/2, s²/2), s times as wide as the posterior."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, scale * math.sqrt(0.5)))

    def log_evidence(x: Tensor) -> Tensor:
        return dist.Normal(0.0, math.sqrt(2.0)).log_prob(x)

    def gap(x: Tensor) -> Tensor:
        return torch.full_like(x, truths.gaussian_scale_kl(scale, 1))

    return Pair(
        model, guide, torch.tensor([-1.3, 0.0, 0.4, 2.5]), log_evidence=log_evidence, gap=gap, exact=scale == 1.0
    )


def hierarchy(scale: float = 1.2, shift: float = 0.4) -> Pair:
    """z2 (1) → z1 (3) → x (4), all Gaussian; q(z1 | x) is `scale` too wide, q(z2 | z1) is `shift` sd off."""
    down = torch.tensor([[0.8], [-0.5], [0.3]])
    tau, sigma = 0.6, 0.5
    weight = torch.tensor([[1.0, 0.2, 0.0], [0.0, 0.7, -0.3], [0.4, 0.0, 0.9], [0.5, 0.5, 0.5]])
    top = (down, torch.zeros(3), tau**2 * torch.eye(3), torch.zeros(1), torch.eye(1))
    cov1 = down @ down.T + tau**2 * torch.eye(3)
    bottom = (weight, torch.zeros(4), sigma**2 * torch.eye(4), torch.zeros(3), cov1)

    def model(x: Tensor) -> None:
        with pyro.plate("observations", len(x)):
            z2 = pyro.sample("z2", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(z2 @ down.T, tau).to_event(1))
            pyro.sample("x", dist.Normal(z1 @ weight.T, sigma).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        loc1, cov1 = truths.gaussian_posterior(x, *bottom)
        with pyro.plate("observations", len(x)):
            z1 = pyro.sample("z1", dist.MultivariateNormal(loc1, scale**2 * cov1))
            loc2, cov2 = truths.gaussian_posterior(z1, *top)
            pyro.sample("z2", dist.MultivariateNormal(loc2 + shift * cov2.sqrt()[0], cov2))

    def log_evidence(x: Tensor) -> Tensor:
        return truths.gaussian_evidence(x, *bottom)

    def gap(x: Tensor) -> Tensor:
        # The chain rule of KL: p(z2 | z1, x) = p(z2 | z1), and the second term is the same for each z1.
        return torch.full((len(x),), truths.gaussian_scale_kl(scale, 3) + shift**2 / 2)

    return Pair(
        model,
        guide,
        _rows(5, 4).to(weight),
        log_evidence=log_evidence,
        gap=gap,
        exact=scale == 1.0 and shift == 0.0,
        latents=frozenset({"z1", "z2"}),
    )


def plated(widen: float = 1.3) -> Pair:
    """Three scalar latents per datum in a plate at dim −2; the guide is the optimal mean field, made wider."""
    weight = torch.tensor([[0.9, -0.3, 0.2], [0.1, 0.8, 0.4]])
    bias, sigma = torch.tensor([0.2, -0.1]), 0.6
    numbers = (weight, bias, sigma**2 * torch.eye(2), torch.zeros(3), torch.eye(3))
    _, cov = truths.gaussian_posterior(torch.zeros(1, 2), *numbers)
    std = widen * torch.linalg.inv(cov).diagonal().rsqrt()

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            with pyro.plate("parts", 3, dim=-2):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
            loc = (z.unsqueeze(-1) * weight.T.unsqueeze(-2)).sum(-3, keepdim=True) + bias
            pyro.sample("x", dist.Normal(loc, sigma).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        loc, _ = truths.gaussian_posterior(x, *numbers)
        with pyro.plate("data", len(x), dim=-1), pyro.plate("parts", 3, dim=-2):
            pyro.sample("z", dist.Normal(loc.T, std.unsqueeze(-1)))

    def log_evidence(x: Tensor) -> Tensor:
        return truths.gaussian_evidence(x, *numbers)

    def gap(x: Tensor) -> Tensor:
        loc, cov = truths.gaussian_posterior(x, *numbers)
        return truths.gaussian_kl(loc, torch.diag(std**2), loc, cov)

    return Pair(model, guide, _rows(5, 2).to(weight), log_evidence=log_evidence, gap=gap)


def conditional(scale: float = 1.2) -> Pair:
    """A pair with context: z ~ N(Bu, I₂), x ~ N(Wz + Cu, σ²I₃); the guide is `scale` too wide."""
    prior = torch.tensor([[0.5], [-1.0]])
    weight = torch.tensor([[1.0, 0.3], [-0.5, 0.8], [0.2, 0.6]])
    offset, sigma = torch.tensor([[0.7], [0.0], [-0.4]]), 0.8

    def numbers(u: Tensor) -> tuple[Tensor, ...]:
        return weight, u @ offset.T, sigma**2 * torch.eye(3), u @ prior.T, torch.eye(2)

    def model(x: Tensor, u: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(u @ prior.T, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight.T + u @ offset.T, sigma).to_event(1), obs=x)

    def guide(x: Tensor, u: Tensor) -> None:
        loc, cov = truths.gaussian_posterior(x, *numbers(u))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc, scale**2 * cov))

    def log_evidence(x: Tensor, u: Tensor) -> Tensor:
        return truths.gaussian_evidence(x, *numbers(u))

    def gap(x: Tensor, u: Tensor) -> Tensor:
        return torch.full((len(x),), truths.gaussian_scale_kl(scale, 2))

    u = torch.tensor([[-1.0], [0.0], [0.5], [2.0]])
    return Pair(model, guide, _rows(4, 3).to(u), (u,), log_evidence, gap, exact=scale == 1.0)
