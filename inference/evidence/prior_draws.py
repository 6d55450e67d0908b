"""A check by draws of the prior of guides whose latents have no density on a continuum, where no search finds modes.

A guide that never draws a class leaves no trace in its weights, which may all be equal. With z_k ~ p(z),

    log p̂(x) = log (1/K) Σ_k p(x|z_k)

has no such gap. Where the effective number of these draws is large enough to have an error, and they find more than the
guide's draws do by more than three standard errors, their estimate takes the place of the guide's and what the guide
misses is told. Where they agree, the guide misses nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from ppvae.errors import PairError

from ..pair import Pair, has_continuum, own_randomness
from ..sampling import LEAST_BUDGET, confirms, effective
from .evidence import Evidence
from .ledger import READINGS
from .streaming import evidence_of

# Effective draws of the prior below which their standard error means nothing.
LEAST_EFFECTIVE = 10.0
# By how many standard errors the prior's draws must find more.
SURE = 3.0

Record = TypeVar("Record", bound=Evidence)


def held_to_prior(evidence: Record, pair: Pair, num_draws: int, memory_mb: float) -> Record:
    """The record, with the estimate by draws of the prior where these find more.

    A pair whose modes can be searched for, whose prior is unnormalised, or cannot be drawn from, is left as it is. The
    global generators are left as they were found.

    Args:
        evidence: what draws of the guide say.
        pair: the pair on the data.
        num_draws: of the prior, for each datum.
        memory_mb: budget in MiB for one pass of the pair.
    """
    if num_draws < LEAST_BUDGET or not pair.sites or pair.structure.unnormalised or has_continuum(pair):
        return evidence
    try:
        with own_randomness(), torch.no_grad():
            log_w = _log_weights(pair, num_draws, memory_mb)
    except PairError:  # the prior cannot be drawn from
        return evidence
    return _joined(evidence, evidence_of(log_w), effective(log_w))


def _log_weights(pair: Pair, num_draws: int, memory_mb: float) -> Tensor:
    """log p(x|z) of draws of the prior, ``(num_draws, num_units)``, on the CPU."""
    out = torch.empty(num_draws, pair.num_units, dtype=torch.float64)
    for units, draws in pair.chunks(num_draws, memory_mb):
        some, count = pair.rows(units), draws.stop - draws.start
        out[draws, units] = some.densities(some.prior_values(count), count).log_likelihood.cpu()
    return out


def _joined(evidence: Record, by_prior: Evidence, ess: Tensor) -> Record:
    error = (1 / ess.clamp(min=1.0) + evidence.standard_error.square().nan_to_num(0.0)).sqrt()
    more = (ess >= LEAST_EFFECTIVE) & ~(by_prior.log_evidence - evidence.log_evidence <= SURE * error)
    share = 1 - (evidence.log_evidence - by_prior.log_evidence).exp()
    agrees = confirms(by_prior.log_evidence, ess, evidence.log_evidence)
    missed = torch.where(more, share, torch.where(agrees, 0.0, evidence.missed))
    readings: dict[str, Any] = {
        name: torch.where(more, getattr(by_prior, name), getattr(evidence, name)) for name in READINGS
    }
    gap_error = (readings["standard_error"].square() + evidence.elbo_standard_error.square()).sqrt()
    return replace(
        evidence,
        **readings,
        missed=missed,
        gap_standard_error=torch.where(more, gap_error, evidence.gap_standard_error),
        bound=torch.cat([evidence.bound[:-1], readings["log_evidence"][None]]),
        bound_standard_error=torch.cat([evidence.bound_standard_error[:-1], readings["standard_error"][None]]),
        confirmed=evidence.confirmed | (agrees & ~more),
    )
