"""What is known about log p(x), per datum: the record that every estimator of evidence returns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

import scipy
import torch
from torch import Tensor

from ..options import number_between
from ..records import Printed, of_data

if TYPE_CHECKING:
    import xarray as xr

# Above this shape of the weights' tail, importance sampling is not to be trusted (Vehtari et al., 2024, §3).
PARETO_K_LIMIT = 0.7
# A share of p(x) that the guide misses and that is told: 0.2 nats.
MISSED_LIMIT = 0.2
# From the first of these k-hats on the standard error counts the tail of the weights, from the second on in full.
TAIL_COUNTS, TAIL_COUNTS_IN_FULL = 0.3, 0.5
# What all data of a record have in common.
SHARED = ("num_particles", "bound_k", "notes")
# What is not measured in nats.
WITHOUT_UNIT = ("ess", "pareto_k", "num_draws", "missed", "confirmed", "unreached", "diverged")


@dataclass(frozen=True, repr=False)
class Evidence(Printed):
    """Estimates of log p(x) and of the ELBO for every datum, in nats, each with its standard error.

    Made by :func:`ppvae.inference.importance_evidence`, :func:`ppvae.inference.annealed_evidence` and
    :func:`ppvae.inference.estimate_evidence`, each of which returns a subclass with further facts.

    Attributes:
        log_evidence: log p̂(x), ``(num_data,)``. Its expectation lies below log p(x), by about half the squared
            standard error.
        standard_error: of ``log_evidence``: the delta method's, enlarged where the weights have a heavy tail (see
            :attr:`tail_factor`).
        batch_standard_error: the delta method's from the spread of batch means, as a cross-check.
        jackknife: log p(x) with the bias of order 1/K removed; no longer a lower bound.
        elbo: E_q[log p(x, z) − log q(z|x)]. Sites that the guide enumerates are summed out of it too.
        elbo_standard_error: of ``elbo``.
        gap_standard_error: of ``gap``.
        ess: effective number of draws, (Σw)²/Σw².
        pareto_k: shape k̂ of the tail of the weights; above 0.7 the estimate must not be trusted.
        num_particles: draws or chains per datum, K.
        bound_k: sizes k of the K-sample bounds, ``(num_bounds,)``: 1, 2, 4, … up to K/8, above which too few blocks of
            k draws are left to average, and K.
        bound: their estimates L_k, ``(num_bounds, num_data)``, unbiased for L_k; the first is ``elbo`` where the
            weights are those of draws of the guide, the last ``log_evidence``.
        bound_standard_error: of ``bound``.
        num_draws: how many weights ``log_evidence`` is the mean of, ``(num_data,)``.
        spread: standard deviation of their logarithms, in nats.
        rounding: by how much the pair's floating-point type may round ``log_evidence``, in nats.
        missed: the share of p(x) that a search found in modes, or in places far out, where the guide's draws do not
            come; NaN where no search was made, for want of draws or of a density of the latents. Modes that were
            found are part of ``log_evidence``.
        confirmed: whether draws of the prior, enough of which carry weight, agree with ``log_evidence``, so that
            nothing is missed whatever the guide misses. Bool.
        notes: what is to be said of the pair itself, a sentence each.
    """

    method: ClassVar[str] = ""
    # Above this standard deviation of the chains' log weights, in nats, too few chains carry the weight.
    spread_limit: ClassVar[float] = 1.5

    log_evidence: Tensor
    standard_error: Tensor
    batch_standard_error: Tensor
    jackknife: Tensor
    elbo: Tensor
    elbo_standard_error: Tensor
    gap_standard_error: Tensor
    ess: Tensor
    pareto_k: Tensor
    num_particles: int
    bound_k: Tensor
    bound: Tensor
    bound_standard_error: Tensor
    num_draws: Tensor
    spread: Tensor
    rounding: Tensor
    missed: Tensor
    confirmed: Tensor
    notes: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def gap(self) -> Tensor:
        """log p(x) − ELBO = KL(q(z|x) ‖ p(z|x)), ``(num_data,)``, in nats."""
        return self.log_evidence - self.elbo

    @property
    def by_chains(self) -> Tensor:
        """Whether the weights are those of annealed chains, ``(num_data,)`` bool."""
        return torch.zeros_like(self.confirmed)

    @property
    def tail_factor(self) -> Tensor:
        """How much larger than the delta method's the standard error is, ``(num_data,)``.

        (1 − k̂)^(−3/2) from k̂ = 0.5 on, 1 up to 0.3, and between them between; of chains 1.
        """
        return torch.where(self.by_chains, 1.0, tail_factor(self.pareto_k))

    @property
    def delta_standard_error(self) -> Tensor:
        """The delta method's error of ``log_evidence``, ``(num_data,)``: the spread of estimates from light tails."""
        return self.standard_error / self.tail_factor

    @property
    def reliable(self) -> Tensor:
        """Whether the tail of the weights lets the error be trusted, ``(num_data,)`` bool.

        For draws k̂ < 0.7, for chains ``spread`` < 1.5 nats, or 0.8 by ``estimate_evidence``. False too where unknown.
        """
        return torch.where(self.by_chains, self.spread < self.spread_limit, self.pareto_k < PARETO_K_LIMIT)

    @property
    def misses_modes(self) -> Tensor:
        """Whether a search found a part of the posterior that the guide misses, and nothing says that it found all."""
        return (self.missed > MISSED_LIMIT) & ~self.confirmed

    @property
    def trusted(self) -> Tensor:
        """Whether estimate and error are to be trusted, ``(num_data,)`` bool: nothing is said in :meth:`doubts`."""
        return ~torch.stack([flags for flags, _ in self._reasons()]).any(0)

    def doubts(self) -> list[str]:
        """Why a datum is not to be trusted, in words, one for each; empty where it is."""
        out = [""] * len(self.log_evidence)
        for flags, words in self._reasons():
            for i in flags.nonzero()[:, 0].tolist():
                out[i] = out[i] or words
        return out

    def _reasons(self) -> list[tuple[Tensor, str]]:
        """Flags ``(num_data,)`` and what they mean, the gravest first."""
        return [
            (~self.log_evidence.isfinite(), "no draw has a finite positive weight"),
            (self.misses_modes, "the guide misses a part of the posterior"),
            (~self.reliable & self.by_chains, f"the chains' log weights spread over {self.spread_limit} nats or more"),
            (~self.reliable & ~self.by_chains, f"k-hat is not below {PARETO_K_LIMIT}"),
        ]

    def interval(self, confidence: float = 0.95) -> tuple[Tensor, Tensor]:
        """An interval for log p(x) of every datum: ``(lower, upper)``, each ``(num_data,)``, in nats.

            lower = log p̂ − s − ε,   upper = log p̂ − log(1 − r) + ε

            draws:   s = z·SE,                              r = s·(1 − k̂₊)^(−3/2)
            chains:  s = t·max(SE, √((exp σ² − 1)/C)),      r = s

        with the delta method's SE and the rounding ε.

        Weights with a heavy tail are rarely drawn, so the plain interval misses almost always from below: for
        Gaussian guides with k̂ near 0.6 its nominal 95 % cover 70 to 85 %. The factor in k̂ widens the upper side
        alone; with it coverage is at least 94 % for K ≥ 300 where the tail's true shape is below 0.7 (measured for
        Gaussian guides; held by ``tests/inference``). Where k̂ is 0.7 or more, or unknown, no upper
        end is stated (+inf).

        Annealed chains are too few for k̂, but their log weights are near normal, so that SE cannot well be smaller
        than that of log-normal weights with the standard deviation σ of log w; t is the quantile of Student's
        distribution with C − 1 degrees of freedom. Coverage is at least 94 % for C ≥ 8 and σ ≤ 1.5 nats where log w is
        normal or skewed to the left; skewed to the right (skewness 1) it is 92 % or so at σ ≤ 0.5 and falls to 89 %
        at σ = 0.75. Where σ is 1.5 nats or more no upper end is stated: use more distributions.

        Args:
            confidence: nominal coverage, in (0, 1).

        Raises:
            OptionError: ``confidence`` lies outside (0, 1).
        """
        confidence = number_between("confidence", confidence, 0, 1)
        z = math.sqrt(2) * torch.erfinv(torch.tensor(confidence, dtype=torch.float64)).item()
        half = z * self.delta_standard_error
        widened = half * (1 - self.pareto_k.clamp(0, 0.99)) ** -1.5
        freedom = (self.num_draws - 1).clamp(min=1).numpy()
        t = torch.from_numpy(scipy.special.stdtrit(freedom, (1 + confidence) / 2))
        log_normal = (self.spread.square().expm1() / self.num_draws).sqrt()
        chains = t * torch.maximum(self.standard_error, log_normal)
        half = torch.where(self.by_chains, chains, half).nan_to_num(math.inf)
        widened = torch.where(self.by_chains, chains, widened)
        upper = self.log_evidence - torch.log1p(-widened.clamp(max=1.0))
        lower = self.log_evidence - half - self.rounding
        return lower, torch.where(self.reliable, upper + self.rounding, math.inf)

    def summary(self) -> dict[str, float]:
        """Means over the data in nats, with errors.

        For each of ``log_evidence``, ``elbo`` and ``gap``: the mean; ``*_standard_error``, its error as an estimate
        for the population that the data come from; and the two parts of that: ``*_monte_carlo_error`` (more particles
        shrink it) and ``*_data_error`` (more data shrink it), total² = Monte Carlo² + data². Further ``pareto_k_mean``,
        ``pareto_k_share_above_0_7`` (unknown k̂ counts as above), ``ess_mean``, ``trusted_share``, ``num_data``,
        ``num_particles``.
        """
        out: dict[str, float] = {"num_data": len(self.log_evidence), "num_particles": self.num_particles}
        for name, values, errors in (
            ("log_evidence", self.log_evidence, self.standard_error),
            ("elbo", self.elbo, self.elbo_standard_error),
            ("gap", self.gap, self.gap_standard_error),
        ):
            out |= {f"{name}{suffix}": value for suffix, value in mean_with_errors(values, errors).items()}
        out["pareto_k_mean"] = float(self.pareto_k.mean())
        out["pareto_k_share_above_0_7"] = float((~(self.pareto_k < PARETO_K_LIMIT)).double().mean())
        out["ess_mean"] = float(self.ess.mean())
        out["trusted_share"] = float(self.trusted.double().mean())
        return out

    def remarks(self) -> list[str]:
        """Remarks on the numbers, a sentence each; empty when there are none."""
        found = list(self.notes)
        n = len(self.log_evidence)
        broken = self.log_evidence.isnan() | self.log_evidence.isposinf()
        impossible = self.log_evidence.isneginf()
        if broken.any():
            found.append(
                f"log p(x) of {of_data(int(broken.sum()), n)} is not a number: the model or the guide returned a "
                "density that is not finite (ppvae check names the site)."
            )
        if impossible.any():
            found.append(
                f"no draw of the guide has positive density under the model for {of_data(int(impossible.sum()), n)}: "
                "they have probability zero under the model, or the guide looks in the wrong place."
            )
        if self.misses_modes.any():
            found.append(
                f"the guide misses a part of the posterior for {of_data(int(self.misses_modes.sum()), n)}: log p(x) "
                "counts what a search found there, and may still be too low; it is not to be trusted. Give a guide "
                "that covers it."
            )
        return found + self._remarks_on_weights(~self.reliable & ~broken & ~impossible)

    def _remarks_on_weights(self, doubtful: Tensor) -> list[str]:
        """What is to be said of the weights, of which those of some data are doubtful, ``(num_data,)`` bool."""
        return []

    def __repr__(self) -> str:
        """A few lines, without the tensors."""
        found = self.summary()
        n = len(self.log_evidence)
        lines = [f"{type(self).__name__} of {n} data, means in nats:" if n > 1 else f"{type(self).__name__}, in nats:"]
        for name in ("log_evidence", "elbo", "gap"):
            value, error = found[name], found[f"{name}_monte_carlo_error"]
            lines.append(f"  {name:12} {value:.4g} ± {error:.2g} (Monte Carlo)")
        shown = of_data(int(self.trusted.sum()), n)
        lines.append(f"  trusted: {shown if n > 1 else 'yes' if self.trusted.all() else 'no'}")
        if self.missed.isnan().any():
            lines.append(f"  no search for modes that the guide misses: {of_data(int(self.missed.isnan().sum()), n)}")
        return "\n".join([*lines, *(f"  {remark}" for remark in self.remarks())])

    def to_dataset(self) -> xr.Dataset:
        """As an xarray Dataset with dims ``datum`` and ``bound_k``, in nats."""
        import xarray as xr

        variables: dict[str, tuple[tuple[str, ...], object]] = {
            name: (("bound_k", "datum") if name.startswith("bound") else ("datum",), getattr(self, name).numpy())
            for name in self._per_datum()
        }
        variables["gap"] = (("datum",), self.gap.numpy())
        variables["trusted"] = (("datum",), self.trusted.numpy())
        coords = {"bound_k": self.bound_k.numpy(), "datum": range(len(self.elbo))}
        attributes = {"num_particles": self.num_particles, "method": self.method}
        dataset = xr.Dataset(variables, coords=coords, attrs=attributes)
        for name in variables:
            if dataset[name].dtype.kind == "f" and name not in WITHOUT_UNIT:
                dataset[name].attrs["units"] = "nats"
        return dataset

    def rows(self, index: Any) -> Self:
        """The record of some of the data."""
        return self._with({name: getattr(self, name)[..., index] for name in self._per_datum()})

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """One record for the data of several, in order; all by the same method from the same number of particles."""
        first = parts[0]
        return first._with({n: torch.cat([getattr(p, n) for p in parts], dim=-1) for n in first._per_datum()})

    def _with(self, per_datum: dict[str, Tensor]) -> Self:
        shared: dict[str, Any] = {name: getattr(self, name) for name in SHARED}
        everything: dict[str, Any] = {**per_datum, **shared}
        return type(self)(**everything)

    @classmethod
    def _per_datum(cls) -> list[str]:
        """Names of the fields whose last dimension counts the data."""
        return [f.name for f in fields(cls) if f.name not in SHARED]


