"""The bijection T from the reals onto the support of a latent: torch's, but for the simplex.

On the simplex torch's stick-breaking transform finds what is left of the stick as 1 − (y_1 + … + y_k). Within rounding
of a corner that is 0, or noise: T⁻¹ of such a draw, common in single precision where a relaxed categorical or a
Dirichlet distribution is sharp, lies elsewhere, and the density there is no number. Here the rest is the sum of the
entries to come, and T is computed from logarithms: the same map, to the precision of its entries.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import IndependentTransform, StickBreakingTransform, Transform, biject_to, constraints
from torch.nn.functional import logsigmoid, pad


def bijection_to(support: Any) -> Transform:
    """T, from the reals onto a support.

    Raises:
        NotImplementedError: torch knows none.
    """
    if isinstance(support, constraints.independent):
        return IndependentTransform(bijection_to(support.base_constraint), support.reinterpreted_batch_ndims)
    return StickBreaking() if isinstance(support, type(constraints.simplex)) else biject_to(support)


class StickBreaking(StickBreakingTransform):
    """The simplex from K − 1 real numbers, near its corners too.

        y_k = σ(t_k) ∏_{j<k} σ(−t_j)  and  t_k = u_k − log(K − k),  with σ(t_K) = 1;
        u_k = log y_k − log(y_{k+1} + … + y_K) + log(K − k),  log |det ∂y/∂u| = Σ_k log y_k + log σ(−t_k) for k < K.

    An entry is at least the smallest normal number: a density at 0 would have no value.
    """

    def _call(self, x: Tensor) -> Tensor:
        t = x - _offsets(x)
        log_y = pad(logsigmoid(t), [0, 1]) + pad(logsigmoid(-t).cumsum(-1), [1, 0])
        return log_y.exp().clamp(min=torch.finfo(x.dtype).tiny)

    def _inverse(self, y: Tensor) -> Tensor:
        y = y.clamp(min=torch.finfo(y.dtype).tiny)
        rest = y[..., 1:].flip(-1).cumsum(-1).flip(-1)
        return y[..., :-1].log() - rest.log() + _offsets(rest)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log |det ∂y/∂u|, without the last dim."""
        return (y[..., :-1].log() + logsigmoid(_offsets(x) - x)).sum(-1)


def _offsets(u: Tensor) -> Tensor:
    """log(K − k) for k < K, by which u = 0 is the simplex's centre."""
    count = u.shape[-1]
    return torch.arange(count, 0, -1, dtype=u.dtype, device=u.device).log()
