"""The parts of the ELBO's gap for every datum: the record that :func:`ppvae.inference.attribute_gap` returns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from ..evidence import mean_with_errors
from ..options import one_of
from ..records import Summarised, of_data
from .refinement import Refinement

if TYPE_CHECKING:
    import xarray as xr

PARTS = ("total", "amortisation", "family", "covariance", "flow", "rest")

# What must hold for a part: these members have converged, and log p(x) is to be trusted.
_NEEDS: dict[str, tuple[tuple[str, ...], bool]] = {
    "total": ((), True),
    "amortisation": (("guide",), False),
    "family": (("guide",), True),
    "covariance": (("guide", "full"), False),
    "flow": (("full", "flow"), False),
    "rest": (("flow",), True),
}


@dataclass(frozen=True, repr=False)
class GapAttribution(Summarised):
    """The parts of log p(x) − ELBO for every datum, ``(num_data,)`` in nats.

    Where the draws of the guide cannot be mapped, covariance, flow and rest are NaN, and summary and dataset leave them
    out.

    Attributes:
        log_evidence: log p(x), from the evidence that was given or estimated.
        log_evidence_standard_error: of ``log_evidence``.
        reliable: whether log p(x) is to be trusted, ``(num_data,)`` bool: k̂ < 0.7, or weights that hardly vary.
        refinement: the members whose ELBOs the parts are differences of.
    """

    printed: ClassVar = "num_data log_evidence elbo total amortisation family covariance flow rest"

    log_evidence: Tensor
    log_evidence_standard_error: Tensor
    reliable: Tensor
    refinement: Refinement

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the parts that are known: all, or total, amortisation and family."""
        return PARTS if "flow" in self.refinement.members else PARTS[:3]

    @property
    def elbo(self) -> Tensor:
        """ELBO of the guide, ``(num_data,)``."""
        return self.refinement.members["amortised"].elbo

    @property
    def total(self) -> Tensor:
        """log p(x) − ELBO of the guide."""
        return self.log_evidence - self.elbo

    @property
    def amortisation(self) -> Tensor:
        """What the best member of the guide's family wins over the guide."""
        return self.refinement.members["guide"].gain

    @property
    def family(self) -> Tensor:
        """log p(x) − ELBO of the best member of the guide's family."""
        return self.total - self.amortisation

    @property
    def covariance(self) -> Tensor:
        """What full covariance wins over the best member of the guide's family."""
        return self._gain("full")

    @property
    def flow(self) -> Tensor:
        """What coupling layers win over full covariance."""
        return self._gain("flow")

    @property
    def rest(self) -> Tensor:
        """log p(x) − ELBO of the richest member."""
        return self.family - self.covariance - self.flow

    def _gain(self, family: str) -> Tensor:
        member = self.refinement.members.get(family)
        return torch.full_like(self.total, math.nan) if member is None else member.gain

    @property
    def standard_error(self) -> dict[str, Tensor]:
        """The Monte Carlo error of each part that is known by name, ``(num_data,)``.

        log p(x) and an ELBO count as independent; where they come from the same draws this errs on the large side.
        """
        members = self.refinement.members

        def from_evidence(family: str) -> Tensor:
            return torch.hypot(self.log_evidence_standard_error, members[family].elbo_standard_error)

        found = {
            "total": from_evidence("amortised"),
            "amortisation": members["guide"].gain_standard_error,
            "family": from_evidence("guide"),
        }
        if "rest" in self.parts:
            found["covariance"] = members["full"].gain_standard_error
            found["flow"] = members["flow"].gain_standard_error
            found["rest"] = from_evidence("flow")
        return found

    def resolved_part(self, part: str) -> Tensor:
        """Whether a part is resolved, ``(num_data,)`` bool: the members it compares have converged, and log p(x), where
        the part holds it, is to be trusted. A part that is not known is not resolved.

        Args:
            part: ``total``, ``amortisation``, ``family``, ``covariance``, ``flow`` or ``rest``.

        Raises:
            OptionError: there is no such part.
        """
        one_of("part", part, PARTS)
        families, evidence = _NEEDS[part]
        holds = self.reliable.clone() if evidence else torch.ones_like(self.reliable)
        for family in families:
            member = self.refinement.members.get(family)
            holds &= False if member is None else member.converged
        return holds

    @property
    def resolved(self) -> Tensor:
        """Whether the split into family and amortisation is resolved, ``(num_data,)`` bool."""
        return self.resolved_part("family")

    def summary(self) -> dict[str, float]:
        """Means over all data in nats, with errors.

        For each part, and for ``log_evidence`` and ``elbo``: the mean and its ``*_standard_error``, of which
        ``*_monte_carlo_error`` and ``*_data_error`` are the parts, as in :meth:`Evidence.summary`. For each part
        ``*_resolved``, the share of data for which it is resolved; and ``num_data``. Parts that are not known are left
        out.
        """
        out: dict[str, float] = {"num_data": len(self.total)}
        amortised = self.refinement.members["amortised"]
        rows = [
            ("log_evidence", self.log_evidence, self.log_evidence_standard_error),
            ("elbo", self.elbo, amortised.elbo_standard_error),
            *((part, getattr(self, part), self.standard_error[part]) for part in self.parts),
        ]
        for name, values, errors in rows:
            out |= {f"{name}{suffix}": value for suffix, value in mean_with_errors(values, errors).items()}
        out |= {f"{part}_resolved": float(self.resolved_part(part).double().mean()) for part in self.parts}
        return out

    def remarks(self) -> list[str]:
        """Remarks on the numbers, a sentence each; empty when there are none."""
        n = len(self.total)
        found = self.refinement.remarks()
        unreached = int((~self.refinement.members["guide"].converged).sum())
        if unreached:
            found.append(
                f"amortisation is not resolved for {of_data(unreached, n)}: there it is too small, and the family's "
                "part too large by the same amount."
            )
        doubtful = int((~self.reliable).sum())
        if doubtful:
            held = "total, family and rest" if "rest" in self.parts else "total and family"
            found.append(
                f"log p(x) is not to be trusted for {of_data(doubtful, n)}, and with it {held}; they are probably "
                "larger: give the evidence of a stronger estimator."
            )
        last = self.parts[-1]  # log p(x) less the ELBO of the richest member
        below = int((getattr(self, last) + 3 * self.standard_error[last] < 0).sum())
        if below:
            found.append(
                f"the richest member's ELBO lies above log p(x) by more than three standard errors for "
                f"{of_data(below, n)}, which no ELBO can: log p(x) is too low there."
            )
        return found

    def to_dataset(self) -> xr.Dataset:
        """As an xarray Dataset with dim ``datum``, in nats."""
        import xarray as xr

        variables = {"log_evidence": self.log_evidence, "elbo": self.elbo}
        variables["log_evidence_standard_error"] = self.log_evidence_standard_error
        variables["elbo_standard_error"] = self.refinement.members["amortised"].elbo_standard_error
        for part in self.parts:
            variables[part] = getattr(self, part)
            variables[f"{part}_standard_error"] = self.standard_error[part]
        flags = {f"{part}_resolved": self.resolved_part(part) for part in self.parts}
        coords = {"datum": range(len(self.total))}
        dataset = xr.Dataset({k: ("datum", v.numpy()) for k, v in {**variables, **flags}.items()}, coords=coords)
        for name in variables:
            dataset[name].attrs["units"] = "nats"
        return dataset
