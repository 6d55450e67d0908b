"""Posterior collapse: which latent units the guide uses, one by one.

A unit z_j is one number of a latent site. It has collapsed when its posterior is the prior whatever x is, and then
tells nothing about x. With n uniform on 1…N and q(z_j) = (1/N) Σ_n q(z_j|x_n), the surgery of the ELBO
(:mod:`ppvae.inference.posterior.surgery`) applies to the unit alone:

    (1/N) Σ_n KL(q(z_j|x_n) ‖ p(z_j)) = I_q(n; z_j) + KL(q(z_j) ‖ p(z_j)),      I_q(n; z_j) ≤ log N.

All three are means over the same draws z_nk ~ q(z|x_n), k = 1…K, with q(z_j) averaged over all N data. Î is unbiased
for these N data; as an estimate of I(x; z_j) in the population it lies too low, and is the worse the nearer log N is.

The units' activity by Burda et al. is the variance over the data of the posterior mean,

    A_j = Var_x( E_q[z_j|x] ),        active if A_j > 0.01,

for a prior of variance 1; any other prior's variance is divided out. The means m̂_n are the distribution's own where it
knows its mean, else averages over draws, whose noise makes Var(m̂) too large on average by (1/N) Σ_n s_n²/K, which is
taken off. The error is the jackknife's, and so that of a statement about the population.

A unit may also speak through its scale while its mean stands still. It is therefore called active if A_j, in prior
variances, exceeds the threshold or I_q(n; z_j) that of a Gaussian unit at the threshold, −½ log(1 − 0.01) = 0.005 nats,
by two standard errors; collapsed if both stay below by two standard errors; else undecided.

In a hierarchy q(z_j|x) and p(z_j) are integrals over the latents that z_j is drawn from, its parents: averages over 500
of their draws, fresh for each k, so that the errors know of them. The bias of log q of order 1/500 is removed.

References:
    Importance Weighted Autoencoders (Burda, Grosse & Salakhutdinov, 2016), arXiv:1509.00519: active units,
    over the first 500 training points.
    ELBO surgery: yet another way to carve up the variational evidence lower bound (Hoffman & Johnson, 2016), NIPS
    workshop on Advances in Approximate Bayesian Inference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import torch
from torch import Tensor

from ppvae.errors import DataError, OptionError, PairError
from ppvae.progress import Progress

from ..options import number_between, valid_compute, whole_number
from ..pair import (
    Batch,
    Pair,
    Program,
    UnitDraws,
    Which,
    as_batch,
    chunks,
    cross_log_density,
    finite_batch,
    generator_kept,
    guide_order,
    has_parents,
    is_masked,
    own_log_density,
    seeded,
    unit_draws,
    unit_indices,
    where_parameters_are,
    why_slow,
    why_unknown,
)
from .units import ESTIMATES, LatentUnits

WHICH: tuple[Which, Which] = ("guide", "model")
# How many draws of its parents a marginal density is averaged over.
PARENTS = 500
# Bytes that one density of one unit costs, with what is computed from it.
_DENSITY = 64


def latent_units(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    num_particles: int = 20,
    *,
    threshold: float = 0.01,
    seed: int | None = None,
    memory_mb: float = 64.0,
    progress: bool = False,
) -> LatentUnits:
    """Which latent units the guide uses, and which have collapsed.

    The work grows with N² K densities of every unit; the memory does not. 500 data, as Burda et al. took, are enough
    for most verdicts.

    Args:
        model: ``model(x, *context)``, the generative program; its latents must be drawn from one prior for all data.
        guide: ``guide(x, *context)``; the numbers of its continuous latents, in any site or plate, are the units.
        x: data, first dimension ``num_data``; or a tuple ``(x, *context)``. q(z_j) and the means' spread are over all.
        num_particles: draws of the guide per datum, K ≥ 2.
        threshold: activity below which a unit is not called active, in variances of its prior, in (0, 1).
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.
        memory_mb: budget in MiB for one pass of the pair; some copies of the N·K draws come on top.
        progress: show a progress bar with the time that remains.

    Returns:
        LatentUnits: tensors of shape ``(num_units,)``, in the order of the guide's sites.

    Raises:
        OptionError: ``num_particles`` is below 2, ``threshold`` outside (0, 1), or ``memory_mb`` not positive.
        DataError: ``x`` is not a tensor of at least 3 data, holds NaN or infinite values.
        PairError: the pair breaks the contract, has no continuous latent in both programs, or masks one.

    Example:
        A linear pair whose guide reads x in its first unit alone:

        >>> import torch
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair = LinearGaussian(num_features=3, latent_dim=2)
        >>> with torch.no_grad():
        ...     _ = pair.guide_weight[0].fill_(0.5)
        >>> units = latent_units(pair.model, pair.guide, torch.randn(100, 3), seed=0)
        >>> dict(zip(units.label, units.verdict))
        {'z[0]': 'active', 'z[1]': 'collapsed'}
        >>> units.kl[1].item(), units.remarks()
        (0.0, ['1 of 2 latent units have collapsed (z[1]): they tell nothing about x.'])
    """
    seed, memory_mb, progress = valid_compute(seed, memory_mb, progress)
    threshold = number_between("threshold", threshold, 0, 1, "prior variances")
    num_particles = whole_number("num_particles", num_particles)
    if num_particles < 2:
        raise OptionError("num_particles is 1, from which no error can be read: give at least 2.")
    batch = finite_batch(as_batch(x))
    if len(batch[0]) < 3:
        raise DataError(f"x holds {len(batch[0])} data, whose spread cannot be judged: give at least 3.")
    batch = where_parameters_are(model, guide, batch)
    with seeded(seed), Pair.on(model, guide, batch, density=False) as pair, torch.no_grad():
        if pair.unit == "data set":
            raise PairError("the data share the latents: give a pair with latents for each datum, whose units differ.")
        work = _Work(pair, num_particles, memory_mb)
        densities = sum(not site.guide_reason for site in work.sites.values()) * num_particles * pair.num_units**2
        with Progress("q(z)", densities, "densities", progress, why_slow(pair)) as bar:
            parts = [work.estimate(name, bar) for name in work.sites]
    estimate = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    error = {name: estimate.pop(f"{name}_error") for name in ESTIMATES}
    sizes = {name: len(site.indices) for name, site in work.sites.items()}
    return LatentUnits(
        site=tuple(name for name, size in sizes.items() for _ in range(size)),
        index=tuple(index for site in work.sites.values() for index in site.indices),
        **estimate,
        standard_error=error,
        verdict=_verdicts(estimate, error, threshold),
        reason=tuple(work.sites[name].reason for name, size in sizes.items() for _ in range(size)),
        averaged=torch.cat([torch.full((sizes[name],), site.averaged) for name, site in work.sites.items()]),
        threshold=threshold,
        num_data=len(batch[0]),
        num_particles=num_particles,
    )


@dataclass(frozen=True)
class _Site:
    """A latent site: its units, over how many draws of parents its densities are averages, and why they are unknown."""

    indices: list[tuple[int, ...]]
    guide_parents: int
    model_parents: int
    guide_reason: str
    model_reason: str

    @property
    def reason(self) -> str:
        named = (("guide", self.guide_reason), ("prior", self.model_reason))
        return "; ".join(f"of its {program}, {reason}" for program, reason in named if reason)

    @property
    def averaged(self) -> bool:
        return max(self.guide_parents, self.model_parents) > 1


class _Work:
    """A pair on data, with the draws of the guide."""

    def __init__(self, pair: Pair, num_particles: int, memory_mb: float) -> None:
        self.pair, self.memory_mb, self.num_data = pair, memory_mb, pair.num_units
        self.sites = _sites(pair)
        self.draws = {name: self._draw(name, num_particles) for name in self.sites}

    def _draw(self, name: str, num_particles: int) -> UnitDraws:
        """The draws of a site and their means given their parents, ``(K, N, units)``."""
        columns = []
        for data, pieces in groupby(self.pair.chunks(num_particles, self.memory_mb), key=itemgetter(0)):
            part = self.pair.rows(data)
            rows = [unit_draws(part, "guide", name, draws.stop - draws.start) for _, draws in pieces]
            columns.append([torch.cat(list(same)) for same in zip(*rows, strict=True)])
        return UnitDraws(*(torch.cat(same, 1) for same in zip(*columns, strict=True)))

    def estimate(self, name: str, bar: Progress) -> dict[str, Tensor]:
        """Everything about the units of a site, and the errors as ``*_error``, ``(num_units,)`` each."""
        site = self.sites[name]
        log_q, log_aggregate, log_prior = self._log_densities(name, bar)
        terms = {
            "kl": log_q - log_prior,
            "mutual_information": log_q - log_aggregate,
            "marginal_kl": log_aggregate - log_prior,
        }
        out = {"prior_variance": self._prior_variance(name)}
        out["mean_variance"], out["mean_variance_error"] = _mean_variance(self.draws[name].means.double())
        for term, values in terms.items():
            out[term], out[f"{term}_error"] = values.mean((0, 1)), _error(values, site.averaged)
        return {key: value.cpu() for key, value in out.items()}

    def _log_densities(self, name: str, bar: Progress) -> tuple[Tensor, Tensor, Tensor]:
        """log q(z_j|x), log q(z_j) and log p(z_j) of the draws, ``(K, N, units)``; NaN where they are not known."""
        site, draws = self.sites[name], self.draws[name].values
        unknown = torch.full_like(draws, math.nan, dtype=torch.float64)
        if site.guide_reason:
            return unknown, unknown, unknown
        first = self.pair.rows(slice(0, 1))
        # With parents, each k has draws of them of its own, and is a replicate of the whole estimate.
        groups = draws.split(1) if site.averaged else (draws,)
        # The average over the data is an average over parents too: together they make up the number.
        shared = -(-site.guide_parents // self.num_data)
        own, aggregate, prior = [], [], []
        for z in groups:
            own.append(self._own(name, z))
            aggregate.append(self._average(self.pair, "guide", name, z, shared, bar))
            if not site.model_reason:
                prior.append(self._average(first, "model", name, z, site.model_parents))
        return torch.cat(own), torch.cat(aggregate), torch.cat(prior) if prior else unknown

    def _own(self, name: str, z: Tensor) -> Tensor:
        """log q(z_j|x_n) of draws ``(k, N, units)``, each under its own datum."""
        parents, out = self.sites[name].guide_parents, torch.empty_like(z, dtype=torch.float64)
        for data, part in self._pieces(self.pair, parents):
            if parents == 1:
                out[:, data] = own_log_density(part, "guide", name, z[:, data], len(z))
            else:
                for k, one in enumerate(z[:, data].split(1)):
                    log_q = own_log_density(part, "guide", name, one, parents)
                    out[k, data] = _log_mean(log_q)
        return out

    def _average(
        self, pair: Pair, which: Which, name: str, z: Tensor, parents: int, bar: Progress | None = None
    ) -> Tensor:
        """log of the mean density of draws ``(k, N, units)`` over all data of a pair and draws of the parents."""
        flat = z.flatten(0, 1)
        log_sum = torch.full_like(flat, -math.inf, dtype=torch.float64)
        for _, part in self._pieces(pair, parents):
            bytes_each = _DENSITY * flat.shape[1] * parents * part.num_units
            for _, block in chunks(len(flat), 1, bytes_each, self.memory_mb):
                log_q = cross_log_density(part, which, name, flat[block], parents)
                log_sum[block] = torch.logaddexp(log_sum[block], log_q.logsumexp((0, 1)).T)
                if bar is not None:
                    bar.advance((block.stop - block.start) * part.num_units)
        return log_sum.reshape(z.shape) - math.log(pair.num_units * parents)

    def _pieces(self, pair: Pair, parents: int) -> Iterator[tuple[slice, Pair]]:
        """A piece of the data at a time, with all draws of the parents."""
        for data, draws in pair.chunks(parents, self.memory_mb):
            if draws.start == 0:
                yield data, pair.rows(data)

    def _prior_variance(self, name: str) -> Tensor:
        """Var_p(z_j) = E[Var(z_j|parents)] + Var(E[z_j|parents]), over the parents' draws, ``(num_units,)``."""
        first = self.pair.rows(slice(0, 1))
        parts = [
            unit_draws(first, "model", name, draws.stop - draws.start)
            for _, draws in first.chunks(PARENTS, self.memory_mb)
        ]
        means = torch.cat([part.means.double()[:, 0] for part in parts])
        variances = torch.cat([part.variances.double()[:, 0] for part in parts])
        return variances.mean(0) + means.var(0)


