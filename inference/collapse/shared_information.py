"""What the means of some units share with those of others: R² of linear regressions, on data that did not fit them."""

from __future__ import annotations

import torch
from torch import Tensor


def explained_share(y: Tensor, z: Tensor) -> float:
    """R² of y given z, over all columns of y together: every datum predicted by the half of the data that lacks it.

    Args:
        y: ``(num_data, num_numbers)``.
        z: ``(num_data, num_units)``.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> z = torch.randn(100, 2, dtype=torch.float64)
        >>> round(explained_share(z @ torch.ones(2, 1, dtype=torch.float64), z), 6)
        1.0
    """
    every = torch.arange(len(y))
    error = torch.zeros(y.shape[1], dtype=torch.float64)
    for half in (0, 1):
        fit, test = every % 2 != half, every % 2 == half
        inputs = torch.cat([z.double(), torch.ones(len(z), 1, dtype=torch.float64)], 1)
        weights = torch.linalg.lstsq(inputs[fit], y[fit].double(), driver="gelsd").solution
        error += (y[test].double() - inputs[test] @ weights).square().sum(0)
    total = (y.double() - y.double().mean(0)).square().sum(0)
    return float(1 - error.sum() / total.sum()) if float(total.sum()) > 0 else 0.0


def explained_by(z: Tensor) -> list[float]:
    """R² of every column given the others, ``num_units`` numbers; 0 where there are no others."""
    count = z.shape[1]
    others = [[i for i in range(count) if i != j] for j in range(count)]
    return [explained_share(z[:, [j]], z[:, others[j]]) if count > 1 else 0.0 for j in range(count)]
