"""Galleries of pictures: reconstructions, samples from the prior, and latent traversals.

Data that are not pictures are shown as curves, feature by feature. Missing values (NaN) are orange in
a picture, and gaps in a curve.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from .style import BLUE, ORANGE, WIDTH


def reconstructions(data: Tensor, means: Tensor, event_shape: tuple[int, ...]) -> Figure:
    """Data above, and below them E[x | z] for one draw z of the guide each.

    Args:
        data: ``(n, D)``.
        means: ``(n, D)``.
        event_shape: the shape of a picture, or ``(D,)`` for curves.
    """
    is_missing = bool(data.isnan().any())
    label = "data,\norange: missing" if is_missing and _is_picture(event_shape) else "data"
    return gallery(torch.stack([data, means]), event_shape, [label, "E[x|z],\nz ~ q(z|x)"], "Reconstructions")


def prior_samples(means: Tensor, event_shape: tuple[int, ...]) -> Figure:
    """E[x | z] for draws z of the prior.

    Args:
        means: ``(n, D)``.
        event_shape: the shape of a picture, or ``(D,)`` for curves.
    """
    columns = min(10, len(means))
    rows = means[: len(means) // columns * columns].reshape(-1, columns, means.shape[1])
    return gallery(rows, event_shape, [""] * len(rows), "Samples: E[x|z], z ~ p(z)")


def latent_traversal(
    means: Tensor, event_shape: tuple[int, ...], dimensions: Sequence[int], steps: Sequence[float]
) -> Figure:
    """E[x | z] along one latent dimension a row, all others at 0.

    Args:
        means: ``(dimensions, steps, D)``.
        event_shape: the shape of a picture, or ``(D,)`` for curves.
        dimensions: the latent dimensions, a row each.
        steps: the values that they take, a column each.
    """
    title = "E[x|z] along single latent dimensions, all others 0"
    return gallery(
        means,
        event_shape,
        [f"$z_{{{i}}}$" for i in dimensions],
        title,
        [f"{step:g}".replace("-", "−") for step in steps],
    )


def gallery(
    rows: Tensor,
    event_shape: tuple[int, ...],
    row_labels: Sequence[str],
    title: str,
    column_labels: Sequence[str] = (),
) -> Figure:
    """Small pictures, or curves where data are none, ``(rows, columns, D)``, in unit cells of one pair of axes."""
    num_rows, num_columns = rows.shape[:2]
    is_picture = _is_picture(event_shape)
    aspect = event_shape[0] / event_shape[1] if is_picture else 0.8
    height = num_rows * aspect * (WIDTH - 0.8) / num_columns
    figure = Figure(figsize=(WIDTH, height + (0.75 if column_labels else 0.4)), layout="constrained")
    axes = figure.subplots()
    if is_picture:
        _draw_pictures(axes, rows.reshape(num_rows, num_columns, *event_shape).float())
    else:
        _draw_curves(axes, rows.float())
    axes.set(xlim=(0, num_columns), ylim=(num_rows, 0), aspect=aspect)
    axes.set_xticks(np.arange(len(column_labels)) + 0.5, column_labels, fontsize=9)
    axes.set_yticks(
        np.arange(num_rows) + 0.5 if any(row_labels) else [], row_labels if any(row_labels) else [], fontsize=9
    )
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title if is_picture else f"{title}, feature by feature", fontsize=10)
    if column_labels:
        axes.set_xlabel("value of the dimension", fontsize=9)
    return figure


def _is_picture(event_shape: tuple[int, ...]) -> bool:
    return len(event_shape) == 2 and min(event_shape) > 1


def _draw_pictures(axes: Axes, pictures: Tensor) -> None:
    """Pictures ``(rows, columns, H, W)``, dark where values are high, all on one scale."""
    num_rows, num_columns = pictures.shape[:2]
    low, high = np.nanmin(pictures), np.nanmax(pictures)
    colours = colormaps["gray_r"].with_extremes(bad=ORANGE)
    for i in range(num_rows):
        for j in range(num_columns):
            place = (j + 0.04, j + 0.96, i + 0.96, i + 0.04)
            axes.imshow(
                pictures[i, j].numpy(), cmap=colours, vmin=low, vmax=high, extent=place, interpolation="nearest"
            )
    _draw_cells(axes, num_rows, num_columns)


def _draw_curves(axes: Axes, curves: Tensor) -> None:
    """Curves ``(rows, columns, D)`` against the number of the feature, all on one scale."""
    num_rows, num_columns, num_features = curves.shape
    low, high = np.nanmin(curves), np.nanmax(curves)
    x = 0.06 + 0.88 * (np.arange(num_features) + 0.5) / num_features
    y = 0.94 - 0.88 * (curves.numpy() - low) / ((high - low) or 1.0)
    lines = [np.column_stack([x + j, y[i, j] + i]) for i in range(num_rows) for j in range(num_columns)]
    axes.add_collection(LineCollection(lines, colors=BLUE, linewidths=0.9))
    if num_features < 10:
        axes.plot(*np.concatenate(lines).T, linestyle="", marker=".", markersize=3, color=BLUE)
    _draw_cells(axes, num_rows, num_columns)


def _draw_cells(axes: Axes, num_rows: int, num_columns: int) -> None:
    for draw, across, along in ((axes.vlines, num_columns, num_rows), (axes.hlines, num_rows, num_columns)):
        draw(range(across + 1), 0, along, colors="0.85", linewidth=0.6, clip_on=False)
