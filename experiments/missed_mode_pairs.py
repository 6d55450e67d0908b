"""Pairs whose guide covers one mode of a posterior that has several, with the true log p(x).

Each model is z ~ prior, x ~ likelihood(z). The guide is a normal distribution at one mode of log p(x, z), with the
curvature there and 1.15 times the width; its numbers are computed when the pair is made and travel with the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

# How much wider the guide is than the curvature at its mode says.
WIDTH = 1.15
# Nodes of the trapezoidal rule, and the standard deviations of the prior that they span.
NODES, SPAN = 40_001, 12.0


@dataclass(frozen=True)
class MissedModes:
    """A pair on data, and the truth.

    Attributes:
        model: ``model(x, loc, scale_tril)``.
        guide: ``guide(x, loc, scale_tril)``.
        data: the arguments of both.
        log_evidence: ``x ↦ log p(x)``, in nats, by closed form or quadrature.
    """

    model: Callable[..., None]
    guide: Callable[..., None]
    data: tuple[Tensor, Tensor, Tensor]
    log_evidence: Callable[[Tensor], Tensor]

    @property
    def truth(self) -> Tensor:
        """log p(x), ``(num_data,)``, float64."""
        return self.log_evidence(self.data[0].double())


Start = Callable[[Tensor, Tensor], Tensor]


class _Mixture(dist.MixtureSameFamily):
    """A mixture on all of space; torch's own names a support onto which no bijection is known."""

    support = constraints.real_vector


def build(name: str, num_data: int, seed: int = 0) -> MissedModes:
    """The pair of this name, with data of the model's own."""
    prior, likelihood, log_evidence, start = PROBLEMS[name]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        z = prior.sample((num_data,))
        x = likelihood(z).sample()

    def model(x: Tensor, *_: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior)
            pyro.sample("x", likelihood(z), obs=x)

    def guide(x: Tensor, loc: Tensor, scale_tril: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=scale_tril))

    loc, scale_tril = _at_the_mode(lambda z, x: prior.log_prob(z) + likelihood(z).log_prob(x), start(x, z), x)
    return MissedModes(model, guide, (x, loc, WIDTH * scale_tril), log_evidence)


