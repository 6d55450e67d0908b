"""Where the sites of a pair stand: one description of a site, and the frame of a run that relates it to units.

A *unit* is what has an evidence of its own: a datum, if every latent stands inside one plate over the data, or else the
data set as a whole. The values of a site are kept by unit, ``(num_draws, num_units, *plates inside the unit, *event)``,
whatever the layout of the programs' plates is; a run without a plate of draws has no first dim.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro.poutine import Trace
from torch import Tensor

from ppvae.errors import PairError

from .distributions import is_discrete
from .enumeration import has_enumerated, sum_out

Values = dict[str, Tensor]

DRAWS = "_ppvae_draws"
# The key of all unconstrained latents among values by site; a program may well call a site "u".
U = "_ppvae_u"


@dataclass(frozen=True)
class Site:
    """Where a site stands inside a unit.

    Attributes:
        plates: its own plates inside the unit, as dims of the program, outermost first.
        event_dim: how many dims its event has.
        shape: sizes of those plates, then the event's.
        dtype: of its values.
        start: where the site begins in the vector u of a unit's unconstrained latents.
        u_shape: its shape there: its plates, then the event of its unconstrained values.
        discrete: whether its values are.
    """

    plates: tuple[int, ...]
    event_dim: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    start: int = 0
    u_shape: tuple[int, ...] = ()
    discrete: bool = False

    @property
    def stop(self) -> int:
        """Where the next site begins."""
        return self.start + math.prod(self.u_shape)


@dataclass(frozen=True)
class Plates:
    """The plates of a pair.

    Attributes:
        data: name of the plate over the data; None if the unit is the data set.
        dim: its dim.
        size: how many data it was made for; −1 if it was made without a size.
        nesting: how many plates are nested.
    """

    data: str | None
    dim: int
    size: int
    nesting: int

    @property
    def draw_dim(self) -> int:
        """The dim of the plate of draws: left of every plate of the pair."""
        return -self.nesting - 1

    @property
    def inside(self) -> tuple[int, ...]:
        """The dims of the plates inside a unit, outermost first."""
        return tuple(dim for dim in range(-self.nesting, 0) if self.data is None or dim != self.dim)


@dataclass(frozen=True)
class Frame:
    """How a run's tensors relate to draws and units.

    Attributes:
        plates: of the pair.
        num_units: units of the run.
        num_draws: size of the plate of draws; None where there is no such plate.
        device: of the data.
    """

    plates: Plates
    num_units: int
    num_draws: int | None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def lead(self) -> tuple[int, ...]:
        """``(num_draws,)`` or nothing."""
        return () if self.num_draws is None else (self.num_draws,)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a log density by unit."""
        return (*self.lead, self.num_units)

    @property
    def enumeration_dim(self) -> int:
        """The first dim that is left for enumerated sites: next to the plates, where there are no draws."""
        return -self.plates.nesting - len(self.lead) - 1

    def by_unit(self, value: Tensor, site: Site) -> Tensor:
        """A value as the program has it, with the dims ``(draws, units, *plates of the site, *event)``."""
        return self.arranged(value, site.plates, site.event_dim).expand(*self.shape, *site.shape)

    def arranged(self, value: Tensor, plates: Iterable[int], event_dim: int) -> Tensor:
        """:meth:`by_unit` without expansion, for any tensor whose last ``event_dim`` dims are no batch dims."""
        lead, nesting = len(self.lead), self.plates.nesting
        batch_dims = value.dim() - event_dim
        value = value.reshape((1,) * (nesting + lead - batch_dims) + tuple(value.shape))
        if self.plates.data is None:
            value = value.unsqueeze(lead)
        else:
            value = value.movedim(lead + nesting + self.plates.dim, lead)
        for axis, dim in reversed(list(enumerate(self.plates.inside, start=lead + 1))):
            if dim not in plates:
                value = value.select(axis, 0)
        return value

    def by_program(self, value: Tensor, plates: Iterable[int]) -> Tensor:
        """The inverse of :meth:`by_unit`."""
        lead, own = len(self.lead), set(plates)
        for axis, dim in enumerate(self.plates.inside, start=lead + 1):
            if dim not in own:
                value = value.unsqueeze(axis)
        if self.plates.data is None:
            value = value.squeeze(lead)
        else:
            own.add(self.plates.dim)
            value = value.movedim(lead, lead + self.plates.nesting + self.plates.dim)
        if lead:
            return value
        # Nothing stands left of the plates: a site has no more batch dims than it needs, as the program has written it.
        return value.reshape(value.shape[self.plates.nesting + min(own, default=0) :])

    def total(self, terms: list[tuple[Any, Tensor]], model_trace: Trace, guide_trace: Trace | None = None) -> Tensor:
        """The sum of log densities by unit, float64, with enumerated sites summed out."""
        guide_trace = Trace() if guide_trace is None else guide_trace
        if terms and has_enumerated(model_trace, guide_trace):
            kept = {} if self.num_draws is None else {DRAWS: self.num_draws}
            if self.plates.data is not None:
                kept[self.plates.data] = self.num_units
            return sum_out(terms, model_trace, guide_trace, kept).reshape(self.shape)
        total = torch.zeros(self.shape, dtype=torch.float64, device=self.device)
        for _, term in terms:
            total = total + self.sum_plates(term)
        return total

    def sum_plates(self, term: Tensor) -> Tensor:
        """The sum of a log density over the plates inside a unit."""
        lead, nesting = len(self.lead), self.plates.nesting
        if term.dim() > nesting + lead:
            raise PairError(
                f"a log density has the shape {tuple(term.shape)} where the plates of the pair have {nesting} dims, as "
                "when a column (n, 1) is observed under a row (n): give values the shape of their distribution."
            )
        term = term.reshape((1,) * (nesting + lead - term.dim()) + tuple(term.shape))
        inner = tuple(range(lead, lead + nesting))
        if self.plates.data is None:
            return term.sum(inner).unsqueeze(lead) if inner else term.unsqueeze(lead)
        inner = tuple(axis for axis in inner if axis != lead + nesting + self.plates.dim)
        return term.sum(inner) if inner else term


