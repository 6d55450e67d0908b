"""What is known about log p(x), per datum: the record that every estimator of evidence returns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
import xarray as xr
from scipy import stats
from torch import Tensor

from ppvae.errors import OptionError

# Above this shape of the weights' tail, importance sampling is not to be trusted (Vehtari et al., 2024, §3).
PARETO_K_LIMIT = 0.7
# Above this standard deviation of the chains' log weights, in nats, too few chains carry the weight.
SPREAD_LIMIT = 1.5
# Fewer chains than this do not show their spread; chains that accept less than this have not moved.
LEAST_CHAINS, LEAST_ACCEPTANCE = 8, 0.1
# What all data of a record have in common.
SHARED = ("num_particles", "bound_k", "method")


@dataclass(frozen=True)
class Evidence:
    """Estimates of log p(x) and of the ELBO for every datum, in nats, each with its standard error.

    Attributes:
        log_evidence: log p̂(x), ``(num_data,)``. Its expectation lies below log p(x), by about half the squared
            standard error.
        standard_error: of ``log_evidence``, by the delta method.
        batch_standard_error: the same from the spread of batch means, as a cross-check.
        jackknife: log p(x) with the bias of order 1/K removed; no longer a lower bound.
        elbo: E_q[log p(x, z) − log q(z|x)]. Sites that the guide enumerates are summed out of it too.
        elbo_standard_error: of ``elbo``.
        gap_standard_error: of ``gap``; both terms come from the same draws.
        ess: effective number of draws, (Σw)²/Σw².
        pareto_k: shape k̂ of the tail of the weights; above 0.7 the estimate must not be trusted.
        num_particles: draws per datum, K.
        bound_k: sizes k of the K-sample bounds, ``(num_bounds,)``: 1, 2, 4, … up to K/8, above which too few blocks of
            k draws are left to average, and K.
        bound: their estimates L_k, ``(num_bounds, num_data)``, unbiased for L_k; the first is ``elbo``, the last
            ``log_evidence``.
        bound_standard_error: of ``bound``.
        method: how log p(x) was estimated. ``"importance"``: the weights are those of draws of the guide;
            ``"annealing"``: of chains from the guide or the prior to the posterior, so that ``ess``, ``pareto_k`` and
            ``bound`` speak of chains, and the first bound lies between the ELBO and log p(x); ``"adaptive"``: by
            whichever settled the datum; ``num_particles``, the ELBO and ``bound`` are those of the first draws of
            the guide.
        details: further facts of the method, ``(num_data,)`` each; see the function that made the record.
    """

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
    method: str = "importance"
    details: dict[str, Tensor] = field(default_factory=dict)

    @property
    def gap(self) -> Tensor:
        """log p(x) − ELBO = KL(q(z|x) ‖ p(z|x)), ``(num_data,)``, in nats."""
        return self.log_evidence - self.elbo

    @property
    def by_chains(self) -> Tensor:
        """Whether the weights are those of annealed chains, ``(num_data,)`` bool."""
        everywhere = torch.full_like(self.log_evidence, self.method == "annealing", dtype=torch.bool)
        return self.details["num_distributions"] > 0 if self.method == "adaptive" else everywhere

    @property
    def num_draws(self) -> Tensor:
        """How many weights ``log_evidence`` is the mean of, ``(num_data,)``."""
        everywhere = torch.full_like(self.log_evidence, self.num_particles)
        return self.details["num_draws"] if self.method == "adaptive" else everywhere

    @property
    def spread(self) -> Tensor:
        """Standard deviation of the log weights that ``log_evidence`` comes from, ``(num_data,)``, in nats."""
        if self.method == "adaptive":
            return self.details["spread"]
        return self.bound_standard_error[0] * math.sqrt(self.num_particles)

    @property
    def reliable(self) -> Tensor:
        """Whether the tail of the weights lets the error be trusted, ``(num_data,)`` bool.

        For draws k̂ < 0.7, for annealed chains ``spread`` < 1.5 nats. False too where these could not be computed.
        """
        return torch.where(self.by_chains, self.spread < SPREAD_LIMIT, self.pareto_k < PARETO_K_LIMIT)

    def interval(self, confidence: float = 0.95) -> tuple[Tensor, Tensor]:
        """An interval for log p(x) of every datum: ``(lower, upper)``, each ``(num_data,)``, in nats.

            lower = log p̂ − s,   upper = log p̂ − log(1 − r)

            draws:   s = z·SE,                              r = s·(1 − k̂₊)^(−3/2)
            chains:  s = t·max(SE, √((exp σ² − 1)/C)),      r = s

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
        if not 0 < confidence < 1:
            raise OptionError(f"confidence must lie between 0 and 1; it is {confidence}.")
        z = math.sqrt(2) * torch.erfinv(torch.tensor(confidence, dtype=torch.float64)).item()
        half = z * self.standard_error
        widened = half * (1 - self.pareto_k.clamp(0, 0.99)) ** -1.5
        freedom = (self.num_draws - 1).clamp(min=1).numpy()
        t = torch.from_numpy(stats.t.ppf((1 + confidence) / 2, freedom))
        log_normal = (self.spread.square().expm1() / self.num_draws).sqrt()
        chains = t * torch.maximum(self.standard_error, log_normal)
        half = torch.where(self.by_chains, chains, half).nan_to_num(math.inf)
        widened = torch.where(self.by_chains, chains, widened)
        upper = self.log_evidence - torch.log1p(-widened.clamp(max=1.0))
        return self.log_evidence - half, torch.where(self.reliable, upper, math.inf)

    def summary(self) -> dict[str, float]:
        """Means over the data in nats, with errors.

        For each of ``log_evidence``, ``elbo`` and ``gap``: the mean; ``*_standard_error``, its error as an estimate
        for the population that the data come from; and the two parts of that: ``*_monte_carlo_error`` (more particles
        shrink it) and ``*_data_error`` (more data shrink it), total² = Monte Carlo² + data². Further ``pareto_k_mean``,
        ``pareto_k_share_above_0_7`` (unknown k̂ counts as above), ``ess_mean``, ``num_data``, ``num_particles``.
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
        return out

    def remarks(self) -> list[str]:
        """What a reader of the numbers must be told, a sentence each; empty when there is nothing."""
        found = []
        n = len(self.log_evidence)
        broken = self.log_evidence.isnan() | self.log_evidence.isposinf()
        impossible = self.log_evidence.isneginf()
        if broken.any():
            found.append(
                f"log p(x) of {int(broken.sum())} of {n} data is not a number: the model or the guide returned a "
                "density that is not finite (ppvae check names the site)."
            )
        if impossible.any():
            found.append(
                f"no draw of the guide has positive density under the model for {int(impossible.sum())} of {n} data: "
                "they have probability zero under the model, or the guide looks in the wrong place."
            )
        doubtful = ~self.reliable & ~broken & ~impossible
        found += self._remarks_on_chains(doubtful & self.by_chains)
        if self.method == "adaptive":
            return found + self._remarks_on_settling()
        if (doubtful & ~self.by_chains).any() and self.num_particles >= 25:
            found.append(
                f"k-hat is not below {PARETO_K_LIMIT} for {int((~self.reliable).sum())} of {n} data: there log p(x) "
                "and its error are not to be trusted, and the true value is probably higher; use a wider guide or more "
                "particles."
            )
        if self.method == "importance" and self.num_particles < 25:
            found.append(
                f"{self.num_particles} particles are too few to judge the weights (k-hat needs 25): the errors are not "
                "to be trusted."
            )
        return found

    def _remarks_on_chains(self, doubtful: Tensor) -> list[str]:
        """What is to be said of annealed chains."""
        found, n = [], len(doubtful)
        if self.method == "annealing" and self.num_particles < LEAST_CHAINS:
            found.append(
                f"{self.num_particles} chains are too few to judge their weights: take {LEAST_CHAINS} or more."
            )
        elif doubtful.any():
            found.append(
                f"the log weights of the annealed chains spread over {SPREAD_LIMIT} nats or more for "
                f"{int(doubtful.sum())} of {n} data: there log p(x) is probably higher; use more distributions."
            )
        stuck = self.by_chains & (self.details.get("acceptance", torch.ones(n)) < LEAST_ACCEPTANCE)
        if stuck.any():
            found.append(
                f"the annealed chains hardly moved for {int(stuck.sum())} of {n} data (acceptance below "
                f"{LEAST_ACCEPTANCE}): the error is not to be trusted; anneal from the guide, or see whether the "
                "posterior is smooth."
            )
        return found

    def _remarks_on_settling(self) -> list[str]:
        """What is to be said of data that are not known as well as was asked."""
        found, n = [], len(self.log_evidence)
        open_ = (self.details["settled_by"] == 3) & self.log_evidence.isfinite()
        rounding = open_ & self.details["rounded"]
        torn = open_ & self.details["torn"]
        rest = open_ & ~rounding & ~torn
        if rounding.any():
            found.append(
                f"log p(x) of {int(rounding.sum())} of {n} data is so far from zero that single precision rounds it by "
                "more than the tolerance: run the pair in double precision."
            )
        if torn.any():
            found.append(
                f"draws of the prior find a part of the posterior that the guide and the annealed chains miss for "
                f"{int(torn.sum())} of {n} data: the estimate is that of the draws; give a guide that covers it."
            )
        if rest.any():
            found.append(
                f"log p(x) of {int(rest.sum())} of {n} data is not known to within the tolerance: the budget is spent; "
                "their intervals are wider."
            )
        if not self.details["annealable"].all():
            found.append(
                "chains cannot be annealed through this pair's latents (annealed_evidence says why): log p(x) comes "
                "from draws of the guide alone."
            )
        return found

    def to_dataset(self) -> xr.Dataset:
        """As an xarray Dataset with dims ``datum`` and ``bound_k``, in nats."""
        variables: dict[str, tuple[tuple[str, ...], object]] = {
            f.name: (("datum",), getattr(self, f.name).numpy())
            for f in fields(self)
            if f.name not in {*SHARED, "bound", "bound_standard_error", "details"}
        }
        variables |= {name: (("datum",), values.numpy()) for name, values in self.details.items()}
        variables["gap"] = (("datum",), self.gap.numpy())
        for name in ("bound", "bound_standard_error"):
            variables[name] = (("bound_k", "datum"), getattr(self, name).numpy())
        coords = {"bound_k": self.bound_k.numpy(), "datum": range(len(self.elbo))}
        attributes = {"num_particles": self.num_particles, "method": self.method}
        dataset = xr.Dataset(variables, coords=coords, attrs=attributes)
        for name in variables:
            if name not in {"ess", "pareto_k", *self.details}:
                dataset[name].attrs["units"] = "nats"
        return dataset

    @staticmethod
    def concatenate(parts: Sequence[Evidence]) -> Evidence:
        """One record for the data of several, in order; all by the same method from the same number of particles."""
        per_datum: dict[str, Any] = {
            f.name: torch.cat([getattr(p, f.name) for p in parts], dim=-1)
            for f in fields(Evidence)
            if f.name not in {*SHARED, "details"}
        }
        shared: dict[str, Any] = {name: getattr(parts[0], name) for name in SHARED}
        details = {name: torch.cat([p.details[name] for p in parts]) for name in parts[0].details}
        return Evidence(**per_datum, **shared, details=details)


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
