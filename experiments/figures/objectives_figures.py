"""The figure of the experiment `objectives`: gap and active units of a pair, by the objective of its training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from .style import BLUE, GREEN, ORANGE, new_panels

if TYPE_CHECKING:
    from ..objectives import Outcome


# An ELBO that lies farther below log p(x) than so many times the median gap is cut off, or it would flatten all others.
FARTHEST = 4.0


def objectives_figure(outcomes: list[Outcome], num_units: int) -> Figure:
    """ELBO and log p(x) of the test data with the gap between them, and the number of active units, by objective."""
    figure, (left, right) = new_panels(1.0 + 0.26 * len(outcomes), 2)
    places = np.arange(len(outcomes))[::-1]
    log_p = np.array([float(one.evidence.log_evidence.mean()) for one in outcomes])
    elbo = np.array([float(one.evidence.elbo.mean()) for one in outcomes])
    shown = log_p - elbo <= FARTHEST * np.median(log_p - elbo)
    end = elbo[shown].min() if shown.any() else elbo.min()
    left.hlines(places, np.maximum(elbo, end), log_p, color="0.7", linewidth=3, label="gap")
    left.plot(elbo[shown], places[shown], "o", color=BLUE, label="ELBO")
    left.plot(log_p, places, "D", color=ORANGE, label="log p(x)")
    for value, place in zip(elbo[~shown], places[~shown], strict=True):
        left.plot(end, place, "<", color=BLUE)
        left.annotate(f"{value:.0f}", (end, place), (5, 4), textcoords="offset points", fontsize=7, color=BLUE)
    left.axvline(log_p[0], color=ORANGE, linestyle=":", linewidth=0.8)
    left.set_yticks(places, [one.name for one in outcomes])
    left.set_xlabel("nats per test datum")
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=8, frameon=False)
    right.barh(places, [one.active for one in outcomes], color=GREEN, height=0.6)
    right.set_yticks(places, [])
    right.set_ylim(left.get_ylim())
    right.set(xlabel=f"active units of {num_units}", xlim=(0, num_units))
    return figure
