"""What is put at the sites of a program, and read off them: given values, unconstrained latents, supports."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ppvae.errors import DataError

from .bijections import bijection_to
from .distributions import bare, base_is_bounded, inside, is_real, kind, support_of
from .sites import Values
from .traces import site_log_prob


def mean_of(site: Any) -> Tensor:
    """The mean of a site, or its value where the distribution has no finite mean."""
    try:
        mean = site["fn"].mean
    except (NotImplementedError, AttributeError):
        return site["value"]
    return mean if bool(mean.isfinite().all()) else site["value"]


def filled(site: Any) -> Any:
    """An observed site with the mean in place of each NaN, which a mask leaves out.

    The density stays what it is, and its gradient becomes a number: that of a NaN is NaN, masked or not.
    """
    value: Tensor = site["value"]
    try:
        other = site["fn"].mean.detach().nan_to_num()
    except (NotImplementedError, AttributeError):
        other = torch.zeros_like(value)
    return {**site, "value": torch.where(value.isnan(), other.to(value), value)}


def outside_support(site: Any) -> int:
    """How many observed values of a site lie outside the support of their distribution."""
    outside = _outside(site)
    return 0 if torch._C._functorch.is_batchedtensor(outside) else int(outside.sum())


def has_density_outside_support(site: Any) -> bool:
    """Whether a value outside the support has a density that is not zero, which then integrates to no one."""
    outside = _outside(site)
    return bool(outside.any()) and bool((outside & site_log_prob(site).isfinite()).any())


def _outside(site: Any) -> Tensor:
    """Which values of a site lie outside the support of their distribution."""
    try:
        within = inside(site["fn"], site["value"])
    except (NotImplementedError, AttributeError, RuntimeError, ValueError):
        return torch.tensor(False)  # a distribution that does not know its support
    return ~within if site["mask"] is None else ~within & torch.as_tensor(site["mask"])


def latent_log_prob(site: Any) -> Tensor:
    """The log density of a latent, −inf outside its support."""
    log_prob = site_log_prob(site)
    return log_prob if is_real(site["fn"]) else torch.where(inside(site["fn"], site["value"]), log_prob, -torch.inf)


def written_log_prob(site: Any) -> Tensor:
    """The log density of a site, −inf where T(u) reaches more than the support, of which torch knows too little."""
    return latent_log_prob(site) if base_is_bounded(bare(site["fn"])) else site_log_prob(site)


def demand_support(name: str, site: Any) -> None:
    """Raise DataError if data have no density."""
    outside = _outside(site)
    if not torch._C._functorch.is_batchedtensor(outside) and bool(outside.any()):  # which a recorded step keeps
        raise DataError(
            f"{int(outside.sum())} observed values of {name!r} lie outside the support of {kind(site['fn'])}, so that "
            "their density is zero: use a likelihood for such values, or bring the data to the support."
        )


class Put(Messenger):
    """Puts z at each site."""

    def __init__(self, z: Values) -> None:
        super().__init__()
        self._z = z

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self._z and not msg["is_observed"]:
            msg["value"], msg["done"] = self._z[msg["name"]], True


class Write(Messenger):
    """Puts T(u) at each site and notes log |det ∂T/∂u|."""

    def __init__(self, u: Values) -> None:
        super().__init__()
        self._u = u
        self.values: Values = {}
        self.log_jacobians: list[Tensor] = []

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if name in self._u and not msg["is_observed"]:
            u, transform = self._u[name], bijection_to(support_of(msg["fn"]))
            z = transform(u)
            self.values[name] = z
            self.log_jacobians.append(transform.log_abs_det_jacobian(u, z))
            msg["value"], msg["done"] = z, True


class Read(Put):
    """Puts z where it is given, and notes u = T⁻¹(z) of every latent, and whether z lies in the support."""

    def __init__(self, names: Iterable[str], z: Values) -> None:
        super().__init__(z)
        self._names = frozenset(names)
        self.u: Values = {}
        self.inside: Values = {}
        self._transforms: dict[str, Any] = {}

    def log_det(self, name: str) -> Tensor:
        """log |det ∂T/∂u| at a latent."""
        transform = self._transforms[name]
        return transform.log_abs_det_jacobian(self.u[name], transform(self.u[name]))

    def _pyro_post_sample(self, msg: Any) -> None:
        name = msg["name"]
        if name not in self._names or msg["is_observed"]:
            return
        support = support_of(msg["fn"])
        self.inside[name] = inside(msg["fn"], msg["value"])
        limit = torch.finfo(msg["value"].dtype).max ** 0.5  # a draw that was rounded onto the boundary is at ±∞
        self._transforms[name] = bijection_to(support)
        self.u[name] = self._transforms[name].inv(msg["value"]).clamp(-limit, limit)
