"""The common style of figures that ArviZ draws: no window, one font size, labelled axes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

SHOW_AXES: Any = {"remove_axis": False}


@contextmanager
def offscreen() -> Iterator[None]:
    """A context in which ArviZ, which draws by pyplot, opens no window; the caller's backend comes back."""
    before = matplotlib.get_backend()
    plt.switch_backend("agg")
    try:
        with warnings.catch_warnings(), plt.rc_context({"font.size": 8, "figure.constrained_layout.use": True}):
            warnings.simplefilter("ignore")
            yield
    finally:
        plt.switch_backend(before)


def figure_of(drawn: Any) -> Figure:
    """The figure that ArviZ has drawn; pyplot forgets it, and it can still be written."""
    figure = drawn.viz["figure"].item()
    plt.close(figure)
    return figure


def label_axes(figure: Figure, labels: Sequence[tuple[str, str]]) -> None:
    """Label the axes of a figure, (x, y) for each in their order."""
    for axes, (x, y) in zip(figure.axes, labels, strict=True):
        axes.set(xlabel=x, ylabel=y)
