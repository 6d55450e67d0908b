"""Where the data lie in the space of the latents: means and standard deviations of z under q(z|x), datum by datum.

Of a site's distribution given what the guide drew before it, mean and variance are known exactly, and only the draws
before it are averaged over (:mod:`.moments`). Of a guide that is one normal distribution, or one for each site, as the
encoder of a VAE is, the means are therefore exact, whatever the number of draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import torch
from torch import Tensor

from ppvae.errors import PairError

from ..options import valid_compute, whole_number
from ..pair import (
    Batch,
    Pair,
    Program,
    Values,
    as_batch,
    finite_batch,
    seeded,
    unit_draws,
    where_parameters_are,
)
from ..records import Printed
from .moments import Mixture, RunningMoments


@dataclass(frozen=True, repr=False)
class Embedding(Printed):
    """Means and spread of the latents of every datum under the guide.

    Attributes:
        mean: E[z|x] by site, ``(num_data, *plates inside the datum, *event)``.
        standard_deviation: of z given x by site, same shapes: how wide q(z|x) is.
        monte_carlo_error: standard error of ``mean`` by site, same shapes; 0 where the mean is exact.
    """

    mean: dict[str, Tensor]
    standard_deviation: dict[str, Tensor]
    monte_carlo_error: dict[str, Tensor]

    @property
    def matrix(self) -> Tensor:
        """The means of all sites side by side, ``(num_data, total_dim)``; :attr:`columns` names them."""
        return _side_by_side(self.mean)

    @property
    def spread(self) -> Tensor:
        """The standard deviations in the places of :attr:`matrix`."""
        return _side_by_side(self.standard_deviation)

    @property
    def columns(self) -> list[str]:
        """Names of the columns of :attr:`matrix`: the site, and the place in it."""
        names = []
        for name, value in self.mean.items():
            shape = tuple(value.shape[1:])
            places = torch.cartesian_prod(*map(torch.arange, shape)).reshape(-1, len(shape)).tolist() if shape else [[]]
            names += [name + (f"[{', '.join(map(str, place))}]" if place else "") for place in places]
        return names

    def __repr__(self) -> str:
        matrix, spread = self.matrix, self.spread
        error = torch.cat([value.flatten() for value in self.monte_carlo_error.values()]).max()
        sites = ", ".join(f"{name} {tuple(value.shape[1:])}" for name, value in self.mean.items())
        return "\n".join(
            [
                f"Embedding of {len(matrix)} data in {matrix.shape[1]} dimensions ({sites}):",
                f"  spread of the means over the data        {matrix.double().std(0, correction=0).mean():.4g}",
                f"  spread of q(z|x) of a datum              {spread.double().mean():.4g}",
                f"  largest Monte Carlo error of a mean      {error:.2g}",
            ]
        )


def _side_by_side(values: Values) -> Tensor:
    return torch.cat([value.reshape(len(value), -1) for value in values.values()], 1)


def embed(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    *,
    num_particles: int = 100,
    seed: int | None = None,
    memory_mb: float = 64.0,
) -> Embedding:
    """Means and standard deviations of the latents of every datum under the guide.

    Args:
        model: ``model(x, *context)``, the generative program.
        guide: ``guide(x, *context)``.
        x: data, first dimension ``num_data``; or a tuple ``(x, *context)``.
        num_particles: draws of the guide to average over, at least 2; where the guide's own means are known it does
            not matter.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.
        memory_mb: budget in MiB for one pass of the pair.

    Returns:
        Embedding: by site, and as one matrix ``(num_data, total_dim)``. Sites that are summed out have no mean and are
        left out.

    Raises:
        OptionError: an option has a value that cannot be used.
        DataError: ``x`` is not a tensor of at least one datum, or it holds infinite values.
        PairError: the pair breaks the contract, its latents are shared by the data, or a latent is the number of a
            class, whose mean says nothing.

    Example:
        >>> import torch
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair, x = LinearGaussian(num_features=3, latent_dim=2).set_exact_guide(), torch.randn(4, 3)
        >>> z = embed(pair.model, pair.guide, x)
        >>> torch.allclose(z.matrix.double(), pair.posterior(x).mean, atol=1e-6), z.columns
        (True, ['z[0]', 'z[1]'])
    """
    num_particles = whole_number("num_particles", num_particles, 2)
    seed, memory_mb, _ = valid_compute(seed, memory_mb)
    batch = where_parameters_are(model, guide, finite_batch(as_batch(x)))
    with seeded(seed), Pair.on(model, guide, batch, density=False) as pair, torch.no_grad():
        found = embedded(pair, num_particles, memory_mb)
        types = {name: _float_like(site.dtype) for name, site in pair.sites.items()}
    mean, spread, error = ({n: m[i].to(types[n]) for n, m in found.items()} for i in range(3))
    return Embedding(mean, spread, error)


def embedded(pair: Pair, num_particles: int, memory_mb: float) -> dict[str, Mixture]:
    """The moments of each latent by datum, ``(num_data, *plates inside the datum, *event)``, float64.

    Raises:
        PairError: the latents are shared by the data, there are none, or one has no mean.
    """
    if pair.unit == "data set":
        raise PairError(
            f"the data share {_listed(pair)}, so that a datum has no embedding of its own: to_datatree gives draws "
            "of the latents of the data set."
        )
    if not pair.sites:
        raise PairError(
            "the pair has no latents that are not summed out, so that a datum has no embedding: give a pair with some."
        )
    return {name: _embedded_site(pair, name, num_particles, memory_mb) for name in pair.sites}


def _embedded_site(pair: Pair, name: str, num_particles: int, memory_mb: float) -> Mixture:
    pieces, shape = [], pair.sites[name].shape
    for data, chunk in groupby(pair.chunks(num_particles, memory_mb), key=itemgetter(0)):
        part, moments = pair.rows(data), RunningMoments()
        for _, draws in chunk:
            drawn = unit_draws(part, "guide", name, draws.stop - draws.start)
            moments.add(drawn.means, drawn.variances)
        pieces.append(moments.mixture())
    found = Mixture(*(torch.cat(same).reshape(pair.num_units, *shape) for same in zip(*pieces, strict=True)))
    if not bool(found.mean.isfinite().all()):
        raise PairError(
            f"{name!r} has no finite mean under the guide (as of a Cauchy, or of the number of a class): to_datatree "
            "gives draws of it."
        )
    return found


def _float_like(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype.is_floating_point else torch.get_default_dtype()


def _listed(pair: Pair) -> str:
    return ", ".join(map(repr, pair.sites)) or "all of the latents"
