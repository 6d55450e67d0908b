"""Samples of a trained pair: reconstructions, draws from the prior, latent traversals, and draws of the guide.

All are read off traces of the two programs, so that any pair has them; only a traversal needs more, a pair with
`decode(z)`. Of p(x|z) the mean is kept where it has one, and a draw elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ppvae.datasets import evenly_spaced
from ppvae.errors import PairError
from ppvae.inference import DrawsFrom, to_datatree
from ppvae.inference.pair import Batch, Pair, as_batch
from ppvae.inference.pair.randomness import seeded
from ppvae.inference.posterior.labels import with_columns

NUM_SHOWN = 10
NUM_PRIOR = 50
MOST_DRAWS = MOST_DATA = 100
NUM_CHAINS = 4
# A traversal sets one of this many latent dimensions to these values, all others to 0.
MOST_DIMENSIONS = 8
TRAVERSAL_VALUES = torch.linspace(-2.5, 2.5, 11)


@dataclass(frozen=True)
class Samples:
    """Samples of a pair; None where the pair has no such samples.

    Attributes:
        data: ``(n, D)``, the data that are reconstructed.
        reconstructions: ``(n, D)``, E[x | z] for one z ~ q(z|x) each.
        prior: ``(m, D)``, E[x | z] for z ~ p(z).
        traversal: ``(dimensions, steps, D)``, E[x | z] along single latent dimensions, in falling order of
            the variance of their posterior means over the data.
        dimensions: which latent dimensions these are.
        draws: draws of the guide with their densities, in ArviZ's schema; without drawn data, which would be large.
    """

    data: Tensor
    reconstructions: Tensor | None
    prior: Tensor | None
    traversal: Tensor | None
    dimensions: list[int]
    draws: xr.DataTree

    @property
    def posterior(self) -> xr.Dataset:
        """Draws of the guide, ``(chain, draw, datum, ...)`` for each latent site."""
        return self.draws["posterior"].to_dataset()


def draw_samples(pair: Any, x: Tensor | Batch, seed: int, columns: Sequence[str] = ()) -> Samples:
    """Draw all samples of a pair.

    Args:
        pair: an object with ``model(x, *context)`` and ``guide(x, *context)``, and ``decode(z)`` if it has one.
        x: data, ``(num_data, ...)``; or a tuple ``(x, *context)``.
        seed: of the draws; the global generators are left as they were.
        columns: names of the features of x, for the draws.

    Returns:
        Samples: tensors on the CPU.
    """
    batch = as_batch(x)
    data: Tensor = batch[0]
    with torch.no_grad(), seeded(seed), Pair.on(pair.model, pair.guide, batch, density=False) as programs:
        local = programs.unit == "datum"
        which = evenly_spaced(torch.arange(len(data)), NUM_SHOWN)
        some = programs.rows(which)
        shown = data[which] if local else data
        reconstructions = _mean_of_data(some, some.guide_values(1), shown)
        blank = programs.rows(torch.arange(NUM_PRIOR) % len(data)) if programs.divisible else programs
        made = data[:1].expand(blank.num_units, *data.shape[1:]) if local else data
        prior = _mean_of_data(blank, blank.prior_values(1), made)
        numbers = evenly_spaced(torch.arange(len(data)), MOST_DATA) if programs.divisible else torch.arange(len(data))
        drawn = programs.rows(numbers).batch if programs.divisible else batch
        of_data = {"datum": numbers.tolist()} if local else {}
        named = with_columns(programs, columns, None, of_data)
        draws = _guide_draws(pair, drawn, seed, *named)
        traversal, dimensions = _traversal(pair, draws["posterior"].to_dataset(), data) if local else (None, [])
    if not local:  # all data were made at once: a few are shown
        reconstructions = None if reconstructions is None else reconstructions[which]
        shown = data[which]
    prior = None if prior is None else prior[:NUM_PRIOR]
    return Samples(shown.reshape(len(shown), -1).cpu(), reconstructions, prior, traversal, dimensions, draws)


def _guide_draws(pair: Any, batch: Batch, seed: int, dims: dict[str, Any], coords: dict[Any, Any]) -> xr.DataTree:
    """Draws of the guide in ArviZ's schema; the numbers of the data name them where each has its own latents."""
    return to_datatree(
        pair.model,
        pair.guide,
        batch,
        draws=DrawsFrom("guide", num_draws=MOST_DRAWS // NUM_CHAINS, num_chains=NUM_CHAINS),
        predictive=False,
        dims=dims or None,
        coords=coords or None,
        seed=seed,
    )


def _mean_of_data(pair: Pair, z: dict[str, Tensor], x: Tensor) -> Tensor | None:
    """The mean at z of the site that makes x, ``(num_data, D)``.

    None where the model cannot be drawn from, or a datum is one number, which is no picture.
    """
    try:
        means = pair.expectations(z)
    except PairError:
        return None
    for mean in means.values():
        if mean.numel() == x.numel() > len(x):
            return mean.reshape(len(x), -1).cpu()
    return None


def _traversal(pair: Any, posterior: xr.Dataset, x: Tensor) -> tuple[Tensor | None, list[int]]:
    """E[x | z] along the latent dimensions in which the posterior means differ most between the data."""
    sites = list(posterior.data_vars)
    if not callable(getattr(pair, "decode", None)) or len(sites) != 1 or posterior[sites[0]].ndim != 4:
        return None, []
    variance = posterior[sites[0]].mean(("chain", "draw")).var("datum").to_numpy()
    dimensions = np.argsort(-variance)[:MOST_DIMENSIONS].tolist()
    z = x.new_zeros(len(dimensions), len(TRAVERSAL_VALUES), len(variance))
    for row, dimension in enumerate(dimensions):
        z[row, :, dimension] = TRAVERSAL_VALUES.to(x)
    try:
        mean = pair.decode(z).mean
    except Exception:  # a decode of another kind than ours: a traversal is an extra, not worth a run
        return None, []
    if not isinstance(mean, Tensor) or mean.shape[:2] != z.shape[:2] or mean[0, 0].numel() != x[0].numel():
        return None, []
    return mean.reshape(*z.shape[:2], -1).cpu(), dimensions
