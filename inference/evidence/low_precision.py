"""Draws of the guide weighed by a model in bfloat16, and what that does to log p(x).

The guide draws and its density is read in the pair's own type; only the model's products are taken in bfloat16, with
sums in float32 (``torch.autocast``). Each log density is then off by some rounding, and log p̂(x) with it. By how much
is measured on some of the data, from the same draws in both types.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from ..pair import Pair, generator_kept
from .estimates import ImportanceEvidence

# Data that are weighed in both types, and draws for each of them.
PAIRED_DATA, PAIRED_DRAWS = 64, 500


def weighed(pair: Pair, num_draws: int, dtype: torch.dtype | None = torch.bfloat16) -> Tensor:
    """log w of draws of the guide, ``(num_draws, num_units)``, in nats.

    Args:
        pair: the pair on the data.
        num_draws: draws per unit.
        dtype: of the model's products; None for the pair's own type.
    """
    drawn = pair.run(pair.programs.proposals, num_draws, {}, pair.guide_layout, random=True)
    log_q = drawn.pop("log_q")
    with torch.autocast(pair.device.type, dtype) if dtype is not None else nullcontext():
        log_p = pair.run(pair.programs.densities, num_draws, drawn, pair.model_layout)["log_p"]
    return log_p - log_q


def effect_of_precision(pair: Pair, num_draws: int, memory_mb: float) -> Tensor:
    """log p̂(x) with the model in bfloat16 minus log p̂(x) in the pair's own type, from the same draws.

    The global generators are left as they were found.

    Args:
        pair: the pair on the data.
        num_draws: K of the estimate; at most 500 of them are compared.
        memory_mb: budget in MiB for one pass of the pair.

    Returns:
        Of up to 64 data, evenly spread, ``(num_compared,)``, in nats.
    """
    chosen = torch.arange(pair.num_units)[:: math.ceil(pair.num_units / PAIRED_DATA)]
    some = pair.rows(chosen) if len(chosen) < pair.num_units else pair
    by_units: dict[int, list[Tensor]] = {}
    with torch.no_grad(), generator_kept():
        for units, draws in some.chunks(min(num_draws, PAIRED_DRAWS), memory_mb):
            part, size = some.rows(units), draws.stop - draws.start
            seed = int(torch.randint(2**31, ()))
            pairs = []
            for dtype in (torch.bfloat16, None):
                with generator_kept(seed):
                    pairs.append(weighed(part, size, dtype).cpu())
            by_units.setdefault(units.start, []).append(torch.stack(pairs))
    low, full = torch.cat([torch.cat(of_units, 1).logsumexp(1) for of_units in by_units.values()], -1)
    return low - full


def with_effect(evidence: ImportanceEvidence, effect: Tensor) -> ImportanceEvidence:
    """The record of an estimate in bfloat16, which says by how much it is off.

    Args:
        evidence: what the weights say.
        effect: from :func:`effect_of_precision`.
    """
    mean, of_one = float(effect.mean()), float(effect.square().mean().sqrt())
    error = float(effect.std()) / math.sqrt(len(effect)) if len(effect) > 1 else math.nan
    note = (
        f"the model was evaluated in bfloat16, which changes log p(x) by {mean:+.4f} ± {error:.4f} nats on average and "
        f"by {of_one:.4f} nats for a datum (the same draws in both types, {len(effect)} of "
        f"{len(evidence.log_evidence)} data)."
    )
    if of_one == 0:
        note = "precision='bfloat16' changed nothing: it acts on products of float32 tensors (torch.autocast)."
    return replace(evidence, rounding=evidence.rounding.clamp(min=of_one), notes=(*evidence.notes, note))
