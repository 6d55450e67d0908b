"""One certificate from those of parts of the data, each made by itself.

The weights of all data are independent given x, and each part's settings were chosen without a look at its weights, so
that the statements of :mod:`.markov` and :mod:`.tangent` on a mean hold over all parts together:

    lower:  (1/N) Σ_n (1/R_n) Σ_r log p̂_nr − log(1/α)/(N R),  R the smallest of the R_n
    upper:  drawn data (1/N) Σ_n log p̃_n + log(1/α)/N,  given data U + t SE from the U and s² of all data

Where the R_n differ, log p̂_nr enters the product with an exponent R/R_n ≤ 1, and E[p̂^(R/R_n)] ≤ p^(R/R_n) by Jensen.
A part without an upper end leaves the whole without one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from .certificate import Certificate
from .markov import margin
from .tangent import end_of_mean

PER_DATUM = ("lower", "upper", "log_evidence", "standard_error", "x", "pareto_k")


def pooled(parts: Sequence[Certificate]) -> Certificate:
    """The certificate of the data of all parts, in their order.

    Args:
        parts: of one kind and one confidence.
    """
    first, sizes = parts[0], [len(part.lower) for part in parts]
    num_data, kind = sum(sizes), first.kind
    columns: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in PER_DATUM}
    tangents = torch.cat([part.tangents for part in parts], dim=1)
    if kind == "exact":
        return Certificate.exact(columns["log_evidence"], columns["x"], first.width)
    risk, groups = (1 - first.confidence) / 2, min(part.num_groups for part in parts)
    chains = min(part.num_chains for part in parts)
    real = kind == "real"

    def mean(values: list[float]) -> float:
        return sum(n * value for n, value in zip(sizes, values, strict=True)) / num_data

    below = [p.mean_lower + margin(risk, p.num_groups * n) for p, n in zip(parts, sizes, strict=True)]
    above = [p.mean_upper - margin(risk, n) for p, n in zip(parts, sizes, strict=True)]
    if not real:
        upper = mean(above) + margin(risk, num_data)
    else:
        known = all(math.isfinite(part.mean_upper) for part in parts)
        upper = end_of_mean(tangents, risk) if known else math.inf
    errors = [n * part.shortfall_error for part, n in zip(parts, sizes, strict=True)]
    return Certificate(
        kind=kind,
        confidence=first.confidence,
        mean_lower=mean(below) - margin(risk, groups * num_data),
        mean_upper=upper,
        width=first.width,
        least_width=(0.0 if real else margin(risk, num_data)) + margin(risk, chains * num_data),
        shortfall=mean([part.shortfall for part in parts]),
        shortfall_error=math.hypot(*errors) / num_data,
        num_twins=sum(part.num_twins for part in parts),
        start=first.start,
        num_chains=chains,
        num_distributions=max(part.num_distributions for part in parts),
        transitions=sum(part.transitions for part in parts),
        num_groups=groups,
        tangents=tangents,
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        **columns,
    )
