"""The figure of a mended guide: the gap's causes before and after, side by side."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .style import BLACK, new_panels
from .waterfall import draw_step, steps_of


def mended_waterfall(before: dict[str, Any], after: dict[str, Any]) -> Figure:
    """From the ELBO up to log p(x), a step for each cause, before and after mending, with ± two standard errors.

    Both panels have the same scale.

    Args:
        before: ``GapAttribution.summary()`` of the guide as it came.
        after: the same of the mended guide.
    """
    figure, panels = new_panels(3.6, 2)
    low = min(side["elbo"] for side in (before, after))
    high = max(side["log_evidence"] for side in (before, after))
    height = max(high - low, 0.1)
    for axes, side, title in zip(panels, (before, after), ("before", "after"), strict=True):
        level, steps = side["elbo"], steps_of(side)
        last = len(steps) + 1
        axes.plot([-0.4, 0.4], [level, level], color=BLACK)
        for i, (name, (_, colour)) in enumerate(steps.items(), start=1):
            draw_step(axes, i, level, side[name], 2 * side[f"{name}_standard_error"], colour, height, size=7)
            level += side[name]
        axes.plot([last - 0.4, last + 0.4], [level, level], color=BLACK)
        for i, value in ((0, side["elbo"]), (last, side["log_evidence"])):
            axes.annotate(
                f"{value:.2f}", (i, value), xytext=(0, 4), textcoords="offset points", ha="center", fontsize=8
            )
        error = side["total_standard_error"]
        axes.set_title(f"{title}: gap {side['total']:.2f} ± {error:.2f} nats", fontsize=10)
        labels = ["ELBO", *(label for label, _ in steps.values()), r"$\log p(x)$"]
        axes.set_xticks(range(last + 1), labels, rotation=45, fontsize=8)
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.set_ylim(low - 0.15 * height, high + 0.15 * height)
    panels[0].set_ylabel("mean over the data (nats)")
    return figure
