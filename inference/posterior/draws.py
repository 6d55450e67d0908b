"""Draws of the latents of every datum, from one approximation of their posterior or another.

They come from the guide; from the guide with each draw kept as often as its importance weight asks; from the
posterior's closed form where a pair has one; or from elsewhere (Markov chains).

Resampling takes K proposals z_k ~ q(z|x) and keeps z_k with probability ∝ w̃_k, where w̃ are the weights
w = p(x, z)/q(z|x), their largest replaced by the quantiles of a generalised Pareto fitted to them. What is kept
repeats, and counts as no more than (Σw)²/Σw² independent draws; k̂, the shape of the fit, says whether it can be
trusted at all (below 0.7).

References:
    Pareto Smoothed Importance Sampling (Vehtari, Simpson, Gelman, Yao & Gabry, 2024), arXiv:1507.02646.
    Using the SIR Algorithm to Simulate Posterior Distributions (Rubin, 1988), Bayesian Statistics 3: resampling.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppvae.errors import NonFiniteError, OptionError, PairError

from ..evidence import evidence_of
from ..options import shown
from ..pair import Pair, Values, owner, stated_named

# Resampling n draws takes this many times n proposals, so that few of them are kept twice where the weights are even.
PROPOSALS_PER_DRAW = 10


class Resampled(NamedTuple):
    """Draws that were kept by their weights, and what the weights say of them.

    Attributes:
        values: by datum.
        pareto_k: k̂ of the proposals' weights, ``(num_data,)``.
        ess: (Σw)²/Σw² of the proposals, ``(num_data,)``.
    """

    values: Values
    pareto_k: Tensor
    ess: Tensor


def guide_draws(pair: Pair, num_draws: int, memory_mb: float) -> Values:
    """Independent draws of the guide by datum; its auxiliary sites are among them."""
    out: Values = {}
    for data, draws in pair.chunks(num_draws, memory_mb):
        part = pair.rows(data)
        store(out, part.guide_values(draws.stop - draws.start), draws, data, (num_draws, pair.num_units))
    return out


def resampled_draws(pair: Pair, num_draws: int, memory_mb: float) -> Resampled:
    """Draws of the guide, kept with replacement by their Pareto-smoothed importance weights, datum by datum.

    Raises:
        NonFiniteError: some datum has no draw of positive weight, or weights that are not numbers.
    """
    num_proposals, num_data = PROPOSALS_PER_DRAW * num_draws, pair.num_units
    out: Values = {}
    stats = []
    for data, pieces in groupby(pair.chunks(num_proposals, memory_mb), key=itemgetter(0)):
        size = num_proposals, data.stop - data.start
        proposals: Values = {}
        log_w = torch.empty(size, dtype=torch.float64)
        part = pair.rows(data)
        for _, draws in pieces:
            z = part.guide_values(draws.stop - draws.start)
            log_p, log_q, _ = part.densities(z, draws.stop - draws.start)
            assert log_q is not None  # the guide's own draws hold all that it draws
            log_w[draws] = (log_p - log_q).cpu()
            store(proposals, z, draws, slice(None), size)
        stats.append(weight_stats(log_w))
        weights = smoothed_weights(log_w, stats[-1][0], data.start)
        kept = torch.multinomial(weights.T, num_draws, replacement=True).T
        values = {name: value[kept, torch.arange(size[1])] for name, value in proposals.items()}
        store(out, values, slice(None), data, (num_draws, num_data))
    pareto_k, ess = (torch.cat(parts) for parts in zip(*stats, strict=True))
    return Resampled(out, pareto_k, ess)


def weight_stats(log_w: Tensor) -> tuple[Tensor, Tensor]:
    """k̂ and (Σw)²/Σw² of log weights ``(num_draws, num_data)``, each ``(num_data,)``."""
    evidence = evidence_of(log_w)
    return evidence.pareto_k, evidence.ess


def smoothed_weights(log_w: Tensor, pareto_k: Tensor, first: int = 0) -> Tensor:
    """Pareto-smoothed weights, ``(num_draws, num_data)``, that sum to 1 for each datum.

    Args:
        log_w: log weights, ``(num_draws, num_data)``.
        pareto_k: their k̂; where it is not above 0 no tail was fitted or it is too light to matter, and they stay.
        first: number of the first datum, for the error.

    Raises:
        NonFiniteError: some datum has no draw of positive weight, or weights that are not numbers.
    """
    from arviz_stats.base import array_stats

    for j, column in enumerate(log_w.T, start=first):
        if column.isnan().any() or column.max().isinf():
            raise NonFiniteError(
                f"the guide's weights of datum {j} are all zero, or not numbers, so that none of its draws can be kept:"
                " see what check(model, guide, x) finds, or give draws='guide'."
            )
    out = log_w.softmax(0)
    for j in (pareto_k > 0).nonzero()[:, 0].tolist():
        with np.errstate(all="ignore"):
            out[:, j] = torch.from_numpy(array_stats.psislw(-log_w[:, j].numpy())[0]).exp()
    return out


def exact_draws(pair: Pair, num_draws: int) -> Values:
    """Independent draws of the posterior's closed form by datum.

    Raises:
        PairError: the object that the model is a method of has no ``posterior(x)``, or one of another shape.
    """
    posterior = getattr(owner(pair.model), "posterior", None)
    if not callable(posterior) or len(pair.sites) != 1:
        raise PairError(
            "draws='exact' needs a model that is a method of an object with posterior(x), the distribution of its one "
            "latent site: draw from the guide (draws='guide'), or give draws of your own."
        )
    ((name, place),) = pair.sites.items()
    with stated_named("posterior(x)"):
        value = posterior(*pair.batch).sample((num_draws,))
    return {name: _checked(name, value, (num_draws, pair.num_units, *place.shape), "posterior(x)").to(place.dtype)}


def given_draws(pair: Pair, record: Mapping[str, Any]) -> tuple[Values, int, int]:
    """Draws from elsewhere, ``(chain, draw, datum, ...)`` by site, by datum; and how many chains and draws they are.

    Raises:
        OptionError: a site is missing or unknown, a shape does not fit, or a value is not finite.
    """
    names = set(record)
    unknown, missing = sorted(names - set(pair.structure.drawn), key=repr), sorted(set(pair.sites) - names)
    if unknown or missing:
        found = f"holds {unknown[0]!r}, which is none of them" if unknown else f"lacks {missing[0]!r}"
        raise OptionError(f"draws {found}: it must hold the model's latents, {sorted(pair.sites)}.")
    arrays = {name: _numbers(name, value) for name, value in record.items()}
    chains, draws = (*next(iter(arrays.values())).shape, 0, 0)[:2] if arrays else (0, 0)
    if chains < 1 or draws < 1:
        raise OptionError("draws holds nothing: give (chain, draw, datum, ...) tensors by site.")
    values = {}
    for name, value in arrays.items():
        place = pair.structure.drawn[name]
        _checked(name, value, (chains, draws, pair.num_units, *place.shape), "draws")
        if not torch.isfinite(value).all():
            raise OptionError(f"draws holds NaN or infinite values for {name!r}: leave such chains or data out.")
        values[name] = value.flatten(0, 1).to(place.dtype)
    return values, chains, draws


def _numbers(name: str, value: Any) -> Tensor:
    """Draws of one site as a tensor on the CPU.

    Raises:
        OptionError: they are no numbers.
    """
    try:
        found = value.detach().cpu() if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError, RuntimeError) as error:
        raise OptionError(
            f"draws must hold numbers for {name!r}, (chain, draw, datum, ...); it holds {shown(value)}."
        ) from error
    if found.layout != torch.strided or found.is_complex():
        raise OptionError(f"draws must hold a dense tensor of real numbers for {name!r}; it holds {shown(value)}.")
    return found


def _checked(name: str, value: Tensor, shape: tuple[int, ...], source: str) -> Tensor:
    if tuple(value.shape) != shape:
        raise OptionError(f"{source} has {tuple(value.shape)} for {name!r}, and the pair {shape}: give that shape.")
    return value


def store(out: Values, values: Values, draws: slice, data: slice, size: tuple[int, int]) -> None:
    """Put a piece into the whole, ``(*size, ...)`` on the CPU, which is made with the first."""
    for name, value in values.items():
        if name not in out:
            out[name] = torch.empty((*size, *value.shape[2:]), dtype=value.dtype)
        out[name][draws, data] = value.cpu()


def with_missing(observed: Values, x: Tensor) -> Values:
    """Observed values ``(num_data, ...)``, with NaN where x has it: a program observes some number there, masked.

    Sites that do not observe x as it is stay as they are.
    """
    x, missing = x.cpu(), x.isnan().cpu()

    def is_x(value: Tensor) -> bool:
        alike = value.numel() == x.numel() and value.is_floating_point()
        return alike and torch.equal(value.reshape(x.shape)[~missing], x[~missing].to(value))

    if not missing.any():
        return observed
    return {
        name: value.masked_fill(missing.reshape(value.shape), torch.nan) if is_x(value) else value
        for name, value in observed.items()
    }
