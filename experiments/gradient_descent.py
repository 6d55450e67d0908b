"""Is training by SVI gradient descent, θ ← θ − η ∇L, with ∇L given by the chain rule?

Claim. A network without latents has no integral to estimate, so that Trace_ELBO / N is minus the empirical risk
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
The figures should show two lines of slope 2 and −1 that meet at the best step, a measured curve equal to the predicted
one down to rounding, and learning curves of training and held-out data that diverge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.optim import SGD

from ppvae.datasets import load_dataset
from ppvae.inference import Fit, fit
from ppvae.inference.pair.randomness import seeded
from ppvae.models import Categorical, FeedForward

from .experiment import Result
from .figures.gradient_descent_figures import descent_figure, gradient_figure, learning_figure
from .gradient_check import check_gradients, diabetes, order_of

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
    """The training of one network, and its risk without its inputs."""

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


def descend(config: Config) -> Descent:
    """`fit` with SGD on all data at once, against the solution of the recurrence θ ← θ − η H (θ − θ*)."""
    x, y = diabetes()
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
    x, y = diabetes()
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


def _r_squared(predicted: Tensor, y: Tensor) -> float:
    return 1 - float((y - predicted).square().sum() / (y - y.mean()).square().sum())
