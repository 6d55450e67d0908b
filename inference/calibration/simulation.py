"""Data from the model itself, each with the latents that it was made from.

A pair of draws (z*, x*) ~ p(z) p(x|z) can be read the other way round: x* ~ p(x) and z* ~ p(z|x*). So simulated data
come with what real data never have, one exact draw of their posterior. It bounds log p(x*) from above, and any guide
can be held to it ("Sandwiching the marginal likelihood using bidirectional Monte Carlo", Grosse, Ghahramani & Adams,
2015, arXiv:1511.02543).

Nothing but the programs is needed: ``poutine.uncondition`` draws the observed sites too. Which entry of x a site shows
(``x[:, 0]``, ``x.T``, one site for each column …) is found by a run on data whose entries are labels; whatever a
label arrives at is where a draw is put back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor

from ppvae.errors import OptionError, PairError

from ..options import instance_of, shown, valid_seed
from ..pair import (
    FAILURES,
    Batch,
    Pair,
    Program,
    as_batch,
    described,
    generator_kept,
    observed_leaves,
    seeded,
    where_parameters_are,
)

Values = dict[str, Tensor]

# Labels are whole numbers below 2²⁴, all of which float32 knows.
_LABELS = 2**24


@dataclass(frozen=True, repr=False)
class Simulation:
    """Data drawn from a model, and the latents of each.

    Attributes:
        batch: ``(x*, *context)``, x* of the shape and type of the x that was given; context that the model observes is
            drawn too.
        latents: z* by site, ``(1, num_units, *plates inside the unit, *event)``.
    """

    batch: Batch
    latents: dict[str, Tensor]

    def __repr__(self) -> str:
        shapes = [f"{name} {tuple(value.shape)}" for name, value in {"x": self.batch[0], **self.latents}.items()]
        return f"Simulation: {', '.join(shapes)}"


def simulate(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    *,
    latents: Values | None = None,
    seed: int | None = None,
) -> Simulation:
    """Draw data from the model, as many as x has and in its shape, and keep the latents.

    Args:
        model: ``model(x, *context)``, the generative program.
        guide: ``guide(x, *context)``; it is not run on what is drawn, but a trained pair keeps its parameters together.
        x: data, first dimension ``num_data``; or a tuple ``(x, *context)``. They show shape, type and what is missing
            (NaN); context that the model observes is drawn with x, the rest is kept, and the data are drawn given it.
        latents: z by site, in the shape of ``Simulation.latents``, to draw the data from p(x|z) alone; a site that is
            left out is drawn from the model.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.

    Returns:
        Simulation: given x*, the latents that were drawn are an exact draw of the posterior, independent between data.

    Raises:
        OptionError: ``seed`` or ``latents`` cannot be used.
        DataError: ``x`` is not a tensor of at least one datum.
        PairError: the pair breaks the contract, or the model does not observe every entry of x as it is, once, or it
            reads x where it does not observe it.

    Example:
        >>> import torch
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair = LinearGaussian(num_features=3, latent_dim=2)
        >>> drawn = simulate(pair.model, pair.guide, torch.zeros(5, 3), seed=1)
        >>> drawn.batch[0].shape, drawn.latents["z"].shape
        (torch.Size([5, 3]), torch.Size([1, 5, 2]))
    """
    seed = valid_seed(seed)
    if latents is not None:
        instance_of("latents", latents, Mapping, "a mapping from site to tensor, or None")
    batch = where_parameters_are(model, guide, as_batch(x))
    with seeded(seed), Pair.on(model, guide, batch) as pair, torch.no_grad():
        return drawn(pair, None if latents is None else _checked(pair, latents))


def _checked(pair: Pair, latents: Mapping[str, Any]) -> Values:
    """Latents that were given by site.

    Raises:
        OptionError: a site is none of the pair's latents, or its value is no dense tensor of the right shape.
    """
    sites = pair.sites | pair.structure.classes
    for name, value in latents.items():
        if name not in sites:
            raise OptionError(f"latents names {shown(name)}, which is no latent: it may hold {sorted(sites)}.")
        shape = (1, pair.num_units, *sites[name].shape)
        if not isinstance(value, Tensor) or value.layout != torch.strided or tuple(value.shape) != shape:
            raise OptionError(f"latents must hold a tensor of shape {shape} for {name!r}; it holds {shown(value)}.")
    return dict(latents)


def drawn(pair: Pair, latents: Values | None = None) -> Simulation:
    """Data in the shape of a pair's, drawn from its model; see :func:`simulate`."""
    for finding in pair.structure.unnormalised:
        raise PairError(f"no data can be drawn from the model, since p(x, z) is no density: {finding}")
    again = int(torch.randint(2**31, ()))  # the same draws a second time
    values = _drawn(pair, again, latents)
    leaves = observed_leaves(pair)
    places = _places(pair, values, leaves)
    made = pair.with_leaves(_put_back(pair, {name: values[name] for name in places}, places, leaves))
    _demand_same(values, _drawn(made, again, latents))
    return Simulation(made.batch, {name: values[name] for name in pair.sites | pair.structure.classes})


