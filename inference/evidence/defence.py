"""Protection against a guide that misses modes: search for modes, draw from those that are found, and report them.

The search comes first and draws by itself, and what it finds fixes the proposal before a weighted draw is made. So
E[p̂(x)] = p(x) holds for any outcome of the search, and with it on the whole. Where nothing is found the estimator and
its random numbers are what they would be without a search.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ppvae.errors import PairError

from ..pair import Pair, has_continuum, own_randomness
from ..sampling import LEAST_BUDGET, Search, confirms, defensive_weights, effective, plan, search
from .estimates import ImportanceEvidence, Record, with_elbo
from .evidence import Evidence
from .streaming import evidence_of, num_bounds_of

# Evaluations of the search, as a share of those of the estimator.
SEARCH_SHARE = 0.15
# Where modes were found: the shares of the draws that come from the prior, and from these and wider distributions.
PRIOR_SHARE, PROPOSAL_SHARE = 0.1, 0.4
# A number of size s is rounded by about this many times s·eps in the course of a density.
ROUNDINGS = 4.0


def search_all(pair: Pair, budget: int, memory_mb: float) -> Search | None:
    """Search for modes that the guide misses, for all data, in bounded memory.

    The global generators are left as they were found.

    Args:
        pair: the pair on the data.
        budget: evaluations per datum.
        memory_mb: budget in MiB for one pass of the pair.

    Returns:
        What was found; None if the budget is too small, the latents have no density on a continuum, or the guide draws
        outside the support of the prior.
    """
    # Where nothing is found, the estimator draws what it would draw without a search.
    with own_randomness(), suppress(PairError):  # the guide draws outside the prior's support
        pieces = search_pieces(pair, budget, memory_mb)
        return _joined([search(pair.rows(units), budget, memory_mb) for units in pieces]) if pieces else None
    return None


def search_pieces(pair: Pair, budget: int, memory_mb: float) -> list[slice]:
    """Parts of the data for which a pass of the search fits the memory; none where there is no search.

    What a search finds of a datum are matrices, so that it should not be kept of all data.
    """
    if budget < LEAST_BUDGET or not pair.dim or not has_continuum(pair):
        return []
    return list(pair.pieces(plan(budget).draws_at_once(pair), memory_mb))


def _joined(found: list[Search]) -> Search:
    tensors: dict[str, Any] = {
        name: torch.cat([getattr(part, name) for part in found], -1) for name in Search._fields[1:-2]
    }
    return found[0]._replace(proposal=type(found[0].proposal).concatenate([f.proposal for f in found]), **tensors)


def defended(pair: Pair, found: Search, num_particles: int, memory_mb: float) -> ImportanceEvidence:
    """The estimate from draws of the guide, of the prior and of the modes that were found, together.

    Args:
        pair: the pair on the data for which something was found.
        found: what was found for them.
        num_particles: K, draws of all together.
        memory_mb: budget in MiB for one pass of the pair.

    Returns:
        The record; ELBO and K-sample bounds are read from the guide's draws among them.
    """
    parts = []
    for units in pair.pieces(num_particles, memory_mb):
        some, places = pair.rows(units), found.proposal_of(units)
        strata = defensive_weights(some, num_particles, memory_mb, PRIOR_SHARE, places, PROPOSAL_SHARE)
        own, whole = evidence_of(strata.guide, num_bounds_of(num_particles)), evidence_of(strata.mixed)
        parts.append(replace(_with_bounds_of(whole, own), confirmed=_confirmed(strata.prior, whole)))
    return ImportanceEvidence.concatenate(parts)


def _confirmed(log_w: Tensor, whole: Evidence) -> Tensor:
    log_evidence = torch.logsumexp(log_w, 0) - torch.tensor(float(len(log_w))).log()
    return confirms(log_evidence, effective(log_w), whole.log_evidence)


def _with_bounds_of(evidence: Record, draws: Evidence) -> Record:
    """The record with ELBO and K-sample bounds of other draws, all of them the guide's."""
    last = len(evidence.bound_k) - 1
    return replace(
        with_elbo(evidence, draws),
        bound=torch.cat([draws.bound[:last], evidence.log_evidence[None]]),
        bound_standard_error=torch.cat([draws.bound_standard_error[:last], evidence.standard_error[None]]),
    )


def with_search(evidence: Record, found: Search | None, pair: Pair) -> Record:
    """The record with what a search found, and with the rounding of the pair's numbers."""
    sizes = evidence.log_evidence.abs()
    if found is not None:
        sizes = sizes + found.sizes
        evidence = replace(evidence, missed=found.missed(evidence.log_evidence, ~found.in_modes))
    return replace(evidence, rounding=rounding_of(sizes, pair))


def rounding_of(sizes: Tensor, pair: Pair) -> Tensor:
    """By how much densities of these sizes may be rounded in the data's floating-point type, in nats."""
    kinds = [part.dtype for part in pair.batch if isinstance(part, Tensor) and part.is_floating_point()]
    eps = max(torch.finfo(kind).eps for kind in kinds or [torch.get_default_dtype()])
    return (ROUNDINGS * eps * sizes).nan_to_num(0.0, 0.0, 0.0)
