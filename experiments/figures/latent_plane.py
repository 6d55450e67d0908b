"""E[x | z] on a grid over a two-dimensional latent space, small enough to be embedded in a page.

The values are kept in 256 steps between their smallest and their largest; between the grid points a page interpolates.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ppvae.inference.pair.modes import evaluation_mode
from ppvae.inference.pair.parameters import own_parameters

NUM_STEPS = 21
# The plane reaches over the prior's bulk, and over this share of the posterior means as far as that.
LEAST, MOST, SHARE = 3.0, 6.0, 0.95
MOST_BYTES = 2_000_000


def latent_plane(
    pair: Any, posterior: xr.Dataset, x: Tensor, event_shape: tuple[int, ...], labels: Sequence[str] | None = None
) -> dict[str, Any] | None:
    """Decode the latent plane of a pair.

    Args:
        pair: an object with ``model``, ``guide`` and ``decode(z)``.
        posterior: draws of the guide, ``(chain, draw, datum, ...)`` for each site.
        x: data, for their type and place.
        event_shape: the shape of a datum.
        labels: of each of x, in words, which colour its mean; None where there are none.

    Returns:
        What ``decoder.json`` holds: ``site``; ``axis``, the values that both dimensions take; ``event_shape``;
        ``grid``, bytes ``[z₁][z₀][feature]`` in base 64, of which 0 means ``low`` and 255 ``high``; ``means``, the
        posterior mean of each datum on the plane; ``labels``, those of these data, where there are any. None where the
        latent is not one vector of length 2, the pair has no such ``decode``, or a datum is too large.
    """
    sites = list(posterior.data_vars)
    if not callable(getattr(pair, "decode", None)) or len(sites) != 1:
        return None
    draws = posterior[sites[0]]
    if draws.ndim != 4 or draws.shape[-1] != 2 or NUM_STEPS**2 * x[0].numel() > MOST_BYTES:
        return None
    means = draws.mean(("chain", "draw")).to_numpy().astype(float)
    axis = np.linspace(-1, 1, NUM_STEPS) * min(max(LEAST, math.ceil(np.quantile(np.abs(means).max(1), SHARE))), MOST)
    z1, z0 = np.meshgrid(axis, axis, indexing="ij")
    z = torch.from_numpy(np.stack([z0, z1], axis=-1)).to(x)
    try:
        with torch.no_grad(), own_parameters(), evaluation_mode(pair.model, pair.guide):
            decoded = pair.decode(z).mean
    except Exception:  # a decode of another kind than ours: the view is an extra, not worth a run
        return None
    if not isinstance(decoded, Tensor) or decoded.shape[:2] != z.shape[:2] or decoded[0, 0].numel() != x[0].numel():
        return None
    values = decoded.double().cpu().numpy().reshape(NUM_STEPS, NUM_STEPS, -1)
    if not np.isfinite(values).all():
        return None
    on_plane = np.abs(means).max(1) <= axis[-1]
    low, high = float(values.min()), float(values.max())
    steps = np.rint((values - low) / ((high - low) or 1.0) * 255).astype(np.uint8)
    return {
        "site": str(sites[0]),
        "axis": axis.tolist(),
        "event_shape": list(event_shape),
        "low": low,
        "high": high,
        "grid": base64.b64encode(steps.tobytes()).decode(),
        **({} if labels is None else {"labels": [labels[int(i)] for i in posterior["datum"].to_numpy()[on_plane]]}),
        "means": [[round(a, 3), round(b, 3)] for a, b in means[on_plane]],
    }
