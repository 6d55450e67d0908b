"""Capture and recapture: the histories of animals, their states enumerated."""

import itertools

import numpy as np
import pyro
import pyro.distributions as dist
import torch
import torch.distributions as td
from torch import Tensor

from .program import Program
from .quadrature import moments, plane

PARALLEL = {"enumerate": "parallel"}


def _histories() -> Tensor:
    """Seen or not on four occasions; the first sighting is on the first."""
    return torch.tensor([[1.0, 1, 0, 1], [1, 0, 0, 0], [1, 1, 1, 1], [1, 0, 1, 0], [1, 1, 0, 0]])


def _history_log_prob(x: Tensor, survival: Tensor, sighting: Tensor) -> Tensor:
    """The forward algorithm of capture and recapture; shape of `survival`, then num_data."""
    alive = torch.ones(*survival.shape, len(x))
    dead = torch.zeros_like(alive)
    phi, p = survival.unsqueeze(-1), sighting.unsqueeze(-1)
    for t in range(1, x.shape[1]):
        seen = x[:, t]
        alive, dead = alive * phi * torch.where(seen == 1, p, 1 - p), (dead + alive * (1 - phi)) * (1 - seen)
    return (alive + dead).log()


def _history_by_paths(x: Tensor, survival: float, sighting: float) -> Tensor:
    """The same by the sum over all paths of the states."""
    total = torch.zeros(len(x))
    for path in itertools.product([0, 1], repeat=3):
        z = torch.tensor([1.0, *path])
        odds = torch.ones(len(x))
        for t in range(1, 4):
            odds = odds * td.Bernoulli(survival * z[t - 1]).log_prob(z[t]).exp()
            odds = odds * td.Bernoulli(sighting * z[t]).log_prob(x[:, t]).exp()
        total = total + odds
    return total.log()


def _recaptures(x, survival, sighting):
    """The states of one animal after another, in a plate, the state enumerated along time."""
    with pyro.plate("animals", len(x)):
        z: Tensor | float = 1.0
        for t in pyro.markov(range(1, x.shape[1])):
            z = pyro.sample(f"z_{t}", dist.Bernoulli(survival * z), infer=PARALLEL)
            pyro.sample(f"x_{t}", dist.Bernoulli(sighting * z), obs=x[:, t])


def capture_and_recapture() -> Program:
    """Survival 0.7 and sighting 0.6 are known: each weight is log p of an animal's history."""
    x = _histories()

    def model(x):
        _recaptures(x, torch.tensor(0.7), torch.tensor(0.6))

    def guide(x):
        pass

    truth = _history_log_prob(x, torch.tensor(0.7), torch.tensor(0.6))
    return Program(model, guide, x, truth, lambda: _history_by_paths(x, 0.7, 0.6), num_particles=10, tolerance=1e-6)


def capture_and_recapture_of_unknown_rates() -> Program:
    """Uniform priors on survival and sighting, shared by all animals: a plane of both."""
    x = _histories()

    def joint(z):
        return _history_log_prob(x, z[..., 0], z[..., 1]).sum(-1)

    loc, covariance = moments(joint, (0.001, 0.001), (0.999, 0.999))
    total = loc * (1 - loc) / covariance.diagonal() - 1  # of the Beta with these moments
    a, b = 0.85 * loc * total, 0.85 * (1 - loc) * total

    def model(x):
        survival = pyro.sample("survival", dist.Uniform(0.0, 1.0))
        sighting = pyro.sample("sighting", dist.Uniform(0.0, 1.0))
        _recaptures(x, survival, sighting)

    def guide(x):
        pyro.sample("survival", dist.Beta(a[0], b[0]))
        pyro.sample("sighting", dist.Beta(a[1], b[1]))

    def again():
        """Gauss–Legendre over the square of the sums over paths."""
        nodes, weights = map(torch.as_tensor, np.polynomial.legendre.leggauss(9))
        nodes, weights = (nodes + 1) / 2, weights / 2
        terms = [
            _history_by_paths(x, float(s), float(p)).sum() + (u * v).log()
            for s, u in zip(nodes, weights, strict=True)
            for p, v in zip(nodes, weights, strict=True)
        ]
        return torch.logsumexp(torch.stack(terms), 0).reshape(1)

    truth = plane(joint, (0.0, 0.0), (1.0, 1.0), 400)
    return Program(
        model, guide, x, truth, again, again_tolerance=1e-4, unit="data set", num_particles=3000, tolerance=0.05
    )


PROGRAMS = (
    capture_and_recapture,
    capture_and_recapture_of_unknown_rates,
)
