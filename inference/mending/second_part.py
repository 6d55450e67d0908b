"""What a gradient along the path of draws cannot do for a mixed guide: find the modes that are missed, weigh the parts.

*Where the second part starts.* Draws of the prior, z_s ~ p(z) with weights w_s ∝ p(x|z_s), show where the posterior has
mass that the guide q has not. Of the mass at z the share 1 − q(z|x) p̂(x)/p(x, z) is missed, where that is positive,
with p̂(x) the mean weight. The second part r is trained on draws of the missed mass by the likelihood, E[log r(z|x)].
Data of which too few draws of the prior say anything are left out; where too few are left, r starts at the prior.

*The weights of the parts.* Given draws of each part, z_ks ~ q_k(z|x), the ELBO is a function of the weights a_k(x),

    Σ_k a_k mean_s [log p(x, z_ks) − log Σ_j a_j q_j(z_ks|x)],

whose densities do not change with them. So each draw is weighed once, and the weights are climbed at no further run.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..pair import Batch, Pair, Program, Values, measured_again
from .mending_steps import FallingAdam
from .mixed_guide import MixedGuide

# Draws of each part and datum, steps, and their size; a log density below this counts as it.
DRAWS, STEPS, RATE, LEAST_LOG_DENSITY = 64, 300, 0.05, -1e5
# Draws of the prior, draws of what is missed, steps and their size; a datum counts from so many effective draws and
# from such a share that is missed, and so many data must.
PRIOR_DRAWS, MISSED_DRAWS, START_STEPS, START_RATE = 512, 16, 300, 0.01
LEAST_DRAWS, LEAST_SHARE, LEAST_DATA = 5.0, 0.05, 10


def start_where_missed(model: Program, guide: MixedGuide, batch: Batch) -> None:
    """Train the second part on what the first misses of the posterior, in place, as far as the prior's draws show it.

    Args:
        model: ``model(x, *context)``.
        guide: the mixed guide, with networks, whose second part is the prior.
        batch: ``(x, *context)``.
    """
    with torch.no_grad(), Pair.on(model, guide.only(0), batch) as first, Pair.on(model, guide.only(1), batch) as second:
        z = second.guide_values(PRIOR_DRAWS)
        log_p, log_q = first.densities(z).log_p, first.log_guide(z, PRIOR_DRAWS)
        mass = missed_mass(log_p, log_q, second.log_guide(z, PRIOR_DRAWS))
        share = mass.sum(0)
        usable = (share > LEAST_SHARE) & (share.square() > LEAST_DRAWS * mass.square().sum(0))
        if int(usable.sum()) < min(LEAST_DATA, len(usable)):
            return
        units = usable.nonzero()[:, 0]
        some = second.rows(units).batch
        chosen = torch.multinomial(mass[:, units].T, MISSED_DRAWS, replacement=True).T
        missed = {name: value[chosen, units] for name, value in z.items()}
    _learn(model, guide.only(1), some, missed)


def missed_mass(log_p: Tensor, log_q: Tensor, log_prior: Tensor) -> Tensor:
    """The mass of the posterior at draws of the prior that a guide misses, ``(num_draws, num_units)``.

    Args:
        log_p: log p(x, z) of the draws.
        log_q: log q(z|x) of the guide.
        log_prior: log p(z).
    """
    log_w = log_p - log_prior
    log_evidence = torch.logsumexp(log_w, 0) - math.log(len(log_w))
    return log_w.softmax(0) * (1 - (log_q + log_evidence - log_p).exp()).clamp(min=0)


def _learn(model: Program, guide: MixedGuide, batch: Batch, draws: Values) -> None:
    """Train the networks of a guide on draws by the likelihood, in place."""
    with Pair.on(model, guide, batch) as pair:
        found = pair
    parameters = [parameter for parameter in guide.networks.parameters() if parameter.requires_grad]
    optimiser = FallingAdam(parameters, START_RATE, START_STEPS)
    with torch.enable_grad(), measured_again(found):
        for _ in range(START_STEPS):
            loss = -found.log_guide(draws, MISSED_DRAWS).mean()
            for parameter, slope in zip(
                parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True
            ):
                parameter.grad = slope
            optimiser.step()
    for parameter in parameters:
        parameter.grad = None


def fit_part_weights(model: Program, guide: MixedGuide, batch: Batch) -> None:
    """Give the network that chooses between the parts the weights that are best on some data, in place.

    Args:
        model: ``model(x, *context)``.
        guide: the mixed guide, with networks.
        batch: ``(x, *context)``.
    """
    with torch.no_grad(), Pair.on(model, guide.only(0), batch) as first, Pair.on(model, guide.only(1), batch) as second:
        log_p, log_q = [], []
        for part in (first, second):
            z = part.guide_values(DRAWS)
            log_p.append(part.densities(z).log_p)
            log_q.append(torch.stack([other.log_guide(z, DRAWS) for other in (first, second)]))
        hidden = guide.hidden(guide.networks, batch).detach()
    scores, densities = (torch.stack(parts).clamp(min=LEAST_LOG_DENSITY) for parts in (log_p, log_q))
    gate: Any = guide.networks["gate"]
    weight, bias = (buffer.detach().clone().requires_grad_() for buffer in (gate.weight, gate.bias))
    with torch.enable_grad():
        optimiser = torch.optim.Adam([weight, bias], RATE)
        for _ in range(STEPS):
            optimiser.zero_grad()
            (-_elbo((hidden @ weight + bias).double(), scores, densities)).backward()
            optimiser.step()
    gate.weight.copy_(weight.detach())
    gate.bias.copy_(bias.detach())


def _elbo(logit: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
    """The mean ELBO of the mixture.

    Args:
        logit: log a/(1 − a), ``(num_units,)``.
        log_p: log p(x, z) of the draws of each part, ``(2, num_draws, num_units)``.
        log_q: log density of these under each part, ``(2, 2, num_draws, num_units)``: of the draws' part, then that of
            the density.
    """
    log_a = torch.stack([logsigmoid(-logit), logsigmoid(logit)])
    mixture = torch.logsumexp(log_a[None, :, None] + log_q, 1)
    return (log_a.exp() * (log_p - mixture).mean(1)).sum(0).mean()
