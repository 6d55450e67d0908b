"""Guides that begin as another guide and go beyond it: programs that any user of Pyro can run, train and save.

    CorrectedGuide   the guide's own family: a network of x and of the guide's own parameters φ shifts them,
                     φ' = T(T⁻¹(φ) + s δ(x, φ)), with s the natural unit of each (see :mod:`ppvae.inference.gap`);
    MappedGuide      a richer family: the draws of every site are mapped (:mod:`.maps`), affinely (full covariance) or
                     by a flow. The map of a site reads the draws of earlier sites that stand in no other plates than
                     its own, so that the latents of a unit become dependent; every density stays a closed form.

Both wrap a program, a mended one too, and are that program until they are trained. Neither adds a site: whatever takes
the guide takes them. The parameters that feed a network are those of one run of the guide in which each draw is at the
centre of its distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from ppvae.errors import PairError

from ..gap import place, shifted_guide
from ..pair import Frame, Pair, Program
from .guide_reader import GuideReader, is_continuous, reader_of
from .maps import SiteMap, StandardisedSite
from .networks_of_guides import SiteNumbers, Trunk, site_key, zero_linear

# Draws that the natural unit of a parameter is read off.
_UNIT_DRAWS = 64


class CorrectedGuide:
    """The guide with its parameters shifted by a network; made by :func:`corrected`.

    Attributes:
        program: the guide that it began as.
        reader: what the network reads.
        networks: the network.
        name: of the network in Pyro's parameter store.
    """

    def __init__(self, program: Program, reader: GuideReader, networks: nn.ModuleDict, name: str) -> None:
        self.program, self.reader, self.networks, self.name = program, reader, networks, name

    def __call__(self, *batch: Any) -> Any:
        """Run the guide with its parameters shifted."""
        networks: Any = pyro.module(self.name, self.networks)
        frame = self.reader.frame(batch)
        out = networks["head"](networks["trunk"](self.reader.features(self.program, batch)))
        sizes = [math.prod(offset.shape) for offset in self.reader.offsets]
        units = networks["units"].parts
        values = {
            offset.key: units[i] * part.reshape(len(out), *offset.shape)
            for i, (offset, part) in enumerate(zip(self.reader.offsets, out.split(sizes, -1), strict=True))
        }
        return shifted_guide(self.program, place(self.reader.offsets, values, frame))(*batch)


class NaturalUnits(nn.Module):
    """Tensors that are kept with the networks, and not trained."""

    def __init__(self, parts: Sequence[Tensor]) -> None:
        super().__init__()
        for i, part in enumerate(parts):
            self.register_buffer(f"part_{i}", part)

    @property
    def parts(self) -> list[Tensor]:
        """The tensors, in order."""
        return list(self.buffers())


class MappedGuide:
    """The guide with its draws mapped; made by :func:`mapped`.

    Attributes:
        program: the guide that it began as.
        reader: what the networks read.
        networks: of every site that is mapped, and their common first layers.
        earlier: for every such site the earlier ones that its map reads.
        plates: for every such site its plates inside the unit, as dims of the program.
        name: of the networks in Pyro's parameter store.
    """

    def __init__(
        self,
        program: Program,
        reader: GuideReader,
        networks: nn.ModuleDict,
        earlier: dict[str, tuple[str, ...]],
        plates: dict[str, tuple[int, ...]],
        name: str,
    ) -> None:
        self.program, self.reader, self.networks, self.name = program, reader, networks, name
        self.earlier, self.plates = earlier, plates

    def __call__(self, *batch: Any) -> Any:
        """Run the guide with its draws mapped."""
        networks: Any = pyro.module(self.name, self.networks)
        frame = self.reader.frame(batch)
        hidden = networks["trunk"](self.reader.features(self.program, batch))
        with _Mapping(self, networks, hidden, frame):
            return self.program(*batch)


class _Mapping(Messenger):
    """Puts a map behind every site that has one."""

    def __init__(self, guide: MappedGuide, networks: Any, hidden: Tensor, frame: Frame) -> None:
        super().__init__()
        self._guide, self._networks, self._hidden, self._frame = guide, networks, hidden, frame
        self._places: dict[str, StandardisedSite] = {}
        self._eps: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if msg["is_observed"] or name not in self._guide.earlier:
            return
        network = self._networks["sites"][site_key(name)]
        plates = self._guide.plates[name]
        flat = self._frame.by_program(network(self._hidden), plates)
        hidden = self._frame.by_program(self._hidden, ())
        numbers = network.numbers(flat, hidden, [self._eps[other] for other in self._guide.earlier[name]])
        mapping = SiteMap(msg["fn"], numbers)
        self._places[name] = mapping.place
        msg["fn"] = dist.TransformedDistribution(msg["fn"], [mapping])

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"] in self._places:
            self._eps[msg["name"]] = self._places[msg["name"]].standardised(msg["value"])


def corrected(pair: Pair, name: str) -> CorrectedGuide:
    """A guide of the same family as the pair's, which it is at first.

    Args:
        pair: the pair on some data, inside its context.
        name: of the network in Pyro's parameter store.

    Raises:
        PairError: the guide's family cannot be read off, or the guide shows a part of its data only.
    """
    reader, family = reader_of(pair)
    features = reader.features(pair.guide, pair.batch)
    trunk = Trunk(features, family.start[0])
    units = family.units(family.start, slice(None), _UNIT_DRAWS)
    head = zero_linear(trunk.width, sum(math.prod(offset.shape) for offset in reader.offsets), family.start[0])
    parts = [unit.detach().square().mean(0).sqrt() for unit in units]
    networks = nn.ModuleDict({"trunk": trunk, "head": head, "units": NaturalUnits(parts)})
    return CorrectedGuide(pair.guide, reader, networks.to(pair.device), name)


def mapped(pair: Pair, name: str, flow: bool) -> MappedGuide:
    """A guide of a richer family than the pair's, which it is at first.

    Args:
        pair: the pair on some data, inside its context.
        name: of the networks in Pyro's parameter store.
        flow: by a flow; else by affine maps.

    Raises:
        PairError: the guide's family cannot be read off, the guide shows a part of its data only, or enumerates a site.
    """
    if pair.structure.guide_summed:
        raise PairError(
            "the guide enumerates a site, so that its draws cannot be mapped: leave that site to the model."
        )
    reader, family = reader_of(pair)
    found = reader.sites(pair.guide, pair.batch)
    like = family.start[0]
    trunk = Trunk(reader.features(pair.guide, pair.batch), like)
    own = {name: site for name, site in pair.structure.drawn.items() if is_continuous(found.get(name))}
    order = [name for name in found if name in own]
    earlier: dict[str, tuple[str, ...]] = {}
    sites, dims = nn.ModuleDict(), {}
    for i, one in enumerate(order):
        dims[one] = StandardisedSite.of(found[one]).centre.shape[-1]
        earlier[one] = tuple(other for other in order[:i] if set(own[other].plates) <= set(own[one].plates))
        read = sum(dims[other] for other in earlier[one])
        sizes = own[one].shape[: len(own[one].plates)]
        sites[site_key(one)] = SiteNumbers(trunk.width, sizes, dims[one], read, flow, like)
    networks = nn.ModuleDict({"trunk": trunk, "sites": sites}).to(pair.device)
    plates = {one: own[one].plates for one in order}
    return MappedGuide(pair.guide, reader, networks, earlier, plates, name)
