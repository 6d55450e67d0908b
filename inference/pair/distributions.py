"""A distribution and what Pyro wraps around it: events, masks, expansions, transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from pyro.distributions.util import sum_rightmost
from torch import Tensor
from torch.distributions import constraints

from .two_part_mixture import TwoPartMixture

_WRAPPERS = (dist.Independent, dist.MaskedDistribution, ExpandedDistribution)


def layers(fn: Any) -> list[Any]:
    """The distribution, and those that it wraps by ``to_event``, ``mask`` or ``expand``, the bare one last."""
    found = [fn]
    while isinstance(fn, _WRAPPERS):
        fn = fn.base_dist
        found.append(fn)
    return found


def bare(fn: Any) -> Any:
    """The distribution without what Pyro wraps around it."""
    return layers(fn)[-1]


def kind(fn: Any) -> str:
    """The name of the bare distribution's class."""
    return type(bare(fn)).__name__


def left_out(site: dict[str, Any]) -> Tensor:
    """Which log densities of a site are left out, by ``poutine.mask`` or ``.mask``: its batch dims, then inner ones."""
    mask = torch.as_tensor(True if site["mask"] is None else site["mask"])
    out = ~mask.expand(torch.broadcast_shapes(mask.shape, site["fn"].batch_shape))
    for fn in layers(site["fn"]):
        if isinstance(fn, dist.Independent):
            out = _with_inner_dims(out, fn.reinterpreted_batch_ndims)
        elif isinstance(fn, dist.MaskedDistribution):
            out = out | ~torch.as_tensor(fn._mask)
    return out


def masked(site: dict[str, Any]) -> bool:
    """Whether a site leaves some of its log density out."""
    return bool(left_out(site).any())


def masked_more(site: dict[str, Any], than: dict[str, Any]) -> bool:
    """Whether a site leaves out what another one of the same batch shape does not."""
    first, second = left_out(site), left_out(than)
    dims = max(first.dim(), second.dim())
    first, second = (_with_inner_dims(out, dims - out.dim()) for out in (first, second))
    return bool((first & ~second).any())


def _with_inner_dims(out: Tensor, count: int) -> Tensor:
    return out.reshape((*out.shape, *(1,) * count))


def is_point_mass(fn: Any) -> bool:
    """Whether the bare distribution is a Delta."""
    return isinstance(bare(fn), dist.Delta)


def is_improper(fn: Any) -> bool:
    """Whether the bare distribution is one everywhere on its support, and so none that can be drawn from."""
    return isinstance(bare(fn), dist.ImproperUniform)


def support_of(fn: Any) -> Any:
    """The constraint that the values of a distribution obey.

    Pyro's wrapper of zuko's distributions states none: there it is the domain of the flow's transform, which maps
    values to those of its base, or what the wrapped distribution states. A mixture's is that of its components, where
    these have one and the same.

    Raises:
        NotImplementedError: none is stated.
    """
    held = getattr(bare(fn), "dist", None)
    if held is None:
        return _of_components(fn.support)
    found = held.transform.domain if hasattr(held, "transform") else support_of(held)
    missing = fn.event_dim - found.event_dim
    return constraints.independent(found, missing) if missing > 0 else found


def _of_components(support: Any) -> Any:
    """A constraint with that of a mixture's components in place of the mixture's own, which has no bijection."""
    inner = getattr(support, "base_constraint", None)
    if inner is None:
        return support
    if isinstance(support, constraints.independent):
        return constraints.independent(_of_components(inner), support.reinterpreted_batch_ndims)
    is_mixture = isinstance(support, getattr(constraints, "MixtureSameFamilyConstraint", ()))
    return _of_components(inner) if is_mixture and not _varies(inner) else support


def _varies(support: Any) -> bool:
    """Whether a constraint has bounds of its own for each place."""
    values = vars(support).values()
    return any(isinstance(v, Tensor) and v.dim() > 0 for v in values) or any(
        _varies(v) for v in values if isinstance(v, constraints.Constraint)
    )


