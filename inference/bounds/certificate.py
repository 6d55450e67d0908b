"""The record that certify returns: lower and upper bounds of log p(x), their confidence, and what they assume."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from ..records import Summarised

if TYPE_CHECKING:
    import xarray as xr

Kind = Literal["exact", "simulated", "real"]

_NUMBERS = ("lower", "upper", "log_evidence", "standard_error")


@dataclass(frozen=True, repr=False)
class Certificate(Summarised):
    """Bounds on log p(x) of every datum, and on the mean over the data, in nats.

    What stands behind them is the ``kind``:

    - ``"exact"``: log p(x) is known, in closed form or as a finite sum; the two bounds are equal.
    - ``"simulated"``: the data were drawn from the model, and both bounds hold with the stated confidence, whatever
      the guide is and however badly the chains mix.
    - ``"real"``: the lower bound holds as above. The upper end of the mean is an unbiased estimate of a number that is
      at least the mean of log p(x), with the error of a large sample: it holds only if the chains reach all of the
      posterior and the tail of their weights is light (k-hat < 0.5). No upper *confidence* limit exists for given data
      without such an assumption: a huge weight of small probability changes no sample and any log p(x). Where the
      tail is heavy, or something shows that the chains miss a part of the posterior, there is no upper end (+inf), and
      the remarks say why and what to do.

    The confidence is that of one statement: of the mean's two bounds together, or of one datum's. That the bounds of
    all data hold at once is not claimed.

    Attributes:
        kind: see above.
        confidence: with which the bounds of a kind that is not exact hold, half the risk on each side.
        lower: ``(num_data,)``.
        upper: ``(num_data,)``; +inf where nothing can be said. Of single data it lies far from ``lower``: the errors of
            the mean cancel, these do not.
        mean_lower: of the mean of log p(x) over these data.
        mean_upper: the same from above.
        log_evidence: the estimate log p̂(x), ``(num_data,)``.
        standard_error: of ``log_evidence``.
        x: the data that all this is about, those drawn if they were.
        width: the width of the mean's interval that was asked for.
        least_width: that which the margins leave with so many data and chains, however good the chains are.
        shortfall: of simulated data, the mean of log p̃ − log p̂, which bounds the bias of log p̂ there.
        shortfall_error: its standard error.
        pareto_k: of real data, k-hat of each datum's weights, ``(num_data,)``; else empty.
        num_twins: how many data were drawn beside given ones to look for what the chains miss.
        start: of the chains, ``"guide"`` or ``"prior"``.
        num_chains: chains per datum, or draws where there is one distribution.
        num_distributions: from the start to the posterior; 1 is plain importance sampling.
        transitions: of all chains, those by which the settings were chosen among them.
        num_groups: into how many groups the weights of a datum are split for ``mean_lower``.
        tangents: of real data, what ``mean_upper`` is made of: ``(3, num_data)``, see
            :func:`ppvae.inference.bounds.tangent.mean_parts`; else empty.
        notes: what a reader of any number of the pair must be told.
    """

    printed: ClassVar = "kind num_data mean_lower log_evidence mean_upper"

    kind: Kind
    confidence: float
    lower: Tensor
    upper: Tensor
    mean_lower: float
    mean_upper: float
    log_evidence: Tensor
    standard_error: Tensor
    x: Tensor
    width: float
    least_width: float = 0.0
    shortfall: float = 0.0
    shortfall_error: float = 0.0
    pareto_k: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float64))
    num_twins: int = 0
    start: str = "guide"
    num_chains: int = 0
    num_distributions: int = 0
    transitions: int = 0
    num_groups: int = 1
    tangents: Tensor = field(default_factory=lambda: torch.empty(3, 0, dtype=torch.float64))
    notes: tuple[str, ...] = ()

    @property
    def reached(self) -> bool:
        """Whether the mean's interval is as narrow as was asked for."""
        return self.mean_upper - self.mean_lower <= self.width

    @staticmethod
    def exact(log_evidence: Tensor, x: Tensor, width: float) -> Certificate:
        """The certificate of data whose evidence is known."""
        mean = float(log_evidence.mean())
        none = torch.zeros_like(log_evidence)
        return Certificate("exact", 1.0, log_evidence, log_evidence, mean, mean, log_evidence, none, x, width)

    def shifted(self, by: Tensor) -> Certificate:
        """The certificate of a density that is another by a known factor, whose log is ``by``, ``(num_data,)``."""
        by = by.to(self.log_evidence)
        moved = {name: getattr(self, name) + by for name in ("lower", "upper", "log_evidence")}
        means = {name: getattr(self, name) + float(by.mean()) for name in ("mean_lower", "mean_upper")}
        return replace(self, **moved, **means)

    def summary(self) -> dict[str, Any]:
        """The mean's bounds in nats and all that went into them, with the medians of the data's own bounds."""
        return {
            "kind": self.kind,
            "confidence": self.confidence,
            "num_data": len(self.lower),
            "mean_lower": self.mean_lower,
            "mean_upper": self.mean_upper,
            "mean_width": self.mean_upper - self.mean_lower,
            "width": self.width,
            "reached": self.reached,
            "log_evidence": float(self.log_evidence.mean()),
            "log_evidence_monte_carlo_error": float(self.standard_error.norm() / len(self.lower)),
            "median_datum_width": float((self.upper - self.lower).median()),
            "shortfall": self.shortfall,
            "shortfall_error": self.shortfall_error,
            "median_pareto_k": float(self.pareto_k.median()) if len(self.pareto_k) else math.nan,
            "num_twins": self.num_twins,
            "start": self.start,
            "num_chains": self.num_chains,
            "num_distributions": self.num_distributions,
            "transitions": self.transitions,
        }

    def remarks(self) -> list[str]:
        """Remarks on the numbers, a sentence each; empty when there are none."""
        found = list(self.notes)
        impossible = int(self.log_evidence.isneginf().sum())
        if self.kind == "simulated":
            found.append(
                "the data were drawn from the model: the bounds say how well log p(x) can be computed for this pair, "
                "and nothing about how well the model fits other data."
            )
        if self.kind == "real" and math.isfinite(self.mean_upper):
            found.append(
                "the lower bound holds with its confidence; the upper end is an unbiased estimate of a number that is "
                "at least the mean of log p(x), with a large-sample error that holds only if the chains reach all of "
                "the posterior and k-hat < 0.5."
            )
        if impossible:
            found.append(
                f"no weight is positive for {impossible} of {len(self.lower)} data: they have probability zero under "
                "the model, or the chains start in the wrong place."
            )
        both = math.isfinite(self.mean_upper)
        if not self.reached and both and self.least_width >= self.width:
            found.append(
                f"with {len(self.lower)} data the margins alone make the interval of the mean {self.least_width:.2g} "
                f"nats wide, whatever is computed: give {'more chains, or ' if self.kind == 'real' else ''}at least "
                f"{self._data_needed()} data for a width of {self.width:g}."
            )
        elif not self.reached and both:
            wide = self.mean_upper - self.mean_lower
            found.append(
                f"the interval of the mean is {wide:.2g} nats wide and not {self.width:g}: the budget is spent; give "
                "more data, more chains (num_chains) or more steps (max_distributions)."
            )
        return found

    def _data_needed(self) -> int:
        """With how many data the least width is half of what was asked for."""
        return math.ceil(2 * self.least_width * len(self.lower) / self.width)

    def to_dataset(self) -> xr.Dataset:
        """As an xarray Dataset with the dim ``datum``, in nats; the summary is in its attributes."""
        import xarray as xr

        variables = {name: ("datum", getattr(self, name).numpy(), {"units": "nats"}) for name in _NUMBERS}
        # netCDF knows no booleans among the attributes.
        attributes = {k: int(v) if isinstance(v, bool) else v for k, v in self.summary().items()}
        if len(self.pareto_k):
            variables["pareto_k"] = ("datum", self.pareto_k.numpy(), {})
        return xr.Dataset(variables, coords={"datum": range(len(self.lower))}, attrs=attributes)
