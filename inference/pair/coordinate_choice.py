"""Whether chains had better move in the coordinates of the guide (:mod:`.guide_coordinates`)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pyro
import pyro.distributions as dist
import torch

from ..option_records import Start
from .distributions import bare, is_real, masked
from .evaluations import Evaluations
from .log_terms import to_u
from .pair import Pair
from .randomness import generator_kept
from .traces import FAILURES

# The guide's coordinates are taken where the log of their volume has this standard deviation over draws, in nats: below
# it an affine map, which chains find by themselves, does as well, and the guide need not be run at every place.
_BENT = 1.0
_DRAWS = 64


def in_guide_coordinates(pair: Pair, start: Start = "guide") -> Pair:
    """The pair in the coordinates of its guide, where scales of latents depend on other latents; else as it is.

    They need a guide that draws all latents from normals, and a model in which they are real numbers.

    Args:
        pair: as :meth:`.pair.Pair.on` gives it.
        start: where the chains start; with ``"prior"`` the guide has no say, and the pair stays as it is.
    """
    if start != "guide":
        return pair
    structure = pair.structure
    otherwise = structure.auxiliary or structure.points or structure.guide_summed
    whole = pair.divisible or pair.unit == "data set"
    if len(structure.latents) < 2 or otherwise or not whole:
        return pair
    with suppress(*FAILURES), generator_kept(0), torch.no_grad(), pyro.validation_enabled(False):
        changed = replace(pair, by_guide=True, evaluations=Evaluations())
        if _draws_normals(pair.few) and _scales_vary(changed.few):
            return changed
    return pair


def _draws_normals(pair: Pair) -> bool:
    """Whether the guide draws all latents from normals, none left out, where the model has all reals for them too."""
    proposed: Any = pair.programs.trace(pair.guide, pair.frame, pair.batch, enumerate_sites=False)
    prior: Any = pair.programs.seen(pair.frame, pair.batch)
    sites = [(proposed.nodes[name], prior.nodes[name]) for name in pair.sites]
    return all(
        isinstance(bare(own["fn"]), dist.Normal) and not masked(own) and is_real(other["fn"]) for own, other in sites
    )


def _scales_vary(pair: Pair) -> bool:
    """Whether log |det ∂u/∂ε| differs from draw to draw."""
    _, log_scale = to_u(pair, pair.draw("guide", _DRAWS))
    return bool(log_scale.std(0).mean() > _BENT)
