"""How well the chains of every datum agree, and the draws with all that is known about them.

References:
    Rank-normalization, folding, and localization: An improved R-hat for assessing convergence of MCMC (Vehtari, Gelman,
    Simpson, Carpenter & Bürkner, 2021), arXiv:1903.08008.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..pair import Pair, to_u
from ..sampling import Walk

# Tail ESS is the smaller one of these two quantiles.
TAIL = (0.05, 0.95)


def judged(found: Walk, every: int) -> dict[str, Tensor]:
    """The draws with all that is known about them, by name of
    :class:`~.reference.Posterior`."""
    from arviz_stats.base import array_stats

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        ebfmi = array_stats.bfmi(found.energy.movedim(-1, 0).numpy())
    return {
        **_mixed(found.u, found.log_joint),
        "divergences": found.divergences,
        "ebfmi": torch.as_tensor(ebfmi).amin(-1),
        "acceptance": found.acceptance,
        "thinning": torch.full((found.u.shape[2],), every),
    }


def _mixed(u: Tensor, log_joint: Tensor) -> dict[str, Tensor]:
    """Draws, and how well their chains agree on them."""
    from arviz_stats.base import array_stats

    columns = np.concatenate([u.double().numpy(), log_joint[..., None].numpy()], -1)
    axes: dict[str, Any] = {"chain_axis": 0, "draw_axis": 1}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        rhat = array_stats.rhat(columns, **axes, method="rank")
        ess_bulk = array_stats.ess(columns, **axes, method="bulk")
        ess_tail = array_stats.ess(columns, **axes, method="tail", prob=TAIL)
    return {
        "unconstrained": u,
        "log_joint": log_joint,
        "rhat": torch.as_tensor(rhat).amax(-1),
        "ess_bulk": torch.as_tensor(ess_bulk).amin(-1),
        "ess_tail": torch.as_tensor(ess_tail).amin(-1),
    }


def in_u(moved: Pair, record: dict[str, Tensor], memory_mb: float) -> dict[str, Tensor]:
    """The draws in the coordinates u, in which they are reported, and how well the chains agree on these."""
    eps = record["unconstrained"].flatten(0, 1)
    u, log_joint = torch.empty_like(eps), record["log_joint"].flatten(0, 1).clone()
    with torch.no_grad():
        for data, states in moved.chunks(len(eps), memory_mb, gradient=True):
            places, log_scale = to_u(moved.rows(data), eps[states, data].to(moved.device))
            u[states, data] = places.to(u)
            log_joint[states, data] -= log_scale.to(log_joint)
    shape = record["log_joint"].shape
    return _mixed(u.reshape(record["unconstrained"].shape), log_joint.reshape(shape))
