"""Decoding: E[x|z], the mean of the data at given latents."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ppvae.errors import OptionError, PairError

from ..options import shown, valid_compute
from ..pair import (
    Batch,
    Entries,
    Pair,
    Program,
    Values,
    as_batch,
    demand_prediction,
    finite_batch,
    given_context,
    predicted,
    seeded,
    where_parameters_are,
)
from .reconstruction import float_type


def decode(
    model: Program,
    guide: Program,
    z: Tensor | Mapping[str, Tensor],
    like: Tensor | Batch,
    *,
    seed: int | None = None,
    memory_mb: float = 64.0,
) -> Tensor:
    """E[x|z], the model's mean of the data at given latents.

    Args:
        model: ``model(x, *context)``, the generative program.
        guide: ``guide(x, *context)``; it is not drawn from, but a trained pair keeps its parameters together.
        z: by site, ``(num, *plates inside the datum, *event)``; or the sites side by side, ``(num, total_dim)``, as
            :attr:`ppvae.inference.Embedding.matrix` has them.
        like: data, or a tuple ``(x, *context)``, that show shape and type of x. Row i of z is decoded with the context
            of row i, and the rows are gone through again where z has more.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones. Nothing
            is drawn but the data whose distribution does not know its mean.
        memory_mb: budget in MiB for one pass of the pair.

    Returns:
        ``(num, *event)``, the event of x.

    Raises:
        OptionError: ``z`` does not fit the latents of the pair, or lies outside their support.
        DataError: ``like`` is not a tensor of at least one datum.
        PairError: the pair breaks the contract, the data share latents, sites are summed out, the programs run on all
            data at once only, or as of :func:`ppvae.inference.reconstruct`.

    Example:
        >>> import torch
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair = LinearGaussian(num_features=3, latent_dim=2)
        >>> x = decode(pair.model, pair.guide, torch.eye(2), torch.zeros(1, 3))
        >>> torch.allclose(x, pair.weight.T + pair.bias)
        True
    """
    seed, memory_mb, _ = valid_compute(seed, memory_mb)
    batch = where_parameters_are(model, guide, finite_batch(as_batch(like, "like"), "like"))
    with seeded(seed), Pair.on(model, guide, batch, density=False) as pair, torch.no_grad():
        _demand_decodable(pair)
        by_site = {name: value.to(pair.device)[None] for name, value in _by_site(pair, z).items()}
        demand_prediction(pair, "latents cannot be decoded by the model")
        num = next(iter(by_site.values())).shape[1]
        many = pair.rows(torch.arange(num, device=pair.device) % pair.num_units)
        x = batch[0]
        out = torch.empty((num, *x.shape[1:]), dtype=float_type(x), device=x.device)
        for data, _ in many.chunks(1, memory_mb, gradient=True):
            part, here = many.rows(data), {name: value[:, data] for name, value in by_site.items()}
            _demand_inside(part, here)
            out[data] = decoded(part, here, 1)[0]
    return out


def decoded(pair: Pair, z: Values, num_draws: int) -> Tensor:
    """E[x|z] of draws of the latents by site, ``(num_draws, *x.shape)``."""
    entries = Entries.of(pair, {name: value[:1] for name, value in z.items()}, "latents cannot be decoded by the model")
    found = predicted(pair, z | given_context(pair, entries, z), num_draws)
    steps = [entries.x_of({name: mean[k] for name, mean in found.means.items()}) for k in range(num_draws)]
    return torch.stack(steps).to(float_type(pair.batch[0]))


def _demand_decodable(pair: Pair) -> None:
    """Raise PairError unless latents by datum are all that x depends on."""
    if pair.unit == "data set" or not pair.sites:
        why = "the data share their latents" if pair.unit == "data set" else "the pair has no latents to decode"
        raise PairError(f"latents cannot be decoded datum by datum, since {why}: see reconstruct.")
    if pair.structure.classes:
        raise PairError(
            f"latents cannot be decoded, since x depends on {sorted(pair.structure.classes)[0]!r} too, which is summed "
            "out given x: see reconstruct."
        )
    if not pair.divisible:
        raise PairError(
            "latents cannot be decoded, since the programs run on all data at once only (as with parameters for each "
            "datum): see reconstruct."
        )


def _demand_inside(pair: Pair, z: Values) -> None:
    """Raise OptionError if latents lie outside the supports that the model gives them, where these are known."""
    if any(site.discrete for site in pair.sites.values()):
        return
    try:
        found = pair.run(pair.programs.unconstrained, 1, z, pair.model_layout)
    except NotImplementedError:  # of a support that no real line maps onto
        return
    for name in z:
        if bool((found[name] > 0).any()):
            raise OptionError(f"z holds values outside the support that the model gives {name!r}: leave such rows out.")


def _by_site(pair: Pair, z: Tensor | Mapping[str, Tensor]) -> Values:
    """The latents by site.

    Raises:
        OptionError: they are not those of the pair.
    """
    sizes = {name: torch.Size(site.shape).numel() for name, site in pair.sites.items()}
    if isinstance(z, Tensor):
        if z.dim() != 2 or z.shape[1] != sum(sizes.values()) or not len(z):
            raise OptionError(
                f"z must have shape (num, {sum(sizes.values())}), the latents of a datum; it is {shown(z)}."
            )
        z = dict(zip(sizes, z.split(list(sizes.values()), 1), strict=True))
        z = {name: value.reshape(len(value), *pair.sites[name].shape) for name, value in z.items()}
    if not isinstance(z, Mapping) or set(z) != set(sizes):
        raise OptionError(f"z must be a matrix, or hold a tensor for each of {sorted(sizes)}; it is {shown(z)}.")
    for name, value in z.items():
        shape = (len(next(iter(z.values()))), *pair.sites[name].shape)
        if not isinstance(value, Tensor) or tuple(value.shape) != shape or not shape[0]:
            raise OptionError(f"z must hold a tensor of shape {shape} for {name!r}; it holds {shown(value)}.")
        if not bool(value.isfinite().all()):
            raise OptionError(f"z holds NaN or infinite values for {name!r}: leave such rows out.")
    return {name: z[name].to(pair.sites[name].dtype) for name in sizes}
