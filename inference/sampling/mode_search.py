"""Search for modes of the posterior that the guide misses, before log p(x) is estimated.

Draws of the guide say nothing about places where the guide never looks. A search with a small share of the estimator's
budget does, for each datum:

1. Draws of the guide and of the prior, and images of the best of the guide's draws under moves that leave many models
   as they are: coordinates reflected about the prior's mean, one at a time and all together, and blocks of coordinates
   exchanged. All are weighed.
2. The most promising of them, and some of the prior's draws whatever their weight, are climbed to a mode of
   log p(x, u) (:mod:`ppvae.inference.sampling.quasi_newton`).
3. A mode is *apart* if log p(x, u) falls by more than half a nat on the straight line to it from the mode that is next
   to the guide.
4. Modes that are apart become the components r of a mixture of Student t distributions, and draws of it give

    m = E_r[p(x, u)/r(u); p(x, u)/q(u|x) > τ p̂],

   the mass p(x) in places near these modes where the guide's draws do not come: of K ≤ τ draws of q, fewer than
   m/p̂ are expected there. Since m is unbiased and not negative, a mass m is taken for 1/δ times as much with
   probability δ at most (Markov), which bounds false alarms. The same is asked of the draws of the prior and of the
   guide's draws moved away from their mean, which see a part of the posterior that is broad and has no mode.

What this cannot see: a mode into which none of the climbs leads.

References:
    Adaptive Multiple Importance Sampling (Cornuet, Marin, Mira & Robert, 2012), arXiv:0907.1254.
    Layered Adaptive Importance Sampling (Martino, Elvira, Luengo & Corander, 2017), arXiv:1505.04732.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..pair import Pair
from .in_parts import InParts
from .quasi_newton import Climbed, climb
from .search_plan import ON_THE_LINE, plan
from .search_starts import climb_starts, images_of, pick
from .student import StudentMixture

# Shares of p(x) for which it is worth while to draw from modes that were found, and from wider distributions.
WORTHWHILE, WORTHWHILE_OUTSIDE = 0.01, 0.1
# Effective draws of the prior below which their standard error means nothing.
FEW = 10.0
# How often a mode's places must outweigh the mean of the guide's weights to count as places where it does not come.
OUTWEIGHED = 1000.0
# By how many nats log p(x, u) must fall between two modes.
DIP = 0.5
# How far the guide's draws are moved away from their mean.
FACTORS = (1.5, 3.0)
# So many draws must have found a part of the posterior that has no mode.
SEVERAL = 3.0


class Search(NamedTuple):
    """What was found, per datum; log masses ``(num_data,)`` in nats.

    Attributes:
        proposal: distributions at the modes that are apart from the guide, and wide ones about the guide's mean; of the
            data for which something was `found` alone, since they are a matrix each (:meth:`proposal_of`).
        log_missed: log m of the places near these modes.
        log_outside: log m of the prior's draws and of the guide's draws moved away.
        log_guide: log p̂ by the few draws of the guide.
        prior_log_evidence: log p̂ by the draws of the prior alone.
        prior_ess: the effective number of these.
        sizes: |log q| + |log p(u)| + |log p(x, u)|, the largest of the guide's draws each: what is rounded.
        num_prior: draws of the prior.
        cost: evaluations per datum, at most.
    """

    proposal: StudentMixture
    log_missed: Tensor
    log_outside: Tensor
    log_guide: Tensor
    prior_log_evidence: Tensor
    prior_ess: Tensor
    sizes: Tensor
    num_prior: int
    cost: int

    @property
    def in_modes(self) -> Tensor:
        """Where modes should be drawn from beside the guide, ``(num_data,)`` bool."""
        return self.log_missed > self.log_guide + math.log(WORTHWHILE)

    @property
    def found(self) -> Tensor:
        """Where modes, or wider distributions, should be drawn from beside the guide, ``(num_data,)`` bool."""
        return self.in_modes | (self.log_outside > self.log_guide + math.log(WORTHWHILE_OUTSIDE))

    def missed(self, log_evidence: Tensor, outside: Tensor | None = None) -> Tensor:
        """The share of p(x) in places where the guide's draws do not come, ``(num_data,)``.

        Args:
            log_evidence: log p(x), in nats.
            outside: for which data places count that have no mode, ``(num_data,)`` bool; by default for none.
        """
        log_missed = self.log_missed
        if outside is not None:
            log_missed = torch.where(outside, torch.maximum(log_missed, self.log_outside), log_missed)
        return (log_missed - log_evidence).exp().nan_to_num(0.0).clamp(max=1.0)

    def lacking(self, log_evidence: Tensor) -> Tensor:
        """The share of p(x) that an estimate lacks by what the search saw where no mode is, ``(num_data,)``.

        Positive where draws of the prior alone have a higher mean by more than three standard errors, or where the
        places far from the guide outweigh the estimate.
        """
        sure = (self.prior_ess >= FEW) & (self.prior_log_evidence - log_evidence > 3 / self.prior_ess.sqrt())
        seen = torch.where(sure, self.prior_log_evidence, -math.inf)
        seen = torch.maximum(seen, self.log_outside)
        return (1 - (log_evidence - seen).exp()).clamp(min=0.0)

    def proposal_of(self, index: Any) -> StudentMixture:
        """The distributions to draw from of some of the data; those for which nothing was found are left out."""
        found = self.found
        return self.proposal.rows((found.cumsum(0) - 1)[index][found[index]])

    def rows(self, index: Any) -> Search:
        """What was found for some of the data."""
        tensors = {name: getattr(self, name)[index] for name in self._fields[1:-2]}
        return self._replace(proposal=self.proposal_of(index), **tensors)


def search(pair: Pair, budget: int, memory_mb: float) -> Search:
    """Search for modes that the guide misses.

    Args:
        pair: the pair on the data; the climbs of all of them are one.
        budget: evaluations per datum.
        memory_mb: budget in MiB for one pass of the pair.
    """
    how = plan(budget)
    places = InParts(pair, memory_mb)
    with torch.no_grad():
        drawn, prior = places.draw("guide", how.num_guide), places.draw("prior", how.num_prior)
        at_drawn, at_prior = places.ends(drawn), places.ends(prior)
        log_guide = _log_mean(at_drawn[2] - at_drawn[0])
        best = pick(drawn, at_drawn[2].nan_to_num(-math.inf, -math.inf, -math.inf).argmax(0, keepdim=True))
        threshold = log_guide + math.log(OUTWEIGHED)
        outside = _outside(places, drawn, at_drawn, at_prior, threshold)
        images = images_of(best[0], prior.mean(0), how.num_images)
        promise = [_promise(ends, threshold) for ends in (places.ends(images), at_prior)]
        others = climb_starts(images, promise[0], prior, promise[1], how.num_climbs - 1)
    scale, farthest = (u.std(0).nan_to_num(1.0).clamp(min=1e-6) for u in (drawn, prior))
    climbed = climb(pair.joint, torch.cat([best, others]), scale, farthest, how.num_steps)
    with torch.no_grad():
        modes = _modes(climbed, _apart(places, climbed))
        log_missed = _missed(places, modes, threshold, how.num_tests)
    log_likelihood = at_prior[2] - at_prior[1]
    found = Search(
        proposal=modes.joined(_widened(drawn)),
        log_missed=log_missed.cpu(),
        log_outside=outside.cpu(),
        log_guide=log_guide.cpu(),
        prior_log_evidence=_log_mean(log_likelihood).cpu(),
        prior_ess=effective(log_likelihood).cpu(),
        sizes=at_drawn.abs().nan_to_num(0.0, 0.0, 0.0).amax(1).sum(0).cpu(),
        num_prior=how.num_prior,
        cost=how.cost,
    )
    return found._replace(proposal=found.proposal.rows(found.found))


def _missed(places: InParts, modes: StudentMixture, threshold: Tensor, num_tests: int) -> Tensor:
    """log m of the places near the modes, ``(num_data,)``; −inf where there is none."""
    log_missed = torch.full_like(threshold, -math.inf)
    known = modes.known.nonzero()[:, 0]
    if len(known):
        some = modes.rows(known)
        tested = some.draw(num_tests)
        log_q, _, log_joint = places.rows(known).ends(tested)
        uncovered = log_joint - log_q > threshold[known]
        log_missed[known] = _log_mean((log_joint - some.log_prob(tested)).where(uncovered, -math.inf))
    return log_missed


def _outside(places: InParts, drawn: Tensor, at_drawn: Tensor, at_prior: Tensor, threshold: Tensor) -> Tensor:
    """log m, the larger of what the prior's draws and the guide's draws moved away find."""
    log_q, log_prior, log_joint = at_prior
    by_prior = (log_joint - log_prior).where(log_joint - log_q > threshold, -math.inf)
    factor = torch.tensor(FACTORS, dtype=drawn.dtype).repeat(len(drawn))[: len(drawn), None, None].to(drawn.device)
    centre = drawn.mean(0)
    log_q, _, log_joint = places.ends(centre + factor * (drawn - centre))
    log_proposal = at_drawn[0] - drawn.shape[-1] * factor[..., 0].double().log()
    by_widened = (log_joint - log_proposal).where(log_joint - log_q > threshold, -math.inf)
    found = [_log_mean(w).where(effective(w) >= SEVERAL, -math.inf) for w in (by_prior, by_widened)]
    return torch.maximum(*found)


def _widened(drawn: Tensor) -> StudentMixture:
    """Wide distributions about the mean of the guide's draws."""
    variance = drawn.double().var(0).nan_to_num(1.0).clamp(min=1e-12)
    scale = torch.stack([torch.diag_embed(factor**2 * variance) for factor in FACTORS])
    loc = drawn.mean(0).expand(len(FACTORS), -1, -1)
    return StudentMixture.at(loc, scale, torch.zeros(len(FACTORS), drawn.shape[1]).to(scale))