def simulations(pair: Pair, count: int) -> list[Simulation]:
    """``count`` units drawn from a pair's model: together where a unit is a datum, else one data set after another."""
    if pair.unit == "datum" and pair.divisible:
        return [drawn(pair.rows(torch.arange(count) % pair.num_units))]
    return [drawn(pair) for _ in range(-(-count // pair.num_units))]


def _drawn(pair: Pair, seed: int, latents: Values | None) -> Values:
    """Latents and observations by site from one run of the model, both drawn."""
    try:
        with generator_kept(seed):
            return pair.prior_values(1, given=latents, predictive=True)
    except PairError as error:
        raise PairError(
            f"no data can be drawn from the model ({described(error.__cause__ or error)}): let it run under "
            "poutine.uncondition, and give each observed site a distribution that can be drawn from."
        ) from error


def _places(pair: Pair, drawn_values: Values, leaves: tuple[int, ...]) -> dict[str, Tensor]:
    """Which entries of a unit's data each observed site shows, ``(num_units, entries)`` by site.

    The entries of x come first, then those of the context that is observed; some sites may show no entry of it.

    Raises:
        PairError: an entry is shown by no site, or by several, or a site shows something else.
    """
    data, sizes = _data(pair, leaves)
    labels = _labels(pair.num_units, sum(sizes), data[0].device).split(sizes, 1)
    labelled = {i: _typed(own, leaf) for i, own, leaf in zip(leaves, labels, data, strict=True)}
    z = {name: drawn_values[name] for name in pair.sites}
    try:
        with generator_kept(), pyro.validation_enabled(False):
            shown_values = pair.with_leaves(labelled).observations(z)
    except FAILURES as error:
        raise PairError(
            f"no data can be drawn from the model, since it computes with x ({described(error)}): let it observe x as "
            "it is, and read nothing from it but its shape."
        ) from error
    places = {name: _decoded(name, value[0], sum(sizes)) for name, value in shown_values.items()}
    _demand_each_once(places, pair.num_units, sizes)
    return places


def _data(pair: Pair, leaves: tuple[int, ...]) -> tuple[list[Tensor], list[int]]:
    """The leaves of the arguments that are data, and how many entries of each a unit has."""
    data = [pair.arguments.leaves[i] for i in leaves]
    return data, [leaf.numel() // pair.num_units for leaf in data]


def _demand_each_once(places: dict[str, Tensor], num_units: int, sizes: list[int]) -> None:
    shown = torch.cat([torch.empty(num_units, 0, dtype=torch.long), *(p.cpu() for p in places.values())], -1)
    counts = torch.zeros(num_units, sum(sizes), dtype=torch.long).scatter_add_(1, shown, torch.ones_like(shown))
    for position, own in enumerate(counts.split(sizes, 1)):
        if (own != 1).any():
            how = "not at all" if (own == 0).any() else "more than once"
            what = "x" if position == 0 else "the context that it observes"
            raise PairError(
                f"no data can be drawn from the model, since it observes some entries of {what} {how}: let its "
                "observed sites show every entry once, and give what it only conditions on as context, (x, *context)."
            )


# (n D + j) a + b mod 2²⁴ with a odd: no two entries share a label, and arithmetic on labels does not give labels.
_FACTOR, _SHIFT = 0x9E3779, 0x51ED27


def _labels(num_units: int, size: int, device: torch.device) -> Tensor:
    """A whole number for every entry of the data, ``(num_units, size)``."""
    return ((torch.arange(num_units * size, device=device) * _FACTOR + _SHIFT) % _LABELS).reshape(num_units, size)


def _typed(labels: Tensor, like: Tensor) -> Tensor:
    """Labels in the shape of a tensor, and in its type where that knows them all."""
    exact = like.dtype in (torch.float32, torch.float64, torch.int32, torch.int64)
    return labels.reshape(like.shape).to(like.dtype if exact else torch.get_default_dtype())


def _decoded(name: str, value: Tensor, size: int) -> Tensor:
    """The entry j of a unit that each label at an observed site belongs to, ``(num_units, entries)``."""
    values = value.reshape(len(value), -1)
    code = values.double().nan_to_num(-1.0, -1.0, -1.0)
    whole = code.long()
    unit = torch.arange(len(values), device=values.device)[:, None]
    entry = ((whole - _SHIFT) * pow(_FACTOR, -1, _LABELS) - size * unit) % _LABELS
    if not values.numel() or ((whole != code) | (code < 0) | (code >= _LABELS) | (entry >= size)).any():
        raise PairError(
            f"no data can be drawn from the model, since {name!r} observes something that is not an entry of x: let it "
            "observe x as it is (obs=x, obs=x[:, 0] …), and rescale or transform x beforehand."
        )
    return entry


def _put_back(pair: Pair, values: Values, places: dict[str, Tensor], leaves: tuple[int, ...]) -> dict[int, Tensor]:
    """What was drawn at the observed sites, ``(1, num_units, ...)`` each, as leaves; missing values (NaN) stay."""
    data, sizes = _data(pair, leaves)
    out = torch.empty(pair.num_units, sum(sizes), dtype=torch.float64, device=data[0].device)
    for name, entry in places.items():
        out.scatter_(1, entry, values[name][0].reshape(pair.num_units, -1).double())
    parts = zip(leaves, out.split(sizes, 1), data, strict=True)
    return {i: own.reshape(leaf.shape).to(leaf.dtype).where(~leaf.isnan(), leaf) for i, own, leaf in parts}


def _demand_same(values: Values, again: Values) -> None:
    """Raise PairError if the draws depend on the x that the model was given.

    Such a model draws from p(z | x) p(x' | z, x), an autoencoder's or an autoregressive one's, and not from itself.
    """
    for name, value in values.items():
        if name not in again or not torch.equal(value, again[name]):
            raise PairError(
                f"no data can be drawn from the model, since {name!r} depends on the values of x: let the model read "
                "nothing from x but its shape, and give what it conditions on as context, (x, *context)."
            )
