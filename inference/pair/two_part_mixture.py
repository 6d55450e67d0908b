"""A mixture of two distributions of one site, whose draws are functions of the draws of its parts.

    q(z) = (1 − a) q₀(z) + a q₁(z),      log q(z) = log [(1 − a) q₀(z) + a q₁(z)].

The part k that a draw is of is drawn with probability a_k, and z by the part's own rsample: with a fixed, the gradient
along the path of the draw is that of E_q[f(z)] in the parameters of both parts. The part is not told to the density,
which is that of z alone.
"""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor


class LastDraw:
    """What the last draw of a mixture was: shared by a distribution and its expansions.

    Attributes:
        value: the draw.
        part: whether it is of the second part, by batch place.
        next_part: of which part the next draw is to be; None draws it.
    """

    def __init__(self, next_part: Tensor | None = None) -> None:
        self.value: Tensor | None = None
        self.part: Tensor | None = None
        self.next_part = next_part


class TwoPartMixture(dist.TorchDistribution):
    """A draw of one distribution or of another.

    Args:
        first: the part q₀, of a support that is the other's too.
        second: the part q₁.
        log_weights: log (1 − a) and log a, ``(2, *batch)``.
        last: where a draw is kept.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    has_rsample = True

    def __init__(self, first: Any, second: Any, log_weights: Tensor, last: LastDraw) -> None:
        shape = torch.broadcast_shapes(first.batch_shape, second.batch_shape, log_weights.shape[1:])
        self.first, self.second = first.expand(shape), second.expand(shape)
        lead = log_weights.reshape((2, *(1,) * (len(shape) + 1 - log_weights.dim()), *log_weights.shape[1:]))
        self.log_weights, self.last = lead.expand((2, *shape)), last
        super().__init__(shape, first.event_shape, validate_args=False)

    def rsample(self, sample_shape: Any = ()) -> Tensor:  # noqa: D102
        shape = torch.Size(sample_shape) + self.batch_shape
        part, self.last.next_part = self.last.next_part, None
        if part is None or part.shape != shape:
            part = torch.rand(shape, device=self.log_weights.device) < self.log_weights[1].detach().exp()
        self.last.part = part
        second = part.reshape((*shape, *(1,) * len(self.event_shape)))
        self.last.value = torch.where(second, self.second.rsample(sample_shape), self.first.rsample(sample_shape))
        return self.last.value

    def log_prob(self, value: Tensor) -> Tensor:  # noqa: D102
        parts = self.part_log_probs(value)
        lead = (1,) * (parts.dim() - self.log_weights.dim())
        return torch.logsumexp(parts + self.log_weights.reshape((2, *lead, *self.batch_shape)), 0)

    def part_log_probs(self, value: Tensor) -> Tensor:
        """log q_k(z) of both parts, ``(2, *batch)``."""
        return torch.stack([self.first.log_prob(value), self.second.log_prob(value)])

    def with_first(self, first: Any) -> TwoPartMixture:
        """The mixture with another first part."""
        return TwoPartMixture(first, self.second, self.log_weights, self.last)

    def expand(self, batch_shape: Any, _instance: Any = None) -> TwoPartMixture:  # noqa: D102
        shape = torch.Size(batch_shape)
        lead = self.log_weights.reshape((2, *(1,) * (len(shape) - len(self.batch_shape)), *self.batch_shape))
        return TwoPartMixture(self.first.expand(shape), self.second.expand(shape), lead.expand((2, *shape)), self.last)

    @property
    def base_dist(self) -> Any:
        """The first part, whose parameters are those that are freed."""
        return self.first

    @property
    def support(self) -> Any:  # noqa: D102
        return self.first.support

    @property
    def mean(self) -> Tensor:  # noqa: D102
        return self._mixed(self.first.mean, self.second.mean)

    @property
    def variance(self) -> Tensor:  # noqa: D102
        square = self._mixed(self.first.mean.square(), self.second.mean.square())
        return self._mixed(self.first.variance, self.second.variance) + square - self.mean.square()

    def _mixed(self, first: Tensor, second: Tensor) -> Tensor:
        weights = self.log_weights.exp().reshape((2, *self.batch_shape, *(1,) * len(self.event_shape)))
        return weights[0] * first + weights[1] * second
