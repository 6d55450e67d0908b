"""Figure of how seconds and peak memory of the estimators grow with their sizes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

from ..bench.growth_curves import Growth
from ..bench.side_by_side import Spread
from .style import BLUE, GREY, ORANGE, WIDTH

COLOURS = {"importance_evidence": BLUE, "annealed_evidence": ORANGE}
LABELS = {
    "num_draws": "draws or chains per datum",
    "num_data": "data, N",
    "latent_dim": "latent size",
    "width": "width of the networks",
}


def growth_figure(found: Sequence[Growth]) -> Figure:
    """Seconds above and MiB below, against each size; medians, with bands between the quartiles.

    Grey lines are proportional to the size. The axes of sizes and seconds are logarithmic.

    Args:
        found: curves, of which those along the same size share a column.
    """
    columns = list(dict.fromkeys(growth.curve.along for growth in found))
    figure = Figure(figsize=(max(WIDTH, 1.0 + 2.3 * len(columns)), 4.8), layout="constrained")
    panels = figure.subplots(2, len(columns), squeeze=False, sharex="col", sharey="row")
    for column, along in enumerate(columns):
        curves = [one for one in found if one.curve.along == along]
        for growth in curves:
            _proportional(panels[0, column], growth)
            for axes, spreads in zip(panels[:, column], (growth.seconds, growth.mebibytes), strict=True):
                _draw(axes, growth, spreads)
        _sizes_on_axis(panels[1, column], curves)
        panels[1, column].set_xlabel(LABELS[along])
    panels[0, 0].set_ylabel("seconds")
    panels[1, 0].set_ylabel("peak memory beyond\nthe programs (MiB)")
    for axes in panels.flat:
        _style(axes)
    _seconds_on_axis(panels[0, 0])
    panels[1, 0].set_ylim(bottom=0)
    _legend(figure, panels[0, 0], found)
    return figure


def _draw(axes: Axes, growth: Growth, spreads: Sequence[Spread]) -> None:
    colour, sizes = COLOURS[growth.curve.setting.estimator], growth.curve.sizes
    lower, median, upper = (np.array([getattr(one, name) for one in spreads]) for name in ("lower", "median", "upper"))
    axes.fill_between(sizes, lower, upper, color=colour, alpha=0.25, linewidth=0)
    axes.plot(sizes, median, color=colour, marker="o", markersize=3.5)


def _proportional(axes: Axes, growth: Growth) -> None:
    sizes = np.array(growth.curve.sizes, float)
    axes.plot(sizes, growth.seconds[-1].median * sizes / sizes[-1], color=GREY, linestyle=":", linewidth=1)


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)


def _sizes_on_axis(axes: Axes, found: Iterable[Growth]) -> None:
    """A logarithmic axis with a tick at each size, and a label at the ends of each curve."""
    curves = [growth.curve.sizes for growth in found]
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted({size for sizes in curves for size in (sizes[0], sizes[-1])})))
    axes.xaxis.set_minor_locator(FixedLocator(sorted({size for sizes in curves for size in sizes})))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _seconds_on_axis(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, axes: Axes, found: Sequence[Growth]) -> None:
    names = list(dict.fromkeys(growth.curve.setting.estimator for growth in found))
    handles = [axes.plot([], [], color=COLOURS[name], marker="o", markersize=3.5)[0] for name in names]
    grey = axes.plot([], [], color=GREY, linestyle=":", linewidth=1)[0]
    labels = [*names, "proportional"]
    figure.legend([*handles, grey], labels, loc="outside upper center", ncols=len(labels), frameon=False)
