"""What is known about the latent units of a pair, one by one: the record that :func:`latent_units` returns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ..records import Summarised

if TYPE_CHECKING:
    import xarray as xr

# A collapsed unit whose KL is above this, in nats, is worth a remark.
IDLE = 0.05

ESTIMATES = ("kl", "mutual_information", "marginal_kl", "mean_variance")


def unit_name(site: str, index: Sequence[int]) -> str:
    """The name of one number of a site: ``z[3]``, ``z[0, 2]``, or ``z`` where the site is a single number."""
    return f"{site}[{', '.join(map(str, index))}]" if index else site


@dataclass(frozen=True, repr=False)
class LatentUnits(Summarised):
    """What each latent unit does: tensors of shape ``(num_units,)``, float64, information in nats.

    Attributes:
        site: the sample site of every unit.
        index: its place in the site: in the plates inside a datum, then in the event; ``()`` for a single number.
        kl: (1/N) Σ_n KL(q(z_j|x_n) ‖ p(z_j)). NaN where the unit's density is not known.
        mutual_information: I_q(n; z_j), at most log N. NaN where ``kl`` is.
        marginal_kl: KL(q(z_j) ‖ p(z_j)) = ``kl`` − ``mutual_information``.
        mean_variance: variance over the data of E_q[z_j|x], in squared units of z_j, divided by N − 1. It may come out
            below zero where the means are averages over draws.
        prior_variance: variance of z_j under the model's prior.
        standard_error: of the first four by name, ``(num_units,)``: that of the integral over z for these data, but of
            ``mean_variance`` as an estimate for the population that the data come from.
        verdict: "active", "collapsed" or "undecided" for every unit.
        reason: why a unit's density is not known; empty where it is.
        averaged: whether q(z_j|x) or p(z_j) is an average over draws of parents, ``(num_units,)`` bool.
        threshold: of ``mean_variance`` / ``prior_variance``.
        num_data: N.
        num_particles: draws per datum, K.
    """

    printed: ClassVar = "num_units active collapsed undecided kl_sum"

    site: tuple[str, ...]
    index: tuple[tuple[int, ...], ...]
    kl: Tensor
    mutual_information: Tensor
    marginal_kl: Tensor
    mean_variance: Tensor
    prior_variance: Tensor
    standard_error: dict[str, Tensor]
    verdict: tuple[str, ...]
    reason: tuple[str, ...]
    averaged: Tensor
    threshold: float
    num_data: int
    num_particles: int

    @property
    def label(self) -> tuple[str, ...]:
        """The name of every unit: ``z[3]``."""
        return tuple(unit_name(site, index) for site, index in zip(self.site, self.index, strict=True))

    @property
    def ceiling(self) -> float:
        """log N, which the mutual information cannot exceed, in nats."""
        return math.log(self.num_data)

    def summary(self) -> dict[str, float]:
        """How many units are ``active``, ``collapsed`` and ``undecided``, and the sums over units in nats.

        ``active_by_mean_variance`` counts as Burda et al. do, without regard to errors. The units' ``kl_sum`` is the
        ELBO's KL term where guide and prior are products over units; ``kl_of_collapsed`` is the part of it that buys
        nothing. Units whose density is not known are left out of the sums.
        """
        share = self.mean_variance / self.prior_variance
        collapsed = torch.tensor([v == "collapsed" for v in self.verdict])
        out: dict[str, float] = {"num_units": len(self.site)}
        out |= {verdict: self.verdict.count(verdict) for verdict in ("active", "collapsed", "undecided")}
        out["active_by_mean_variance"] = int((share > self.threshold).sum())
        out["kl_sum"] = float(self.kl.nansum())
        out["kl_of_collapsed"] = float(self.kl[collapsed].nansum())
        out["threshold"] = self.threshold
        out["ceiling"] = self.ceiling
        out["num_data"] = self.num_data
        out["num_particles"] = self.num_particles
        return out

    def remarks(self) -> list[str]:
        """Remarks on the numbers, a sentence each; empty when there are none."""
        found = []
        collapsed, undecided = self._which("collapsed"), self._which("undecided")
        if collapsed:
            found.append(
                f"{len(collapsed)} of {len(self.site)} latent units have collapsed ({_list(collapsed)}): they tell "
                "nothing about x."
            )
        idle = [label for label, kl in zip(self.label, self.kl, strict=True) if label in collapsed and kl > IDLE]
        if idle:
            found.append(
                f"the guide of {_list(idle)} does not heed x and is not the prior either: it pays more than {IDLE} "
                "nats for nothing, as where training has not ended."
            )
        if undecided:
            found.append(
                f"{len(undecided)} of {len(self.site)} latent units are undecided within two standard errors "
                f"({_list(undecided)}): give more data, or more particles."
            )
        for reason in dict.fromkeys(filter(None, self.reason)):
            unknown = [j for j, why in enumerate(self.reason) if why == reason]
            what = "KL and mutual information" if self.mutual_information[unknown].isnan().all() else "KL"
            found.append(f"{what} of {_list([self.label[j] for j in unknown])} not known: {reason}.")
        broken = [self.label[j] for j, why in enumerate(self.reason) if not why and not self.kl[j].isfinite()]
        if broken:
            found.append(
                f"KL of {_list(broken)} is not finite: the guide draws outside the support of the prior, or a density "
                "is not a number (ppvae check names the site)."
            )
        full = [self.label[j] for j in (self.mutual_information > 0.9 * self.ceiling).nonzero().flatten()]
        if full and self.num_data > 1:
            found.append(
                f"the mutual information of {_list(full)} is near its ceiling log {self.num_data} = "
                f"{self.ceiling:.2f} nats: among more data it would be larger."
            )
        return found

    def to_dataset(self) -> xr.Dataset:
        """As an xarray Dataset with the dim ``unit`` and coordinates ``site`` and ``index`` along it."""
        import xarray as xr

        variables: dict[str, tuple[str, Any]] = {}
        for name in ESTIMATES:
            variables[name] = ("unit", getattr(self, name).numpy())
            variables[f"{name}_standard_error"] = ("unit", self.standard_error[name].numpy())
        variables["prior_variance"] = ("unit", self.prior_variance.numpy())
        variables["verdict"] = ("unit", list(self.verdict))
        variables["reason"] = ("unit", list(self.reason))
        variables["averaged"] = ("unit", self.averaged.numpy())
        index = [", ".join(map(str, place)) for place in self.index]
        coords = {"unit": list(self.label), "site": ("unit", list(self.site)), "index": ("unit", index)}
        attrs = {"threshold": self.threshold, "num_data": self.num_data, "num_particles": self.num_particles}
        dataset = xr.Dataset(variables, coords=coords, attrs=attrs | {"ceiling": self.ceiling})
        for name in variables:
            if "kl" in name or "information" in name:
                dataset[name].attrs["units"] = "nats"
        return dataset

    def _which(self, verdict: str) -> list[str]:
        return [label for label, v in zip(self.label, self.verdict, strict=True) if v == verdict]


def _list(names: Sequence[str]) -> str:
    """Names in a sentence, the first eight of many."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
