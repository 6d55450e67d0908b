"""The single numbers of a latent site, its units, and the density of each by itself.

A site's distribution is drawn given what the program drew before it, its parents. Given these, the density of unit j,

    q(z_j | parents) = ∫ q(z | parents) dz_{i≠j},

is known where the distribution says that its numbers are independent (``Independent``, ``.to_event``), and for some in
which they are not: a Gaussian's marginals are Gaussian, a Dirichlet's are Beta. Without parents that is the marginal
q(z_j|x); with them the marginal is the average over the parents' draws.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, cast

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import constraints

from .traces import PARTICLES, Batch, Plates, Program


@dataclass(frozen=True)
class Layout:
    """Where the numbers of a latent site stand: ``(particles, *inner plates, data, *event)``.

    Attributes:
        inner: sizes of the batch dims between the particles and the data, 1 where the site is in no such plate.
        event: shape of an event.
        plated: which of ``inner`` are plates of the site.
    """

    inner: tuple[int, ...]
    event: tuple[int, ...]
    plated: tuple[bool, ...]

    @classmethod
    def of(cls, site: dict[str, Any]) -> Layout:
        """The units of a site that was drawn under the plate of particles."""
        batch, event = site["fn"].batch_shape, site["fn"].event_shape
        dims = {frame.dim for frame in site["cond_indep_stack"] if frame.vectorized}
        inner = tuple(batch[1:-1])
        return cls(inner, tuple(event), tuple(dim - len(inner) - 1 in dims for dim in range(len(inner))))

    @property
    def indices(self) -> list[tuple[int, ...]]:
        """The index of every unit: its place in the inner plates, then in the event."""
        plates = [range(size) if own else (None,) for size, own in zip(self.inner, self.plated, strict=True)]
        places = itertools.product(*plates, *map(range, self.event))
        return [tuple(i for i in place if i is not None) for place in places]

    def last(self, values: Tensor) -> Tensor:
        """``(..., *inner, num_data, *event)`` → ``(..., num_data, num_units)``."""
        data_dim = values.dim() - len(self.event) - 1
        moved = values.movedim(data_dim, data_dim - len(self.inner))
        return moved.reshape(*moved.shape[: data_dim - len(self.inner) + 1], -1)

    def back(self, values: Tensor) -> Tensor:
        """``(..., num_data, num_units)`` → ``(..., *inner, num_data, *event)``, what :meth:`last` came from."""
        shaped = values.reshape(*values.shape[:-1], *self.inner, *self.event)
        data_dim = values.dim() - 2
        return shaped.movedim(data_dim, data_dim + len(self.inner))


def run_under_particles(program: Program, batch: Batch, num_particles: int, plates: Plates) -> Trace:
    """One run of a program by itself, ``num_particles`` draws a datum; sites marked for enumeration are drawn.

    Pyro's validation is off, so that a density outside its support is −inf and no exception.
    """
    with pyro.validation_enabled(False), pyro.plate(PARTICLES, num_particles, dim=plates.particle_dim):
        return prune_subsample_sites(poutine.trace(program).get_trace(*batch))


def marginals(fn: Any) -> dist.TorchDistribution | str:
    """The distribution of every unit by itself, given the parents; or, in words, why there is none.

    Args:
        fn: a site's distribution, of batch shape ``(*batch)`` and event shape ``(*event)``.

    Returns:
        A distribution of batch shape ``(*batch, *event)`` whose events are single numbers.

    Example:
        >>> fn = dist.MultivariateNormal(torch.zeros(2), torch.tensor([[4.0, 1.0], [1.0, 9.0]]))
        >>> unit = marginals(fn)
        >>> unit.batch_shape, unit.stddev.tolist()
        (torch.Size([2]), [2.0, 3.0])
    """
    while isinstance(fn, torch.distributions.Independent):
        fn = fn.base_dist
    if isinstance(fn, dist.Delta):
        return "it is a point mass (Delta), which has no density"
    if not fn.event_shape:
        return fn
    if isinstance(fn, (torch.distributions.MultivariateNormal, torch.distributions.LowRankMultivariateNormal)):
        return dist.Normal(fn.mean, fn.variance.sqrt(), validate_args=False)
    if isinstance(fn, torch.distributions.Dirichlet):
        rest = fn.concentration.sum(-1, keepdim=True) - fn.concentration
        return dist.Beta(fn.concentration, rest, validate_args=False)
    return f"the numbers of a {type(fn).__name__} depend on each other, and their marginal densities are not known"


def log_density(unit: dist.TorchDistribution, value: Tensor) -> Tensor:
    """log q(value) of single numbers, −inf outside the support, in float64; values and batch shape broadcast."""
    log_prob, support = unit.log_prob(value).double(), cast(Any, unit).support
    if support is constraints.real:
        return log_prob
    return torch.where(support.check(value), log_prob, -torch.inf)


def has_parents(site: dict[str, Any], layout: Layout) -> bool:
    """Whether a site's distribution differs between particles, which share x and differ in what was drawn before."""
    unit = marginals(site["fn"])
    if isinstance(unit, str):
        return False
    log_prob = layout.last(log_density(unit, site["value"][:1]))
    return not bool((log_prob == log_prob[:1]).all())
