"""What a guide says of each datum, read off one run of it in which every draw is at the centre of its distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor
from torch.distributions import transform_to

from ppvae.errors import PairError

from ..gap import GuideFamily, Offset
from ..pair import Arguments, Batch, Frame, Pair, Program, opened
from .maps import StandardisedSite


@dataclass(frozen=True)
class GuideReader:
    """What a guide says of each datum, as numbers: x and the parameters of its sites, all unconstrained.

    Attributes:
        plates: of the pair.
        by_row: which leaves of the arguments have a row for each datum.
        offsets: the parameters that are read.
    """

    plates: Any
    by_row: tuple[bool, ...]
    offsets: tuple[Offset, ...]

    def frame(self, batch: Batch) -> Frame:
        """Of a run on a batch."""
        return Frame(self.plates, 1 if self.plates.data is None else len(batch[0]), None, batch[0].device)

    def sites(self, program: Program, batch: Batch) -> dict[str, Any]:
        """The distribution of every draw of the program, each given the centres of those before."""
        still = _AtCentre()
        with poutine.block(), still:
            program(*batch)
        return still.found

    def features(self, program: Program, batch: Batch) -> Tensor | None:
        """``(num_rows, num_features)``; None where the data set is the unit."""
        if self.plates.data is None:
            return None
        frame, found = self.frame(batch), self.sites(program, batch)
        leaves = [leaf for leaf, own in zip(Arguments.of(batch).leaves, self.by_row, strict=True) if own]
        parts = [leaf.reshape(len(leaf), -1) for leaf in leaves]
        for offset in self.offsets:
            base, _ = opened(found[offset.site])
            value = getattr(base, offset.parameter)
            own = transform_to(base.arg_constraints[offset.parameter]).inv(value)
            arranged = frame.arranged(own, offset.plates, len(offset.shape) - len(offset.plates))
            parts.append(arranged.expand(frame.num_units, *offset.shape).reshape(frame.num_units, -1))
        dtype = next((part.dtype for part in reversed(parts) if part.is_floating_point()), torch.get_default_dtype())
        return torch.cat([part.to(dtype) for part in parts], -1)


class _AtCentre(Messenger):
    """Runs a program with every draw at the centre of its distribution, and keeps the distributions."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, Any] = {}

    def _pyro_sample(self, msg: Any) -> None:
        fn = msg["fn"]
        if msg["is_observed"] or isinstance(fn, _Subsample):
            return
        self.found[msg["name"]] = fn
        if fn.has_enumerate_support:
            msg["value"], msg["done"] = fn.enumerate_support()[0].expand(fn.batch_shape + fn.event_shape), True
        elif not isinstance(opened(fn)[0], dist.Delta):
            at = StandardisedSite.of(fn)
            msg["value"], msg["done"] = at.constrained(torch.zeros_like(at.centre)), True


def reader_of(pair: Pair) -> tuple[GuideReader, GuideFamily]:
    """The reader of a pair's guide, and its family.

    Raises:
        PairError: the family cannot be read off, or the guide shows a part of its data only.
    """
    if pair.plates_made_whole:
        raise PairError(
            "a plate shows a part of its data only (subsample_size), which a network over the data cannot know: give "
            "the programs mini-batches instead."
        )
    family = GuideFamily(pair)
    return GuideReader(pair.structure.plates, pair.arguments.by_row, tuple(family.offsets)), family


def is_continuous(fn: Any) -> bool:
    """Whether a site has a density on a continuum, none of which an inner mask leaves out."""
    if fn is None or fn.has_enumerate_support or isinstance(opened(fn)[0], dist.Delta):
        return False
    while isinstance(fn, dist.Independent):
        fn = fn.base_dist
    return not isinstance(fn, dist.MaskedDistribution)
