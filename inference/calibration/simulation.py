"""Data from the model itself, each with the latents that it was made from.

A pair of draws (z*, x*) ~ p(z) p(x|z) can be read the other way round: x* ~ p(x) and z* ~ p(z|x*). So simulated data
come with what real data never have, one exact draw of their posterior. It bounds log p(x*) from above, and any guide
can be held to it ("Sandwiching the marginal likelihood using bidirectional Monte Carlo", Grosse, Ghahramani & Adams,
2015, arXiv:1511.02543).

Nothing but the programs is needed: ``poutine.uncondition`` draws the observed sites too, and
:class:`ppvae.inference.pair.Entries` says which entry of x each of them shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppvae.errors import OptionError, PairError

from ..latents import unit_name
from ..options import instance_of, shown, valid_seed
from ..pair import (
    Batch,
    Entries,
    Pair,
    Program,
    as_batch,
    described,
    generator_kept,
    seeded,
    where_parameters_are,
)
from ..records import Printed

Values = dict[str, Tensor]


@dataclass(frozen=True, repr=False)
class Simulation(Printed):
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
    made = on_drawn(pair, values)
    _demand_same(values, _drawn(made, again, latents))
    return Simulation(made.batch, {name: values[name] for name in pair.sites | pair.structure.classes})


def on_drawn(pair: Pair, values: Values) -> Pair:
    """The pair on data that were drawn, by site as ``Pair.prior_values`` gives them; what is missing stays missing."""
    back = Entries.of(pair, values).put_back({name: value[0] for name, value in values.items()})
    return pair.with_leaves({i: _with_gaps(own, pair.arguments.leaves[i]) for i, own in back.items()})


def simulations(pair: Pair, count: int) -> list[Simulation]:
    """``count`` units drawn from a pair's model: together where a unit is a datum, else one data set after another."""
    if pair.unit == "datum" and pair.divisible:
        return [drawn(pair.rows(torch.arange(count) % pair.num_units))]
    return [drawn(pair) for _ in range(-(-count // pair.num_units))]


def unit_names(pair: Pair) -> tuple[str, ...]:
    """The names of a pair's unconstrained coordinates, such as ``z[3]``."""
    return tuple(unit_name(site, place) for site, slot in pair.sites.items() for place in np.ndindex(slot.u_shape))


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


def _with_gaps(drawn: Tensor, given: Tensor) -> Tensor:
    """What was drawn, with values missing (NaN) where they are missing in what was given."""
    return drawn.where(~given.isnan(), given)


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
