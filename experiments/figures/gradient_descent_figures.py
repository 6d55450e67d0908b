"""Figures of the experiment `gradient_descent`: the gradient check, the descent, the learning curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from ..gradient_check import Gradients, truncation_dominates
from .style import BLACK, BLUE, GREEN, ORANGE, new_figure, new_panels

if TYPE_CHECKING:
    from ..gradient_descent import Curve, Descent


def gradient_figure(gradients: Gradients) -> Figure:
    """The error of central differences against their step, with what truncation and rounding explain of it."""
    figure, axes = new_figure(3.6)
    steps, errors = gradients.steps, gradients.errors
    dominated = truncation_dominates(steps)
    middle = np.exp(np.log(errors[dominated] / steps[dominated] ** 2).mean())
    axes.loglog(steps, errors, color=BLUE, marker="o", markersize=3.5, label="largest error of an entry of ∇L")
    axes.loglog(steps, middle * steps**2, color=ORANGE, linestyle="--", label="truncation, fitted: ∝ s²")
    axes.loglog(steps, np.finfo(float).eps / steps, color=GREEN, linestyle=":", label="rounding: ε / s")
    axes.set_ylim(errors.min() / 30, errors.max() * 10)
    axes.set(xlabel="step s of the central difference", ylabel="|difference quotient − backpropagation|")
    axes.legend()
    return figure


def descent_figure(descent: Descent) -> Figure:
    """The risk above its minimum, measured and predicted, against the number of steps."""
    figure, axes = new_figure(3.6)
    steps = np.arange(len(descent.excess))
    axes.semilogy(steps, descent.predicted, color=ORANGE, linewidth=3, alpha=0.6, label=r"$(I-\eta H)^t$: theory")
    axes.semilogy(steps, np.where(descent.excess > 0, descent.excess, np.nan), color=BLUE, linewidth=1,
                  label="SVI with SGD: measured")  # fmt: skip
    axes.axhline(np.finfo(float).eps, color=BLACK, linestyle=":", linewidth=0.8, label="float64's ε")
    axes.set_ylim(1e-17, None)
    axes.set(xlabel="gradient steps", ylabel="risk above its minimum (nats)")
    condition = f"η = {descent.rate:.2f}, condition number {descent.condition:.0f}"
    axes.set_title(f"One affine neuron on the diabetes data, {condition}", fontsize=10)
    axes.legend()
    return figure


def learning_figure(curves: list[Curve]) -> Figure:
    """Risk against epochs, of data trained on and of others, a panel for each data set."""
    figure, panels = new_panels(3.8, 2)
    for axes, name in zip(panels, ("diabetes", "digits"), strict=True):
        shown = [curve for curve in curves if curve.name.startswith(name)]
        for curve, colour in zip(shown, (BLUE, ORANGE), strict=True):
            history = curve.trained.history
            epochs = [row["epoch"] for row in history]
            held_out = -np.array([row["validation_elbo"] for row in history])
            error = np.array([row["validation_standard_error"] for row in history])
            kind = curve.name.split(", ")[1]
            axes.plot(
                epochs, [-row["elbo"] for row in history], color=colour, linestyle="--", label=f"{kind}, training"
            )
            axes.plot(epochs, held_out, color=colour, label=f"{kind}, held out")
            axes.fill_between(epochs, held_out - error, held_out + error, color=colour, alpha=0.15, linewidth=0)
        axes.axhline(shown[0].chance, color=BLACK, linestyle=":", linewidth=0.8, label="without the inputs")
        axes.set(xlabel="epoch", ylabel="risk, −log p(y|x) (nats per datum)")
        axes.set_title(f"{name} (band: ± standard error)", fontsize=10)
        axes.legend(fontsize=7)
    panels[1].set_yscale("log")
    return figure
