"""log p(x) of every datum to within a tolerance, at the least cost.

A datum is *settled* when its 95 % interval (:meth:`~ppvae.inference.Evidence.interval`) lies within ± tolerance of its
estimate. The interval counts the tail of the weights and the bias of the logarithm, not the standard error alone. Three
estimators are tried, the cheap ones first, each for the data that are still open:

0. **importance sampling** from the guide, where its weights have a light tail (k̂ < 0.7) and draws of the prior do not
   contradict it;
1. the **defensive mixture** of guide and prior (:mod:`ppvae.inference.defensive`), of which the draws above are a part;
2. **annealing** from the normal distribution nearest to the posterior
   (:mod:`ppvae.inference.fitted`), several times shorter a way than from the guide.

Every round decides by its interval whether it is the last; if not, its error says how many draws the next round needs,
n·(half width/tolerance)², and that round starts afresh, so that no estimate is kept because it came out well early.

The price of a datum is counted in *evaluations* of the pair's density: a draw with its weight is one, a gradient two.

What no estimator can see: a part of the posterior that the guide misses, to which no chain from the guide finds the
way, and that no draw of the prior meets; in many dimensions that is any second mode far from the guide.

References:
    Annealed importance sampling (Neal, 2001), arXiv:physics/9803008.
    Pareto Smoothed Importance Sampling (Vehtari et al., 2024), arXiv:1507.02646.
    A Two-Sample Test for a Linear Hypothesis Whose Power is Independent of the Variance (Stein, 1945), Annals of
    Mathematical Statistics 16: the size of a sample from the spread of the one before.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor

from ppvae.errors import OptionError, PairError
from ppvae.progress import Progress

from .ais import pieces
from .defensive import LARGE_PRIOR_SHARE, PRIOR_SHARE, defensive_weights
from .density import Density, density_of
from .evidence import Evidence
from .fitted import FIRST_CHAINS, anneal
from .importance import finite_batch, importance_evidence
from .ledger import IMPORTANCE, MIXTURE, NOTHING, Goal, Ledger, half_width, record, wanted
from .parameters import where_parameters_are
from .traces import Batch, Program, as_batch, rows, seeded

LEAST_BUDGET = 100
# Draws of the first round, and the most that a round may have where chains can take over.
FIRST_DRAWS, MOST_DRAWS = 1000, 16_000
# Draws of the prior contradict an estimate at this confidence.
CONTRADICTION = 0.997
# Effective draws below which their standard error means nothing.
FEW = 10
# Data, number of draws, share of the prior ↦ what the draws say as draws of the guide, and of the mixture.
Sample = Callable[[Tensor, int, float], tuple[Evidence, Evidence]]


def estimate_evidence(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    *,
    tolerance: float = 0.1,
    budget: int = 200_000,
    seed: int | None = None,
    memory_mb: float = 64.0,
    progress: bool = False,
) -> Evidence:
    """Estimate log p(x) of every datum to within a tolerance.

    Args:
        model: ``model(x, *context)``, the generative program.
        guide: ``guide(x, *context)``.
        x: data, first dimension ``num_data``; or a tuple ``(x, *context)``.
        tolerance: half the width that the 95 % interval of a datum may have, in nats.
        budget: the most evaluations of the pair per datum; a draw with its weight is one, a gradient two. At least
            100; from about 15 000 on it allows for annealing.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.
        memory_mb: budget in MiB for one pass of the pair.
        progress: show a progress bar with the time that remains.

    Returns:
        Evidence: tensors of shape ``(num_data,)``, in nats. ``details`` holds ``settled_by`` (0 importance sampling,
        1 defensive mixture, 2 annealing, 3 nothing: the budget is spent, or see ``remarks()``), ``cost`` in
        evaluations, ``num_distributions`` (0 where ``log_evidence`` comes from draws), ``num_draws`` (draws or chains
        that it is the mean of), ``spread`` of their log weights in nats; and as flags ``annealable`` (whether chains
        could have been used), ``torn`` (the prior found what the chains missed) and ``rounded`` (the pair's precision
        is coarser than the tolerance).

    Raises:
        OptionError: ``tolerance``, ``budget`` or ``memory_mb`` is too small.
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
    batch = finite_batch(as_batch(x))
    if not tolerance > 0:
        raise OptionError(f"tolerance must be a positive number of nats; it is {tolerance}.")
    if isinstance(budget, bool) or not budget >= LEAST_BUDGET:
        raise OptionError(f"budget must be at least {LEAST_BUDGET} evaluations per datum; it is {budget}.")
    batch = where_parameters_are(model, guide, batch)
    goal = Goal(tolerance, int(budget), memory_mb)
    with seeded(seed), Progress("log p(x)", len(batch[0]), "data", progress) as bar:
        with suppress(PairError), density_of(model, guide, batch, start="prior") as density:
            data = pieces(density, FIRST_CHAINS, memory_mb)
            return Evidence.concatenate([_settle(density.rows(d), goal, bar) for d in data])
        # Chains are not for this pair; if draws are not either, they say why.
        return _by_importance(model, guide, batch, goal)


