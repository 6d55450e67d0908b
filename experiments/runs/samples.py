"""Samples of a trained pair: reconstructions, draws from the prior, latent traversals, and draws of the guide.

All are read off traces of the two programs, so that any pair has them; only a traversal needs more, a pair with
`decode(z)`. Of p(x|z) the mean is kept where it has one, and a draw elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from pyro.poutine import Trace
from torch import Tensor

from ppvae.datasets import evenly_spaced
from ppvae.inference import to_datatree
from ppvae.inference.objective import enumerated
from ppvae.inference.parameters import evaluation_mode, own_parameters
from ppvae.inference.traces import latents, plates_of, sample_sites, seeded

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


def draw_samples(pair: Any, x: Tensor, seed: int) -> Samples:
    """Draw all samples of a pair.

    Args:
        pair: an object with ``model(x)`` and ``guide(x)``, and ``decode(z)`` if it has one.
        x: data, ``(num_data, D)``.
        seed: of the draws; the global generators are left as they were.

    Returns:
        Samples: tensors on the CPU.
    """
    model, guide = pair.model, pair.guide
    with torch.no_grad(), seeded(seed), own_parameters(model, guide), evaluation_mode(model, guide):
        shown = evenly_spaced(x, NUM_SHOWN)
        guide_trace = poutine.trace(guide).get_trace(shown)
        model_trace = _model_given_guide(pair, guide_trace, shown)
        observed = [name for name, site in sample_sites(model_trace) if site["is_observed"]]
        blank = x[:1].expand(NUM_PRIOR, *x.shape[1:]).contiguous()
        prior_trace = poutine.trace(poutine.uncondition(model)).get_trace(blank)
        draws = _guide_draws(pair, x, seed)
        traversal, dimensions = _traversal(pair, draws["posterior"].to_dataset(), x)
        return Samples(
            data=shown.cpu(),
            reconstructions=_mean_of_data(model_trace, observed, shown),
            prior=_mean_of_data(prior_trace, observed, blank),
            traversal=traversal,
            dimensions=dimensions,
            draws=draws,
        )


def _guide_draws(pair: Any, x: Tensor, seed: int) -> xr.DataTree:
    """Draws of the guide for some of the data, in ArviZ's schema."""
    which = evenly_spaced(torch.arange(len(x)), MOST_DATA)
    return to_datatree(
        pair.model,
        pair.guide,
        x[which],
        num_draws=MOST_DRAWS // NUM_CHAINS,
        num_chains=NUM_CHAINS,
        predictive=False,
        coords={"datum": which.tolist()},
        seed=seed,
    )


def _model_given_guide(pair: Any, guide_trace: Trace, x: Tensor) -> Trace:
    """The model on the guide's draws; what the model enumerates is drawn from its exact posterior given those."""
    trace = poutine.trace(poutine.replay(pair.model, trace=guide_trace)).get_trace(x)
    summed = [name for name, site in latents(trace).items() if enumerated(site) and name not in guide_trace]
    if not summed or any(map(enumerated, latents(guide_trace).values())):
        return trace  # nothing was left to the prior
    nesting = plates_of(pair.model, pair.guide, (x,)).nesting
    with poutine.trace() as captured:
        TraceEnum_ELBO(max_plate_nesting=nesting).sample_posterior(pair.model, pair.guide, x)
    return captured.trace


def _mean_of_data(trace: Trace, names: list[str], x: Tensor) -> Tensor | None:
    """The mean of the site that makes x, ``(num_data, D)``."""
    for name in names:
        fn: Any = trace.nodes[name]["fn"]
        value: Any = trace.nodes[name]["value"]
        try:
            mean = fn.mean
        except (NotImplementedError, AttributeError):
            mean = value
        if not torch.isfinite(mean).all():  # some distributions have none and say so with NaN
            mean = value
        if mean.numel() == x.numel():
            return mean.reshape(x.shape).cpu()
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
