"""The figure of the experiment `posterior_is_intractable`: posteriors in the plane, under the ellipses of q."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse, Patch
from torch import Tensor

from .style import BLUE, ORANGE, WIDTH

if TYPE_CHECKING:
    from ..posterior_is_intractable import Grid

# What the ellipses of one, two and three standard deviations of a Gaussian in the plane hold, 1 − exp(−k²/2).
_MASSES = tuple(1 - math.exp(-(k**2) / 2) for k in (1, 2, 3))
_SHADES = (BLUE, "#6FAFDA", "#CFE4F3")


def posterior_panels(grid: Grid, loc: Tensor, scale: Tensor, pictures: Tensor, digits: Sequence[int]) -> Figure:
    """A panel per digit: regions of the highest posterior density, and the ellipses of q over them.

    The regions hold as much of the posterior as the ellipses hold of q, so that they would coincide were q exact. All
    panels have the same scale.

    Args:
        grid: the posterior.
        loc: of q, ``(num_data, 2)``.
        scale: of q, ``(num_data, 2)``.
        pictures: ``(num_data, height, width)``.
        digits: the classes, for the titles.
    """
    columns = min(3, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    figure = Figure(figsize=(WIDTH, 0.98 * rows * WIDTH / columns + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    posterior, axis = grid.posterior.numpy(), grid.axis.numpy()
    levels = [_levels(density) for density in posterior]
    boxes = np.array([_box(axis, d, low[0], m, s) for d, low, m, s in zip(posterior, levels, loc, scale, strict=True)])
    side = 1.06 * (boxes[:, 1] - boxes[:, 0]).max()
    for i, axes in enumerate(panels.flat):
        if i >= len(pictures):
            axes.set_axis_off()
            continue
        axes.contourf(axis, axis, posterior[i].T, levels=[*levels[i], posterior[i].max()], colors=_SHADES[::-1])
        _draw_ellipses(axes, loc[i].tolist(), scale[i].tolist())
        x, y = boxes[i].mean(0)
        axes.set(xlim=(x - side / 2, x + side / 2), ylim=(y - side / 2, y + side / 2), aspect="equal")
        axes.tick_params(labelsize=7)
        axes.set_title(f"digit {digits[i]}", fontsize=9)
        axes.set_xlabel(r"$z_1$", fontsize=8, labelpad=1)
        axes.set_ylabel(r"$z_2$", fontsize=8, labelpad=0)
        inset = axes.inset_axes((0.02, 0.74, 0.24, 0.24))
        inset.imshow(pictures[i].numpy(), cmap="gray_r", interpolation="nearest")
        inset.set(xticks=[], yticks=[])
    figure.legend(handles=_legend(), loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def _levels(density: np.ndarray) -> list[float]:
    """The densities above which 99, 86 and 39 % of the mass lie, in rising order."""
    falling = np.sort(density, axis=None)[::-1]
    mass = falling.cumsum() / falling.sum()
    return [float(falling[np.searchsorted(mass, share)]) for share in _MASSES[::-1]]


def _box(axis: np.ndarray, density: np.ndarray, lowest: float, loc: Tensor, scale: Tensor) -> np.ndarray:
    """The corners ``(2, 2)``, low and high, of what is drawn of one digit."""
    places = axis[np.argwhere(density >= lowest)]
    m, s = loc.numpy(), scale.numpy()
    return np.stack([np.minimum(places.min(0), m - 2 * s), np.maximum(places.max(0), m + 2 * s)])


def _draw_ellipses(axes: Axes, loc: Sequence[float], scale: Sequence[float]) -> None:
    for k, style in ((1, "-"), (2, "--")):
        width, height = (2 * k * s for s in scale)
        axes.add_patch(Ellipse((loc[0], loc[1]), width, height, fill=False, color=ORANGE, linestyle=style, lw=1.2))


def _legend() -> list[Patch | Line2D]:
    regions = [
        Patch(color=shade, label=f"p(z|x): its densest {share:.0%}")
        for shade, share in zip(_SHADES, _MASSES, strict=True)
    ]
    ellipses = [
        Line2D([], [], color=ORANGE, linestyle=style, label=f"q(z|x): {k}σ, {share:.0%} of it")
        for k, style, share in zip((1, 2), ("-", "--"), _MASSES, strict=False)
    ]
    return [*regions, *ellipses]
