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

from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from ppvae.errors import PairError, first_line

from .parameters import evaluation_mode, own_parameters, where_parameters_are
from .structure import sound_plates
from .traces import FAILURES, PARTICLES, Batch, Plates, Program, as_batch, generator_kept, sample_sites, seeded

# Labels are whole numbers below 2²⁴, all of which float32 knows.
_LABELS = 2**24


@dataclass(frozen=True)
class Simulation:
    """Data drawn from a model, and the latents of each.

    Attributes:
        batch: ``(x*, *context)``, x* of the shape and type of the x that was given.
        latents: z* by site, as the programs shape them under one chain: ``(1, *plates, num_data, *event)``.
    """

    batch: Batch
    latents: dict[str, Tensor]


def simulate(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    *,
    latents: dict[str, Tensor] | None = None,
    seed: int | None = None,
) -> Simulation:
    """Draw data from the model, as many as x has and in its shape, and keep the latents.

    Args:
        model: ``model(x, *context)``, the generative program.
        guide: ``guide(x, *context)``; it is not run on what is drawn, but a trained pair keeps its parameters together.
        x: data that show shape and type, first dimension ``num_data``; or ``(x, *context)``. The context is kept, and
            the data are drawn given it.
        latents: z by site, in the shape of ``Simulation.latents``, to draw the data from p(x|z) alone; a site that is
            left out is drawn from the model.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.

    Returns:
        Simulation: given x*, the latents that were drawn are an exact draw of the posterior, independent between data.

    Raises:
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
    batch = where_parameters_are(model, guide, as_batch(x))
    with torch.no_grad(), seeded(seed), own_parameters(model, guide), evaluation_mode(model, guide):
        plates = sound_plates(model, guide, batch)
        again = int(torch.randint(2**31, ()))  # the same draws a second time
        trace = _drawn(model, batch, plates, again, latents)
        places = _places(model, batch, plates)
        drawn = (_put_back(batch[0], trace, places), *batch[1:])
        _demand_same(trace, _drawn(model, drawn, plates, again, latents))
    return Simulation(drawn, {name: site["value"] for name, site in sample_sites(trace) if not _observed(site)})


def _drawn(model: Program, batch: Batch, plates: Plates, seed: int, latents: dict[str, Tensor] | None) -> Trace:
    """One run of the model in which the observed sites are drawn too, under a plate of one chain."""
    program = poutine.condition(poutine.uncondition(model), data=latents or {})
    try:
        with generator_kept(seed), pyro.plate(PARTICLES, 1, dim=plates.particle_dim):
            return poutine.trace(program).get_trace(*batch)
    except FAILURES as error:
        raise PairError(
            f"no data can be drawn from the model under an outer plate ({first_line(error)}): let it broadcast over "
            "dimensions left of the data, and give each observed site a distribution that can be drawn from."
        ) from error


def _observed(site: Any) -> bool:
    """Whether the model, as written, observes a site of an unconditioned trace."""
    return site["infer"].get("was_observed", False)


def _places(model: Program, batch: Batch, plates: Plates) -> dict[str, Tensor]:
    """Which entries of a datum each observed site shows, ``(num_data, entries)`` by site.

    Raises:
        PairError: an entry is shown by no site, or by several, or a site shows something else.
    """
    labels = _labels(batch[0])
    try:
        with generator_kept(), pyro.validation_enabled(False), pyro.plate(PARTICLES, 1, dim=plates.particle_dim):
            trace = poutine.trace(model).get_trace(labels, *batch[1:])
    except FAILURES as error:
        raise PairError(
            f"no data can be drawn from the model, since it computes with x ({first_line(error)}): let it observe x as "
            "it is, and read nothing from it but its shape."
        ) from error
    num_data, size = len(labels), labels[0].numel()
    places = {name: _decoded(name, site, size) for name, site in sample_sites(trace) if site["is_observed"]}
    shown = torch.cat([torch.empty(num_data, 0, dtype=torch.long), *(p.cpu() for p in places.values())], -1)
    counts = torch.zeros(num_data, size, dtype=torch.long).scatter_add_(1, shown, torch.ones_like(shown))
    if (counts != 1).any():
        how = "not at all" if (counts == 0).any() else "more than once"
        raise PairError(
            f"no data can be drawn from the model, since it observes some entries of x {how}: let its observed sites "
            "show every entry once, and give what it only conditions on as context, (x, *context)."
        )
    return places


# (n D + j) a + b mod 2²⁴ with a odd: no two entries share a label, and arithmetic on labels does not give labels.
_FACTOR, _SHIFT = 0x9E3779, 0x51ED27


def _labels(x: Tensor) -> Tensor:
    """A whole number for every entry, in the shape of x."""
    exact = x.dtype in (torch.float32, torch.float64, torch.int32, torch.int64)
    labels = (torch.arange(x.numel(), device=x.device) * _FACTOR + _SHIFT) % _LABELS
    return labels.reshape(x.shape).to(x.dtype if exact else torch.get_default_dtype())


def _decoded(name: str, site: Any, size: int) -> Tensor:
    """The entry j that each label at an observed site belongs to, ``(num_data, entries)``."""
    values = _by_datum(site["value"].expand(site["fn"].shape()), site)
    code = values.double().nan_to_num(-1.0, -1.0, -1.0)
    whole = code.long()
    datum = torch.arange(len(values), device=values.device)[:, None]
    entry = ((whole - _SHIFT) * pow(_FACTOR, -1, _LABELS) - size * datum) % _LABELS
    if not values.numel() or ((whole != code) | (code < 0) | (code >= _LABELS) | (entry >= size)).any():
        raise PairError(
            f"no data can be drawn from the model, since {name!r} observes something that is not an entry of x: let it "
            "observe x as it is (obs=x, obs=x[:, 0] …), and rescale or transform x beforehand."
        )
    return entry


def _by_datum(value: Tensor, site: Any) -> Tensor:
    """``(1, *plates, num_data, *event)`` → ``(num_data, entries)``."""
    data = value.dim() - site["fn"].event_dim - 1
    return value.movedim(data, 0).flatten(1) if value.dim() > 1 else value[:, None]


def _put_back(x: Tensor, trace: Trace, places: dict[str, Tensor]) -> Tensor:
    """What was drawn at the observed sites, as an x."""
    out = torch.empty_like(x).reshape(len(x), -1)
    for name, entry in places.items():
        site: Any = trace.nodes[name]
        out.scatter_(1, entry, _by_datum(site["value"], site).to(x.dtype))
    return out.reshape(x.shape)


def _demand_same(trace: Trace, again: Trace) -> None:
    """Raise PairError if the draws depend on the x that the model was given.

    Such a model draws from p(z | x) p(x' | z, x), an autoencoder's or an autoregressive one's, and not from itself.
    """
    other: dict[str, Any] = dict(sample_sites(again))
    for name, site in sample_sites(trace):
        if name not in other or not torch.equal(site["value"], other[name]["value"]):
            raise PairError(
                f"no data can be drawn from the model, since {name!r} depends on the values of x: let the model read "
                "nothing from x but its shape, and give what it conditions on as context, (x, *context)."
            )
