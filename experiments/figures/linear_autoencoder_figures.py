"""Figures of the experiment `linear_autoencoder_is_pca`: errors against the dimension, and components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.linalg import orthogonal_procrustes

from .style import BLACK, BLUE, ORANGE, WIDTH, new_panels

if TYPE_CHECKING:
    from ..linear_autoencoder_is_pca import DimensionResult


def error_figure(found: Sequence[DimensionResult]) -> Figure:
    """The error as a share of the variance, against d: PCA's for every d, the autoencoders' where they were trained."""
    names = list(dict.fromkeys(one.pictures.name for one in found))
    figure, panels = new_panels(3.8, len(names))
    for axes, name in zip(panels, names, strict=True):
        shown = [one for one in found if one.pictures.name == name]
        pictures, total = shown[0].pictures, shown[0].pictures.eigenvalues.sum()
        dims = range(2 * max(one.d for one in shown) + 1)
        held_out = float(((pictures.test.double() - torch.as_tensor(pictures.pca.mean_)) ** 2).sum(-1).mean())
        optimum = [pictures.eigenvalues[d:].sum() / total for d in dims]
        axes.plot(dims, optimum, color=BLACK, label="Eckart–Young optimum", linewidth=1)
        axes.plot(dims, [pictures.pca_error(pictures.test, d) / held_out for d in dims], color=BLACK, linestyle=":",
                  label="PCA, held out", linewidth=1)  # fmt: skip
        d = [one.d for one in shown]
        for part, scale, face in (("train", total, True), ("test", held_out, False)):
            where = "" if part == "train" else ", held out"
            for label, colour, marker, errors in (
                ("linear autoencoder", BLUE, "o", [one.linear[part] for one in shown]),
                ("deep autoencoder", ORANGE, "s", [one.deep[part] for one in shown]),
            ):
                axes.plot(d, np.array(errors) / scale, color=colour, marker=marker, linestyle="", label=label + where,
                          markerfacecolor=colour if face else "none", markersize=6 if face else 9)  # fmt: skip
        axes.set(xlabel="dimensions of the code, d", ylabel="mean |x − x̂|² / variance", ylim=(0, 1.02))
        axes.set_title(f"{name}, D = {pictures.train.shape[1]}", fontsize=10)
        axes.legend(fontsize=7)
    return figure


def components_figure(one: DimensionResult, most: int = 8) -> Figure:
    """PCA's components, the decoder's columns as they were trained, and the latter rotated to the former."""
    components = one.pictures.components(one.d)
    columns = one.decoder / np.linalg.norm(one.decoder, axis=0)
    rows = {
        "PCA": components,
        "decoder,\nas trained": columns,
        "decoder,\nturned": rotated_to(components, one.decoder),
    }
    shown = min(most, one.d)
    figure = Figure(figsize=(WIDTH, 3 * (WIDTH - 0.8) / shown + 0.5), layout="constrained")
    grid = figure.subplots(3, shown, squeeze=False)
    for line, (label, vectors) in zip(grid, rows.items(), strict=True):
        for j, axes in enumerate(line):
            largest = np.abs(components[:, j]).max()
            axes.imshow(vectors[:, j].reshape(one.pictures.event_shape), cmap="RdBu_r", vmin=-largest, vmax=largest)
            axes.set_xticks([])
            axes.set_yticks([])
        line[0].set_ylabel(label, fontsize=8)
    for j, axes in enumerate(grid[0]):
        axes.set_title(str(j + 1), fontsize=8)
    figure.suptitle(
        f"{one.pictures.name}, d = {one.d}: unit vectors (red +, blue −). Last row: the decoder's subspace in the\n"
        "basis nearest to PCA's (orthogonal Procrustes)",
        fontsize=9,
    )
    return figure


def rotated_to(components: np.ndarray, decoder: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the decoder's columns, rotated to be as near to the components as possible.

    Args:
        components: `(D, d)`, orthonormal columns.
        decoder: `(D, d)`.

    Returns:
        `(D, d)`: Q R with Q from the QR decomposition of the decoder and R the rotation (or reflection) that minimises
        the Frobenius norm ‖Q R − components‖.
    """
    basis, _ = np.linalg.qr(decoder)
    rotation, _ = orthogonal_procrustes(basis, components)
    return basis @ rotation
