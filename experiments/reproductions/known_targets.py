"""log Z of densities on which samplers are compared, where it is 0 by construction."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppvae.inference import estimate_evidence, importance_evidence

from .row import Figure, Published, Row, RowEffort, RowOutcome

REPEATS, TOLERANCE, BUDGET, DRAWS = 4, 0.05, 300_000, 100_000
Density = Callable[[Tensor], Tensor]


def funnel(z: Tensor) -> Tensor:
    """Neal's funnel in 10 dimensions: v ~ N(0, 3²), z_i ~ N(0, e^v)."""
    v, rest = z[..., 0], z[..., 1:]
    return dist.Normal(0.0, 3.0).log_prob(v) + dist.Normal(0.0, (v / 2).exp()[..., None]).log_prob(rest).sum(-1)


def gaussian_mixture(z: Tensor) -> Tensor:
    """40 normal distributions of variance 1 in the plane, their means uniform in (−40, 40)², equally weighted."""
    means = 80 * torch.rand(40, 2, generator=torch.Generator().manual_seed(0)) - 40
    return _mixture(dist.Normal(means, 1.0).to_event(1), z)


def student_mixture(z: Tensor) -> Tensor:
    """10 Student distributions of 2 degrees of freedom in the plane, their means uniform in (−10, 10)²."""
    means = 20 * torch.rand(10, 2, generator=torch.Generator().manual_seed(0)) - 10
    return _mixture(dist.StudentT(2.0, means, 1.0).to_event(1), z)


def _mixture(parts: Any, z: Tensor) -> Tensor:
    equal = dist.Categorical(logits=torch.zeros(parts.batch_shape))
    return dist.MixtureSameFamily(equal, parts).log_prob(z)


def programs(density: Density, dim: int, scale: float, guide_scale: float) -> tuple[Any, Any]:
    """A model whose evidence is ∫ density, as a normal prior with a factor, and a normal guide."""
    prior = dist.Normal(torch.zeros(dim), scale).to_event(1)

    def model(x: Tensor) -> None:
        z = pyro.sample("z", prior)
        pyro.factor("target", density(z) - prior.log_prob(z))
        unit = dist.Normal(torch.zeros(1), 1 / math.sqrt(2 * math.pi))  # of density 1 at 0
        pyro.sample("x", unit.to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("z", dist.Normal(torch.zeros(dim), guide_scale).to_event(1))

    return model, guide


def log_z(density: Density, dim: int, scale: float, guide_scale: float, effort: RowEffort) -> RowOutcome:
    """log Z by ``estimate_evidence``, the mean of several estimates."""
    model, guide = programs(density, dim, scale, guide_scale)
    found = [
        estimate_evidence(model, guide, torch.zeros(1), tolerance=TOLERANCE, budget=BUDGET, seed=effort.seed + i)
        for i in range(REPEATS)
    ]
    values = torch.stack([each.log_evidence[0] for each in found])
    stated = torch.stack([each.standard_error[0] for each in found])
    error = max(float(values.std()), float(stated.norm() / math.sqrt(REPEATS))) / math.sqrt(REPEATS)
    trusted = [bool(each.trusted[0]) for each in found]
    doubt = "" if all(trusted) else "the estimate itself says that it is not to be trusted"
    details = {"estimates": values.tolist(), "standard_errors": stated.tolist(), "trusted": trusted}
    return RowOutcome((Figure(float(values.mean()), error, doubt),), details)


def log_z_by_draws(density: Density, dim: int, scale: float, guide_scale: float, effort: RowEffort) -> RowOutcome:
    """log Z by ``importance_evidence``, the mean of two estimates."""
    model, guide = programs(density, dim, scale, guide_scale)
    found = [importance_evidence(model, guide, torch.zeros(1), DRAWS, seed=effort.seed + i) for i in range(2)]
    values, stated = ([float(getattr(each, name)[0]) for each in found] for name in ("log_evidence", "standard_error"))
    trusted = [bool(each.trusted[0]) for each in found]
    doubt = "" if all(trusted) else "the estimate itself says that it is not to be trusted"
    details = {"estimates": values, "standard_errors": stated, "trusted": trusted}
    return RowOutcome((Figure(sum(values) / 2, math.hypot(*stated) / 2, doubt),), details)


def _row(name: str, title: str, density: Density, dim: int, scales: tuple[float, float], why: str = "") -> Row:
    return Row(
        name,
        title,
        (Published("log Z, nats", 0.0, 5e-4, why=why),),
        "exact; the target is one of DenisBless/variational_sampling_methods",
        f"`estimate_evidence` to ± {TOLERANCE:g} nats from a normal guide of scale {scales[1]:g} at 0, four estimates",
        "means and scales of a mixture are drawn anew",
        partial(log_z, density, dim, *scales),
    )


NOT_REACHED = (
    "the chains do not reach all of the funnel: its mouth is up to thirty times as wide as the guide, its neck a "
    "hundredth as wide. The estimate is too low by more than its interval, and says so: draws far from the chains find "
    "the mouth, and trajectories in the neck diverge. It is the same in double precision"
)

ROWS = (
    _row("funnel", "Neal's funnel in 10 dimensions", funnel, 10, (3.0, 3.0), NOT_REACHED),
    _row("gaussian_mixture", "40 normal distributions in the plane", gaussian_mixture, 2, (25.0, 25.0)),
    Row(
        "gaussian_mixture_by_draws",
        "The same by draws alone",
        (Published("log Z, nats", 0.0, 5e-4),),
        "exact; the target is one of DenisBless/variational_sampling_methods",
        "`importance_evidence` with 100 000 draws from the same guide, two estimates",
        "the means are drawn anew",
        partial(log_z_by_draws, gaussian_mixture, 2, 25.0, 25.0),
    ),
    _row("student_mixture", "10 Student distributions in the plane", student_mixture, 2, (15.0, 15.0)),
)
