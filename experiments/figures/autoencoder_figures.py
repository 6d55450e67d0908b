"""Figures of the experiment `autoencoder_vs_vae`: the two-sample test by classifiers, and the entropy of q(z|x)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure

from ..autoencoder_comparison import CLASSIFIERS
from .style import BLUE, GREEN, ORANGE, new_figure, new_panels

if TYPE_CHECKING:
    from ..autoencoder_comparison import PairComparison


def classifier_figure(found: Sequence[PairComparison]) -> Figure:
    """The accuracy of classifiers between held-out data and samples, with binomial errors.

    Args:
        found: a panel each.
    """
    figure, panels = new_panels(3.2, len(found))
    for axes, comparison in zip(panels, found, strict=True):
        places = np.arange(len(comparison.accuracy))
        for shift, (classifier, colour) in zip(
            (-0.12, 0.12), zip(CLASSIFIERS, (BLUE, ORANGE), strict=True), strict=True
        ):
            share = np.array([accuracy[classifier] for accuracy in comparison.accuracy.values()])
            error = 2 * np.sqrt(np.maximum(share * (1 - share), 1e-4) / comparison.num_classified)
            axes.errorbar(share, places + shift, xerr=error, color=colour, linestyle="", marker="o", markersize=4,
                          capsize=2, label=classifier)  # fmt: skip
        axes.axvline(0.5, color=GREEN, linestyle="--", linewidth=1)
        axes.set_yticks(places, list(comparison.accuracy) if axes is panels[0] else [""] * len(places))
        axes.set(xlim=(0.42, 1.02), ylim=(len(places) - 0.5, -0.5), xlabel="told apart rightly (± 2 errors)")
        axes.set_title(comparison.setting.dataset, fontsize=9)
    panels[0].legend(fontsize=8, loc="upper right")
    return figure


def entropy_figure(found: Sequence[PairComparison]) -> Figure:
    """The rise of the entropy of q(z|x) when x is degraded: mean ± 2 standard errors, and the middle half of the data.

    Args:
        found: a colour each.
    """
    figure, axes = new_figure(3.2)
    for shift, comparison, colour in zip((-0.1, 0.1), found, (BLUE, ORANGE), strict=False):
        rises = list(comparison.entropy_rise.values())
        places = np.arange(len(rises)) + shift
        middle = [rise.quantile(torch.tensor([0.25, 0.75]).to(rise)).tolist() for rise in rises]
        axes.vlines(places, *zip(*middle, strict=True), color=colour, alpha=0.3, linewidth=6)
        mean = [float(rise.mean()) for rise in rises]
        error = [2 * float(rise.std()) / math.sqrt(len(rise)) for rise in rises]
        axes.errorbar(places, mean, yerr=error, color=colour, linestyle="", marker="o", markersize=4, capsize=3,
                      label=comparison.setting.dataset)  # fmt: skip
    axes.axhline(0, color="0.5", linewidth=0.8)
    axes.set_xticks(range(len(found[0].entropy_rise)), list(found[0].entropy_rise))
    axes.set_ylabel("rise of q(z|x)'s entropy (nats)\n± 2 errors; middle half shaded")
    axes.legend()
    return figure
