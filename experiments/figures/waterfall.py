"""Figures of the gap and of its bounds: a waterfall of the gap's causes, and certified intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ppvae.inference import Certificate

from .style import BLACK, BLUE, GREEN, GREY, ORANGE, new_figure

# The blocks of the waterfall: their labels and colours, by the name of the part.
STEPS = {
    "amortisation": ("amortisation", ORANGE),
    "covariance": ("no\ncovariance", BLUE),
    "flow": ("no flow", "#56B4E9"),
    "rest": ("the rest", GREY),
}
# The same where the family's part is not split.
UNSPLIT_STEPS = {"amortisation": STEPS["amortisation"], "family": ("not split\nfurther", BLUE)}
# Bounds that lie farther off than so many times the length that nine tenths of them keep are cut off.
FARTHEST = 5.0


def gap_waterfall(numbers: dict[str, Any]) -> Figure:
    """From the ELBO up to log p(x), a step for each cause, with ± two standard errors.

    Args:
        numbers: ``GapAttribution.summary()``; where one is not finite, the figure says which.
    """
    figure, axes = new_figure(3.8)
    steps = steps_of(numbers)
    unknown = [name for name in ("elbo", "log_evidence", *steps) if not np.isfinite(numbers[name])]
    if unknown:
        words = "no finite mean over the data:\n" + ", ".join(f"{name} is {numbers[name]:g}" for name in unknown)
        axes.text(0.5, 0.5, words, ha="center", va="center", transform=axes.transAxes, wrap=True)
        axes.set(xticks=[], yticks=[])
        return figure
    top, bottom = numbers["log_evidence"], numbers["elbo"]
    level, last = bottom, len(steps) + 1
    axes.plot([-0.4, 0.4], [level, level], color=BLACK)
    ends = [bottom, top]
    for i, (name, (_, colour)) in enumerate(steps.items(), start=1):
        error = 2 * numbers[f"{name}_standard_error"]
        draw_step(axes, i, level, numbers[name], error, colour, top - bottom)
        level += numbers[name]
        ends += [level - error, level + error]
    axes.plot([last - 0.4, last + 0.4], [level, level], color=BLACK)
    for i, value in ((0, bottom), (last, top)):
        axes.annotate(f"{value:.2f}", (i, value), xytext=(0, 4), textcoords="offset points", ha="center", fontsize=9)
    axes.axvspan(1.5, last - 0.5, color=BLUE, alpha=0.06, zorder=0)
    axes.annotate(
        "the guide's family", (last / 2 + 0.5, 0.02), xycoords=("data", "axes fraction"), ha="center", color=BLUE
    )
    axes.set_xticks(range(last + 1), ["ELBO", *(label for label, _ in steps.values()), r"$\log p(x)$"])
    margin = 0.15 * max(top - bottom, 0.1)
    axes.set_ylim(min(ends) - margin, max(ends) + margin)
    axes.set_ylabel("mean over the data (nats)")
    return figure


def steps_of(numbers: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """The blocks that lead from the ELBO to log p(x): one for the family's part where it is not split."""
    return STEPS if "rest" in numbers else UNSPLIT_STEPS


def draw_step(
    axes: Axes, i: int, level: float, value: float, error: float, colour: str, height: float, size: int = 9
) -> None:
    """Draw the i-th block on its level, with its error and its number, which is below the block where that is thin."""
    axes.bar(i, value, bottom=level, width=0.8, color=colour)
    axes.plot([i - 1.4, i + 0.4], [level, level], color=BLACK, linewidth=0.8, linestyle=":")
    axes.errorbar(i, level + value, yerr=error, color=BLACK, capsize=3, linewidth=1)
    inside = abs(value) > 0.1 * max(height, 0.1)
    axes.annotate(
        f"{value:+.2f}",
        (i, level + value / 2) if inside else (i, level - 0.03 * height),
        ha="center",
        va="center" if inside else "top",
        fontsize=size,
        color="white" if inside else BLACK,
    )


def certificate_intervals(certificate: Certificate) -> Figure:
    """How far the bounds of every datum lie from its estimate, and those of the mean from the mean's."""
    figure, axes = new_figure(3.8)
    order = certificate.log_evidence.argsort()
    known = order[certificate.log_evidence[order].isfinite()]
    middle = certificate.log_evidence[known]
    down, up = ((side[known] - middle).numpy() for side in (certificate.lower, certificate.upper))
    place, ends = np.arange(len(known)), np.isfinite(up)
    longest = FARTHEST * np.quantile(np.concatenate([-down, up[ends]]), 0.9) if len(known) else np.inf
    kind = "if the chains reach all" if certificate.kind == "real" else "certified"
    sure = f"certified ({certificate.confidence:.0%})"
    axes.vlines(place, down, 0, color=GREEN, linewidth=2, label=f"down to the lower bound, {sure}")
    if ends.any():
        axes.vlines(place[ends], 0, up[ends], color=ORANGE, linewidth=2, label=f"up to the upper bound, {kind}")
    beyond = ends & (up > longest)
    if beyond.any():  # else a single bound far off would flatten all others
        axes.plot(
            place[beyond], np.full(beyond.sum(), longest), "^", color=ORANGE, label=f"{beyond.sum()} reach beyond"
        )
        axes.set_ylim(-1.25 * min(-down.min(), longest), 1.25 * longest)
    mean = float(middle.mean()) if len(middle) else 0.0
    low, high = certificate.mean_lower - mean, certificate.mean_upper - mean
    if np.isfinite(high):
        axes.axhspan(low, high, color=BLUE, alpha=0.4, label=f"the mean: {high - low:.2g} nats between its bounds")
    else:
        axes.axhline(low, color=BLUE, linestyle="--", label="the mean's lower bound; it has no upper end")
    axes.axhline(0, color=BLACK, linewidth=0.8)
    axes.set(xlabel=r"datum, in the order of its $\log p(x)$", ylabel=r"bound − estimate of $\log p(x)$ (nats)")
    if not beyond.any():
        axes.margins(y=0.25)
    axes.legend(loc="upper left", fontsize=8)
    return figure
