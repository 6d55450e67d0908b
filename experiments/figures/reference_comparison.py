"""The figures of the guide beside reference draws: all data at once, and single data in detail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure

from ppvae.inference import Posterior, Quality

from . import posterior_figures
from .guide_quality import width_against_shift

if TYPE_CHECKING:
    from ..runs.posterior_draws import DrawSets

# Coordinates in a forest, in planes, and of chains.
IN_FOREST, IN_PLANES, OF_CHAINS = 12, 3, 4


def comparison_figures(
    quality: Quality, reference: Posterior, draws: DrawSets, numbers: Sequence[int] | None
) -> dict[str, Figure]:
    """All figures of the comparison, by name: all data, the datum with the worst chains, and one typical datum.

    Args:
        quality: the comparison, datum by datum.
        reference: the reference draws with their diagnostics.
        draws: draws of guide, reweighted guide and reference.
        numbers: the row numbers of the data, for the titles; None where the data set is the unit.
    """
    figures = {"quality": width_against_shift(quality)} if quality.judged.any() else {}
    refused = (~quality.judged).nonzero().flatten()
    if len(refused):
        worst = int(refused[reference.rhat[refused].nan_to_num(torch.inf).argmax()])
        names = posterior_figures.farthest(draws.guide, draws.reference, worst, OF_CHAINS)
        figures["quality_refused"] = _titled(posterior_figures.traces(draws.reference, worst, names), numbers, worst)
    datum = _typical(quality)
    if datum is None:
        return figures
    return figures | {name: _titled(figure, numbers, datum) for name, figure in _of_datum(draws, datum).items()}


def _of_datum(draws: DrawSets, datum: int) -> dict[str, Figure]:
    """The figures of one datum, in the coordinates in which guide and reference differ most."""
    names = posterior_figures.farthest(draws.guide, draws.reference, datum, IN_FOREST)
    trees = {"guide": draws.guide, "guide, reweighted": draws.reweighted, "reference": draws.reference}
    in_planes = posterior_figures.farthest(draws.guide, draws.reference, datum, IN_PLANES)
    figures = {
        "quality_forest": posterior_figures.forest(trees, datum, names),
        "quality_ranks": posterior_figures.ranks(draws.reference, datum, names[:OF_CHAINS]),
        "quality_traces": posterior_figures.traces(draws.reference, datum, names[:OF_CHAINS]),
    }
    if len(in_planes) > 1:
        figures["quality_pair"] = posterior_figures.pairs(draws.guide, draws.reference, datum, in_planes)
    return figures


def _typical(quality: Quality) -> int | None:
    """The datum whose KL(q ‖ p) is the median of those that had a reference."""
    judged = quality.judged.nonzero().flatten()
    if not len(judged):
        return None
    order = quality.kl_guide[judged].argsort()
    return int(judged[order[len(order) // 2]])


def _titled(figure: Figure, numbers: Sequence[int] | None, place: int) -> Figure:
    if numbers is not None:
        figure.suptitle(f"datum {numbers[place]}", fontsize=9)
    return figure
