"""Why each unused unit is unused: the record that :func:`explain_collapse` returns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..latents import LatentUnits
from ..records import Summarised

# The causes, and what there is no cause for.
LIKELIHOOD, OPTIMISER, SCHEDULE = "likelihood", "optimiser", "KL schedule"
DECODER, REDUNDANCY, UNKNOWN = "decoder", "redundancy", "not found"
CAUSES = LIKELIHOOD, OPTIMISER, SCHEDULE, DECODER, REDUNDANCY, UNKNOWN


@dataclass(frozen=True)
class Trial:
    """A short training with one thing changed.

    Attributes:
        name: what was changed.
        reference: what its ELBO is compared with.
        gain: ELBO less that of the reference, on data held out, paired by datum, in nats; NaN if it could not be done.
        standard_error: of ``gain``.
        woken: units that are unused in the pair and active after the training.
        seconds: that it took.
        note: why it could not be done.
    """

    name: str
    reference: str
    gain: float
    standard_error: float
    woken: tuple[str, ...]
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class UnitCause:
    """A latent unit, and why it is unused if it is.

    Attributes:
        unit: its name.
        kl: KL(q(z_j|x) ‖ p(z_j)), mean over the data, in nats.
        verdict: ``"active"``, ``"collapsed"`` or ``"undecided"``.
        cause: one of ``CAUSES``, or empty where nothing is to be explained.
        evidence: what the number shows, in words.
        nats: the number.
        standard_error: of it.
        cure: what was tried against it.
        gain: of the ELBO on data held out, by the cure, in nats.
        gain_standard_error: of it.
    """

    unit: str
    kl: float
    verdict: str
    cause: str = ""
    evidence: str = ""
    nats: float = math.nan
    standard_error: float = math.nan
    cure: str = ""
    gain: float = math.nan
    gain_standard_error: float = math.nan


@dataclass(frozen=True, repr=False)
class ExplainedCollapse(Summarised):
    """What :func:`explain_collapse` found.

    Attributes:
        rows: a row for each unit, in the order of the guide's sites.
        trials: the trainings that were done, in order.
        units: what each unit does in the pair as it came.
        growth: ρ, the variance that the present latents leave out in the direction that varies most, in units of the
            noise's: above 1 the likelihood would let a unit grow from nothing. NaN where it is not known, or no unit is
            unused.
        growth_standard_error: of ``growth``.
        explained: share of the variance of what the unused units say while the others are cut that the others' means
            explain (R², on other data than the regression); NaN where that was not tried.
    """

    rows: tuple[UnitCause, ...]
    trials: tuple[Trial, ...]
    units: LatentUnits
    growth: float = math.nan
    growth_standard_error: float = math.nan
    explained: float = math.nan

    def of_cause(self, cause: str) -> tuple[str, ...]:
        """The names of the units with a cause."""
        return tuple(row.unit for row in self.rows if row.cause == cause)

    def summary(self) -> dict[str, Any]:
        """How many units there are of each verdict and each cause; ρ; seconds."""
        out: dict[str, Any] = {"num_units": len(self.rows)}
        out |= {v: sum(row.verdict == v for row in self.rows) for v in ("active", "collapsed", "undecided")}
        out |= {f"cause_{cause.replace(' ', '_')}": len(self.of_cause(cause)) for cause in CAUSES}
        out |= {"growth": self.growth, "growth_standard_error": self.growth_standard_error}
        return out | {"explained": self.explained, "seconds": sum(trial.seconds for trial in self.trials)}

    def remarks(self) -> list[str]:
        """Remarks on the numbers, a sentence each; empty when there are none."""
        found = [sentence for cause in CAUSES if (sentence := self._sentence(cause))]
        found += [f"{trial.name} could not be tried: {trial.note}." for trial in self.trials if trial.note]
        return found

    def __repr__(self) -> str:
        found = self.summary()
        first = f"ExplainedCollapse: {found['active']} of {found['num_units']} latent units active"
        if not any(row.cause for row in self.rows):
            return "\n".join([f"{first}, nothing to explain", *(f"  {remark}" for remark in self.remarks())])
        head = f"  {'unit':10} {'KL':>7}  {'cause':12} {'evidence (nats)':42} cure tried: gain (nats)"
        return "\n".join([f"{first}", head, *map(_line, _grouped(self.rows)), *(f"  {r}" for r in self.remarks())])

    def _sentence(self, cause: str) -> str:
        units = self.of_cause(cause)
        return "" if not units else f"{named(units)}: {self._why(cause)}"

    def _why(self, cause: str) -> str:
        rho = f"ρ = {self.growth:.2f} ± {self.growth_standard_error:.2f}"
        known = math.isfinite(self.growth)
        return {
            LIKELIHOOD: "the likelihood does not let it grow"
            + (f", since the noise hides what is left out ({rho})" if known and self.growth <= 1 else "")
            + ": learn the noise, or do without the unit.",
            OPTIMISER: "the optimiser has not left its start" + (f", though it could ({rho})" if known else "")
            + ": train longer, or from another start.",
            SCHEDULE: "the KL term was too heavy while the unit was to be learnt: weigh it by 1 in the end, and let it "
            "in slowly (Beta(WarmUp(num_steps))) or leave some of it free (FreeBits(0.25)).",
            DECODER: "the decoder reads x itself and needs no latents: let it read less of x, or do without the unit.",
            REDUNDANCY: "other units carry what it would say"
            + (f" (R² = {self.explained:.2f})" if math.isfinite(self.explained) else "") + ": do without the unit.",
            UNKNOWN: f"no trial moved it, though the likelihood would let it grow ({rho}): give more steps.",
        }[cause]  # fmt: skip


def named(units: Sequence[str]) -> str:
    """Names in a sentence, the first six of many."""
    return ", ".join(units[:6]) + (f" and {len(units) - 6} more" if len(units) > 6 else "")


def _grouped(rows: Sequence[UnitCause]) -> list[UnitCause]:
    """The rows that have a cause, the largest KL first, at most 12."""
    return sorted((row for row in rows if row.cause), key=lambda row: -row.kl)[:12]


def _line(row: UnitCause) -> str:
    shown = f"{row.evidence} {row.nats:+.3f} ± {row.standard_error:.2g}"
    cure = f"{row.cure} {row.gain:+.3f} ± {row.gain_standard_error:.2g}" if row.cure else "none"
    return f"  {row.unit:10} {row.kl:7.3f}  {row.cause:12} {shown:42} {cure}"