def _sites(pair: Pair) -> dict[str, _Site]:
    """The continuous latents that stand in both programs."""
    # A few draws of a few data show whether a site depends on what was drawn before it.
    some = pair.rows(torch.linspace(0, pair.num_units - 1, min(8, pair.num_units)).long())
    sites = {}
    for name in guide_order(some):
        site = pair.sites[name]
        if not site.dtype.is_floating_point or site.discrete:
            continue
        if is_masked(some, name):
            raise PairError(
                f"{name!r} is masked, so that some data have no prior or no guide of it: leave out the mask, or them."
            )
        with generator_kept():
            if not _same_for_all(some, name):
                raise PairError(
                    f"the prior of {name!r} differs between data, so that q(z) has none to be compared with: give "
                    "it one prior for all data."
                )
            parents = {w: PARENTS if has_parents(some, w, name) else 1 for w in WHICH}
        reasons = [why_unknown(some, which, name) for which in WHICH]
        sites[name] = _Site(unit_indices(site), parents["guide"], parents["model"], *reasons)
    if not sites:
        raise PairError("no continuous latent is drawn by both programs: give a pair with one, to look at its units.")
    return sites


def _same_for_all(pair: Pair, name: str) -> bool:
    """Whether a site has the same prior for all data; with parents it cannot be seen, and is taken for granted."""
    if why_unknown(pair, "model", name) or has_parents(pair, "model", name):
        return True
    first = unit_draws(pair, "model", name, 1).values[:, 0]
    log_prior = cross_log_density(pair, "model", name, first, 1)
    return bool(log_prior.isclose(log_prior[:, :1], equal_nan=True).all())