def _promise(ends: Tensor, threshold: Tensor) -> Tensor:
    """log p(x, u) where the guide does not come, ``(num_places, num_data)``; −inf where it does."""
    log_q, _, log_joint = ends
    return log_joint.where(log_joint - log_q > threshold, -math.inf)


def _apart(places: InParts, climbed: Climbed) -> Tensor:
    """Whether log p(x, u) falls on the way from the first place to each other, ``(num_places, num_data)``."""
    u, values = climbed.u, climbed.values
    shares = torch.linspace(0, 1, ON_THE_LINE + 2)[1:-1].to(u)
    line = u[:1] + shares[:, None, None, None] * (u - u[:1])
    on_the_line = places.joint(line.flatten(0, 1)).reshape(ON_THE_LINE, *values.shape)
    low = on_the_line.nan_to_num(-math.inf, math.inf, -math.inf).amin(0)
    return (low < torch.minimum(values[:1], values) - DIP) & values.isfinite()


def _modes(climbed: Climbed, apart: Tensor) -> StudentMixture:
    """Components at the places that are apart; of those within a standard deviation of each other, the heaviest."""
    log_mass = climbed.values + torch.linalg.slogdet(climbed.inverse_curvature)[1] / 2
    log_mass = log_mass.where(apart, -math.inf)
    log_mass, order = log_mass.sort(0, descending=True)
    u = pick(climbed.u, order).double()
    scale = climbed.inverse_curvature.gather(0, order[..., None, None].expand_as(climbed.inverse_curvature))
    tril, _ = torch.linalg.cholesky_ex((scale + scale.mT) / 2)
    for i in range(len(u) - 1):
        away = torch.linalg.solve_triangular(tril[i], (u[i + 1 :] - u[i]).movedim(0, -1), upper=False)
        near = (away.square().mean(1).T < 1.0) & log_mass[i].isfinite()
        log_mass[i + 1 :] = log_mass[i + 1 :].where(~near, -math.inf)
    log_mass, order = log_mass.sort(0, descending=True)
    count = max(int(log_mass.isfinite().sum(0).max()), 1)
    scale = scale.gather(0, order[..., None, None].expand_as(scale))[:count]
    return StudentMixture.at(pick(u, order)[:count].to(climbed.u), scale, log_mass[:count])


def effective(log_w: Tensor) -> Tensor:
    """Effective number of weights, (Σw)²/Σw², ``(num_data,)``; 0 where none is positive."""
    return (2 * torch.logsumexp(log_w, 0) - torch.logsumexp(2 * log_w, 0)).exp().nan_to_num(0.0)


def _log_mean(log_w: Tensor) -> Tensor:
    return torch.logsumexp(log_w.nan_to_num(-math.inf, -math.inf, -math.inf), 0) - math.log(len(log_w))