def inside(fn: Any, value: Tensor) -> Tensor:
    """Whether values lie in the support of a distribution, by batch place.

    Of a ``TransformedDistribution`` torch knows the transform's range alone; what its base excludes, such as x < 1
    where x = 1 + y and y is exponential, is looked for at T⁻¹(x).
    """
    found: Tensor = support_of(fn).check(value)
    core = bare(fn)
    if not base_is_bounded(core):
        return found
    for transform in reversed(core.transforms):
        value = transform.inv(value)
    within = inside(core.base_dist, value)
    while within.dim() > found.dim():
        within = within.all(-1)
    return found & within


def is_real(fn: Any) -> bool:
    """Whether a distribution has all reals as its support, or knows of none, so that no value lies outside."""
    core = bare(fn)
    try:
        support = core.support
    except (NotImplementedError, AttributeError):
        return True
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    is_all = support is torch.distributions.constraints.real and not base_is_bounded(core)
    return is_all or is_point_mass(fn)


def base_is_bounded(core: Any) -> bool:
    """Whether a plain TransformedDistribution has a base that does not live on all reals."""
    plain = isinstance(core, torch.distributions.TransformedDistribution) and not core.arg_constraints
    return plain and not is_real(core.base_dist)


def is_discrete(fn: Any) -> bool:
    """Whether the values of a distribution are discrete."""
    try:
        return bool(support_of(fn).is_discrete)
    except (NotImplementedError, AttributeError):
        return False


def without_zuko(fn: Any) -> Any:
    """A flow of zuko's on a Gaussian base, which Pyro wraps, as a TransformedDistribution; others as they are."""
    flow: Any = getattr(fn, "dist", None)
    base: Any = getattr(flow, "base", None)
    if flow is None or not isinstance(getattr(base, "base_dist", None), torch.distributions.Normal):
        return fn
    normal = dist.Normal(base.base_dist.loc, base.base_dist.scale).to_event(base.reinterpreted_batch_ndims)
    return dist.TransformedDistribution(normal, [flow.transform.inv])


def opened(fn: Any) -> tuple[Any, Callable[[Any], Any]]:
    """The distribution that holds the parameters, and a function that wraps another one as this one is wrapped.

    Of a mixture of two parts it is the first that is opened.
    """
    if isinstance(fn, dist.Independent):
        base, wrap = opened(fn.base_dist)
        return base, lambda new: wrap(new).to_event(fn.reinterpreted_batch_ndims)
    if isinstance(fn, dist.MaskedDistribution):
        base, wrap = opened(fn.base_dist)
        return base, lambda new: wrap(new).mask(fn._mask)
    if isinstance(fn, ExpandedDistribution):
        base, wrap = opened(fn.base_dist)
        return base, lambda new: _expanded(wrap(new), fn.batch_shape)
    if isinstance(fn, torch.distributions.TransformedDistribution) and not fn.arg_constraints:
        base, wrap = opened(fn.base_dist)
        return base, lambda new: dist.TransformedDistribution(wrap(new), fn.transforms)
    if isinstance(fn, TwoPartMixture):
        base, wrap = opened(fn.first)
        return base, lambda new: fn.with_first(wrap(new))
    return fn, lambda new: new


def _expanded(fn: Any, shape: torch.Size) -> Any:
    return fn.expand(torch.broadcast_shapes(fn.batch_shape, shape))


def image(core: Any, a: Tensor) -> tuple[Tensor, Tensor]:
    """f(a), and −log |det ∂f/∂a| by batch place of the distribution."""
    event_dim, log_density = core.base_dist.event_dim, torch.zeros((), dtype=a.dtype, device=a.device)
    for transform in core.transforms:
        z = transform(a)
        own = transform.log_abs_det_jacobian(a, z)
        log_density = log_density - sum_rightmost(own, event_dim - transform.domain.event_dim)
        event_dim += transform.codomain.event_dim - transform.domain.event_dim
        a = z
    return a, log_density
