"""Sequences: state-space models with a closed form, hidden Markov models and histories by enumeration."""

import pyro
import pyro.distributions as dist
import torch
import torch.distributions as td
from pyro import poutine
from torch import Tensor

from .program import Program

PARALLEL = {"enumerate": "parallel"}
KEEP, STEP, NOISE = 0.8, 0.6, 0.5  # z_t ~ N(0.8 z_{t−1}, 0.6²), x_t ~ N(z_t, 0.5²), z_0 = 0


def _state_covariance(steps: int) -> Tensor:
    """Cov of z_1 … z_T: (I − 0.8 shift)⁻¹ has the response to each step's noise."""
    response = torch.linalg.inv(torch.eye(steps) - KEEP * torch.diag(torch.ones(steps - 1), -1))
    return STEP**2 * response @ response.T


def _kalman(x: Tensor, seen: Tensor) -> Tensor:
    """log p of each row by the Kalman filter, step by step; a step that is not seen only predicts."""
    loc, variance, total = torch.zeros(len(x)), torch.zeros(len(x)), torch.zeros(len(x))
    for t in range(x.shape[1]):
        loc, variance = KEEP * loc, KEEP**2 * variance + STEP**2
        spread = variance + NOISE**2
        gain = torch.where(seen[:, t], variance / spread, torch.zeros(()))
        total = total + torch.where(seen[:, t], td.Normal(loc, spread.sqrt()).log_prob(x[:, t]), torch.zeros(()))
        loc, variance = loc + gain * (x[:, t] - loc), (1 - gain) * variance
    return total


def _dense(x: Tensor, seen: Tensor) -> Tensor:
    """The same from the joint Gaussian of what is seen."""
    covariance = _state_covariance(x.shape[1]) + NOISE**2 * torch.eye(x.shape[1])
    return torch.stack(
        [
            td.MultivariateNormal(torch.zeros(int(s.sum())), covariance[s][:, s]).log_prob(row[s])
            for row, s in zip(x, seen, strict=True)
        ]
    )


def _smoothed(x: Tensor, seen: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Posterior mean (num_data, T) and lower factor (num_data, T, T) of the states, a little wider."""
    precision = torch.linalg.inv(_state_covariance(steps)) + torch.diag_embed(seen.to(x) / NOISE**2)
    covariance = torch.linalg.inv(precision)
    loc = (covariance @ (seen * x / NOISE**2).unsqueeze(-1)).squeeze(-1)
    return loc, torch.linalg.cholesky(1.1 * covariance)


def _state_guide(x: Tensor, seen: Tensor) -> None:
    """z_t given z_1 … z_{t−1}: row t of the factor, in the order of time."""
    steps = x.shape[1]
    loc, tril = _smoothed(x, seen, steps)
    with pyro.plate("sequences", len(x)):
        noise: list[Tensor] = []
        for t in range(steps):
            mean = loc[:, t] + sum((tril[:, t, s] * noise[s] for s in range(t)), torch.zeros(()))
            z = pyro.sample(f"z_{t + 1}", dist.Normal(mean, tril[:, t, t]))
            noise.append((z - mean) / tril[:, t, t])


def deep_markov_model_of_two_steps() -> Program:
    """A linear deep Markov model: the Kalman filter, and one dense Gaussian."""
    x = torch.tensor([[0.7, 1.1], [-0.6, 0.3], [0.1, -1.2]])
    seen = torch.ones_like(x, dtype=torch.bool)

    def model(x):
        with pyro.plate("sequences", len(x)):
            z = torch.zeros(len(x))
            for t in pyro.markov(range(1, 3)):
                z = pyro.sample(f"z_{t}", dist.Normal(KEEP * z, STEP))
                pyro.sample(f"x_{t}", dist.Normal(z, NOISE), obs=x[:, t - 1])

    def guide(x):
        _state_guide(x, torch.ones_like(x, dtype=torch.bool))

    return Program(model, guide, x, _kalman(x, seen), lambda: _dense(x, seen), tolerance=0.03)


def deep_markov_model_of_unequal_lengths() -> Program:
    """Lengths in the context: the steps after the end are masked, latents and readings alike."""
    x = torch.tensor([[0.7, 1.1, 0.4], [-0.6, 0.3, 0.0], [0.1, 0.0, 0.0]])
    lengths = torch.tensor([3, 2, 1])

    def mask(x, lengths):
        return torch.arange(x.shape[1]) < lengths.unsqueeze(-1)

    def model(x, lengths):
        seen = mask(x, lengths)
        with pyro.plate("sequences", len(x)):
            z = torch.zeros(len(x))
            for t in range(1, x.shape[1] + 1):
                with poutine.mask(mask=seen[:, t - 1]):
                    z = pyro.sample(f"z_{t}", dist.Normal(KEEP * z, STEP))
                    pyro.sample(f"x_{t}", dist.Normal(z, NOISE), obs=x[:, t - 1])

    def guide(x, lengths):
        seen = mask(x, lengths)
        steps = x.shape[1]
        loc, tril = _smoothed(x, seen, steps)
        with pyro.plate("sequences", len(x)):
            noise: list[Tensor] = []
            for t in range(steps):
                mean = loc[:, t] + sum((tril[:, t, s] * noise[s] for s in range(t)), torch.zeros(()))
                with poutine.mask(mask=seen[:, t]):
                    z = pyro.sample(f"z_{t + 1}", dist.Normal(mean, tril[:, t, t]))
                noise.append((z - mean) / tril[:, t, t])

    seen = mask(x, lengths)
    return Program(model, guide, (x, lengths), _kalman(x, seen), lambda: _dense(x, seen), tolerance=0.04)


PROGRAMS = (
    deep_markov_model_of_two_steps,
    deep_markov_model_of_unequal_lengths,
)