def _mean_variance(means: Tensor) -> tuple[Tensor, Tensor]:
    """The variance over the data of means that are known by K draws each, ``(K, N, units)``, and its error."""
    num_particles, num_data = means.shape[:2]
    mean = means.mean(0)
    noise = means.var(0) / num_particles
    square = num_data / (num_data - 1) * (mean - mean.mean(0)) ** 2
    jackknife = (num_data - 1) / (num_data - 2) / math.sqrt(num_data)
    return (square - noise).mean(0), jackknife * (square - noise).std(0)


def _error(values: Tensor, averaged: bool) -> Tensor:
    """The standard error of the mean of terms ``(K, N, units)`` whose data are fixed, ``(num_units,)``."""
    num_particles, num_data = values.shape[:2]
    if averaged:  # draws of one k share the draws of the parents
        return values.mean(1).std(0) / math.sqrt(num_particles)
    return (values.var(0).sum(0) / num_particles).sqrt() / num_data


def _log_mean(log_q: Tensor) -> Tensor:
    """log of the mean of P densities, ``(P, ...)``, with its bias −Var(q)/(2 P q²) taken off."""
    count = len(log_q)
    log_mean = log_q.logsumexp(0) - math.log(count)
    relative = ((log_q - log_mean).exp() - 1).square().sum(0) / (count - 1)
    return log_mean + relative / (2 * count)


def _information(share: float) -> float:
    """I(x; z) = −½ log(1 − share) of a Gaussian unit whose mean has this share of its variance, in nats."""
    return -0.5 * math.log1p(-share)


def _verdicts(estimate: dict[str, Tensor], error: dict[str, Tensor], threshold: float) -> tuple[str, ...]:
    """Active, collapsed or undecided, by the two measures that are known."""
    measures = [
        (
            estimate["mean_variance"] / estimate["prior_variance"],
            error["mean_variance"] / estimate["prior_variance"],
            threshold,
        ),
        (estimate["mutual_information"], error["mutual_information"], _information(threshold)),
    ]
    known = [(value + wide).isfinite() for value, wide, _ in measures]
    above = [value - 2 * wide > limit for value, wide, limit in measures]
    below = [value + 2 * wide < limit for value, wide, limit in measures]
    active = (above[0] & known[0]) | (above[1] & known[1])
    collapsed = (below[0] | ~known[0]) & (below[1] | ~known[1]) & (known[0] | known[1])
    return tuple("active" if a else "collapsed" if c else "undecided" for a, c in zip(active, collapsed, strict=True))
