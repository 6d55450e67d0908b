"""Is training by SVI gradient descent, θ ← θ − η ∇L, and is ∇L the chain rule?

Claim. A network without latents has nothing to integrate over, so that Trace_ELBO / N is minus the empirical risk
(1/N) Σ L(f(x), y). Then

    1. its gradient by backpropagation is the chain rule written out by hand, δ² = (ŷ − y)/N, ∂W² = δ²ᵀ h,
       δ¹ = δ² W² ⊙ (1 − h²), ∂W¹ = δ¹ᵀ x, to rounding; and the limit of central differences, whose own error falls
       as s² with their step s until rounding, ε/s, takes over;
    2. `fit` with `torch.optim.SGD` on the whole data descends as theory says: for one affine neuron and squared error
       the distance to the least-squares solution after t steps is (I − ηH)ᵗ (θ₀ − θ*), H = E[x̃ x̃ᵀ], x̃ = (x, 1);
    3. the same call trains networks on real data, regression and classification, and the risk of data that were not
       trained on shows when to stop.

Sources: "Learning representations by back-propagating errors" (Rumelhart, Hinton & Williams, 1986), Nature 323; the
diabetes data are those of "Least Angle Regression" (Efron, Hastie, Johnstone & Tibshirani, 2004), arXiv:math/0406456.
What the reader should see: two lines of slope 2 and −1 that meet at the best step; a measured curve on top of the
predicted one down to rounding; learning curves that part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from matplotlib.figure import Figure
from pyro.infer import Trace_ELBO
from torch import Tensor
from torch.optim import SGD

from ppvae.datasets import load_dataset
from ppvae.inference import Fit, fit
from ppvae.inference.traces import seeded
from ppvae.models import Categorical, FeedForward

from .experiment import Result
from .figures.style import BLACK, BLUE, GREEN, ORANGE, new_figure, new_panels

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Config:
    """How large the experiment is.

    Args:
        num_features: how many of the ten features of the diabetes data the affine neuron sees; the more, the worse
            their covariance is conditioned.
        steps: gradient steps of the affine neuron.
        epochs: passes over the data in each learning curve.
        seed: of initial weights and batches.
    """

    num_features: int = 10
    steps: int = 6000
    epochs: int = 150
    seed: int = 0


SMALL = Config(num_features=4, steps=150, epochs=15)


@dataclass(frozen=True)
class Gradients:
    """The gradient of one risk, three times: by name of the parameter, and for central differences by their step."""

    backpropagated: dict[str, Tensor]
    by_hand: dict[str, Tensor]
    steps: np.ndarray
    errors: np.ndarray  # of central differences, the largest over all parameters


@dataclass(frozen=True)
class Descent:
    """One affine neuron, from its start to the least-squares solution."""

    excess: np.ndarray  # the risk above its minimum before each step, nats
    predicted: np.ndarray
    distance: float  # ‖θ − θ*‖ at the end
    theory: float  # the same, predicted
    condition: float  # λ_max / λ_min of H
    rate: float


@dataclass(frozen=True)
class Curve:
    """How one network learnt, and what its risk would be without its inputs."""

    name: str
    trained: Fit
    chance: float


def run(config: Config = Config()) -> Result:
    """Check the gradient, descend to least squares, learn from real data."""
    with seeded(config.seed):
        gradients = check_gradients()
    with seeded(config.seed):
        descent = descend(config)
    with seeded(config.seed):
        curves, scores = learn(config)
    hand = max(float((g - gradients.by_hand[name]).abs().max()) for name, g in gradients.backpropagated.items())
    best = int(gradients.errors.argmin())
    off_theory = float(abs(descent.excess - descent.predicted).max())
    rows = [
        _row("backpropagation − chain rule by hand, largest entry", hand, "rounding"),
        _row("backpropagation − central differences, at their best step", float(gradients.errors[best]), "≈ ε^(2/3)"),
        _row("order of the central differences' error", order_of(gradients), "2"),
        _row("affine neuron: distance to least squares, start = 1", descent.distance, f"{descent.theory:.4g}"),
        _row("affine neuron: largest departure from theory (nats)", off_theory, "rounding"),
        *scores,
    ]
    return Result(
        title="SVI on a network without latents is gradient descent on its empirical risk",
        rows=rows,
        conclusions=[
            f"The gradient of Trace_ELBO / N and the chain rule by hand differ by {hand:.1e} at most; central "
            f"differences come as near as {gradients.errors[best]:.1e}, at the step {gradients.steps[best]:.0e}.",
            f"{len(descent.excess)} steps of gradient descent take the affine neuron to {descent.distance:.1e} of its "
            f"first distance from the least-squares solution; theory says {descent.theory:.1e} (the "
            f"condition number of H is {descent.condition:.0f}, η = {descent.rate:.2f}).",
            *(f"{row['what']}: {row['measured']:.3g} (reference {row['expected']})." for row in scores),
        ],
        figures={
            "gradient_check": gradient_figure(gradients),
            "descent": descent_figure(descent),
            "learning_curves": learning_figure(curves),
        },
    )


def _row(what: str, measured: float, expected: str) -> dict[str, object]:
    return {"what": what, "measured": measured, "expected": expected}


def check_gradients() -> Gradients:
    """The gradient of a two-layer network's risk on 50 rows of the diabetes data, by each of the three ways."""
    x, y = _diabetes()
    x, y = x[:50], y[:50]
    net = FeedForward.for_data(y, x, hidden=(5,))
    loss = risk(net, y, x)
    loss.backward()
    named = list(net.named_parameters())
    found = {name: p.grad for name, p in named if p.grad is not None}
    steps = 10.0 ** np.arange(-11, 0.5, 0.5)
    errors = [
        max(float((central_differences(net, p, y, x, s) - found[name]).abs().max()) for name, p in named)
        for s in steps.tolist()
    ]
    return Gradients(found, dict(zip(found, chain_rule(net, y, x), strict=True)), steps, np.array(errors))


