"""The single numbers of a latent site, its units, and the density of each by itself.

A site's distribution is drawn given what the program drew before it, its parents. Given these, the density of unit j,

    q(z_j | parents) = ∫ q(z | parents) dz_{i≠j},

is known where the distribution says that its numbers are independent (``Independent``, ``.to_event``), and for some in
which they are not: a Gaussian's marginals are Gaussian, a Dirichlet's are Beta. Without parents that is the marginal
q(z_j|x); with them the marginal is the average over the parents' draws.

Shapes: the units of a site are its plates inside a datum, then its event, flattened: ``(num_draws, num_data, units)``.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any, Literal, NamedTuple, cast

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from .arguments import Batch
from .distributions import masked
from .layout import Tensors
from .pair import Pair
from .sites import Frame, Site

Which = Literal["guide", "model"]


# The name of the values among the inputs of a body; no site may have it, since a filler goes by the names of sites.
OWN = "values by unit"


def marginals(fn: Any) -> dist.TorchDistribution | str:
    """The distribution of every unit by itself, given the parents; or, in words, why there is none.

    Args:
        fn: a site's distribution, of batch shape ``(*batch)`` and event shape ``(*event)``.

    Returns:
        A distribution of batch shape ``(*batch, *event)`` whose events are single numbers.

    Example:
        >>> fn = dist.MultivariateNormal(torch.zeros(2), torch.tensor([[4.0, 1.0], [1.0, 9.0]]))
        >>> unit = marginals(fn)
        >>> unit.batch_shape, unit.variance.round().tolist()
        (torch.Size([2]), [4.0, 9.0])
    """
    while isinstance(fn, torch.distributions.Independent):
        fn = fn.base_dist
    if isinstance(fn, dist.Delta):
        return "it is a point mass (Delta) or a point at a function of other draws, which has no density of its own"
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


def unit_indices(site: Site) -> list[tuple[int, ...]]:
    """The index of every unit of a site: its place in the plates inside a datum, then in the event."""
    return list(itertools.product(*map(range, site.shape)))


class UnitDraws(NamedTuple):
    """Draws of a site by unit, and their means and variances given the parents, ``(num_draws, num_data, units)``.

    Where the distribution does not know its mean, the draw stands for it, and the variance is 0.
    """

    values: Tensor
    means: Tensor
    variances: Tensor


def unit_draws(pair: Pair, which: Which, name: str, num_draws: int) -> UnitDraws:
    """Draws of a site from one of the programs by itself; sites marked for enumeration are drawn."""
    found = _run(pair, which, partial(_draws, pair, which, name), num_draws, {})
    return UnitDraws(found["values"], found["means"], found["variances"])


def own_log_density(pair: Pair, which: Which, name: str, z: Tensor, num_draws: int) -> Tensor:
    """log q(z_j|x_n, parents) of ``(num_draws or 1, num_data, units)``, each under its own datum."""
    return _run(pair, which, partial(_own, pair, which, name), num_draws, {OWN: z})["log_q"]


def cross_log_density(pair: Pair, which: Which, name: str, z: Tensor, num_draws: int) -> Tensor:
    """log q(z_j|x_n, parents) of ``(block, units)`` under every datum: ``(num_draws, num_data, units, block)``."""
    return _run(pair, which, partial(_cross, pair, which, name, z), num_draws, {})["log_q"]


def why_unknown(pair: Pair, which: Which, name: str) -> str:
    """Why the densities of a site's units are not known; empty where they are."""
    unit = marginals(_node(pair, which, name)["fn"])
    return unit if isinstance(unit, str) else ""


def guide_order(pair: Pair) -> list[str]:
    """The latents in the order in which the guide draws them."""
    trace: Any = pair.programs.trace(pair.guide, pair.frame, pair.batch, enumerate_sites=False)
    return [name for name in trace.nodes if name in pair.sites]


def is_masked(pair: Pair, name: str) -> bool:
    """Whether either program masks a site."""
    return masked(_node(pair, "guide", name)) or masked(_node(pair, "model", name))


def has_parents(pair: Pair, which: Which, name: str, num_draws: int = 8) -> bool:
    """Whether a site's distribution differs between draws, which share x and differ in what was drawn before."""
    if why_unknown(pair, which, name):
        return False
    z = unit_draws(pair, which, name, num_draws).values[:1]
    log_q = own_log_density(pair, which, name, z, num_draws)
    return not bool((log_q == log_q[:1]).all())


def _node(pair: Pair, which: Which, name: str) -> Any:
    program = pair.guide if which == "guide" else pair.model
    trace: Any = pair.programs.trace(program, pair.frame, pair.batch, enumerate_sites=False)
    return trace.nodes[name]


def _run(pair: Pair, which: Which, body: Any, num_draws: int, inputs: Tensors) -> Tensors:
    layout = pair.guide_layout if which == "guide" else pair.model_layout
    return pair.run(body, num_draws, inputs, layout, random=True)


def _site(pair: Pair, which: Which, name: str, frame: Frame, batch: Batch) -> tuple[Any, Site]:
    program = pair.guide if which == "guide" else pair.model
    trace: Any = pair.programs.trace(program, frame, batch, enumerate_sites=False)
    return trace.nodes[name], pair.sites[name]


def _flat(frame: Frame, value: Tensor, site: Site) -> Tensor:
    return frame.by_unit(value, site).reshape(*frame.shape, -1)


def _draws(pair: Pair, which: Which, name: str, frame: Frame, batch: Batch, inputs: Tensors) -> Tensors:
    node, site = _site(pair, which, name, frame, batch)
    value: Tensor = node["value"]
    try:
        mean, variance = node["fn"].mean.expand(value.shape), node["fn"].variance.expand(value.shape)
    except NotImplementedError:
        mean, variance = value, torch.zeros_like(value)
    named = {"values": value, "means": mean, "variances": variance}
    return {key: _flat(frame, part, site) for key, part in named.items()}


def _own(pair: Pair, which: Which, name: str, frame: Frame, batch: Batch, inputs: Tensors) -> Tensors:
    node, site = _site(pair, which, name, frame, batch)
    z = inputs[OWN].reshape(*inputs[OWN].shape[:-1], *site.shape)
    unit: Any = marginals(node["fn"])
    return {"log_q": _flat(frame, log_density(unit, frame.by_program(z, site.plates)), site)}


def _cross(pair: Pair, which: Which, name: str, z: Tensor, frame: Frame, batch: Batch, inputs: Tensors) -> Tensors:
    node, site = _site(pair, which, name, frame, batch)
    block = Frame(frame.plates, 1, len(z))  # the block stands where a plate of draws would
    value = block.by_program(z.reshape(len(z), 1, *site.shape), site.plates)
    if frame.num_draws is not None:
        value = value.unsqueeze(1)
    unit: Any = marginals(node["fn"])
    log_q = frame.arranged(log_density(unit, value).movedim(0, -1), site.plates, site.event_dim + 1)
    return {"log_q": log_q.expand(*frame.shape, *site.shape, len(z)).reshape(*frame.shape, -1, len(z))}