def tail_factor(pareto_k: Tensor) -> Tensor:
    """How much a tail of shape k̂ enlarges the standard error of a mean of weights, at most that of k̂ = 0.7.

    With the delta method's error a quarter of the estimates with k̂ in (0.5, 0.7) are off by more than three standard
    errors, since the largest weights are seldom drawn; with this factor fewer than one in 100 (normal guides half as
    wide as the posterior, 5000 draws; held by ``tests/inference``).
    """
    in_full = ((pareto_k - TAIL_COUNTS) / (TAIL_COUNTS_IN_FULL - TAIL_COUNTS)).clamp(0, 1).nan_to_num(0.0)
    return (1 - pareto_k.nan_to_num(0.0).clamp(0, PARETO_K_LIMIT)) ** (-1.5 * in_full)


def mean_with_errors(values: Tensor, errors: Tensor) -> dict[str, float]:
    """The mean over data of per-datum estimates, its standard error, and the two parts of that.

    The spread of the estimates over the data holds their Monte Carlo variance too:
    total² = Var(values)/N, Monte Carlo² = Σ errors²/N², data² = total² − Monte Carlo². One datum has no spread: its
    total is the Monte Carlo error.
    """
    n = len(values)
    monte_carlo = float(errors.square().sum().sqrt() / n)
    total = float(values.std() / math.sqrt(n)) if n > 1 else monte_carlo
    data = math.sqrt(max(total**2 - monte_carlo**2, 0.0)) if math.isfinite(total) else math.nan
    return {
        "": float(values.mean()),
        "_standard_error": max(total, monte_carlo),
        "_monte_carlo_error": monte_carlo,
        "_data_error": data,
    }
