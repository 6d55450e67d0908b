"""Figures of a calibration: the ranks of exact draws among those of the guide, with bands."""

from __future__ import annotations

from inspect import signature
from typing import Any

import arviz_plots
import xarray as xr
from matplotlib.figure import Figure

from ppvae.inference import Calibration
from ppvae.inference.calibration.ranks import band
from ppvae.inference.calibration.view import JOINT, View

from .arviz_style import SHOW_AXES, figure_of, label_axes, offscreen
from .style import BLUE, GREEN, GREY, ORANGE, WIDTH

# What plot_ecdf_pit adds to the curves: a band in arviz-plots 0.8, a test of its own from 1.0 on.
NO_BAND: Any = {"credible_interval": False}
NO_TEST: Any = {"suspicious_points": False, "p_value_text": False}


def calibration(view: View, tree: xr.DataTree) -> Figure:
    """ECDFs of the ranks of exact draws minus that of even ones: of each unit, the distance (TARP) and the density.

    A guide that is right leaves any of the bands with probability 5 % at most. They are this project's, which are
    exact: ArviZ simulates its own, too coarsely for so small a probability of each.

    Args:
        view: of a calibration.
        tree: its ``to_pit()``.
    """
    group = f"{view.anchor}_sbc"
    pit = tree[group].to_dataset()
    joint = {f"all units: {name}": pit["joint"].sel(quantity=name, drop=True) for name in pit["quantity"].values}
    shown = xr.DataTree.from_dict({group: xr.Dataset({"each unit": pit["pit"], **joint})})
    colours = [GREY if word == "fine" else ORANGE for word in view.verdict]
    with offscreen():
        drawn = arviz_plots.plot_ecdf_pit(
            shown,
            group=group,
            cols=["__variable__"],
            aes={"color": ["unit"]},
            aes_by_visuals={"ecdf_lines": ["color"]},
            color=[BLUE, *colours],  # the first is that of what has no units
            visuals=SHOW_AXES
            | (NO_TEST if "envelope_prob" in signature(arviz_plots.plot_ecdf_pit).parameters else NO_BAND),
            figure_kwargs={"figsize": (WIDTH, 2.6), "sharey": True},
        )
        figure = figure_of(drawn)
    z, lower, upper = band(view.num_simulations, 1 - tree.attrs["ci_prob"])
    for axes, name in zip(figure.axes[1:], JOINT, strict=True):
        axes.lines[0].set_color(ORANGE if name in view.joint_faults else BLUE)
    for axes in figure.axes:
        axes.fill_between(z, lower - z, upper - z, color=GREEN, alpha=0.25, linewidth=0)
    label_axes(figure, [("rank of the exact draw", "ECDF − rank" if i == 0 else "") for i in range(len(figure.axes))])
    return figure


def calibrations(found: Calibration) -> dict[str, Figure]:
    """A figure for each view, by name."""
    tree = found.to_pit()
    return {f"calibration_{view.anchor}": calibration(view, tree) for view in found.views}