def describe(site: dict[str, Any], plates: Plates) -> Site:
    """The description of a site of a trace."""
    fn, own = site["fn"], {frame.dim for frame in site["cond_indep_stack"] if frame.vectorized}
    batch_shape = (1,) * (plates.nesting + 1 - len(fn.batch_shape)) + tuple(fn.batch_shape)
    dims = tuple(dim for dim in plates.inside if dim in own or batch_shape[dim] > 1)
    shape = (*(batch_shape[dim] for dim in dims), *_event_shape(site))
    return Site(dims, fn.event_dim, shape, torch.as_tensor(site["value"]).dtype, discrete=is_discrete(fn))


def _event_shape(site: dict[str, Any]) -> torch.Size:
    """The shape of a site's event, which a distribution of sequences of any length (an HMM) leaves to the value."""
    of_fn, value = site["fn"].event_shape, torch.as_tensor(site["value"])
    of_value = value.shape[max(value.dim() - len(of_fn), 0) :]
    try:
        return torch.broadcast_shapes(of_fn, of_value)
    except RuntimeError:
        return of_fn


def demand_whole_event(name: str, node: dict[str, Any], site: Site) -> None:
    """Raise PairError if a draw is narrower than the data, as that of a sequence without a length, not to repeat it."""
    shape = tuple(torch.as_tensor(node["value"]).shape)
    drawn, wanted = shape[max(len(shape) - site.event_dim, 0) :], site.shape[len(site.plates) :]
    if not node["is_observed"] and drawn != wanted:
        raise PairError(f"a draw of {name!r} has shape {drawn} and what was given {wanted}: give that shape")
