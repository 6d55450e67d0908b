"""The mean and the variance of a mixture, from the moments of its parts, as a stream in float64.

With independent draws z_1 … z_K, means m_k = E[y|z_k] and variances v_k = Var(y|z_k),

    E y ≈ m̄ = (1/K) Σ m_k,    Var y ≈ (1/K) Σ v_k + s²,    s² = 1/(K−1) Σ (m_k − m̄)²,

and the Monte Carlo error of m̄ is s/√K. It is 0, and m̄ is exact, where no m_k depends on its draw.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Mixture(NamedTuple):
    """The mean of a mixture, its standard deviation, and the Monte Carlo error of the mean."""

    mean: Tensor
    standard_deviation: Tensor
    monte_carlo_error: Tensor


class RunningMoments:
    """A running mean and variance over draws, which come in any number of pieces."""

    def __init__(self) -> None:
        self._count = 0
        self._shift = self._sum = self._squares = self._within = torch.zeros(())

    def add(self, means: Tensor, variances: Tensor) -> None:
        """Add the means and variances of some draws, ``(num_draws, ...)`` each."""
        means = means.double()
        if not self._count:
            self._shift = means[0].clone()  # sums of what is far from 0 would round
        self._count += len(means)
        self._sum = self._sum + (means - self._shift).sum(0)
        self._squares = self._squares + (means - self._shift).square().sum(0)
        self._within = self._within + variances.double().sum(0)

    def mixture(self) -> Mixture:
        """What the draws say, ``(...)`` each, float64."""
        count = self._count
        between = ((self._squares - self._sum**2 / count) / (count - 1)).clamp(min=0)
        spread = (self._within / count + between).sqrt()
        return Mixture(self._shift + self._sum / count, spread, (between / count).sqrt())
