"""Figures of a run's numbers: the training, the bound against the number of particles, the gap, k-hat."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import arviz_plots
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ppvae.inference import Evidence
from ppvae.inference.evidence.evidence import PARETO_K_LIMIT
from ppvae.percent import percent

from .arviz_style import figure_of, label_axes, offscreen
from .style import BLACK, BLUE, GREEN, ORANGE, WIDTH, limits, new_figure


def training_curve(history: Sequence[dict[str, float]], unit: str = "datum") -> Figure:
    """The ELBO of training and validation data against epochs, the latter with ± one standard error.

    Args:
        history: the rows of ``Fit.history``.
        unit: what the ELBO is of: ``"datum"`` or ``"data set"``.
    """
    figure, axes = new_figure(3.6)
    epochs = [row["epoch"] for row in history]
    train = np.array([row["elbo"] for row in history])
    validation = np.array([row["validation_elbo"] for row in history])
    error = np.array([row["validation_standard_error"] for row in history])
    marker = "o" if len(history) < 3 else None
    axes.plot(epochs, train, color=BLUE, label="training, while it was trained on", marker=marker)
    if np.isfinite(validation).any():
        axes.plot(epochs, validation, color=ORANGE, label="validation ± standard error", marker=marker)
        axes.fill_between(epochs, validation - error, validation + error, color=ORANGE, alpha=0.25, linewidth=0)
    axes.set_ylim(limits(train, validation - error, validation + error))
    axes.set(xlabel="epoch", ylabel="ELBO per datum (nats)" if unit == "datum" else "ELBO of the data set (nats)")
    axes.legend(loc="lower right")
    return figure


def bound_curve(evidence: Evidence, unit: str = "datum") -> Figure:
    """The K-sample bound of draws of the guide, from the ELBO (K = 1) on, below log p(x); means over the data.

    The band is ± two Monte Carlo standard errors.
    """
    figure, axes = new_figure(3.6)
    known = evidence.bound.isfinite().all(0) & evidence.log_evidence.isfinite()
    k, bound = evidence.bound_k.numpy(), evidence.bound[:, known]
    mean = bound.mean(1).numpy()
    # One particle has no error that could be estimated, and so no band.
    errors = evidence.bound_standard_error[:, known].nan_to_num(0.0)
    error = 2 * (errors.square().sum(1).sqrt() / max(int(known.sum()), 1)).numpy()
    axes.fill_between(k, mean - error, mean + error, color=BLUE, alpha=0.25, linewidth=0)
    axes.plot(k, mean, color=BLUE, marker="o", markersize=3.5, label="K-sample bound ± 2 Monte Carlo errors")
    log_evidence = float(evidence.log_evidence[known].mean())
    axes.axhline(log_evidence, color=GREEN, linestyle="--", label=rf"$\log \hat p(x)$ = {_number(log_evidence)}")
    axes.axhline(mean[0], color=ORANGE, linestyle=":", label=f"ELBO = {_number(mean[0])}")
    axes.set_xscale("log")
    of_each = unit == "datum"
    xlabel = "particles per datum, K" if of_each else "particles, K"
    axes.set(xlabel=xlabel, ylabel="mean over the data (nats)" if of_each else "of the data set (nats)")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.08))
    return figure


def gap_histogram(evidence: Evidence) -> Figure:
    """The gap of every datum, log p(x) − ELBO, with the data marked whose log p(x) is not to be trusted."""
    figure, axes = new_figure(3.6)
    known = evidence.gap.isfinite()
    gap, doubtful = evidence.gap[known].numpy(), ~evidence.trusted[known].numpy()
    if len(gap):
        share = doubtful.mean()
        labels = [f"log p(x) to be trusted: {percent(1 - share)} of the data", f"not to be trusted: {percent(share)}"]
        edges = np.histogram_bin_edges(gap, bins=min(30, max(5, len(gap) // 5)))
        parts = [gap[~doubtful], gap[doubtful]]
        _, _, bars = axes.hist(parts, bins=list(edges), stacked=True, color=[BLUE, ORANGE], label=labels)
        for patch in cast(list[Iterable[Patch]], bars)[1]:  # hatched too, for print
            patch.set(hatch="///", edgecolor="white", linewidth=0)
        axes.axvline(gap.mean(), color=BLACK, linestyle="--", label=f"mean {_number(gap.mean())} nats")
        axes.legend()
    axes.set(xlabel=r"gap, $\log \hat p(x)$ − ELBO (nats)", ylabel="number of data")
    return figure


def khat(evidence: Evidence) -> Figure:
    """k-hat of every datum, with the limit up to which importance weights can be trusted."""
    n = len(evidence.log_evidence)
    k = xr.DataArray(evidence.pareto_k.double().numpy(), dims="datum", coords={"datum": np.arange(n)})
    # ArviZ takes a record of elpd, which differs between versions; it reads only these two fields.
    record: Any = SimpleNamespace(pareto_k=k, good_k=PARETO_K_LIMIT)
    with offscreen():
        drawn = arviz_plots.plot_khat(
            record,
            threshold=PARETO_K_LIMIT,
            hline_values=[PARETO_K_LIMIT, 1.0],
            color=BLUE,
            visuals={
                "title": False,
                "threshold_text": False,
                "hlines": {},
                "khat": {"alpha": max(0.1, min(0.7, 100 / n))},
            },
            figure_kwargs={"figsize": (WIDTH, 3.0)},
        )
        figure = figure_of(drawn)
    label_axes(figure, [("datum", "k-hat of its weights")])
    return figure


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
