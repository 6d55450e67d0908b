"""The gradient of an empirical risk by backpropagation, by the chain rule written out, and by central differences.

For a network with one hidden layer of tanh and the loss (1/N) Σ ½ (y − ŷ)²,

    δ² = (ŷ − y)/N,   ∂W² = δ²ᵀ h,   δ¹ = δ² W² ⊙ (1 − h²),   ∂W¹ = δ¹ᵀ x.

The error of central differences falls as s² with their step s until rounding, ε/s, takes over.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor

from ppvae.models import FeedForward


@dataclass(frozen=True)
class Gradients:
    """The gradient of one risk by three methods, by name of the parameter, and the error of central differences."""

    backpropagated: dict[str, Tensor]
    by_hand: dict[str, Tensor]
    steps: np.ndarray
    errors: np.ndarray  # of central differences, the largest over all parameters


def check_gradients() -> Gradients:
    """The gradient of a two-layer network's risk on 50 rows of the diabetes data, by each of the three ways."""
    x, y = diabetes()
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
    """The slope of log error over log step where truncation dominates."""
    dominated = truncation_dominates(gradients.steps)
    return float(np.polyfit(np.log(gradients.steps[dominated]), np.log(gradients.errors[dominated]), 1)[0])


def truncation_dominates(steps: np.ndarray) -> np.ndarray:
    """Steps from 1e-3 to 1e-1: wide enough for rounding not to show, narrow enough for the next order not to."""
    return (steps > 0.9e-3) & (steps < 1.1e-1)


def diabetes() -> tuple[Tensor, Tensor]:
    """Inputs `(442, 10)` and targets `(442, 1)`, in a random order, each with mean 0 and standard deviation 1."""
    from sklearn.datasets import load_diabetes

    values = [torch.tensor(part, dtype=torch.float64) for part in load_diabetes(return_X_y=True)]
    order = torch.randperm(len(values[0]), generator=torch.Generator().manual_seed(0))
    x, y = ((part - part.mean(0)) / part.std(0, correction=0) for part in (values[0][order], values[1][order, None]))
    return x, y
