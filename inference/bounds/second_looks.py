"""Two checks for a part of the posterior that no chain reaches, which the weights of the chains cannot show.

**Data drawn from the model** come with an exact draw z* of their posterior, from which chains run back to the start
with the weight w*. Where C chains reach all of the posterior, w* exceeds all of theirs about as often as a draw among
them that is made in proportion to the weights picks the largest: with probability mean max_c w_c / Σ_c w_c. Where they
miss a part with the share m of the posterior, w* exceeds them with probability m at least.

**A second start.** Chains from the prior have the mean p(x) too, and see what the guide may not. With probability at
least 1 − α their lower end (:mod:`.markov`) is none above log p(x), and so must not exceed the upper end.

Neither finds all. Each raises a false alarm in :data:`ALARM` of the certificates or fewer where the weights are as they
seem.
"""

from __future__ import annotations

import scipy
from torch import Tensor

from ..evidence import tail_shape
from ..pair import Pair, has_continuum
from ..records import of_data
from .bidirectional import Effort, Weights, gather
from .chosen_effort import FIRST_DISTRIBUTIONS, IMPORTANCE_DRAWS, Certification, spread, twins
from .markov import below, margin
from .tangent import mean_upper

# The rate of false alarms of each look.
ALARM = 1e-3
# Exact draws count only where they exceed the chains more than twice as often as expected: few chains of unequal
# weights underestimate the largest share.
TOLERANCE = 2.0
# Data drawn from the model, where ``Sampling`` does not say how many and the unit is the datum.
NUM_TWINS = 32
# Chains from the prior in a group whose mean enters the lower end.
GROUP = 8


def look_at_twins(job: Certification, pair: Pair, effort: Effort) -> tuple[str, int, int]:
    """Check the chains on data drawn from the model, whose exact latents are known.

    Args:
        job: what was asked for.
        pair: the pair on the data that were given.
        effort: of the chains.

    Returns:
        A sentence, empty if nothing contradicts the chains; how many data were drawn; transitions.
    """
    asked = job.sampling.num_twins
    drawn = twins(job, pair.batch, asked if asked is not None else NUM_TWINS if pair.unit == "datum" else 0)
    parts: list[Weights] = []
    for one in drawn:
        with Pair.on(pair.model, pair.guide, one.batch, start=job.bridge.start) as twin:
            twin = job.bridge.view(twin)
            parts += job.bridge.of(twin, one.latents, effort, "drawn data", job.search(twin))
    if not parts:
        return "", 0, 0
    log_w, exact = gather(parts)
    assert exact is not None  # they were drawn with their latents
    count = len(exact)
    return contradiction(log_w, exact), count, effort.transitions(count, count)


def contradiction(log_w: Tensor, log_w_exact: Tensor) -> str:
    """A sentence if exact draws exceed the chains' weights ``(num_chains, num_data)`` too often, else nothing."""
    count, exceeds = len(log_w_exact), int((log_w_exact > log_w.amax(0)).sum())
    share = float(log_w.softmax(0).amax(0).nan_to_num(1.0).mean())
    if scipy.special.bdtrc(exceeds - 1, count, min(TOLERANCE * share, 1.0)) >= ALARM:
        return ""
    return (
        f"there is no upper end: the chains miss a part of the posterior. At {exceeds} of {count} data drawn from the "
        f"model an exact posterior draw outweighs all chains, where their weights let {share * count:.1f} expect; give "
        "a guide that covers the posterior, or start from the prior (start='prior' in Sampling)."
    )


def look_from_the_prior(job: Certification, pair: Pair, log_w: Tensor, effort: Effort) -> tuple[str, int]:
    """Check the upper end by chains from the prior, on some of the data.

    Args:
        job: what was asked for.
        pair: the pair on the data.
        log_w: weights of the chains from the guide, ``(num_chains, num_data)``.
        effort: of these.

    Returns:
        A sentence, empty if nothing contradicts the upper end; transitions.
    """
    if job.bridge.start == "prior" or not pair.dim or not has_continuum(pair):
        return "", 0
    index, distributions = spread(pair), max(effort.num_distributions, FIRST_DISTRIBUTIONS)
    other = Effort(job.num_chains(pair.num_units, real=True), distributions)
    if distributions > job.sampling.max_distributions:
        other = Effort(IMPORTANCE_DRAWS, 1)
    second, _ = gather(job.bridge._replace(start="prior").of(pair.rows(index), None, other, "from the prior"))
    groups = max(len(second) // GROUP, 1)
    lower = float(below(second, groups).mean()) - margin(ALARM, groups * len(index))
    own = log_w[:, index]
    upper = mean_upper(own, ALARM, tail_shape(own))
    spent = other.transitions(len(index), 0)
    if lower <= upper:
        return "", spent
    return (
        f"there is no upper end: the chains miss a part of the posterior. Chains from the prior put the mean of log "
        f"p(x) of {of_data(len(index), pair.num_units)} at {lower:.4f} or more, above the upper end {upper:.4f} of the "
        "chains from the guide; give a guide that covers the posterior, or start from the prior (start='prior' in "
        "Sampling)."
    ), spent
