"""Bounds on log p(x) that hold with a stated probability, read off weights whose mean is p(x).

Nothing is asked of the weights but E[w] = p(x); there is no appeal to large numbers. Markov's inequality says of any
p̂ ≥ 0 with E[p̂] = p that P(log p̂ ≥ log p + log 1/α) ≤ α, and of any p̃ > 0 with E[1/p̃] ≤ 1/p that
P(log p̃ ≤ log p − log 1/α) ≤ α.

**From below.** K weights in R groups give R independent p̂_r, the means of their groups. The mean of their product is
p^R, so that with probability at least 1 − α

    log p(x) ≥ (1/R) Σ_r log p̂_r − (1/R) log 1/α.

More groups make the margin smaller and the logarithms of smaller groups lower; R is chosen on other draws.

**From above**, when x was drawn from the model together with z*, which is then an exact draw of p(z|x). A weight w*
that comes *from* z* (the importance weight at z*, or the weight of an annealed chain that runs back from it) is put
beside K ordinary ones:

    p̃ = (w* + Σ_k w_k) / (K + 1).

Such K + 1 weights, in random order, have the density p̃/p against K + 1 ordinary ones, so that E[1/p̃] = 1/p and
E[log p̃] ≥ log p.

**For the mean over N data** the products run over the data too, which are independent given x:

    (1/N) Σ_n log p(x_n) ≥ (1/N) Σ_n (1/R) Σ_r log p̂_nr − log(1/α) / NR,
    (1/N) Σ_n log p(x_n) ≤ (1/N) Σ_n log p̃_n            + log(1/α) / N.

References:
    Sandwiching the marginal likelihood using bidirectional Monte Carlo (Grosse, Ghahramani & Adams, 2015),
    arXiv:1511.02543: the two sides, and Markov's inequality for the lower.
    On the Quantitative Analysis of Decoder-Based Generative Models (Wu et al., 2017), arXiv:1611.04273.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Sandwich(NamedTuple):
    """Bounds of log p(x) from weights, each ``(num_data,)`` and without the margins, in nats.

    Attributes:
        estimate: log p̂ of all weights.
        standard_error: of ``estimate``, by the delta method.
        below: (1/R) Σ_r log p̂_r with the groups for a single datum.
        below_mean: the same with the groups for the mean over the data.
        above: log p̃; +inf without an exact draw.
    """

    estimate: Tensor
    standard_error: Tensor
    below: Tensor
    below_mean: Tensor
    above: Tensor

    @property
    def shortfall(self) -> Tensor:
        """log p̃ − log p̂; its mean is at least that of log p(x) − log p̂."""
        return self.above - self.estimate


class Groups(NamedTuple):
    """Into how many groups weights are split, R: for the bound of one datum, and for that of the mean over the data."""

    single: int
    mean: int


def margin(risk: float, count: int = 1) -> float:
    """log(1/α)/count, in nats: what Markov's inequality costs where ``count`` estimates are multiplied."""
    return -math.log(risk) / count


def below(log_w: Tensor, num_groups: int) -> Tensor:
    """(1/R) Σ_r log p̂_r of ``(num_chains, num_data)`` log weights, ``(num_data,)``.

    What is not a weight (NaN, or an overflow) counts as none: the bound may only fall.
    """
    sound = torch.where(log_w < math.inf, log_w, -math.inf)
    groups = [torch.logsumexp(group, 0) - math.log(len(group)) for group in sound.tensor_split(num_groups)]
    return torch.stack(groups).mean(0)


def above(log_w: Tensor, log_w_exact: Tensor) -> Tensor:
    """log p̃ of ``(num_chains, num_data)`` log weights and those from exact draws, ``(num_data,)``.

    What is not a weight counts as +inf: the bound may only rise.
    """
    together = torch.cat((log_w, log_w_exact[None])).nan_to_num(math.inf, math.inf, -math.inf)
    return torch.logsumexp(together, 0) - math.log(len(together))


def best_groups(log_w: Tensor, risk: float, num_data: int) -> Groups:
    """The numbers of groups, powers of two, with which a pilot's bounds from below are highest.

    Args:
        log_w: of the pilot, ``(num_chains, num_pilot_data)``.
        risk: α.
        num_data: of how many data the mean is to be bounded.
    """
    candidates = [2**level for level in range(int(math.log2(len(log_w))) + 1)]
    heights = [float(below(log_w, r).mean()) for r in candidates]

    def best(together: int) -> int:
        bounds = [h - margin(risk, r * together) for h, r in zip(heights, candidates, strict=True)]
        return candidates[bounds.index(max(bounds))]

    return Groups(best(1), best(num_data))


def sandwich(log_w: Tensor, log_w_exact: Tensor | None, groups: Groups) -> Sandwich:
    """Read the two sides off the weights of some data.

    Args:
        log_w: ordinary log weights, ``(num_chains, num_data)``, independent given x.
        log_w_exact: those from exact posterior draws, ``(num_data,)``, or None.
        groups: chosen without a look at these weights.

    Example:
        For z ~ N(0, 1), x ~ N(z, 1) and draws of the prior, at data with their own z:

        >>> import torch
        >>> from torch.distributions import Normal
        >>> _ = torch.manual_seed(0)
        >>> z = torch.randn(1000)
        >>> x = z + torch.randn(1000)
        >>> sides = sandwich(Normal(torch.randn(50, 1000), 1).log_prob(x), Normal(z, 1).log_prob(x), Groups(1, 4))
        >>> truth = Normal(0, 2**0.5).log_prob(x).mean()
        >>> bool(sides.below_mean.mean() < sides.estimate.mean() < truth < sides.above.mean())
        True
    """
    estimate, count = below(log_w, 1), len(log_w)
    square = torch.where(log_w < math.inf, (log_w - estimate).exp(), 0.0).nan_to_num(0.0).square().sum(0)
    error = ((square / count - 1).clamp(min=0) / max(count - 1, 1)).sqrt()
    nothing = torch.full_like(estimate, math.inf)
    return Sandwich(
        estimate,
        torch.where(estimate.isfinite() & torch.tensor(count > 1), error, math.nan),
        below(log_w, groups.single),
        below(log_w, groups.mean),
        nothing if log_w_exact is None else above(log_w, log_w_exact),
    )


def concatenate(parts: list[Sandwich]) -> Sandwich:
    """One record for the data of several, in order."""
    return Sandwich(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
