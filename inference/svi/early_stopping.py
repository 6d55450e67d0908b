"""Early stopping on a noisy validation ELBO, with a rule that knows its standard error.

The same validation data are scored with the same random numbers each time, so two scores are compared datum by datum:
an epoch improves on the best so far when the mean of the paired differences exceeds twice its standard error,

    mean(d) > 2·sd(d)/√n,     d_i = ELBO_i(now) − ELBO_i(best).

Slow progress is not lost: the best stays where it is until the differences have added up to something that shows.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

# Standard errors by which an epoch must beat the best one.
MARGIN = 2.0


class Plateau:
    """Counts evaluations without a visible improvement.

    Args:
        patience: after how many of them to stop.

    Example:
        >>> import torch
        >>> rule = Plateau(patience=2)
        >>> [rule.improves(torch.tensor(scores)) for scores in ([0.0, 0.0], [1.0, 1.1], [0.9, 1.2], [1.2, 1.0])]
        [True, True, False, False]
        >>> rule.reached
        True
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self._best: Tensor | None = None
        self._waited = 0

    @property
    def reached(self) -> bool:
        """Whether the plateau is reached."""
        return self._waited >= self.patience

    def improves(self, scores: Tensor) -> bool:
        """Take the scores of a new evaluation, ``(num_data,)``, and say whether they are visibly better."""
        if self._best is None or _visibly_better(scores - self._best):
            self._best, self._waited = scores, 0
            return True
        self._waited += 1
        return False

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must keep."""
        return {"best": self._best, "waited": self._waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self._best, self._waited = state["best"], state["waited"]


def _visibly_better(difference: Tensor) -> bool:
    n = len(difference)
    error = float(difference.std()) / math.sqrt(n) if n > 1 else 0.0
    return float(difference.mean()) > MARGIN * error and bool(torch.isfinite(difference).all())
