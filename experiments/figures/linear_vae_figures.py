"""Figures of the experiment `linear_vae_is_ppca`: training against closed forms, and growth of a collapsed column."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ppvae.inference.latents.stability import column_growth

from .style import BLACK, BLUE, GREEN, ORANGE, new_figure, new_panels

# By the guide's covariance S: how a figure names it, and its colour.
_GUIDES = {"full": ("full", BLUE), "diagonal": ("diagonal", GREEN), "the prior's": ("= I", ORANGE)}


def training_figure(
    histories: Mapping[str, Sequence[Mapping[str, float]]],
    best: float,
    restricted: Mapping[str, float],
    shape: tuple[int, int],
) -> Figure:
    """How far the evidence and the ELBO are below the closed-form maximum, against epochs, on a logarithmic axis.

    Args:
        histories: by guide, a state per epoch, the start first.
        best: the maximum of the mean evidence, in nats.
        restricted: the state at the optimum of the guide with S = I.
        shape: of the data, ``(num_data, num_features)``.
    """
    figure, axes = new_figure(4.0)
    for name, history in histories.items():
        short, colour = _GUIDES[name]
        for key, what, style in (("evidence", r"$\log p(x)$", "-"), ("elbo", "ELBO", "--")):
            below = [best - state[key] for state in history]
            axes.plot(below, color=colour, linestyle=style, lw=1.3, label=f"{what}, S {short}")
    for key in ("evidence", "elbo"):
        axes.axhline(best - restricted[key], color=BLACK, linestyle=":", lw=1)
    axes.plot([], [], color=BLACK, linestyle=":", lw=1, label="closed form for S = I")
    num_data, num_features = shape
    trap = num_features / 2 * math.log(num_data / (num_data - 1))
    axes.axhline(trap, color="0.55", lw=1, label="what N − 1 for N would hide")
    axes.set_yscale("log")
    axes.set(xlabel="epoch", ylabel="below the closed-form maximum\n(nats per datum, mean)")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def stability_figure(rates: Mapping[float, tuple[float, float]], eigenvalue: float) -> Figure:
    """The growth rate of a collapsed column against σ², with the closed form and its zero at the left-out eigenvalue.

    Args:
        rates: of the evidence and of the ELBO, by σ² / λ.
        eigenvalue: λ.
    """
    figure, panels = new_panels(3.2, 2)
    ratios = np.linspace(min(rates), max(rates), 200)
    known = np.array([column_growth(eigenvalue, ratio * eigenvalue) for ratio in ratios])
    found = np.array(list(rates.values()))
    titles = ("evidence: along w", "ELBO: along w and v together")
    for i, (axes, title, colour) in enumerate(zip(panels, titles, (BLUE, ORANGE), strict=True)):
        axes.plot(ratios * eigenvalue, known[:, i], color=colour, lw=1.2, label="closed form")
        points = np.array(list(rates)) * eigenvalue
        axes.plot(points, found[:, i], "o", color=colour, markersize=4, label="second derivative")
        axes.axhline(0, color=BLACK, lw=0.8)
        axes.axvline(eigenvalue, color=BLACK, linestyle="--", lw=1, label=rf"$\sigma^2 = \lambda$ = {eigenvalue:.3f}")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(r"noise variance $\sigma^2$ (squared units of x)")
        axes.legend(fontsize=8)
    panels[0].set_ylabel("growth rate of a collapsed column\n(nats per squared length)")
    return figure