def _settle(density: Density, goal: Goal, bar: Progress) -> Evidence:
    """Settle the data of one piece, or spend their budget."""

    def sample(index: Tensor, num_draws: int, prior_share: float) -> tuple[Evidence, Evidence]:
        log_w, own = defensive_weights(density.rows(index), num_draws, goal.memory_mb, prior_share)
        return record(own), record(log_w)

    ledger, mixed = _draw(sample, density.num_data, goal, MOST_DRAWS)
    ledger.details["annealable"][:] = True
    index = ((ledger.settled_by == NOTHING) & ledger.evidence().log_evidence.isfinite()).nonzero()[:, 0]
    bar.advance(density.num_data - len(index))
    if len(index) and density.dim:
        anneal(density.rows(index), index, ledger, goal)
        _heed_the_prior(ledger, mixed)
    _mind_rounding(ledger, density.draw("prior", 1).dtype, goal)
    bar.advance(len(index))
    return ledger.evidence()


def _by_importance(model: Program, guide: Program, batch: Batch, goal: Goal) -> Evidence:
    """Settle the data with draws of the guide alone."""

    def sample(index: Tensor, num_draws: int, prior_share: float) -> tuple[Evidence, Evidence]:
        found = importance_evidence(model, guide, rows(batch, index), num_draws, memory_mb=goal.memory_mb)
        return found, found

    ledger, _ = _draw(sample, len(batch[0]), goal, goal.budget)
    return ledger.evidence()


def _draw(sample: Sample, num_data: int, goal: Goal, most: int) -> tuple[Ledger, Evidence]:
    """Rounds of draws; also what the last round of each datum says by the mixture.

    Args:
        sample: data, number of draws, share of the prior ↦ what the draws say as draws of the guide and of the mixture.
        num_data: how many data there are.
        goal: what is asked for.
        most: draws that a round may have.
    """
    index, count = torch.arange(num_data), min(FIRST_DRAWS, goal.budget)
    own, mixed = sample(index, count, PRIOR_SHARE)
    ledger, last = Ledger(own, goal), Ledger(mixed, goal)
    parts = [(index, count, own, mixed)]
    while parts:
        plan = torch.zeros(num_data, 2, dtype=torch.float64)  # draws of the next round, and the prior's share of them
        for index, count, own, mixed in parts:
            ledger.cost[index] += count
            by, needed, share = _judge(own, mixed, goal.tolerance)
            ledger.settled_by[index] = by
            alone = (by == IMPORTANCE) | ((by == NOTHING) & (half_width(own) < half_width(mixed)))
            ledger.enter(index, mixed)
            ledger.enter(index[alone], own, alone)
            last.enter(index, mixed)
            more = (by == NOTHING) & (needed <= most) & (needed <= ledger.left(index)) & mixed.log_evidence.isfinite()
            plan[index] = torch.where(more[:, None], torch.stack([needed, share], 1), 0.0)
        rounds = [(count, share) for count, share in plan.unique(dim=0).tolist() if count > 0]
        groups = [((plan == torch.tensor(r, dtype=plan.dtype)).all(1).nonzero()[:, 0], *r) for r in rounds]
        parts = [(index, int(count), *sample(index, int(count), share)) for index, count, share in groups]
    return ledger, last.evidence()


def _judge(own: Evidence, mixed: Evidence, tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
    """By what each datum is settled; if by nothing, how many draws it needs, and the prior's share of them."""
    missed = ~(mixed.log_evidence - own.log_evidence <= tolerance)
    by = torch.full_like(own.log_evidence, NOTHING, dtype=torch.long)
    by[half_width(mixed) <= tolerance] = MIXTURE
    by[(half_width(own) <= tolerance) & ~missed] = IMPORTANCE
    by_own = mixed.num_draws / own.num_draws * wanted(own, tolerance)
    needed = torch.minimum(torch.where(missed, math.inf, by_own), wanted(mixed, tolerance))
    # Where the prior finds what the guide misses, few of its draws carry much weight: more of them, whatever k̂ says.
    found = missed & (mixed.ess > FEW)
    needed = torch.where(found, needed.clamp(max=4 * mixed.num_draws), needed)
    share = torch.where(missed, LARGE_PRIOR_SHARE, PRIOR_SHARE).double()
    return by, torch.maximum(needed, 2 * mixed.num_draws).round(), share


def _heed_the_prior(ledger: Ledger, mixed: Evidence) -> None:
    """Where draws of the prior found more than the chains did, return to the draws."""
    markov = mixed.log_evidence + math.log(1 - CONTRADICTION)  # P(p̂ ≥ p/δ) ≤ δ, whatever the tail
    low = torch.where(mixed.ess > FEW, mixed.interval(CONTRADICTION)[0], markov)
    high = ledger.evidence().interval(0.95)[1]
    torn = (ledger.details["num_distributions"] > 0) & (low > high)
    ledger.enter(torn.nonzero()[:, 0], mixed, torn)
    ledger.settled_by[torn] = NOTHING
    ledger.details["torn"][torn] = True


def _mind_rounding(ledger: Ledger, dtype: torch.dtype, goal: Goal) -> None:
    """Data whose density is not even computed to within the tolerance are not settled."""
    rounding = torch.finfo(dtype).eps * ledger.evidence().log_evidence.abs()
    rounded = (rounding > goal.tolerance / 2) & rounding.isfinite()
    ledger.settled_by[rounded] = NOTHING
    ledger.details["rounded"][rounded] = True
