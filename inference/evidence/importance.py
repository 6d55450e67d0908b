"""log p(x) by importance sampling from the guide, per datum, with its error.

From log weights log w_k = log p(x, z_k) − log q(z_k|x), z_k ~ q(z|x), k = 1…K, all of these are read:

    log p̂_K(x) = log (1/K) Σ_k w_k                            evidence; E[log p̂_K] ≤ log p(x), K → ∞ equality
    SE         = √(K/(K−1) · (1/ESS − 1/K)),  ESS = (Σw)²/Σw²  delta method
    ELBO       = (1/K) Σ_k log w_k,  SE = sd(log w)/√K
    L_k        = E log (1/k) Σ_{j≤k} w_j                       K-sample bounds: L_1 = ELBO ≤ L_2 ≤ … ≤ log p(x)
    k̂          = shape of the generalised Pareto fitted to the largest weights: the mean of w exists if k̂ < 1, its
                 variance if k̂ < ½; above 0.7 the estimate must not be trusted

The draws are never kept: each piece of weights is folded into running sums, so memory does not grow with K.

References:
    Importance Weighted Autoencoders (Burda, Grosse & Salakhutdinov, 2016), arXiv:1509.00519.
    Pareto Smoothed Importance Sampling (Vehtari, Simpson, Gelman, Yao & Gabry, 2024), arXiv:1507.02646.
    Debiasing Evidence Approximations (Nowozin, 2018), ICLR: the jackknife.
    Delete-m Jackknife for Unequal m (Busing, Meijer & van der Leeden, 1999), Statistics and Computing 9.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from ppvae.errors import OptionError
from ppvae.progress import Progress

from ..options import flag_or, one_of, valid_compute, whole_number
from ..pair import Batch, Compile, Pair, Program, as_batch, finite_batch, seeded, where_parameters_are, why_slow
from .defence import SEARCH_SHARE, defended, search_all, search_pieces, with_search
from .estimates import ImportanceEvidence
from .low_precision import effect_of_precision, weighed, with_effect
from .prior_draws import held_to_prior
from .streaming import Running

Precision = Literal["full", "bfloat16"]


def importance_evidence(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    num_particles: int = 5000,
    *,
    precision: Precision = "full",
    compile: Compile = "auto",
    seed: int | None = None,
    memory_mb: float = 64.0,
    progress: bool = False,
) -> ImportanceEvidence:
    """Estimate log p(x) of every datum by importance sampling from the guide.

    First a search, with 15 % as many evaluations as there are draws, looks for modes that the guide misses
    (:mod:`ppvae.inference.sampling.mode_search`). Where it finds none, all draws are the guide's. Where it does, half
    of the draws come from these modes, from the prior and from wide distributions about the guide, and are weighted by
    the mixture; the estimate is called trusted only if draws of the prior alone confirm it. There is no search from
    fewer than 700 draws. A pair whose latents have no density on a continuum is held to draws of its prior instead
    (:mod:`ppvae.inference.evidence.prior_draws`).

    Args:
        model: ``model(x, *context)``, the generative program.
        guide: ``guide(x, *context)``; it proposes the latents.
        x: data, first dimension ``num_data``; or a tuple ``(x, *context)``.
        num_particles: draws per datum, K.
        precision: of the model's products: ``"full"``, the pair's own type, or ``"bfloat16"``, which is faster where
            the processor has such operations. What it changes is measured on up to 64 of the data, with the same draws
            in both types; ``remarks()`` says it, and ``rounding`` holds it.
        compile: whether log weights are compiled, as densities are in :func:`~ppvae.inference.annealed_evidence`.
            Compiled code draws its noise in another order, so that the estimate differs as with another seed.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.
        memory_mb: budget in MiB for one pass of the pair; it holds whatever K is.
        progress: show a progress bar with the time that remains.

    Returns:
        ImportanceEvidence: tensors of shape ``(num_data,)``, in nats.

    Raises:
        OptionError: an option has a value that cannot be used.
        DataError: ``x`` is not a tensor of at least one datum, or it holds NaN or infinite values.
        PairError: the pair breaks the contract: a latent stands in one program only, or the guide is a point mass.

    Example:
        >>> import torch
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair = LinearGaussian(num_features=3, latent_dim=2)
        >>> x = torch.randn(4, 3)
        >>> evidence = importance_evidence(pair.model, pair.guide, x, num_particles=2000, seed=1)
        >>> bool((evidence.log_evidence >= evidence.elbo).all())
        True
        >>> lower, upper = evidence.interval(0.999)
        >>> bool(((lower < pair.log_evidence(x)) & (pair.log_evidence(x) < upper)).all())
        True
    """
    num_particles = whole_number("num_particles", num_particles)
    low = one_of("precision", precision, get_args(Precision)) == "bfloat16"
    seed, memory_mb, progress = valid_compute(seed, memory_mb, progress)
    compile = flag_or("auto", "compile", compile)
    if low and compile is True:
        raise OptionError("compile=True is for precision='full' only: leave one of the two out.")
    batch = where_parameters_are(model, guide, finite_batch(as_batch(x)))
    with seeded(seed), Pair.on(model, guide, batch) as pair:
        pair.evaluations.compile(False if low else compile, pair, 0, num_particles * pair.num_units)
        with Progress("log p(x)", pair.num_units * num_particles, "weights", progress, why_slow(pair)) as bar:
            budget = int(SEARCH_SHARE * num_particles)
            pieces = search_pieces(pair, budget, memory_mb) or [slice(0, pair.num_units)]
            parts = [_estimated(pair.rows(some), num_particles, budget, memory_mb, low, bar) for some in pieces]
        evidence = replace(ImportanceEvidence.concatenate(parts), notes=(*pair.remarks, *pair.evaluations.remarks))
        return with_effect(evidence, effect_of_precision(pair, num_particles, memory_mb)) if low else evidence


def _estimated(
    pair: Pair, num_particles: int, budget: int, memory_mb: float, low: bool, bar: Progress
) -> ImportanceEvidence:
    """The estimate for data that are searched at once, with so many evaluations of each."""
    found = search_all(pair, budget, memory_mb)
    misses = found.in_modes if found is not None else torch.zeros(pair.num_units, dtype=torch.bool)
    parts, order = [], []
    if not misses.all():
        index = (~misses).nonzero()[:, 0]
        some = pair.rows(index) if misses.any() else pair
        how = partial(by_guide, weigh=weighed) if low else _by_code
        parts.append(how(some, num_particles, memory_mb, bar))
        order.append(index)
    if found is not None and misses.any():
        index = misses.nonzero()[:, 0]
        parts.append(defended(pair.rows(index), found.rows(index), num_particles, memory_mb))
        bar.advance(len(index) * num_particles)
        order.append(index)
    evidence = ImportanceEvidence.concatenate(parts).rows(torch.cat(order).argsort())
    return with_search(held_to_prior(evidence, pair, budget, memory_mb), found, pair)


def by_guide(
    pair: Pair,
    num_particles: int,
    memory_mb: float,
    bar: Progress | None = None,
    weigh: Callable[[Pair, int], Tensor] = Pair.log_weights,
    parted: Callable[[Pair, int, float], Iterator[tuple[slice, slice]]] = Pair.chunks,
) -> ImportanceEvidence:
    """The estimate from draws of the guide alone, weighed in this way in these parts; no search is made."""
    parts: list[ImportanceEvidence] = []
    running: Running | None = None
    some = pair
    with torch.no_grad():
        for units, particles in parted(pair, num_particles, memory_mb):
            if particles.start == 0:
                some = pair.rows(units)
            log_w = weigh(some, particles.stop - particles.start)
            running = running or Running(num_particles, units.stop - units.start)
            running.add(log_w.cpu())
            if bar is not None:
                bar.advance(log_w.numel())
            if particles.stop == num_particles:
                parts.append(running.evidence())
                running = None
    return ImportanceEvidence.concatenate(parts)


def _by_code(pair: Pair, num_particles: int, memory_mb: float, bar: Progress) -> ImportanceEvidence:
    """The estimate from draws of the guide alone, by compiled code where it is to be had."""
    weigh = partial(pair.evaluations.log_weights, memory_mb=memory_mb)
    return by_guide(pair, num_particles, memory_mb, bar, weigh, pair.evaluations.chunks)