def risk(net: FeedForward, y: Tensor, x: Tensor) -> Tensor:
    """−Trace_ELBO / N, the mean of L(f(x), y) in nats."""
    return Trace_ELBO().differentiable_loss(net.model, net.guide, y, x) / len(y)


@torch.no_grad()
def chain_rule(net: FeedForward, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """∂L/∂(W¹, b¹, W², b²) for L = (1/N) Σ ½ (y − ŷ)² + ½ log 2π, ŷ = W² tanh(W¹ x + b¹) + b²."""
    W1, b1, W2, b2 = net.parameters()
    u = (x - net.input_shift) / net.input_scale
    h = torch.tanh(u @ W1.T + b1)
    delta2 = (h @ W2.T + b2 - y) / len(y)
    delta1 = (delta2 @ W2) * (1 - h**2)
    return delta1.T @ u, delta1.sum(0), delta2.T @ h, delta2.sum(0)


@torch.no_grad()
def central_differences(net: FeedForward, parameter: Tensor, y: Tensor, x: Tensor, step: float) -> Tensor:
    """(L(θ_i + s) − L(θ_i − s)) / 2s for every entry θ_i of a parameter."""
    flat, out = parameter.view(-1), torch.empty_like(parameter).view(-1)
    for i, value in enumerate(flat.tolist()):
        flat[i] = value + step
        above = risk(net, y, x)
        flat[i] = value - step
        out[i] = (above - risk(net, y, x)) / (2 * step)
        flat[i] = value
    return out.view_as(parameter)


def order_of(gradients: Gradients) -> float:
    """The slope of log error over log step where truncation rules."""
    rules = truncation_rules(gradients.steps)
    return float(np.polyfit(np.log(gradients.steps[rules]), np.log(gradients.errors[rules]), 1)[0])


def truncation_rules(steps: np.ndarray) -> np.ndarray:
    """Steps from 1e-3 to 1e-1: wide enough for rounding not to show, narrow enough for the next order not to."""
    return (steps > 0.9e-3) & (steps < 1.1e-1)


def descend(config: Config) -> Descent:
    """`fit` with SGD on all data at once, against the solution of the recurrence θ ← θ − η H (θ − θ*)."""
    x, y = _diabetes()
    x = x[:, : config.num_features]
    net = FeedForward(config.num_features, hidden=()).to(x)
    inputs = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    start, solution = _parameters(net), torch.linalg.lstsq(inputs, y).solution[:, 0]
    values, vectors = torch.linalg.eigh(inputs.T @ inputs / len(x))
    rate = 2 / float(values[0] + values[-1])  # the best one for all directions together
    trained = fit(net.model, net.guide, (y, x), epochs=config.steps, batch_size=len(x), optimizer=SGD,
                  learning_rate=rate, seed=config.seed)  # fmt: skip
    least = float(0.5 * (y[:, 0] - inputs @ solution).square().mean()) + _HALF_LOG_2PI
    along = (vectors.T @ (start - solution)).numpy()
    decay = (1 - rate * values.numpy())[None] ** np.arange(config.steps + 1)[:, None]
    first = float((start - solution).norm())
    return Descent(
        excess=np.array([-row["elbo"] for row in trained.history]) - least,
        predicted=0.5 * (values.numpy() * (decay[:-1] * along) ** 2).sum(1),
        distance=float((_parameters(net) - solution).norm()) / first,
        theory=float(np.linalg.norm(decay[-1] * along)) / first,
        condition=float(values[-1] / values[0]),
        rate=rate,
    )


def _parameters(net: FeedForward) -> Tensor:
    """(w, b) of one affine neuron, in one vector."""
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


def learn(config: Config) -> tuple[list[Curve], list[dict[str, object]]]:
    """Learning curves of an affine map and of a network with one hidden layer, on diabetes and on digits."""
    curves, rows = [], []
    descent = partial(fit, epochs=config.epochs, batch_size=50, optimizer=SGD, seed=config.seed)
    x, y = _diabetes()
    last = len(x) - 100
    inputs = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    linear = inputs[last:] @ torch.linalg.lstsq(inputs[:last], y[:last]).solution
    for kind, hidden in (("one affine neuron", ()), ("20 hidden neurons", (20,))):
        net = FeedForward.for_data(y[:last], x[:last], hidden=hidden)
        trained = descent(
            net.model, net.guide, (y[:last], x[:last]), validation=(y[last:], x[last:]), learning_rate=0.3
        )
        curves.append(Curve(f"diabetes, {kind}", trained, 0.5 + _HALF_LOG_2PI))
        explained = _r_squared(net.predict(x[last:]).mean.detach(), y[last:])
        reference = f"{_r_squared(linear, y[last:]):.3f}, least squares"
        rows.append(_row(f"diabetes, {kind}: R² of 100 held-out patients", explained, reference))
    digits = load_dataset("digits")
    assert digits.labels is not None
    labels = {part: digits.labels[part].to(digits.train)[:, None] for part in ("train", "validation", "test")}
    for kind, hidden in (("ten affine neurons", ()), ("50 hidden neurons", (50,))):
        net = FeedForward.for_data(labels["train"], digits.train, Categorical(10), hidden=hidden)
        trained = descent(net.model, net.guide, (labels["train"], digits.train),
                          validation=(labels["validation"], digits.validation), learning_rate=0.5)  # fmt: skip
        curves.append(Curve(f"digits, {kind}", trained, math.log(10)))
        right = net.predict(digits.test).base_dist.logits.argmax(-1) == labels["test"]
        rows.append(_row(f"digits, {kind}: share right of 250 held-out", float(right.double().mean()), "0.1 by chance"))
    return curves, rows


def _diabetes() -> tuple[Tensor, Tensor]:
    """Inputs `(442, 10)` and targets `(442, 1)`, in a random order, each with mean 0 and standard deviation 1."""
    from sklearn.datasets import load_diabetes

    values = [torch.tensor(part, dtype=torch.float64) for part in load_diabetes(return_X_y=True)]
    order = torch.randperm(len(values[0]), generator=torch.Generator().manual_seed(0))
    x, y = ((part - part.mean(0)) / part.std(0, correction=0) for part in (values[0][order], values[1][order, None]))
    return x, y


def _r_squared(predicted: Tensor, y: Tensor) -> float:
    return 1 - float((y - predicted).square().sum() / (y - y.mean()).square().sum())


def gradient_figure(gradients: Gradients) -> Figure:
    """The error of central differences against their step, with what truncation and rounding explain of it."""
    figure, axes = new_figure(3.6)
    steps, errors = gradients.steps, gradients.errors
    rules = truncation_rules(steps)
    middle = np.exp(np.log(errors[rules] / steps[rules] ** 2).mean())
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
