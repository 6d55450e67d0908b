"""Guides that are a mixture of a guide and of a second part: programs that any user of Pyro can run, train and save.

    q'(z|x) = (1 − a) q(z|x) + a r(z|x),

with r the prior of the model, or a map of its draws (:mod:`.maps`) that a network of x and of the guide's parameters
gives: the prior at first, and after training wherever q is not, as at a mode that q misses.

    defence     r is the prior and a = 0.1 everywhere. No weight p(x, z)/q'(z|x) is larger than p(x|z)/a, however far
                q's tails fall short, so that log p(x) is known from fewer draws. The ELBO cannot gain much by it, and
                where the prior's draws explain x badly it loses a·E_p[log 1/p(x|z)].
    mixture     r is mapped, and log a/(1 − a) a linear function of the hidden units of the network.

The density is exact. The first site is drawn from the mixture of both parts' distributions with weights a_k, the next
with weights proportional to a_k times the density that the part k gave to the draws before, which makes the product the
density of the mixture over all latents jointly. (A site in a plate inside a unit is mixed place by place, given the
draws outside the plate: its density is exact too.) The part is drawn once, and the gradient along the path of the draws
is that of the ELBO in the parameters of both parts; a has none, since the choice of a part has no path, and is fitted
by itself (:mod:`.second_part`).

References:
    Weighted average importance sampling and defensive mixture distributions (Hesterberg, 1995), Technometrics 37(2).
    Variational Boosting: Iteratively Refining Posterior Approximations (Miller, Foti & Adams, 2017), arXiv:1611.06585.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from ppvae.errors import PairError

from ..pair import Frame, LastDraw, Pair, Program, TwoPartMixture, has_parents
from .guide_reader import GuideReader, is_continuous, reader_of
from .maps import MapNumbers, SiteMap, StandardisedSite
from .networks_of_guides import PartLogit, SiteNumbers, Trunk, site_key

# How far the second part of a mixture goes, in standard deviations of the prior.
MOST_SHIFT = 8.0
# The share of the prior in a defence.
DEFENCE_SHARE = 0.1


class MixedGuide:
    """The guide mixed with a second part; made by :func:`mixed`.

    Attributes:
        program: the guide that is the first part.
        model: whose prior the second part is, or is a map of.
        reader: what the networks read.
        networks: of the second part; without any, where it is the prior.
        plates: for every site its plates inside the unit, as dims of the program.
        name: of the networks in Pyro's parameter store.
        part: the one part that is drawn, 0 or 1; None for both.
    """

    def __init__(
        self,
        program: Program,
        model: Program,
        reader: GuideReader,
        networks: nn.ModuleDict,
        plates: dict[str, tuple[int, ...]],
        name: str,
        part: int | None = None,
    ) -> None:
        self.program, self.model, self.reader, self.networks = program, model, reader, networks
        self.plates, self.name, self.part = plates, name, part

    def only(self, part: int) -> MixedGuide:
        """One part, with the same parameters."""
        return MixedGuide(self.program, self.model, self.reader, self.networks, self.plates, self.name, part)

    def hidden(self, networks: Any, batch: Any) -> Tensor:
        """The hidden units of the network, ``(num_rows, num_hidden)``."""
        hidden: Tensor = networks["trunk"](self.reader.features(self.program, batch))
        return hidden

    def __call__(self, *batch: Any) -> Any:
        """Run the guide, each draw from either part."""
        networks: Any = pyro.module(self.name, self.networks) if len(self.networks) else self.networks
        prior = prior_distributions(self.model, batch, list(self.plates))
        frame = self.reader.frame(batch)
        if not len(networks):
            share = math.log(DEFENCE_SHARE / (1 - DEFENCE_SHARE))
            logit = torch.full((frame.num_units,), share, device=batch[0].device)
        else:
            hidden = self.hidden(networks, batch)
            prior = {
                site: self._mapped(fn, networks["sites"][site_key(site)], hidden, frame) for site, fn in prior.items()
            }
            logit = networks["gate"](hidden)
        if self.part is not None:
            logit = torch.full_like(logit, math.inf if self.part else -math.inf)
        log_weights = torch.stack([frame.by_program(logsigmoid(s * logit), ()) for s in (-1, 1)])
        with _Mixing(prior, log_weights, self.plates):
            return self.program(*batch)

    def _mapped(self, fn: Any, network: Any, hidden: Tensor, frame: Frame) -> Any:
        plates = network.own_plates
        flat = frame.by_program(network(hidden), plates)
        numbers = network.numbers(flat, frame.by_program(hidden, ()), [])
        return dist.TransformedDistribution(fn, [SiteMap(fn, numbers)])


class _Mixing(Messenger):
    """Mixes the distribution of every site with a second part."""

    def __init__(self, second: dict[str, Any], log_weights: Tensor, plates: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        self._second, self._log_weights, self._plates = second, log_weights, plates
        self._seen: list[tuple[tuple[int, ...], Tensor]] = []  # plates of the sites before, log q_k of their draws
        self._last: dict[str, LastDraw] = {}
        self._part: tuple[tuple[int, ...], Tensor] | None = None  # of the draws so far, where all are of one part

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if msg["is_observed"] or name not in self._second:
            return
        own, log_weights = self._plates[name], self._log_weights
        for plates, log_q in self._seen:
            if set(plates) <= set(own):
                log_weights = _added(log_weights, log_q)
        given = self._part[1] if self._part is not None and self._part[0] == own else None
        self._last[name] = LastDraw(given)
        log_weights = torch.log_softmax(log_weights, 0)
        msg["fn"] = TwoPartMixture(msg["fn"], self._second[name], log_weights, self._last[name])

    def _pyro_post_sample(self, msg: Any) -> None:
        name = msg["name"]
        if name not in self._last:
            return
        last, fn, own = self._last[name], msg["fn"], self._plates[name]
        drawn = msg["value"] is last.value and last.part is not None
        before = not self._seen or self._part is not None
        self._part = (own, last.part) if drawn and before and last.part is not None else None
        self._seen.append((own, fn.part_log_probs(msg["value"])))


def _added(log_weights: Tensor, log_q: Tensor) -> Tensor:
    """log a_k + log q_k, the batch dims aligned at the right."""
    dims = max(log_weights.dim(), log_q.dim())
    one, other = (t.reshape((2, *(1,) * (dims - t.dim()), *t.shape[1:])) for t in (log_weights, log_q))
    return one + other


class _Reached(Exception):
    """The last site that is looked for was reached."""


class _FirstSites(Messenger):
    """Keeps the distributions of some sites, and ends the run at the last of them: what follows is not needed."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self._names = set(names)
        self.found: dict[str, Any] = {}

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or isinstance(msg["fn"], _Subsample):
            return
        self.found[msg["name"]] = msg["fn"]
        if self._names <= set(self.found):
            raise _Reached


