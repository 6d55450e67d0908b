"""Whether the transforms that a user has written state their Jacobian, found by automatic differentiation.

Where x = f(a) with a ~ p(a), a ``TransformedDistribution`` has the density p(x) = p(a) |det ∂f/∂a|⁻¹, with what the
transforms' ``log_abs_det_jacobian`` state in place of the determinant. At a few draws a the Jacobian of f is computed
and compared. Transforms of torch, Pyro and zuko are taken at their word.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import ComposeTransform, IndependentTransform, TransformedDistribution
from torch.distributions.transforms import _InverseTransform

from .contract import Finding
from .distributions import bare, image
from .randomness import generator_kept
from .traces import FAILURES, sample_sites

# Draws at which the Jacobians are compared; with more numbers in an event than these they are not.
DRAWS, MOST_NUMBERS = 5, 50
# The stated and the true logarithm may differ by this much, relative to their size.
ROUNDING = {torch.float64: 1e-4, torch.float32: 1e-2}
TAKEN_AT_THEIR_WORD = ("torch", "pyro", "zuko")


class LogDets(NamedTuple):
    """log |det ∂f/∂a| at draws, ``(places,)``: as it is stated, and by differentiation."""

    stated: Tensor
    true: Tensor
    dtype: torch.dtype

    def differ(self) -> Tensor:
        """At which places they differ by more than rounding; none where single precision gives a few such only."""
        off = ~_near(self.stated, self.true, ROUNDING.get(self.dtype, 0.1))
        return off if self.dtype == torch.float64 else off & (off.sum() > len(off) / 2)

    def where(self, places: Tensor) -> LogDets:
        """At some of the places."""
        return LogDets(self.stated[places], self.true[places], self.dtype)


def _near(one: Tensor, other: Tensor, tolerance: float) -> Tensor:
    return (one - other).abs() <= tolerance * (1 + other.abs())


def wrong_jacobians(model_trace: Trace, guide_trace: Trace) -> Iterator[Finding]:
    """The sites of both programs with a transform that states another Jacobian than it has."""
    for trace in (model_trace, guide_trace):
        for name, site in sample_sites(trace):
            own = next(_written_by_the_user(getattr(bare(site["fn"]), "transforms", ())), None)
            found = None if own is None else log_dets(site["fn"])
            if found is None or not found.differ().any():
                continue
            worst = (found.stated - found.true).abs().argmax()
            yield Finding(
                "jacobian",
                name,
                f"{type(own).__name__} states {float(found.stated[worst]):.4g} as log |det| of its Jacobian where that "
                f"is {float(found.true[worst]):.4g}, so that the density of what is drawn is wrong",
                "mend its log_abs_det_jacobian(x, y): log |det ∂y/∂x|, summed over the dims of an event",
            )


def log_dets(fn: Any) -> LogDets | None:
    """The Jacobians of a distribution's transforms; None where they cannot be computed, or are not square."""
    transformed = bare(fn)
    if not isinstance(transformed, TransformedDistribution) or not all(t.bijective for t in transformed.transforms):
        return None
    core: Any = transformed  # torch's, to which Pyro gives further attributes
    inner = min(fn.event_dim - core.event_dim, len(core.batch_shape))  # dims of the batch that .to_event has claimed
    dims = core.event_dim + inner
    size = core.shape()[len(core.shape()) - dims :].numel()
    if not 0 < size <= MOST_NUMBERS or core.base_dist.shape().numel() != core.shape().numel():
        return None
    with generator_kept(0):
        a = core.base_dist.sample(torch.Size((DRAWS,)))
        single, double = (_compared(core, a.to(dtype), inner, size) for dtype in (torch.float32, torch.float64))
    found = double or single  # networks in single precision bear no other
    if found is None:
        return None
    places = found.stated.isfinite() & found.true.isfinite()
    if single and double:  # where rounding does not tell
        coarse = ROUNDING[torch.float32]
        places &= _near(single.stated, double.stated, coarse) & _near(single.true, double.true, coarse)
    return found.where(places)


def _compared(core: Any, a: Tensor, inner: int, size: int) -> LogDets | None:
    """At given draws; None where they cannot be computed."""
    try:
        with torch.enable_grad():
            a = a.detach().requires_grad_()
            x, log_density = image(core, a)
            if not torch.equal(log_density, image(core, a)[1]):  # random, as with dropout
                return None
            flat = x.reshape(-1, size)
            rows = [
                torch.autograd.grad(flat[:, i].sum(), a, retain_graph=True)[0].reshape(-1, size) for i in range(size)
            ]
    except FAILURES:
        return None
    by_place = log_density.detach().double().expand(x.shape[: x.dim() - core.event_dim])
    stated = -by_place.reshape(len(flat), -1).sum(-1)
    return LogDets(stated, torch.linalg.slogdet(torch.stack(rows, 1).double())[1], x.dtype)


def _written_by_the_user(transforms: Any) -> Iterator[Any]:
    """The transforms of a class that comes with none of the libraries, those inside others too."""
    for one in transforms:
        if type(one).__module__.partition(".")[0] not in TAKEN_AT_THEIR_WORD:
            yield one
        elif isinstance(one, ComposeTransform):
            yield from _written_by_the_user(one.parts)
        elif isinstance(one, IndependentTransform):
            yield from _written_by_the_user([one.base_transform])
        elif isinstance(one, _InverseTransform):  # of which the inverse is the one that was written
            yield from _written_by_the_user([one.inv])
