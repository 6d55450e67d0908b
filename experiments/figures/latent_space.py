"""Figures of the latent space: the guide's means at the data, and in two dimensions the guide over the exact posterior.

In two dimensions the posterior needs no draws: p(u|x) ∝ p(x, u) on a grid that holds all of it, in the unconstrained
coordinates u of :mod:`ppvae.inference.pair`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse, Patch
from torch import Tensor

from ppvae.inference.latents.units import unit_name
from ppvae.inference.pair import Pair
from ppvae.inference.pair.memory import chunks
from ppvae.inference.pair.randomness import seeded

from .style import BLUE, ORANGE, WIDTH, new_figure

# What the ellipses of one and two standard deviations of a Gaussian in the plane hold, 1 − exp(−k²/2).
SHADES = {0.393: "#6BAED6", 0.865: "#C6DBEF"}
CLASSES = (BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#8A7A00")
STYLES = {1: "-", 2: "--"}
POINTS, GUIDE_DRAWS, MOST_PANELS = 120, 500, 6
# Each grid reaches as far as the density on the one before is no lower than this below its highest value, in nats.
DEPTH, REFINEMENTS = 12.0, 3
MEMORY_MB = 64.0


def latent_map(tree: xr.DataTree, labels: Sequence[str] | None = None) -> Figure | None:
    """The guide's means at the data with ellipses of one standard deviation, over draws of the prior.

    The plane is that of the two coordinates in which the means differ most.

    Args:
        tree: draws of the guide and of the prior, as :func:`ppvae.inference.to_datatree` makes it.
        labels: of the data, in words, which colour them; None where there are none.

    Returns:
        None where there are fewer than two coordinates.
    """
    names, (draws, prior) = _columns(tree)
    if len(names) < 2:
        return None
    means, scales = draws.mean(0), draws.std(0)
    i, j = sorted(np.argsort(-np.nan_to_num(means.var(0)))[:2])
    figure, axes = new_figure(4.8)
    some = prior.reshape(-1, len(names))[:: max(1, prior[..., 0].size // 2000)]
    axes.plot(some[:, i], some[:, j], ".", color="0.8", markersize=2, zorder=0)
    classes = sorted(set(labels or [""]))[: len(CLASSES)]
    for mean, scale, label in zip(means, scales, labels or [""] * len(means), strict=True):
        colour = CLASSES[classes.index(label)] if label in classes else "0.4"
        sizes = 2 * scale[i], 2 * scale[j]
        axes.add_patch(Ellipse((mean[i], mean[j]), *sizes, facecolor=colour, alpha=0.25, linewidth=0))
        axes.plot(mean[i], mean[j], ".", color=colour, markersize=3 if labels is None else 5)
    axes.set(xlabel=names[i], ylabel=names[j], aspect="equal")
    handles = [
        Line2D([], [], color=BLUE, marker=".", linestyle="", label=f"q: mean of each of {len(means)} data"),
        Patch(color=BLUE, alpha=0.25, label="q: one standard deviation"),
        Line2D([], [], color="0.7", marker=".", linestyle="", label="draws of the prior"),
    ]
    if labels is not None:
        handles += [
            Line2D([], [], color=colour, marker=".", linestyle="", label=name)
            for name, colour in zip(classes, CLASSES, strict=False)
        ]
    axes.legend(handles=handles, loc="upper right", fontsize=8)
    return figure


def exact_posteriors(
    pair: Any, batch: tuple[Tensor, ...], names: Sequence[str], which: Sequence[int] | None, seed: int
) -> Figure | None:
    """The guide's ellipses over the exact posterior, a panel a datum.

    The shaded regions hold as much of the posterior as the ellipses hold of a Gaussian guide.

    Args:
        pair: an object with ``model`` and ``guide``.
        batch: ``(x, *context)`` of data, of which the first few are shown.
        names: of the coordinates.
        which: numbers of the data, for the titles; None where the data set is the unit.
        seed: of the guide's draws, whose mean and covariance make the ellipses.

    Returns:
        None where the latents of a datum are not two numbers.
    """
    if len(names) != 2:
        return None
    with seeded(seed), torch.no_grad(), Pair.on(pair.model, pair.guide, batch, start="guide") as density:
        shown = min(density.num_units, MOST_PANELS)
        density = density.rows(slice(0, shown))
        guide, prior = (density.draw(start, GUIDE_DRAWS).double().cpu() for start in ("guide", "prior"))
        both = torch.cat([guide, prior])
        found = [
            exact_grid(density.rows(slice(n, n + 1)), both[:, n].amin(0), both[:, n].amax(0)) for n in range(shown)
        ]
    columns = min(3, shown)
    rows = math.ceil(shown / columns)
    figure = Figure(figsize=(WIDTH, rows * WIDTH / columns + 0.5), layout="constrained")
    for n, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        if n < shown:
            _panel(axes, found[n][0].numpy(), found[n][1].numpy(), guide[:, n].numpy())
            axes.set_title("" if which is None else f"datum {which[n]}", fontsize=9)
            axes.set_xlabel(names[0], fontsize=8)
            axes.set_ylabel(names[1], fontsize=8)
        else:
            axes.set_axis_off()
    handles: list[Any] = [
        Patch(color=colour, label=f"p(z|x): its densest {share:.0%}") for share, colour in SHADES.items()
    ]
    handles += [Line2D([], [], color=ORANGE, linestyle=style, label=f"q(z|x): {k} sd") for k, style in STYLES.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def exact_grid(density: Pair, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """p(u|x) of one datum with two coordinates, on a grid that holds all but e^(−12) of its height.

    Args:
        density: the pair on the datum.
        low: a corner of where to look for it at first, ``(2,)``.
        high: the opposite corner.

    Returns:
        The values of both coordinates, ``(2, POINTS)``, and the posterior's mass at each node, ``(POINTS, POINTS)``,
        the first coordinate's index first; float64.
    """
    share = torch.linspace(0, 1, POINTS, dtype=torch.float64)
    for _ in range(REFINEMENTS):
        axes = low[:, None] + share * (high - low)[:, None]
        nodes = torch.cartesian_prod(*axes)
        parts = chunks(len(nodes), 1, density.bytes_each, MEMORY_MB)
        where = density.batch[0]
        height = torch.cat([density.joint(nodes[part, None].to(where))[0][:, 0].double().cpu() for _, part in parts])
        inside = nodes[height > height.max() - DEPTH]
        step = axes[:, 1] - axes[:, 0]
        low, high = inside.amin(0) - step, inside.amax(0) + step
    return axes, height.softmax(0).reshape(POINTS, POINTS)


def _panel(axes: Axes, places: np.ndarray, mass: np.ndarray, guide: np.ndarray) -> None:
    falling = np.sort(mass, axis=None)[::-1]
    levels = [falling[np.searchsorted(falling.cumsum(), share)] for share in sorted(SHADES, reverse=True)]
    colours = [SHADES[share] for share in sorted(SHADES, reverse=True)]
    axes.contourf(*places, mass.T, levels=[*levels, mass.max() * 1.001], colors=colours)
    mean, (values, vectors) = guide.mean(0), np.linalg.eigh(np.cov(guide.T))
    angle = math.degrees(math.atan2(vectors[1, 1], vectors[0, 1]))
    for k, style in STYLES.items():
        width, height = 2 * k * np.sqrt(np.maximum(values[::-1], 0))
        axes.add_patch(Ellipse(mean, width, height, angle=angle, fill=False, color=ORANGE, linestyle=style, lw=1.2))
    dense = np.argwhere(mass >= levels[0])
    corners = np.stack(
        [places[[0, 1], dense.min(0)], places[[0, 1], dense.max(0)], *(mean + s * 2.2 * guide.std(0) for s in (-1, 1))]
    )
    low, high = corners.min(0), corners.max(0)
    margin = 0.1 * (high - low)
    axes.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
    axes.tick_params(labelsize=7)


def _columns(tree: xr.DataTree) -> tuple[list[str], list[np.ndarray]]:
    """Names of all coordinates; draws of the guide and of the prior, ``(draws, num_data, dim)`` each."""
    names: list[str] = []
    columns: list[list[np.ndarray]] = [[], []]
    for site, draws in tree["posterior"].to_dataset().items():
        names += [unit_name(str(site), index) for index in np.ndindex(draws.shape[3:])]
        for group, column in zip(("posterior", "prior"), columns, strict=True):
            values = tree[group].to_dataset()[site].to_numpy()
            column.append(values.reshape(-1, values.shape[2], int(np.prod(values.shape[3:]))))
    return names, [np.concatenate(column, -1) for column in columns]
