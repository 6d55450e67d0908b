"""Which entries of the data each observed site shows, so that values at the sites can be put back into data.

A site may show ``x[:, 0]``, ``x.T``, a column each … Which entries it shows is found by a run on data whose entries are
labels: wherever a label arrives, a value is put back from.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyro
import torch
from torch import Tensor

from ppvae.errors import PairError

from .failures import described
from .observed import observed_leaves
from .pair import Pair
from .randomness import generator_kept
from .sites import Values
from .traces import FAILURES

# Labels are whole numbers below 2²⁴, all of which float32 knows.
_LABELS = 2**24
# (n D + j) a + b mod 2²⁴ with a odd: no two entries share a label, and arithmetic on labels does not give labels.
_FACTOR, _SHIFT = 0x9E3779, 0x51ED27


@dataclass(frozen=True)
class Entries:
    """Which entries of a unit's data each observed site shows.

    The entries of x come first, then those of the context that is observed; some sites may show no entry of it.

    Attributes:
        places: by site the numbers of the entries, ``(num_units, entries)``.
        data: the leaves of the arguments that are data, by their number; leaf 0 is x.
        sizes: how many entries of each leaf a unit has.
    """

    places: dict[str, Tensor]
    data: dict[int, Tensor]
    sizes: list[int]

    @staticmethod
    def of(pair: Pair, z: Values, cannot: str = "no data can be drawn from the model") -> Entries:
        """The entries that a pair's observed sites show.

        Args:
            pair: the pair.
            z: draws of its latents by site, one of each.
            cannot: what cannot be done without them, for the error.

        Raises:
            PairError: an entry is shown by no site, or by several, or a site shows something else.
        """
        data = {i: pair.arguments.leaves[i] for i in observed_leaves(pair)}
        sizes = [leaf.numel() // pair.num_units for leaf in data.values()]
        labels = _labels(pair.num_units, sum(sizes), pair.device).split(sizes, 1)
        labelled = {i: _typed(own, leaf) for own, (i, leaf) in zip(labels, data.items(), strict=True)}
        try:
            with generator_kept(), pyro.validation_enabled(False):
                shown = pair.with_leaves(labelled).observations({name: z[name] for name in pair.sites})
        except FAILURES as error:
            raise PairError(
                f"{cannot}, since it computes with x ({described(error)}): let it observe x as it is, and read nothing "
                "from it but its shape."
            ) from error
        places = {name: _decoded(name, value[0], sum(sizes), cannot) for name, value in shown.items()}
        _demand_each_once(places, pair.num_units, sizes, cannot)
        return Entries(places, data, sizes)

    def put_back(self, values: Values, dtype: torch.dtype | None = None) -> dict[int, Tensor]:
        """Values at the observed sites, ``(num_units, ...)`` each, as leaves of the arguments.

        Args:
            values: by site; others than the observed sites may be among them.
            dtype: of the leaves; None gives each the type of the data that it stands for.
        """
        first = next(iter(self.data.values()))
        num_units = len(next(iter(self.places.values())))
        out = torch.empty(num_units, sum(self.sizes), dtype=torch.float64, device=first.device)
        for name, entry in self.places.items():
            out.scatter_(1, entry, values[name].reshape(num_units, -1).double())
        parts = zip(self.data.items(), out.split(self.sizes, 1), strict=True)
        return {i: own.reshape(leaf.shape).to(dtype or leaf.dtype) for (i, leaf), own in parts}

    def x_of(self, values: Values) -> Tensor:
        """Values at the observed sites, ``(num_units, ...)`` each, in the shape of x, float64."""
        return self.put_back(values, torch.float64)[0]

    def at_site(self, name: str, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """What a tensor in the shape of x holds at the entries that a site shows, ``(num_units, *shape)``.

        Where the site shows context, which x does not hold, it is 0.
        """
        entry = self.places[name]
        flat = x.reshape(len(entry), -1)
        own = flat.gather(1, entry.clamp(max=flat.shape[1] - 1))
        return torch.where(entry < flat.shape[1], own, torch.zeros_like(own)).reshape(len(entry), *shape)


def _demand_each_once(places: dict[str, Tensor], num_units: int, sizes: list[int], cannot: str) -> None:
    shown = torch.cat([torch.empty(num_units, 0, dtype=torch.long), *(p.cpu() for p in places.values())], -1)
    counts = torch.zeros(num_units, sum(sizes), dtype=torch.long).scatter_add_(1, shown, torch.ones_like(shown))
    for position, own in enumerate(counts.split(sizes, 1)):
        if (own != 1).any():
            how = "not at all" if (own == 0).any() else "more than once"
            what = "x" if position == 0 else "the context that it observes"
            raise PairError(
                f"{cannot}, since it observes some entries of {what} {how}: let its observed sites show every entry "
                "once, and give what it only conditions on as context, (x, *context)."
            )


def _labels(num_units: int, size: int, device: torch.device) -> Tensor:
    """A whole number for every entry of the data, ``(num_units, size)``."""
    return ((torch.arange(num_units * size, device=device) * _FACTOR + _SHIFT) % _LABELS).reshape(num_units, size)


def _typed(labels: Tensor, like: Tensor) -> Tensor:
    """Labels in the shape of a tensor, and in its type where that knows them all."""
    exact = like.dtype in (torch.float32, torch.float64, torch.int32, torch.int64)
    return labels.reshape(like.shape).to(like.dtype if exact else torch.get_default_dtype())


def _decoded(name: str, value: Tensor, size: int, cannot: str) -> Tensor:
    """The entry j of a unit that each label at an observed site belongs to, ``(num_units, entries)``."""
    values = value.reshape(len(value), -1)
    code = values.double().nan_to_num(-1.0, -1.0, -1.0)
    whole = code.long()
    unit = torch.arange(len(values), device=values.device)[:, None]
    entry = ((whole - _SHIFT) * pow(_FACTOR, -1, _LABELS) - size * unit) % _LABELS
    if not values.numel() or ((whole != code) | (code < 0) | (code >= _LABELS) | (entry >= size)).any():
        raise PairError(
            f"{cannot}, since {name!r} observes something that is not an entry of x: let it observe x as it is "
            "(obs=x, obs=x[:, 0] …), and rescale or transform x beforehand."
        )
    return entry
