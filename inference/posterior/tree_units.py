"""The draws of standardised data as draws of the data in their own units.

A pair that was trained on y_j = (x_j − m_j)/s_j gives densities of y. Those of x have the Jacobian in them,

    log p(x, z) = log p(y, z) − Σ_j log s_j,

over the values that a datum has; log q(z|x) is the same for both.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ppvae.datasets import Standardisation

from .labels import DATUM

if TYPE_CHECKING:
    import xarray as xr

# The variables that hold log p, by group; None is all of them.
DENSITIES = {"sample_stats": ("log_p", "log_weight"), "log_likelihood": None}
DATA = ("observed_data", "prior_predictive", "posterior_predictive")


def in_own_units(tree: xr.DataTree, units: Standardisation, y: Tensor) -> xr.DataTree:
    """The tree of :func:`~ppvae.inference.to_datatree` with densities, data and predictions in the data's own units.

    Args:
        tree: of the standardised data.
        units: the map from their own units.
        y: the standardised data, ``(num_data, ...)``.

    Returns:
        xarray.DataTree: ``log_p``, ``log_weight`` and ``log_likelihood`` are of x, in nats; data and predictions are
        m + s y. One whose shape is not that of y stays as it is, and has the attribute ``units = "standardised"``.
    """
    import xarray as xr

    added = units.log_jacobian(y).cpu().numpy()
    if tree["sample_stats"].sizes[DATUM] != len(added):
        added = added.sum(keepdims=True)  # the data set is one unit
    groups = {}
    for name, group in tree.children.items():
        found = group.to_dataset()
        for key in found.data_vars:
            if name in DENSITIES and key in (DENSITIES[name] or found.data_vars):
                found[key] = found[key].copy(data=found[key].to_numpy() + added)
            elif name in DATA:
                found[key] = _undone(found[key], units, y)
        groups[name] = found
    out = xr.DataTree.from_dict(groups)
    out.attrs = tree.attrs
    return out


def _undone(values: xr.DataArray, units: Standardisation, y: Tensor) -> xr.DataArray:
    """Values of y as values of x."""
    own = values.shape[values.dims.index(DATUM) + 1 :] if DATUM in values.dims else values.shape
    if math.prod(own) == 0 or own not in (tuple(y.shape[1:]), tuple(y.shape)):
        return values.assign_attrs(units="standardised")
    data = units.undo(torch.from_numpy(np.ascontiguousarray(values.to_numpy())))
    return values.copy(data=data.numpy())
