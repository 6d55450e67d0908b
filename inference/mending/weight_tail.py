"""Whether a defence makes the importance weights of a guide less variable, which its ELBO hardly shows.

A guide q that is narrower than the posterior somewhere has weights w = p(x, z)/q(z|x) with a heavy tail: E_q[w²] is
large or infinite, few draws show it, and log p(x) from them is wrong by more than its error says. k-hat says that there
is a tail. It does not say whether a defence q' helps: weights that a defence bounds pile up below their bound, so that
k-hat may rise while the error falls. The second moments themselves say it, both at draws of q', which reach the tail:

    E_q[w²] = E_q'[p²/(q q')],      E_q'[w'²] = E_q'[(p/q')²].

k-hat cannot show a mode of which no draw was made; for that there are the mixture and
:func:`ppvae.inference.estimate_evidence`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..evidence import tail_shape
from ..pair import Batch, Pair, Program, generator_kept
from .mending_data import some

# k-hat above which the draws are too few for an estimate.
HEAVY = 0.7
# Data, and draws of each, that second moments are estimated from; parts of the draws, where there is one unit alone.
DATA, DRAWS, PARTS = 200, 1000, 10


def is_heavy(log_w: Tensor) -> bool:
    """Whether the weights of some unit have a heavy tail, ``(num_draws, num_units)``."""
    return bool((tail_shape(log_w) > HEAVY).any())


def moment_ratio(model: Program, guide: Program, defended: Program, batch: Batch, seed: int) -> tuple[float, float]:
    """log E_q[w²] − log E_q'[w'²], mean over the data, and its standard error; above 0 if the defended guide is better.

    Args:
        model: ``model(x, *context)``.
        guide: q.
        defended: q'.
        batch: ``(x, *context)``.
        seed: of the draws.
    """
    with Pair.on(model, guide, batch) as pair:
        batch = some(pair, DATA)
    with generator_kept(seed), torch.no_grad(), Pair.on(model, guide, batch) as first:
        with Pair.on(model, defended, batch) as second:
            z = second.guide_values(DRAWS)
            log_p, log_r = second.densities(z).log_p, second.log_guide(z, DRAWS)
        ratios = _log_ratio(log_p, first.log_guide(z, DRAWS), log_r)
    return float(ratios.mean()), float(ratios.std()) / math.sqrt(len(ratios))


def _log_ratio(log_p: Tensor, log_q: Tensor, log_r: Tensor) -> Tensor:
    """By unit; of one unit, by part of its draws."""
    terms = torch.stack([2 * log_p - log_q - log_r, 2 * (log_p - log_r)])
    if terms.shape[-1] == 1:
        terms = terms.reshape(2, PARTS, -1).transpose(1, 2)
    one, other = torch.logsumexp(terms, 1)
    return one - other