def _at_the_mode(log_joint: Callable[[Tensor, Tensor], Tensor], z: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The mode that is reached from z, and the Cholesky factor of the inverse curvature there."""
    z = z.detach().clone().requires_grad_()
    optimiser = torch.optim.Adam([z], lr=0.02)
    steps = 600
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        (-log_joint(z, x).sum()).backward()
        optimiser.step()
        schedule.step()
    columns = []
    gradient = torch.autograd.grad(log_joint(z, x).sum(), z, create_graph=True)[0]
    for i in range(z.shape[-1]):
        columns.append(torch.autograd.grad(gradient[:, i].sum(), z, retain_graph=True)[0])
    values, vectors = torch.linalg.eigh(-torch.stack(columns, -1))
    covariance = (vectors / values.clamp(min=1.0 / 25)[:, None, :]) @ vectors.mT
    return z.detach(), torch.linalg.cholesky((covariance + covariance.mT) / 2)


def _line(loc: float, scale: float, mean: Callable[[Tensor], Tensor], noise: float) -> Callable[[Tensor], Tensor]:
    """Log evidence of z ~ N(loc, scale²), x ~ N(mean(z), noise²), for each number of x alone, by quadrature."""
    z = torch.linspace(loc - SPAN * scale, loc + SPAN * scale, NODES, dtype=torch.float64)
    log_prior = dist.Normal(loc, scale).log_prob(z) + math.log(float(z[1] - z[0]))

    def log_evidence(x: Tensor) -> Tensor:
        flat = [torch.logsumexp(log_prior + dist.Normal(mean(z), noise).log_prob(v), -1) for v in x.reshape(-1)]
        return torch.stack(flat).reshape(x.shape)

    return log_evidence


Problem = tuple[Any, Callable[[Tensor], Any], Callable[[Tensor], Tensor], Start]


def _normal(loc: Tensor | float, scale: Tensor | float, dim: int) -> Any:
    return dist.Normal(torch.as_tensor(loc).expand(dim), scale).to_event(1)


def _each(dim: int, loc: float, scale: float, mean: Callable[[Tensor], Tensor], noise: float, start: Start) -> Problem:
    """x_i ~ N(mean(z_i), noise²) for every coordinate alone."""
    one = _line(loc, scale, mean, noise)
    return (
        _normal(loc, scale, dim),
        lambda z: dist.Normal(mean(z), noise).to_event(1),
        lambda x: one(x).sum(-1),
        start,
    )


def absolute_value() -> Problem:
    """z ~ N(½, 5²), x ~ N(|z|, 0.1²)."""
    return _each(1, 0.5, 5.0, torch.abs, 0.1, lambda x, z: x)


def square() -> Problem:
    """z ~ N(0.2, 1), x ~ N(z², 0.3²)."""
    return _each(1, 0.2, 1.0, torch.square, 0.3, lambda x, z: x.clamp(min=0.01).sqrt())


def cosine() -> Problem:
    """z ~ N(−0.3, 3²), x ~ N(cos z, 0.2²): modes at ± arccos x and every 2π."""
    return _each(1, -0.3, 3.0, torch.cos, 0.2, lambda x, z: x.clamp(-0.95, 0.95).arccos())


def four_corners() -> Problem:
    """Two coordinates that are each seen as their square: four modes."""
    return _each(2, 0.2, 1.0, torch.square, 0.3, lambda x, z: z)


def signs_of_ten() -> Problem:
    """Ten coordinates that are each seen as their absolute value: 1024 modes."""
    return _each(10, 0.05, 1.0, torch.abs, 0.2, lambda x, z: z)


def one_sign_of_ten() -> Problem:
    """Ten coordinates, of which one is seen as its square."""
    dim, noise = 10, 0.3
    first = _line(0.2, 1.0, torch.square, noise)
    loc = torch.tensor([0.2] + [0.0] * (dim - 1))

    def likelihood(z: Tensor) -> Any:
        return dist.Normal(torch.cat([z[..., :1] ** 2, z[..., 1:]], -1), noise).to_event(1)

    def log_evidence(x: Tensor) -> Tensor:
        rest = dist.Normal(0.0, math.hypot(1.0, noise)).log_prob(x[:, 1:]).sum(-1)
        return first(x[:, 0]) + rest

    return _normal(loc, 1.0, dim), likelihood, log_evidence, lambda x, z: z


def mixture_prior() -> Problem:
    """Five coordinates, three clusters that x, seen with a large error, does not tell apart."""
    dim, noise = 5, 6.0
    draw = torch.Generator().manual_seed(3)
    means = 3.0 * torch.randn(3, dim, generator=draw, dtype=torch.float64).to(torch.get_default_dtype())
    weights = torch.tensor([0.4, 0.35, 0.25])
    prior = _Mixture(dist.Categorical(weights), dist.Normal(means, 0.7).to_event(1))

    def log_evidence(x: Tensor) -> Tensor:
        parts = dist.Normal(means.double(), math.hypot(0.7, noise)).log_prob(x[:, None]).sum(-1)
        return torch.logsumexp(parts + weights.double().log(), -1)

    return prior, lambda z: dist.Normal(z, noise).to_event(1), log_evidence, lambda x, z: z


def spike_and_slab() -> Problem:
    """Four coordinates near zero or not; the guide knows the narrow part."""
    dim, noise = 4, 0.5
    scales, weights = torch.tensor([0.05, 1.0]), torch.tensor([0.3, 0.7])
    parts = dist.Normal(torch.zeros(2, dim), scales[:, None].expand(2, dim)).to_event(1)
    prior = _Mixture(dist.Categorical(weights), parts)

    def log_evidence(x: Tensor) -> Tensor:
        total = (scales.double() ** 2 + noise**2).sqrt()[:, None]
        each = dist.Normal(torch.zeros(dim).double(), total).log_prob(x[:, None]).sum(-1)
        return torch.logsumexp(each + weights.double().log(), -1)

    return prior, lambda z: dist.Normal(z, noise).to_event(1), log_evidence, lambda x, z: torch.zeros_like(z)


def two_decoders() -> Problem:
    """Ten latents; x comes from one of two linear decoders, and from which one it does not tell."""
    dim, noise = 10, 0.7
    draw = torch.Generator().manual_seed(1)
    maps = torch.randn(2, dim, dim, generator=draw, dtype=torch.float64).to(torch.get_default_dtype())
    maps = maps / math.sqrt(dim)

    def likelihood(z: Tensor) -> Any:
        means = torch.einsum("kij,...j->...ki", maps, z)
        chosen = dist.Categorical(torch.ones(means.shape[:-1]))
        return dist.MixtureSameFamily(chosen, dist.Normal(means, noise).to_event(1))

    def log_evidence(x: Tensor) -> Tensor:
        m = maps.double()
        covariance = m @ m.mT + noise**2 * torch.eye(dim).double()
        parts = dist.MultivariateNormal(torch.zeros(dim).double(), covariance).log_prob(x[:, None])
        return torch.logsumexp(parts, -1) - math.log(2)

    return _normal(0.0, 1.0, dim), likelihood, log_evidence, lambda x, z: z


def label_switching() -> Problem:
    """Three cluster centres in the plane, exchangeable: six modes. Six points of a mixture of the three are seen."""
    slots, points, noise, width = 3, 6, 0.4, 2.0

    def likelihood(z: Tensor) -> Any:
        centres = z.reshape(*z.shape[:-1], 1, slots, 2)
        centres = centres.expand(*z.shape[:-1], points, slots, 2)
        parts = dist.Normal(centres, noise).to_event(1)
        chosen = dist.Categorical(torch.ones(*z.shape[:-1], points, slots))
        return dist.MixtureSameFamily(chosen, parts).to_event(1)

    def log_evidence(x: Tensor) -> Tensor:
        # Given who belongs to whom, points of a cluster are jointly normal, and so is each of their coordinates.
        who = torch.cartesian_prod(*[torch.arange(slots)] * points)
        same = (who[:, :, None] == who[:, None, :]).double()
        covariance = width**2 * same + noise**2 * torch.eye(points).double()
        joint = dist.MultivariateNormal(torch.zeros(points).double(), covariance)
        each = [joint.log_prob(row[:, 0]) + joint.log_prob(row[:, 1]) for row in x]
        return torch.logsumexp(torch.stack(each), -1) - points * math.log(slots)

    return _normal(0.0, width, 2 * slots), likelihood, log_evidence, lambda x, z: z


def factor_sign() -> Problem:
    """A matrix of rank one, x = a bᵀ + noise, a of 2 and b of 8 numbers: (−a, −b) does as well."""
    rows, columns, noise = 2, 8, 0.5

    def likelihood(z: Tensor) -> Any:
        product = z[..., :rows, None] * z[..., None, rows:]
        return dist.Normal(product.flatten(-2), noise).to_event(1)

    def log_evidence(x: Tensor) -> Tensor:
        # Given a, each column is N(0, aaᵀ + noise² I): a determinant and a square in closed form.
        axis = torch.linspace(-8, 8, 801, dtype=torch.float64)
        a = torch.cartesian_prod(axis, axis)
        length = a.square().sum(-1)
        log_prior = dist.Normal(0.0, 1.0).log_prob(a).sum(-1) + 2 * math.log(float(axis[1] - axis[0]))
        determinant = 2 * math.log(noise**2) + (length / noise**2).log1p()
        out = []
        for row in x.reshape(len(x), rows, columns):
            explained = (a @ row).square().sum(-1) / (noise**2 + length)
            exponent = (row.square().sum() - explained) / noise**2
            each = -(columns * (determinant + rows * math.log(2 * math.pi)) + exponent) / 2
            out.append(torch.logsumexp(log_prior + each, 0))
        return torch.stack(out)

    return _normal(0.0, 1.0, rows + columns), likelihood, log_evidence, lambda x, z: z


# In this order in the table: the name, what makes the problem, and how many latents it has.
PROBLEMS: dict[str, Callable[[], Problem]] = {
    "absolute value": absolute_value,
    "square": square,
    "cosine": cosine,
    "four corners": four_corners,
    "spike and slab": spike_and_slab,
    "mixture prior": mixture_prior,
    "label switching": label_switching,
    "one sign of ten": one_sign_of_ten,
    "signs of ten": signs_of_ten,
    "two decoders": two_decoders,
    "factor sign": factor_sign,
}
