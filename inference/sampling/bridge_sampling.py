"""log p(x) and the distance of two densities from draws of both: bridge sampling.

With ℓ(u) = log p(x, u) − log q(u|x), n_q draws of q and n_p of p(u|x), worth n'_p independent ones, the estimate
c = log p̂(x) solves

    (1/s_p) E_q[σ(a)] = (1/s_q) E_p[σ(−a)],      a = ℓ − c + log(s_p/s_q),      s_q/s_p = n_q/n'_p,

σ the logistic function: left falls and right rises with c, and no weight is unbounded. Importance sampling sees what q
covers, and is off by log 2 where q misses half of the posterior; the bridge also sees what q does not cover. From the
same draws

    KL(q‖p) = c − E_q[ℓ],      KL(p‖q) = E_p[ℓ] − c,
    TV = ½ ∫ |p − q| = E_q[(1 − e^(ℓ−c))₊] = E_p[(1 − e^(c−ℓ))₊],      the mean of both.

Errors are those of the means of each draw's influence, in which c counts as φ_q − φ_p with φ_q = σ(a)/E_q[σ(a)] − 1
and φ_p = σ(−a)/E_p[σ(−a)] − 1 (an error of c inside σ is of second order); correlated draws count by their effective
number.

References:
    Simulating ratios of normalizing constants via a simple identity (Meng & Wong, 1996), Statistica Sinica 6.
    Efficient estimation of free energy differences from Monte Carlo data (Bennett, 1976), J. Computational Physics 22.
    A tutorial on bridge sampling (Gronau et al., 2017), arXiv:1703.05984.
"""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# Halvings of an interval for c: to the last digit for any that is finite.
BISECTIONS = 80


class BridgeEstimate(NamedTuple):
    """What draws of q and of p say together, each ``(num_data,)``, in nats but for the total variation.

    Attributes:
        log_evidence: log p(x).
        log_evidence_standard_error: of it.
        kl_guide: KL(q‖p), the gap of the ELBO.
        kl_guide_standard_error: of it.
        kl_posterior: KL(p‖q); infinite where q excludes what p does not.
        kl_posterior_standard_error: of it.
        total_variation: the largest difference of the two probabilities of any event, in [0, 1].
        total_variation_standard_error: of it.
    """

    log_evidence: Tensor
    log_evidence_standard_error: Tensor
    kl_guide: Tensor
    kl_guide_standard_error: Tensor
    kl_posterior: Tensor
    kl_posterior_standard_error: Tensor
    total_variation: Tensor
    total_variation_standard_error: Tensor


def bridge(of_guide: Tensor, of_posterior: Tensor) -> BridgeEstimate:
    """Estimate from ℓ = log p(x, u) − log q(u|x).

    Args:
        of_guide: at independent draws of q, ``(num_draws, num_data)``.
        of_posterior: at draws of Markov chains for p(u|x), ``(num_chains, num_draws, num_data)``.

    Example:
        p(x, u) = e N(u; 0, 1) and q = N(1, 1), so that log p(x) = 1, both divergences are ½ and TV is 0.383:

        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> p, q = torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(1.0, 1.0)
        >>> at_q, at_p = (1 + p.log_prob(u) - q.log_prob(u) for u in (q.sample((4000, 1)), p.sample((4, 1000, 1))))
        >>> found = bridge(at_q.double(), at_p.double())
        >>> [round(float(v), 1) for v in (found.log_evidence, found.kl_guide, found.kl_posterior)]
        [1.0, 0.5, 0.5]
        >>> abs(float(found.total_variation) - 0.383) < 0.02
        True
    """
    worth = effective_draws(of_posterior)
    log_ratio = worth.log() - math.log(len(of_guide))  # log s_p/s_q
    p, q = of_posterior, of_guide
    c = _root(q, p.flatten(0, 1), log_ratio)
    at_q, at_p = (q - c + log_ratio).sigmoid(), (-(p - c + log_ratio)).sigmoid()
    phi_q, phi_p = at_q / at_q.mean(0) - 1, at_p / at_p.mean((0, 1)) - 1
    low, high = (1 - (q - c).exp()).clamp(min=0), (1 - (c - p).exp()).clamp(min=0)
    slope = ((1 - low) * (low > 0)).mean(0) / 2 - ((1 - high) * (high > 0)).mean((0, 1)) / 2  # of TV in c
    return BridgeEstimate(
        log_evidence=c,
        log_evidence_standard_error=_error(phi_q, -phi_p),
        kl_guide=c - q.mean(0),
        kl_guide_standard_error=_error(phi_q - q, -phi_p),
        kl_posterior=p.mean((0, 1)) - c,
        kl_posterior_standard_error=_error(-phi_q, p + phi_p),
        total_variation=(low.mean(0) + high.mean((0, 1))) / 2,
        total_variation_standard_error=_error(low / 2 + slope * phi_q, high / 2 - slope * phi_p),
    )


def effective_draws(values: Tensor, method: str = "mean") -> Tensor:
    """How many independent draws those of chains are worth for a mean or an ``"sd"``: ``(C, D, ...)`` → ``(...)``.

    Never more than there are, and at least 1; values that do not vary count in full.
    """
    from arviz_stats.base import array_stats

    total = values.shape[0] * values.shape[1]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = array_stats.ess(values.double().numpy(), chain_axis=0, draw_axis=1, method=method)
    return torch.as_tensor(np.asarray(found)).nan_to_num(1.0).clamp(1.0, total)


def _root(q: Tensor, p: Tensor, log_ratio: Tensor) -> Tensor:
    """The c at which both sides of the equation agree, between the least and the largest finite ℓ."""
    both = torch.cat([q, p])
    finite = both.isfinite()
    low = torch.where(finite, both, math.inf).amin(0) - 1
    high = torch.where(finite, both, -math.inf).amax(0) + 1
    for _ in range(BISECTIONS):
        c = (low + high) / 2
        left = (q - c + log_ratio).sigmoid().mean(0).log() - log_ratio
        right = (-(p - c + log_ratio)).sigmoid().mean(0).log()
        low, high = torch.where(left > right, c, low), torch.where(left > right, high, c)
    return (low + high) / 2


def _error(of_guide: Tensor, of_posterior: Tensor) -> Tensor:
    """Standard error of the sum of the two means."""
    variance = of_posterior.flatten(0, 1).var(0) / effective_draws(of_posterior)
    return (of_guide.var(0) / len(of_guide) + variance).sqrt()
