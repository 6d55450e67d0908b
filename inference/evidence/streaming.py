"""Running sums over log weights: everything that evidence needs, folded in piece by piece.

Each class takes log weights ``(num_particles_of_the_piece, num_data)`` in float64 and holds a fixed amount of numbers
per datum. A weight may be −inf (a draw of the guide that the model excludes).
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from torch import Tensor

from .estimates import ImportanceEvidence
from .evidence import tail_factor

# Batches for the second standard error and the jackknife; that standard error is itself known to 1/√(2·31) = 13 %.
NUM_BATCHES = 32
# Of fewer blocks than this the spread says nothing about a K-sample bound.
MIN_BLOCKS = 8


class Moments:
    """Mean and variance of a stream (the pairwise update of Chan, Golub & LeVeque, 1983)."""

    def __init__(self, num_data: int) -> None:
        self.count = 0
        self.mean = torch.zeros(num_data, dtype=torch.float64)
        self._squares = torch.zeros(num_data, dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """Fold in ``(n, num_data)`` values."""
        n = len(values)
        if n == 0:
            return
        mean = values.mean(0)
        spread = (values - mean).square().sum(0)
        total = self.count + n
        self._squares = self._squares + spread + (mean - self.mean).square() * (self.count * n / total)
        self.mean = (self.count * self.mean + n * mean) / total if self.count else mean
        self.count = total

    @property
    def standard_error(self) -> Tensor:
        """Standard error of the mean; NaN from fewer than two values."""
        if self.count < 2:
            return torch.full_like(self.mean, math.nan)
        return (self._squares / (self.count - 1) / self.count).sqrt()


class Blocks:
    """Log means over disjoint blocks of 1, 2, 4, … weights: unbiased estimates of the K-sample bounds.

    A level holds blocks of 2^level weights; two of its blocks make one of the next level, as carries do in a binary
    counter, so at most one block per level waits for its partner.
    """

    def __init__(self, num_data: int, levels: int) -> None:
        self.moments = [Moments(num_data) for _ in range(levels)]
        self._waiting: list[Tensor | None] = [None] * levels

    def add(self, log_w: Tensor) -> None:
        """Fold in ``(n, num_data)`` log weights."""
        for level, moments in enumerate(self.moments):
            moments.add(log_w)
            waiting = self._waiting[level]
            if waiting is not None:
                log_w = torch.cat((waiting[None], log_w))
            self._waiting[level] = log_w[-1] if len(log_w) % 2 else None
            pairs = log_w[: len(log_w) // 2 * 2]
            if len(pairs) == 0:
                return
            log_w = torch.logaddexp(pairs[0::2], pairs[1::2]) - math.log(2)


class Running:
    """All that :class:`~ppvae.inference.Evidence` is read from, for one piece of the data.

    Args:
        num_particles: how many weights will be folded in.
        num_data: how many data there are.
        num_bounds: how many K-sample bounds are estimated; by default as many as that number of weights allows.
    """

    def __init__(self, num_particles: int, num_data: int, num_bounds: int | None = None) -> None:
        self.num_particles = num_particles
        self._seen = 0
        batches = min(NUM_BATCHES, num_particles)
        # Contiguous batches whose sizes differ by one at most.
        self._edges = [num_particles * b // batches for b in range(batches + 1)]
        self._batch_sums = torch.full((batches, num_data), -math.inf, dtype=torch.float64)
        self._log_squares = torch.full((num_data,), -math.inf, dtype=torch.float64)
        self._log_sum = torch.full((num_data,), -math.inf, dtype=torch.float64)
        self._tilted = torch.zeros(num_data, dtype=torch.float64)  # Σ w log w / Σ w
        self._blocks = Blocks(num_data, num_bounds or num_bounds_of(num_particles))
        self._tail_size = _tail_size(num_particles)
        self._tail = torch.empty(0, num_data, dtype=torch.float64)

    def add(self, log_w: Tensor) -> None:
        """Fold in the next ``(n, num_data)`` log weights."""
        self._log_squares = torch.logaddexp(self._log_squares, torch.logsumexp(2 * log_w, 0))
        self._add_tilted(log_w)
        self._blocks.add(log_w)
        self._add_to_batches(log_w)
        tail = torch.cat((self._tail, log_w))
        self._tail = tail.topk(min(self._tail_size, len(tail)), dim=0).values
        self._seen += len(log_w)

    def _add_tilted(self, log_w: Tensor) -> None:
        before, piece = self._log_sum, torch.logsumexp(log_w, 0)
        self._log_sum = torch.logaddexp(before, piece)
        share = (log_w - piece).exp().nan_to_num(0.0)
        tilted = (share * log_w.clamp(min=torch.finfo(log_w.dtype).min)).sum(0)
        old, new = ((part - self._log_sum).exp().nan_to_num(0.0) for part in (before, piece))
        self._tilted = old * self._tilted + new * tilted

    def _add_to_batches(self, log_w: Tensor) -> None:
        for b, (start, stop) in enumerate(zip(self._edges, self._edges[1:], strict=False)):
            piece = log_w[max(start - self._seen, 0) : max(stop - self._seen, 0)]
            if len(piece):
                self._batch_sums[b] = torch.logaddexp(self._batch_sums[b], torch.logsumexp(piece, 0))

    def evidence(self) -> ImportanceEvidence:
        """Read everything off the sums."""
        k = self.num_particles
        log_sum = self._log_sum
        log_evidence = log_sum - math.log(k)
        # Σw²/(Σw)² lies in [1/K, 1] but for rounding; without any positive weight there is no sample at all.
        inverse_ess = (self._log_squares - 2 * log_sum).exp().clamp(1 / k, 1.0)
        ess = torch.where(log_sum.isneginf(), 0.0, 1 / inverse_ess)
        variance = (inverse_ess - 1 / k) * k / (k - 1) if k > 1 else torch.full_like(ess, math.nan)
        delta = torch.where(ess > 0, variance.clamp(min=0).sqrt(), math.nan)
        k_hat = pareto_k(self._tail, k)
        standard_error = delta * tail_factor(k_hat)
        elbo = self._blocks.moments[0]
        bound_k = [2**level for level in range(len(self._blocks.moments))]
        bound = [m.mean for m in self._blocks.moments]
        bound_error = [m.standard_error for m in self._blocks.moments]
        if bound_k[-1] != k:
            bound_k, bound, bound_error = [*bound_k, k], [*bound, log_evidence], [*bound_error, standard_error]
        return ImportanceEvidence(
            log_evidence=log_evidence,
            standard_error=standard_error,
            batch_standard_error=self._batch_standard_error(log_sum),
            jackknife=self._jackknife(log_sum),
            elbo=elbo.mean,
            elbo_standard_error=elbo.standard_error,
            ess=ess,
            gap_standard_error=self._gap_standard_error(variance, standard_error.square() - delta.square()),
            pareto_k=k_hat,
            num_particles=k,
            bound_k=torch.tensor(bound_k),
            bound=torch.stack(bound),
            bound_standard_error=torch.stack(bound_error),
            num_draws=torch.full(log_sum.shape, k),
            spread=elbo.standard_error * math.sqrt(k),
            rounding=torch.zeros_like(log_sum),
            missed=torch.full_like(log_sum, math.nan),
            confirmed=torch.zeros_like(log_sum, dtype=torch.bool),
        )

    def _gap_standard_error(self, variance: Tensor, of_tail: Tensor) -> Tensor:
        """Delta method for log w̄ − mean(log w), which come from the same draws; and the variance of a heavy tail."""
        elbo = self._blocks.moments[0]
        covariance = (self._tilted - elbo.mean) / max(self.num_particles - 1, 1)
        delta = (variance + elbo.standard_error.square() - 2 * covariance).clamp(min=0)
        return (delta + of_tail.nan_to_num(0.0)).sqrt()

    def _sizes(self) -> Tensor:
        return torch.tensor(self._edges, dtype=torch.float64).diff()[:, None]

    def _batch_standard_error(self, log_sum: Tensor) -> Tensor:
        """Spread of the batch means over their mean (delta method): sd(w̄_b / w̄) / √B."""
        batches = len(self._batch_sums)
        if batches < 2:
            return torch.full_like(log_sum, math.nan)
        relative = (self._batch_sums - log_sum).exp() * self.num_particles / self._sizes()
        return relative.std(0) / math.sqrt(batches)

    def _jackknife(self, log_sum: Tensor) -> Tensor:
        """B·L_K − Σ_b (1 − m_b/K)·L_{K without b}: removes the bias of order 1/K."""
        k, sizes, batches = self.num_particles, self._sizes(), len(self._batch_sums)
        if batches < 2:
            return torch.full_like(log_sum, math.nan)
        share = (self._batch_sums - log_sum).exp().clamp(max=1.0)
        left_out = torch.log1p(-share) + log_sum - torch.log(k - sizes)
        corrected = batches * (log_sum - math.log(k)) - ((1 - sizes / k) * left_out).sum(0)
        return torch.where(corrected.isfinite(), corrected, math.nan)  # one batch may hold all the weight


def evidence_of(log_w: Tensor, num_bounds: int | None = None) -> ImportanceEvidence:
    """The estimate from log weights ``(num_draws, num_data)``, with so many K-sample bounds."""
    running = Running(len(log_w), log_w.shape[1], num_bounds)
    running.add(log_w)
    return running.evidence()


def num_bounds_of(num_particles: int) -> int:
    """How many K-sample bounds, k = 1, 2, 4, …, have enough blocks of k weights."""
    return max(int(math.log2(num_particles / MIN_BLOCKS)), 0) + 1


def _tail_size(num_particles: int) -> int:
    """The Pareto fit reads the 3√K largest weights (at most a fifth of them) and one below as their threshold."""
    return min(math.ceil(min(num_particles / 5, 3 * math.sqrt(num_particles))) + 1, num_particles)


def tail_shape(log_w: Tensor) -> Tensor:
    """PSIS k̂ of ``(num_particles, num_data)`` log weights, ``(num_data,)``; see :func:`pareto_k`."""
    return pareto_k(log_w.topk(_tail_size(len(log_w)), dim=0).values, len(log_w))


def pareto_k(tail: Tensor, num_particles: int) -> Tensor:
    """PSIS k̂ from the largest log weights, ``(tail, num_data)`` → ``(num_data,)``.

    ArviZ fits the generalised Pareto. NaN where it has nothing to fit: fewer than 25 particles, or a tail with weights
    of zero. 0 where the largest weights are equal, as with an exact guide.
    """
    columns = tail.sort(0).values.T.contiguous().numpy()
    return torch.from_numpy(np.array([_pareto_k(column, num_particles) for column in columns], dtype=np.float64))


def _pareto_k(tail: np.ndarray, num_particles: int) -> float:
    from arviz_stats.base import array_stats

    if num_particles < 25 or not np.isfinite(tail).all():
        return math.nan
    if tail[-1] - tail[1] < 1e-8:  # the first is the threshold, which may be lower by a rounding
        return 0.0
    # What lies below the threshold does not enter the fit; ArviZ takes the number of draws from the length.
    log_w = np.full(num_particles, tail[0])
    log_w[-len(tail) :] = tail
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return float(array_stats.psislw(-log_w)[1])