def prior_distributions(model: Program, batch: Any, names: list[str]) -> dict[str, Any]:
    """The prior of every site by name; none of them depends on draws."""
    sites = _FirstSites(names)
    try:
        with poutine.block(), sites:
            model(*batch)
    except _Reached:
        pass
    return {name: sites.found[name] for name in names}


class MappedPart(SiteNumbers):
    """The numbers of the map of a site's prior.

    Attributes:
        own_plates: of the site inside the unit, as dims of the program.
    """

    def __init__(
        self, num_hidden: int, sizes: tuple[int, ...], dim: int, plates: tuple[int, ...], like: Tensor
    ) -> None:
        super().__init__(num_hidden, sizes, dim, 0, False, like)
        self.own_plates = plates

    def numbers(self, flat: Tensor, hidden: Tensor, earlier: list[Tensor]) -> MapNumbers:
        """The numbers of the map, so bounded that no datum, however odd, is sent far beyond the prior."""
        found = super().numbers(flat, hidden, earlier)
        log_scale = torch.where(found.log_scale < 0, found.log_scale, torch.tanh(found.log_scale))
        return replace(found, log_scale=log_scale, shift=MOST_SHIFT * torch.tanh(found.shift / MOST_SHIFT))


def mixed(pair: Pair, name: str, *, defence: bool) -> MixedGuide:
    """A mixture of the pair's guide and of a second part, which is the prior at first.

    Args:
        pair: the pair on some data, inside its context.
        name: of the networks in Pyro's parameter store.
        defence: whether the second part stays the prior.

    Raises:
        PairError: the guide's family cannot be read off, the guide has latents that are functions of other draws or
            enumerates a site, or the prior of a latent depends on other latents.
    """
    structure = pair.structure
    if structure.guide_summed or structure.auxiliary:
        raise PairError("the guide enumerates a site or draws latents by way of others, so that it cannot be mixed")
    reader, family = reader_of(pair)
    for one in structure.latents:
        if has_parents(pair.few, "model", one):
            raise PairError(f"the prior of {one!r} depends on other latents, so that no draw of it can be mixed in")
    found = reader.sites(pair.guide, pair.batch)
    prior = prior_distributions(pair.model, pair.batch, list(structure.latents))
    order = [one for one in found if one in structure.latents]
    for one in order:
        q, p = found[one], prior[one]
        if not (is_continuous(q) and is_continuous(p) and p.has_rsample and p.event_shape == q.event_shape):
            raise PairError(f"{one!r} has a prior that the guide cannot be mixed with: without rsample, or masked")
    plates = {one: structure.latents[one].plates for one in order}
    networks = nn.ModuleDict()
    if not defence:
        like = family.start[0]
        trunk = Trunk(reader.features(pair.guide, pair.batch), like)
        sites = nn.ModuleDict()
        for one in order:
            site = structure.latents[one]
            dim = StandardisedSite.of(prior[one]).centre.shape[-1]
            sites[site_key(one)] = MappedPart(trunk.width, site.shape[: len(site.plates)], dim, site.plates, like)
        networks = nn.ModuleDict({"trunk": trunk, "sites": sites, "gate": PartLogit(trunk.width, like)})
    return MixedGuide(pair.guide, pair.model, reader, networks.to(pair.device), plates, name)
