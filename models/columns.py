"""The kinds of columns of a table: real, positive, count, categorical and ordinal, and their densities."""

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn import functional as F

from ppvae.errors import DataError

from .likelihoods import Categorical

KINDS = ("real", "positive", "count", "categorical", "ordinal")
NUMBERS = KINDS[:3]
# What stands in place of a missing value, which the density leaves out: a value that each kind may have.
FILLER = {"real": 0.0, "positive": 1.0, "count": 0.0, "categorical": 0.0, "ordinal": 0.0}
# log p of a level that a column does not have: e^−1000 is 0 in every number format, and its logarithm finite.
_IMPOSSIBLE = -1000.0


def levels(logits: list[Tensor]) -> dist.TorchDistribution:
    """Columns of whole numbers from the logits of each, `(..., L)`; a level beyond L has no probability."""
    most = max(own.shape[-1] for own in logits)
    padded = [F.pad(own, (0, most - own.shape[-1]), value=_IMPOSSIBLE) for own in logits]
    return Categorical(most).features(torch.cat(padded, -1))


def ordinal_log_prob(h: Tensor, cuts: Tensor) -> Tensor:
    """log p(r), `(..., L)`, of P(x ≤ r) = 1 / (1 + e^(h − c_r)); `cuts` holds c_0 and the raw distances to the next."""
    widths = F.softplus(cuts[1:]) + torch.finfo(cuts.dtype).eps
    c = torch.cat([cuts[:1], cuts[:1] + widths.cumsum(0)])
    at_most, above = F.logsigmoid(c - h.unsqueeze(-1)), F.logsigmoid(h.unsqueeze(-1) - c)
    # σ(b) − σ(a) = σ(b) σ(−a) (1 − e^(a − b))
    between = at_most[..., 1:] + above[..., :-1] + torch.log(-torch.expm1(-widths))
    return torch.cat([at_most[..., :1], between, above[..., -1:]], -1)


def as_seen(values: Tensor, kind: str) -> Tensor:
    """Values on the scale of h."""
    return values.log() if kind == "positive" else values.log1p() if kind == "count" else values


def kind_of(values: Tensor) -> str:
    """The kind that suits the values of a column: whole numbers from 0 to at most 9 are categories."""
    if bool((values == values.round()).all()) and values.min() >= 0:
        return "categorical" if values.min() == 0 and values.max() <= 9 else "count"
    return "positive" if values.min() > 0 else "real"


def check_column(column: int, values: Tensor, kind: str) -> None:
    """Refuse a column of x that holds values which its kind does not allow.

    Raises:
        DataError: it does.
    """
    whole = bool((values == values.round()).all()) and bool(values.min() >= 0)
    if (kind == "positive" and values.min() <= 0) or (kind in KINDS[2:] and not whole):
        what = "positive numbers" if kind == "positive" else "whole numbers from 0 on"
        raise DataError(f"column {column} of x is {kind} and holds something else than {what}; give it another kind.")
