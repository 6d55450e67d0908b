"""Which layouts suit a pair: the fastest that give the densities of the loop at the same draws.

The draws are kept, and weighed again when the pair is let go: a program whose densities change from run to run (a
counter, a running mean, a schedule) gives numbers that are those of no model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import pyro
import torch
from torch import Tensor

from .agreement import equal
from .contract import ContractError, random_densities
from .layout import LAYOUTS, Layout
from .pair import Pair
from .randomness import generator_kept
from .sites import Values

DRAWS = 2  # at which layouts are compared


class Replay(NamedTuple):
    """Draws of the guide by site and their log p(x, z) and log q(z|x), ``(DRAWS, num_units)``, all by the loop."""

    values: Values
    log_p: Tensor
    log_q: Tensor


def replayed(pair: Pair, values: Values | None = None) -> Replay:
    """The densities of draws of the guide, which are made if none are given."""
    if values is None:
        values = pair.run(pair.programs.guide_draws, DRAWS, {}, "loop", random=True)
    log_p = pair.run(pair.programs.densities, DRAWS, values, "loop")["log_p"]
    return Replay(values, log_p, pair.run(pair.programs.log_guide, DRAWS, values, "loop")["log_q"])


def demand_the_same(pair: Pair, before: Replay) -> None:
    """Raise ContractError if the same draws have other densities by now."""
    with generator_kept(), pyro.validation_enabled(False), torch.no_grad():
        now = replayed(pair, before.values)
    if not (equal(before.log_p, now.log_p, now.values) and equal(before.log_q, now.log_q, now.values)):
        raise ContractError(random_densities())


def with_layouts(pair: Pair, by_loop: Replay) -> Pair:
    """The pair with its layouts.

    Args:
        pair: the pair on all data.
        by_loop: draws for few of them.
    """
    few, drawn = pair.few, by_loop.values
    layouts = [one for one in LAYOUTS if one != "fold" or few.divisible]

    def model_agrees(layout: Layout) -> bool:
        return equal(by_loop.log_p, few.run(few.programs.densities, DRAWS, drawn, layout)["log_p"], drawn)

    def guide_agrees(layout: Layout) -> bool:
        if not equal(by_loop.log_q, few.run(few.programs.log_guide, DRAWS, drawn, layout)["log_q"], drawn):
            return False
        fresh = few.run(few.programs.proposals, DRAWS, {}, layout, random=True)
        own = fresh.pop("log_q")
        again = few.run(few.programs.log_guide, DRAWS, fresh, layout)["log_q"]
        return bool(few.structure.guide_summed) or equal(again, own, fresh)

    model_layout = next(one for one in layouts if one == "loop" or _holds(model_agrees, one))
    guide_layout = next(one for one in layouts if one == "loop" or _holds(guide_agrees, one))
    if few.structure.guide_summed and model_layout != guide_layout:  # their enumerated dims belong together
        slower = max(model_layout, guide_layout, key=LAYOUTS.index)
        model_layout = guide_layout = "loop" if slower == "vectorised" else slower
    return replace(pair, model_layout=model_layout, guide_layout=guide_layout)


def _holds(agrees: Callable[[Layout], bool], layout: Layout) -> bool:
    try:
        return agrees(layout)
    except Exception:  # of a program in a layout that does not suit it
        return False
