"""Figures of the experiment `bound_gap`: the identity over training, the K-sample bounds, the parts of the KL."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ppvae.inference import Evidence

from .style import BLACK, BLUE, GREEN, ORANGE, new_figure, new_panels

if TYPE_CHECKING:
    from ..bound_gap import Snapshot


def identity_figure(snapshots: Sequence[Snapshot]) -> Figure:
    """Reconstruction − KL(q ‖ p(z)) = ELBO, and ELBO + gap = log p(x), over training.

    Args:
        snapshots: at one pair whose gap is known, in order of training.
    """
    figure, (left, right) = new_panels(3.6, 2)
    reconstruction, elbo = [s.parts.reconstruction for s in snapshots], [s.elbo for s in snapshots]
    log_evidence, gap = [_known(s.log_evidence) for s in snapshots], [_known(s.gap) for s in snapshots]
    _curve(left, snapshots, reconstruction, GREEN, "$E_q$ log p(x|z)")
    _curve(left, snapshots, log_evidence, BLACK, "log p(x), by quadrature")
    _curve(left, snapshots, elbo, BLUE, "ELBO")
    price = "price: KL(q(z|x) ‖ p(z)),\nfrom green down to blue"
    _curve(right, snapshots, [s.parts.kl for s in snapshots], ORANGE, price)
    _curve(right, snapshots, gap, BLUE, "gap: KL(q(z|x) ‖ p(z|x)),\nfrom blue up to black")
    left.set_ylabel("mean over the data (nats)\n± 2 standard errors over the data")
    right.set_ylim(0, None)
    left.legend(fontsize=8, loc="lower right")
    right.legend(fontsize=8, loc="upper right")
    return figure


def residual_figure(snapshots: Sequence[Snapshot]) -> Figure:
    """ELBO + gap − log p(x), mean over the data, over training: 0 but for the Monte Carlo error of the ELBO.

    Args:
        snapshots: at one pair whose gap is known, in order of training.
    """
    figure, axes = new_figure(2.6)
    residual = [float(_known(s.residual).mean()) for s in snapshots]
    bars = [2 * float(s.elbo_error.norm() / len(s.elbo)) for s in snapshots]
    axes.axhline(0, color="0.5", linewidth=0.8)
    axes.errorbar(range(len(snapshots)), residual, yerr=bars, color=BLACK, marker="o", markersize=3.5, linestyle="",
                  capsize=3)  # fmt: skip
    _epochs(axes, snapshots)
    axes.set_ylabel("ELBO + gap − log p(x) (nats)\n± 2 Monte Carlo errors")
    return figure


def bounds_figure(bounds: Mapping[str, Evidence], snapshots: dict[str, Snapshot]) -> Figure:
    """The K-sample bounds of each pair, against K, and log p(x) where it is known.

    Args:
        bounds: evidence of the first data of each pair.
        snapshots: each pair's last.
    """
    figure, panels = new_panels(3.0, len(bounds))
    for axes, (name, evidence) in zip(panels, bounds.items(), strict=True):
        k, mean = evidence.bound_k.numpy(), evidence.bound.mean(1).numpy()
        error = 2 * (evidence.bound_standard_error.square().sum(1).sqrt() / evidence.bound.shape[1]).numpy()
        axes.fill_between(k, mean - error, mean + error, color=BLUE, alpha=0.25, linewidth=0)
        axes.plot(k, mean, color=BLUE, marker="o", markersize=3, label="bound")
        truth = snapshots[name].log_evidence
        if truth is not None:
            exact = float(truth[: evidence.bound.shape[1]].mean())
            axes.axhline(exact, color=GREEN, linestyle="--", label="log p(x)")
        axes.axhline(mean[0], color=ORANGE, linestyle=":", label="ELBO")
        axes.set(xscale="log", xlabel="particles per datum, K")
        axes.set_title(name, fontsize=9)
        axes.legend(fontsize=8, loc="center right")
    panels[0].set_ylabel("mean over the data (nats)\n± 2 Monte Carlo errors")
    return figure


def gap_figure(bounds: Mapping[str, Evidence], snapshots: dict[str, Snapshot]) -> Figure:
    """The gap of single data: as a KL to the true posterior, and as what importance sampling adds to the ELBO.

    Args:
        bounds: evidence of the first data of each pair whose gap is known.
        snapshots: each pair's last.
    """
    figure, panels = new_panels(3.2, len(bounds))
    for axes, (name, evidence) in zip(panels, bounds.items(), strict=True):
        gap = snapshots[name].gap
        if gap is None:
            continue
        exact, estimate = gap[: len(evidence.elbo)].numpy(), evidence.gap.numpy()
        error = 2 * evidence.gap_standard_error.numpy()
        axes.axline((0.0, 0.0), slope=1, color="0.5", linewidth=0.8)
        reliable = evidence.reliable.numpy()
        for shown, colour, marker, label in ((reliable, BLUE, "o", "k-hat < 0.7"), (~reliable, ORANGE, "s", "≥ 0.7")):
            if shown.any():
                axes.errorbar(exact[shown], estimate[shown], yerr=error[shown], color=colour, linestyle="",
                              marker=marker, markersize=3, linewidth=0.8, label=label)  # fmt: skip
        margin = 0.15 * (exact.max() - exact.min()) + float(np.median(error))
        limits = (exact.min() - margin, exact.max() + margin)
        axes.set(xlim=limits, ylim=limits, xlabel="KL(q(z|x) ‖ p(z|x)) (nats)", aspect="equal")
        axes.set_title(name, fontsize=9)
        axes.legend(fontsize=8, loc="upper left")
    panels[0].set_ylabel("$\\log \\hat p_K(x)$ − ELBO (nats)\n± 2 Monte Carlo errors")
    return figure


def surgery_figure(snapshots: dict[str, list[Snapshot]]) -> Figure:
    """KL(q(z|x) ‖ p(z)) of each pair over training, in its two parts, with Monte Carlo errors.

    Args:
        snapshots: of each pair, in order of training.
    """
    figure, panels = new_panels(3.4, len(snapshots))
    for axes, (name, history) in zip(panels, snapshots.items(), strict=True):
        parts = [s.parts.summary() for s in history]
        places = np.arange(len(parts))
        information = np.array([part["mutual_information"] for part in parts])
        marginal = np.array([part["marginal_kl"] for part in parts])
        errors = [[2 * part[f"{term}_monte_carlo_error"] for part in parts] for term in ("mutual_information", "kl")]
        axes.bar(places, information, color=BLUE, yerr=errors[0], capsize=2, label="I(n; z)")
        axes.bar(places, marginal, bottom=information, color=ORANGE, hatch="///", edgecolor="white", linewidth=0,
                 yerr=errors[1], capsize=2, label="KL(q(z) ‖ p(z))")  # fmt: skip
        axes.axhline(parts[0]["ceiling"], color=BLACK, linestyle="--", linewidth=1, label="log N, ceiling of I")
        _epochs(axes, history)
        axes.set_title(name, fontsize=9)
    panels[0].set_ylabel("KL(q(z|x) ‖ p(z)), mean over the data\n(nats, ± 2 Monte Carlo errors)")
    panels[0].legend(fontsize=8, loc="upper left")
    return figure


def _curve(axes: Axes, snapshots: Sequence[Snapshot], values: Sequence[Tensor], colour: str, label: str) -> None:
    mean = np.array([float(value.mean()) for value in values])
    error = 2 * np.array([float(value.std() / math.sqrt(len(value))) for value in values])
    axes.plot(range(len(snapshots)), mean, color=colour, marker="o", markersize=3.5, label=label)
    axes.fill_between(range(len(snapshots)), mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
    _epochs(axes, snapshots)


def _epochs(axes: Axes, snapshots: Sequence[Snapshot]) -> None:
    axes.set_xticks(range(len(snapshots)), [str(s.epoch) for s in snapshots])
    axes.set_xlabel("epochs of training")


def _known(value: Tensor | None) -> Tensor:
    assert value is not None
    return value
