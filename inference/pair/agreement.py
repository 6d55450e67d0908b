"""Whether two log densities of the same latents agree but for rounding."""

from __future__ import annotations

import torch
from torch import Tensor

from .sites import Values

# Densities of the same latents, computed in two ways, differ by rounding alone: this much per nat of their size.
_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}


def equal(one: Tensor | None, other: Tensor | None, values: Values) -> bool:
    """Whether log densities agree but for rounding."""
    assert one is not None
    assert other is not None
    dtypes = {value.dtype for value in values.values() if value.is_floating_point()}
    rounding = max((_ROUNDING.get(dtype, 1e-1) for dtype in dtypes), default=_ROUNDING[torch.float32])
    same = (one == other) | ((one - other).abs() <= rounding * (1 + one.abs())) | (one.isnan() & other.isnan())
    return one.shape == other.shape and bool(same.all())
