"""log p(x) of every datum to within a tolerance, at the least cost.

A datum is *settled* when its 95 % interval (:meth:`~ppvae.inference.Evidence.interval`) lies within ± tolerance of its
estimate. The interval counts the tail of the weights and the bias of the logarithm, not the standard error alone. A
search looks for modes that the guide misses (:mod:`ppvae.inference.sampling.mode_search`); then three estimators are
tried, the cheap ones first, each for the data that are still open:

0. **importance sampling** from the guide, where its weights have a variance (k̂ < ½) and the mixture does not contradict
   it;
1. the **defensive mixture** of guide, prior and what the search found (:mod:`ppvae.inference.sampling.defensive`), of
   which the draws above are a part;
2. **annealing**, from the normal distribution nearest to the posterior
   (:mod:`ppvae.inference.evidence.preconditioned`), several times shorter a way than from the guide; or from guide and
   modes, where the guide misses some.

Draws come in rounds (:mod:`ppvae.inference.evidence.rounds`), and no round is kept because it came out well. Where the
guide's scales follow other latents, all this is done in the guide's coordinates
(:func:`~ppvae.inference.pair.in_guide_coordinates`).

The price of a datum is counted in *evaluations* of the pair's density: a draw with its weight is one, a gradient two.

References:
    Annealed importance sampling (Neal, 2001), arXiv:physics/9803008.
    Pareto Smoothed Importance Sampling (Vehtari et al., 2024), arXiv:1507.02646.
    A Two-Sample Test for a Linear Hypothesis Whose Power is Independent of the Variance (Stein, 1945), Annals of
    Mathematical Statistics 16: the size of a sample from the spread of the one before.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor

from ppvae.errors import PairError
from ppvae.progress import Progress

from ..options import flag_or, positive_number, valid_compute, whole_number
from ..pair import (
    Batch,
    Compile,
    Pair,
    Program,
    as_batch,
    finite_batch,
    has_continuum,
    in_guide_coordinates,
    seeded,
    where_parameters_are,
    why_slow,
)
from ..sampling import (
    PILOT_CHAINS,
    confirms,
    defensive_weights,
    effective,
)
from .defence import rounding_of, search_all
from .estimates import NOTHING, AdaptiveEvidence
from .evidence import Evidence
from .importance import by_guide
from .ledger import Goal, Ledger
from .preconditioned import FEWEST_FOR_CHAINS, anneal
from .prior_draws import held_to_prior
from .rounds import FEW, MOST_DRAWS, Sample, draw_rounds
from .streaming import evidence_of, num_bounds_of

LEAST_BUDGET = 100
# Data that are settled together, at most: progress is told after each such piece.
PIECE = 100
# Evaluations of the search, and the share of the budget that they may be.
SEARCH, SEARCH_SHARE = 500, 0.25
# The share of the draws that comes from modes that the search found.
PROPOSAL_SHARE = 0.4
# The rate at which draws contradict chains of some datum of a piece though these are right.
FALSE_ALARM = 3e-3


def estimate_evidence(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    *,
    tolerance: float = 0.1,
    budget: int = 200_000,
    compile: Compile = "auto",
    seed: int | None = None,
    memory_mb: float = 64.0,
    progress: bool = False,
) -> AdaptiveEvidence:
    """Estimate log p(x) of every datum to within a tolerance.

    Args:
        model: ``model(x, *context)``, the generative program.
        guide: ``guide(x, *context)``.
        x: data, first dimension ``num_data``; or a tuple ``(x, *context)``.
        tolerance: half the width that the 95 % interval of a datum may have, in nats.
        budget: the most evaluations of the pair per datum; a draw with its weight is one, a gradient two. At least
            100; from about 15 000 on it allows for annealing.
        compile: whether log densities and their gradients are compiled, as in
            :func:`~ppvae.inference.annealed_evidence`; ``"auto"`` judges by what the first data cost.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.
        memory_mb: budget in MiB for one pass of the pair.
        progress: show a progress bar with the time that remains.

    Returns:
        AdaptiveEvidence: tensors of shape ``(num_data,)``, in nats; also what settled each datum, and its cost.

    Raises:
        OptionError: an option has a value that cannot be used.
        DataError: ``x`` is not a tensor of at least one datum, or it holds NaN or infinite values.
        PairError: the pair breaks the contract.

    Example:
        >>> import torch
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair = LinearGaussian(num_features=3, latent_dim=2)
        >>> x = torch.randn(4, 3)
        >>> evidence = estimate_evidence(pair.model, pair.guide, x, tolerance=0.1, seed=0)
        >>> bool(((evidence.log_evidence - pair.log_evidence(x)).abs() < 0.1).all())
        True
    """
    seed, memory_mb, progress = valid_compute(seed, memory_mb, progress)
    goal = Goal(
        positive_number("tolerance", tolerance, "nats"),
        whole_number("budget", budget, LEAST_BUDGET, "evaluations per datum"),
        memory_mb,
    )
    compile = flag_or("auto", "compile", compile)
    batch = where_parameters_are(model, guide, finite_batch(as_batch(x)))
    with (
        seeded(seed),
        Pair.on(model, guide, batch) as pair,
        Progress("log p(x)", pair.num_units, "data", progress, why_slow(pair)) as bar,
    ):
        pair = in_guide_coordinates(pair)
        pair.evaluations.compile(compile, pair, 0, 0)
        return _with_rounding(_settled(pair, goal, bar, compile), pair, goal)


def _settled(pair: Pair, goal: Goal, bar: Progress, compile: Compile) -> AdaptiveEvidence:
    """Settle all data; by draws of the guide alone where chains are not for the pair."""
    if has_continuum(pair):
        with suppress(PairError):  # the guide draws outside the support of the prior
            found: list[AdaptiveEvidence] = []
            done = 0
            for piece in _pieces(pair, goal.memory_mb):
                found.append(_settle(piece, goal, bar))
                done += piece.num_units
                pair.evaluations.compile_for_rest(compile, pair, done / pair.num_units)
            return AdaptiveEvidence.concatenate(found)
    return _by_importance(pair, goal)


def _pieces(pair: Pair, memory_mb: float) -> list[Pair]:
    """Parts of the data whose pilot chains fit the memory together."""
    most = PIECE if pair.divisible else pair.num_units
    return [
        pair.rows(slice(at, min(at + most, units.stop)))
        for units in pair.pieces(PILOT_CHAINS, memory_mb)
        for at in range(units.start, units.stop, most)
    ]


def _settle(pair: Pair, goal: Goal, bar: Progress) -> AdaptiveEvidence:
    """Settle the data of one piece, or spend their budget."""
    found = search_all(pair, min(SEARCH, int(SEARCH_SHARE * goal.budget)), goal.memory_mb)
    found_more = torch.zeros(pair.num_units, dtype=torch.bool) if found is None else found.found

    def sample(index: Tensor, num_draws: int, prior_share: float) -> Sample:
        proposal = found.proposal_of(index) if found is not None and bool(found_more[index].any()) else None
        others = min(PROPOSAL_SHARE, (1 - prior_share) / 2)
        strata = defensive_weights(pair.rows(index), num_draws, goal.memory_mb, prior_share, proposal, others)
        mixed = evidence_of(strata.mixed)
        by_prior = torch.logsumexp(strata.prior, 0) - math.log(len(strata.prior))
        own = evidence_of(strata.guide, num_bounds_of(num_draws))
        confirmed = confirms(by_prior, effective(strata.prior), mixed.log_evidence)
        return Sample(own, mixed, confirmed, strata.heaviest)

    chains = pair.dim > 0 and goal.budget >= 2 * FEWEST_FOR_CHAINS
    ledger, mixed = draw_rounds(sample, pair.num_units, goal, MOST_DRAWS, found, chains=chains)
    ledger.annealable[:] = True
    index = ((ledger.settled_by == NOTHING) & ledger.log_evidence.isfinite()).nonzero()[:, 0]
    bar.advance(pair.num_units - len(index))
    in_modes = torch.zeros_like(found_more) if found is None else found.in_modes
    for modes in (False, True):
        some = index[in_modes[index] == modes]
        if len(some) and pair.dim:
            proposal = found.proposal_of(some) if found is not None and modes else None
            anneal(pair.rows(some), some, ledger, goal, proposal)
    _contradict(ledger, mixed)
    bar.advance(len(index))
    evidence = ledger.evidence()
    if found is None:
        return evidence
    return replace(evidence, missed=found.missed(evidence.log_evidence), rounding=found.sizes)


def _by_importance(pair: Pair, goal: Goal) -> AdaptiveEvidence:
    """Settle the data with draws of the guide alone."""

    def sample(index: Tensor, num_draws: int, prior_share: float) -> Sample:
        found = by_guide(pair.rows(index), num_draws, goal.memory_mb)
        return Sample(found, found, torch.zeros(len(index), dtype=torch.bool), None)

    num_prior = min(SEARCH, int(SEARCH_SHARE * goal.budget))
    ledger, _ = draw_rounds(sample, pair.num_units, goal, goal.budget - num_prior)
    return held_to_prior(ledger.evidence(), pair, num_prior, goal.memory_mb)


def _contradict(ledger: Ledger, mixed: Evidence) -> None:
    """Where draws of the mixture found more than the chains did, return to the draws."""
    alarm = FALSE_ALARM / len(mixed.log_evidence)  # of one datum
    markov = mixed.log_evidence + math.log(alarm)  # P(p̂ ≥ p/δ) ≤ δ, whatever the tail
    low = torch.where(mixed.ess > FEW, mixed.interval(1 - alarm)[0], markov)
    chains = ledger.evidence()
    high = chains.interval(0.95)[1]
    # Chains without an upper end are no better than their estimate.
    high = high.where(high.isfinite(), chains.log_evidence + 2 * chains.standard_error)
    contradicted = (ledger.num_distributions > 0) & (low > high)
    ledger.enter(contradicted.nonzero()[:, 0], mixed, contradicted)
    ledger.settled_by[contradicted] = NOTHING
    ledger.contradicted[contradicted] = True


def _with_rounding(evidence: AdaptiveEvidence, pair: Pair, goal: Goal) -> AdaptiveEvidence:
    """The record with the rounding of the pair's numbers; data whose rounding exceeds the tolerance are not settled."""
    rounding = rounding_of(evidence.log_evidence.abs() + evidence.rounding, pair)
    coarse = rounding > goal.tolerance / 2
    return replace(
        evidence,
        rounding=rounding,
        notes=(*pair.remarks, *pair.evaluations.remarks),
        settled_by=evidence.settled_by.where(~coarse, NOTHING),
        too_coarse=coarse,
    )
