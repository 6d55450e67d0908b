"""Whether annealed chains reached all of the posterior, by signs that their weights do not show."""

from __future__ import annotations

import torch
from torch import Tensor

from ..records import of_data
from .evidence import MISSED_LIMIT

# The share of trajectories that may diverge before a part of the posterior is taken to be too narrow for their steps.
MOST_DIVERGED = 1e-3


def chain_reasons(unreached: Tensor, diverged: Tensor) -> list[tuple[Tensor, str]]:
    """Where chains did not reach all of the posterior, ``(num_data,)`` bool each, and why that is said."""
    return [
        (unreached > MISSED_LIMIT, "the chains do not reach all of the posterior"),
        (diverged > MOST_DIVERGED, "the chains' trajectories diverge: parts of the posterior are too narrow for them"),
    ]


def incomplete(unreached: Tensor, diverged: Tensor) -> Tensor:
    """Where chains did not reach all of the posterior, for either reason, ``(num_data,)`` bool."""
    return torch.stack([flags for flags, _ in chain_reasons(unreached, diverged)]).any(0)


def chain_remarks(unreached: Tensor, diverged: Tensor) -> list[str]:
    """What is to be said of chains that did not reach all of the posterior, a sentence each."""
    (far, _), (narrow, _) = chain_reasons(unreached, diverged)
    found = []
    if far.any():
        found.append(
            f"draws far from the chains find a part of the posterior to which these do not come, for "
            f"{of_data(int(far.sum()), len(far))}: log p(x) is probably higher; give a wider guide, or write the model "
            "in variables whose scales do not depend on each other."
        )
    if narrow.any():
        found.append(
            f"trajectories of the annealed chains diverge for {of_data(int(narrow.sum()), len(narrow))}: the posterior "
            "has parts too narrow for their steps, and log p(x) is probably higher; give a guide that draws normals "
            "whose scales follow the other latents as the model's do, or write the model in variables whose scales do "
            "not."
        )
    return found
