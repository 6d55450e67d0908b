"""The style of all figures: colours, width, empty axes, limits."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can tell apart.
BLUE, ORANGE, GREEN, BLACK, GREY = "#0072B2", "#D55E00", "#009E73", "#000000", "0.6"
WIDTH = 6.5  # inches, a page's text


def new_figure(height: float) -> tuple[Figure, Axes]:
    """A figure as wide as a page's text, and its axes.

    Args:
        height: in inches.
    """
    figure, (axes,) = new_panels(height, 1)
    return figure, axes


def new_panels(height: float, columns: int) -> tuple[Figure, list[Axes]]:
    """A figure as wide as a page's text, and its axes side by side.

    Args:
        height: in inches.
        columns: number of axes.
    """
    # Without pyplot: nothing to close, no window, and any thread may do it.
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    panels = list(figure.subplots(1, columns, squeeze=False)[0])
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
    return figure, panels


def limits(*curves: np.ndarray) -> tuple[float, float]:
    """Limits that show the upper half of all values and every curve's end, whatever the first epochs were."""
    values = np.concatenate(curves)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return 0.0, 1.0
    top, middle = values.max(), np.median(values)
    end = np.concatenate([curve[-max(1, len(curve) // 10) :] for curve in curves])
    low = max(values.min(), min(middle - 2 * (top - middle), np.nanmin(end)))
    margin = 0.08 * (top - low) or 1.0
    return float(low - margin), float(top + margin)
