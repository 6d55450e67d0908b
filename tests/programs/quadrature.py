"""Integrals of a density over one or two latents, each by two rules, in torch alone.

``log_joint`` maps latents to log p(x, z) with the data in the last dimension. On a line z has the shape (n, 1) or
(n, num_data); on a plane (n, 1, 2) or (n, num_data, 2). The answer has the shape (n, num_data).
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

LogJoint = Callable[[Tensor], Tensor]


def line(log_joint: LogJoint, low: float, high: float, n: int = 20_001) -> Tensor:
    """log ∫ exp(log_joint(z)) dz over [low, high] by the midpoint rule, which needs no value at the ends."""
    step = (high - low) / n
    z = low + step * (torch.arange(n) + 0.5).unsqueeze(-1)
    return torch.logsumexp(log_joint(z), 0) + math.log(step)


def plane(log_joint: LogJoint, low: tuple[float, float], high: tuple[float, float], n: int = 250) -> Tensor:
    """log ∫∫ exp(log_joint(z)) dz over a rectangle by the midpoint rule."""
    steps = [(b - a) / n for a, b in zip(low, high, strict=True)]
    sides = [a + step * (torch.arange(n) + 0.5) for a, step in zip(low, steps, strict=True)]
    z = torch.cartesian_prod(*sides).unsqueeze(1)
    return torch.logsumexp(log_joint(z), 0) + sum(map(math.log, steps))


def hermite_line(log_joint: LogJoint, loc: Tensor, scale: Tensor | float, n: int = 100) -> Tensor:
    """The same on the whole line by Gauss–Hermite nodes about `loc` (num_data,) of spread `scale`."""
    nodes, weights = (torch.as_tensor(part) for part in np.polynomial.hermite.hermgauss(n))
    z = loc + math.sqrt(2) * scale * nodes.unsqueeze(-1)
    spread = torch.as_tensor(scale).log() + 0.5 * math.log(2)
    return torch.logsumexp(log_joint(z) + (nodes**2 + weights.log()).unsqueeze(-1), 0) + spread


def hermite_plane(log_joint: LogJoint, loc: Tensor, covariance: Tensor, n: int = 60) -> Tensor:
    """The same on the whole plane, about `loc` (num_data, 2) with the spread of `covariance` (2, 2)."""
    nodes, weights = (torch.as_tensor(part) for part in np.polynomial.hermite.hermgauss(n))
    t = torch.cartesian_prod(nodes, nodes)
    log_w = torch.cartesian_prod(weights.log(), weights.log()).sum(-1)
    tril = torch.linalg.cholesky(covariance)
    z = loc + math.sqrt(2) * (t @ tril.T).unsqueeze(1)
    spread = tril.diagonal().log().sum() + math.log(2)
    return torch.logsumexp(log_joint(z) + ((t**2).sum(-1) + log_w).unsqueeze(-1), 0) + spread


def moments(log_joint: LogJoint, low: tuple[float, float], high: tuple[float, float], n: int = 200):
    """Mean (2,) and covariance (2, 2) of p(z | x) for one datum, or one data set, on a rectangle."""
    sides = [torch.linspace(a, b, n) for a, b in zip(low, high, strict=True)]
    z = torch.cartesian_prod(*sides)
    share = log_joint(z.unsqueeze(1))[:, 0].softmax(0).unsqueeze(-1)
    mean = (share * z).sum(0)
    return mean, (share * (z - mean)).T @ (z - mean)
