"""Climb the families of a refinement one after the other, for some of the data, and weigh where each climb ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..evidence import Evidence, evidence_of
from ..option_records import Optimiser
from ..pair import Pair
from .ascent import Family, Parameters, ascend, paired
from .flows import MapFamily, moments
from .guide_family import GuideFamily, RefinedGuide

FamilyName = Literal["guide", "full", "flow"]

FAMILIES: tuple[FamilyName, ...] = ("guide", "full", "flow")

# Draws that a map's centre and spread are read off.
_MOMENT_DRAWS = 512


@dataclass(frozen=True)
class Climbing:
    """How a family is climbed."""

    optimiser: Optimiser
    num_draws: int
    memory_mb: float
    advance: Callable[[int], None]


class Climb(NamedTuple):
    """What came of climbing a family, per datum: the ELBO of its start and of its end, and the difference."""

    start: Tensor
    start_error: Tensor
    end: Tensor
    end_error: Tensor
    gain: Tensor
    gain_error: Tensor
    converged: Tensor
    steps: Tensor


def pieces_of(pair: Pair, how: Climbing) -> list[Pair]:
    """The pair in pieces whose every step fits the budget; a step takes one unit at least."""
    if not pair.divisible:
        return [pair]
    return [pair.rows(units) for units in pair.pieces(how.optimiser.num_particles, how.memory_mb)]


def climb_part(
    pair: Pair, names: Sequence[FamilyName], how: Climbing
) -> tuple[Parameters, dict[str, Climb], list[Evidence]]:
    """The guide's offsets for some of the data, what came of each family, and the evidence from every member."""
    own = GuideFamily(pair)
    budget = int(how.memory_mb * 2**20) // (pair.bytes_each * pair.num_units)
    num_at_once = max(budget, how.optimiser.num_particles)
    offsets, climb, evidence = _climb(own, how, num_at_once)
    climbs = {"guide": climb}
    if len(names) > 1:
        with Pair.on(pair.model, RefinedGuide(own, offsets), pair.batch, start="guide") as refined:
            centre, spread = moments(refined, _MOMENT_DRAWS, num_at_once)
            best: Parameters | None = None
            for name in names[1:]:
                maps = MapFamily(refined, centre, spread, best, couplings=name == "flow")
                best, climbs[name], (_, at_end) = _climb(maps, how, num_at_once)
                evidence.append(at_end)
    return offsets, climbs, evidence


def _climb(family: Family, how: Climbing, num_at_once: int) -> tuple[Parameters, Climb, list[Evidence]]:
    """Climb a family; weigh its start and its end on fresh draws, and read the evidence off both."""
    ascent = ascend(family, how.optimiser, num_at_once, how.advance)
    every = torch.arange(len(ascent.steps), device=ascent.steps.device)
    weights = paired(family, family.start, ascent.parameters, every, how.num_draws, num_at_once)
    before, after = (log_w.cpu() for log_w in weights)
    readings = [(w.mean(0), w.std(0) / math.sqrt(how.num_draws)) for w in (before, after, after - before)]
    climb = Climb(*readings[0], *readings[1], *readings[2], ascent.converged.cpu(), ascent.steps.cpu())
    return ascent.parameters, climb, [evidence_of(before), evidence_of(after)]


def joined(parts: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """Tensors of some of the data as tensors of all."""
    return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))
