"""Draws of three approximations to the posterior for the same data: guide, reweighted guide, Markov chains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import xarray as xr

from ppvae.inference import DrawsFrom, Posterior, to_datatree

from .own_units import of_draws
from .run_data import Batch
from .saved_run import SavedRun

# Draws of each chain that are shown and kept: of the reference every few.
KEPT_DRAWS = 100


@dataclass(frozen=True)
class DrawSets:
    """Draws of three kinds for the same data, as many of each.

    Attributes:
        guide: with data drawn from p(x|z).
        reweighted: the guide's, resampled by their importance weights.
        reference: those of Markov chains.
    """

    guide: xr.DataTree
    reweighted: xr.DataTree
    reference: xr.DataTree


def draw_sets(run: SavedRun, x: Batch, reference: Posterior, numbers: Sequence[int] | None) -> DrawSets:
    """Draw from the guide of a run as much as is kept of the reference draws.

    Args:
        run: the run.
        x: the data and their context, ``(x, *context)``.
        reference: draws of the posterior for the same data.
        numbers: the row numbers of the data, which name them in the trees; None where the data set is the unit.
    """
    num_chains, num_draws = reference.log_joint.shape[:2]
    kept = {site: value[:, :: -(-num_draws // KEPT_DRAWS)] for site, value in reference.draws.items()}
    model, guide, seed = run.pair.model, run.pair.guide, run.settings.seed
    size: dict[str, Any] = {"num_chains": num_chains, "num_draws": next(iter(kept.values())).shape[1]}
    shared: dict[str, Any] = {"seed": seed, "coords": None if numbers is None else {"datum": numbers}}
    trees = {
        "guide": to_datatree(model, guide, x, draws=DrawsFrom("guide", **size), **shared),
        "reweighted": to_datatree(model, guide, x, draws=DrawsFrom("psis", **size), predictive=False, **shared),
        "reference": to_datatree(model, guide, x, draws=replace(reference, draws=kept), predictive=False, **shared),
    }
    return DrawSets(**{name: of_draws(run.data, x[0], tree) for name, tree in trees.items()})
