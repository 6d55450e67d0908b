"""What is known about log p(x), per datum: the record that every estimator of evidence returns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import torch
import xarray as xr
from torch import Tensor

from ppvae.errors import OptionError

# Above this shape of the weights' tail, importance sampling is not to be trusted (Vehtari et al., 2024, §3).
PARETO_K_LIMIT = 0.7
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
            whichever settled the datum.
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
    def reliable(self) -> Tensor:
        """Whether k̂ < 0.7, ``(num_data,)`` bool. False too where k̂ could not be computed."""
        return self.pareto_k < PARETO_K_LIMIT

    def interval(self, confidence: float = 0.95) -> tuple[Tensor, Tensor]:
        """An interval for log p(x) of every datum: ``(lower, upper)``, each ``(num_data,)``, in nats.

            lower = log p̂ − s,   upper = log p̂ − log(1 − s·(1 − k̂₊)^(−3/2)),   s = z·SE

        Weights with a heavy tail are rarely drawn, so the plain interval misses almost always from below: for
        Gaussian guides with k̂ near 0.6 its nominal 95 % cover 70 to 85 %. The factor in k̂ widens the upper side
        alone; with it coverage is at least 94 % for K ≥ 300 where the tail's true shape is below 0.7 (measured for
        Gaussian guides; held by ``tests/inference``). Where k̂ is 0.7 or more, or unknown, no upper
        end is stated (+inf).

        Args:
            confidence: nominal coverage, in (0, 1).

        Raises:
            OptionError: ``confidence`` lies outside (0, 1).
        """
        if not 0 < confidence < 1:
            raise OptionError(f"confidence must lie between 0 and 1; it is {confidence}.")
        z = math.sqrt(2) * torch.erfinv(torch.tensor(confidence, dtype=torch.float64)).item()
        half = z * self.standard_error.nan_to_num(math.inf)
        widened = half * (1 - self.pareto_k.clamp(0, 0.99)) ** -1.5
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
        out["pareto_k_share_above_0_7"] = float((~self.reliable).double().mean())
        out["ess_mean"] = float(self.ess.mean())
        return out

    def remarks(self) -> list[str]:
        """What a reader of the numbers must be told, a sentence each; empty when there is nothing."""
        found = []
        n = len(self.log_evidence)
        broken = int(self.log_evidence.isnan().sum() + self.log_evidence.isposinf().sum())
        impossible = int(self.log_evidence.isneginf().sum())
        doubtful = int((~self.reliable).sum())
        if broken:
            found.append(
                f"log p(x) of {broken} of {n} data is not a number: the model or the guide returned a density that is "
                "not finite (ppvae check names the site)."
            )
        if impossible:
            found.append(
                f"no draw of the guide has positive density under the model for {impossible} of {n} data: they have "
                "probability zero under the model, or the guide looks in the wrong place."
            )
        if doubtful - broken - impossible > 0 and self.num_particles >= 25:
            found.append(
                f"k-hat is not below {PARETO_K_LIMIT} for {doubtful} of {n} data: there log p(x) and its error are not "
                "to be trusted, and the true value is probably higher; use a wider guide or more particles."
            )
        if self.num_particles < 25:
            found.append(
                f"{self.num_particles} particles are too few to judge the weights (k-hat needs 25): the errors are not "
                "to be trusted."
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
        per_datum = {
            f.name: torch.cat([getattr(p, f.name) for p in parts], dim=-1)
            for f in fields(Evidence)
            if f.name not in {*SHARED, "details"}
        }
        shared = {name: getattr(parts[0], name) for name in SHARED}
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
