"""A Bayesian regression: one data set whose evidence, gap and posterior are known."""

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

NOISE = 0.7


class Regression:
    """y ~ N(Xβ, 0.7² I), β ~ N(0, I): log p(y|X) and p(β|y, X) are Gaussian."""

    def __init__(self, num_data: int = 12, widened: float = 1.25) -> None:
        generator = torch.Generator().manual_seed(7)
        self.covariates = torch.randn(num_data, 2, generator=generator)
        self.y = self.covariates @ torch.tensor([0.8, -0.5]) + NOISE * torch.randn(num_data, generator=generator)
        precision = torch.eye(2) + self.covariates.T @ self.covariates / NOISE**2
        self.covariance = precision.inverse()
        self.mean = self.covariance @ self.covariates.T @ self.y / NOISE**2
        self.widened = widened

    @property
    def batch(self) -> tuple[Tensor, Tensor]:
        return self.y, self.covariates

    def model(self, y: Tensor, covariates: Tensor) -> None:
        beta = pyro.sample("beta", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(covariates @ beta, NOISE), obs=y)

    def guide(self, y: Tensor, covariates: Tensor) -> None:
        pyro.sample("beta", dist.MultivariateNormal(self.mean, self.widened**2 * self.covariance))

    @property
    def log_evidence(self) -> float:
        marginal = NOISE**2 * torch.eye(len(self.y)) + self.covariates @ self.covariates.T
        return float(dist.MultivariateNormal(torch.zeros(len(self.y)), marginal).log_prob(self.y))

    @property
    def gap(self) -> float:
        """KL(q ‖ p(β|y)) of a guide that is wider by a factor s: d (s² − 1 − log s²) / 2."""
        return 2 * (self.widened**2 - 1 - 2 * math.log(self.widened)) / 2
