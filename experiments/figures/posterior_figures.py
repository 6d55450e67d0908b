"""Figures of a posterior by ArviZ: draws of the guide beside those of the reference, and posterior predictive checks.

This module selects the draws (one datum, few coordinates) and labels the axes; ArviZ draws. Figures that ArviZ does not
have are in :mod:`ppvae.experiments.figures.latent_space`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import arviz_plots
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ppvae.inference.latents.units import unit_name

from .arviz_style import SHOW_AXES, figure_of, label_axes, offscreen
from .style import BLUE, GREEN, ORANGE, WIDTH

COLOURS = (ORANGE, GREEN, BLUE)
# Draws of each chain in a figure: enough for its points, and for the rank bands, which ArviZ simulates.
FEW_DRAWS = 100
# Of more chains plot_rank's band is too narrow in arviz-plots 0.8: of 16 independent ones half as wide as it should be.
FEW_CHAINS = 4
PREDICTIVE_CURVES = 50


def coordinates(tree: xr.DataTree, datum: int, names: Sequence[str] | None = None) -> xr.DataTree:
    """The draws of one datum with every coordinate of every latent as a variable of its own, such as ``z[3]``.

    Args:
        tree: as :func:`ppvae.inference.to_datatree` makes it.
        datum: its place among the data.
        names: which coordinates, and in which order; None for all.
    """
    found: dict[str, xr.DataArray] = {}
    for site, draws in tree["posterior"].data_vars.items():
        one = draws.isel(datum=datum).drop_vars("datum", errors="ignore")
        for index in np.ndindex(one.shape[2:]):
            found[unit_name(str(site), index)] = one[(..., *index)].drop_vars(
                set(one.coords) - {"chain", "draw"}, errors="ignore"
            )
    return xr.DataTree.from_dict({"posterior": xr.Dataset({name: found[name] for name in names or found})})


def farthest(guide: xr.DataTree, reference: xr.DataTree, datum: int, most: int) -> list[str]:
    """The coordinates of a datum in which the two differ most, as |difference of means|/sd + |log ratio of sds|."""
    q, p = (coordinates(tree, datum)["posterior"].to_dataset() for tree in (guide, reference))
    scale = p.std()
    apart = abs(q.mean() - p.mean()) / scale + abs(np.log(q.std() / scale))
    worst = sorted(apart.data_vars, key=lambda name: -np.nan_to_num(float(apart[name])))[:most]
    return [str(name) for name in p.data_vars if name in worst]


def forest(trees: Mapping[str, xr.DataTree], datum: int, names: Sequence[str]) -> Figure:
    """Intervals that hold 50 % and 94 % of the draws of each approximation, coordinate by coordinate.

    Args:
        trees: of the same numbers of chains and draws, by name.
        datum: its place among the data.
        names: the coordinates.
    """
    with offscreen():
        shown = {name: coordinates(tree, datum, names) for name, tree in trees.items()}
        colours = list(islice(COLOURS, len(shown)))
        drawn = arviz_plots.plot_forest(
            shown, combined=True, color=colours, figure_kwargs={"figsize": (WIDTH, 1.4 + 0.42 * len(names))}
        )
        drawn.add_legend("model", title="", loc="outside lower center", ncols=len(shown))
        figure = figure_of(drawn)
    label_axes(figure, [("", "")] * (len(figure.axes) - 1) + [("value of the coordinate", "")])
    start, end = figure.axes[-1].get_ylim()
    room = 0.2 if end > start else -0.2
    figure.axes[-1].set_ylim(start - room, end + room)
    return figure


def pairs(guide: xr.DataTree, reference: xr.DataTree, datum: int, names: Sequence[str]) -> Figure:
    """Draws of two posteriors in every plane of some coordinates, with the density of each coordinate."""
    with offscreen():
        drawn = None
        size = {"figure_kwargs": {"figsize": (WIDTH, WIDTH * 0.8)}}
        for tree, colour in ((reference, BLUE), (guide, ORANGE)):
            options: Any = {} if drawn else size
            drawn = arviz_plots.plot_pair(
                _thinned(coordinates(tree, datum, names)),
                plot_matrix=drawn,
                visuals={"scatter": {"color": colour, "alpha": 0.15, "size": 6}, "dist": {"color": colour}},
                **options,
            )
        figure = figure_of(drawn)
    handles = [Line2D([], [], color=colour) for colour in (BLUE, ORANGE)]
    figure.legend(handles, ["reference", "guide"], loc="upper right")
    return figure


def ranks(reference: xr.DataTree, datum: int, names: Sequence[str]) -> Figure:
    """ECDF of the ranks of each chain's draws among those of all, for a few chains."""
    with offscreen():
        drawn = arviz_plots.plot_rank(
            _thinned(coordinates(reference, datum, names), FEW_CHAINS),
            visuals=SHOW_AXES,
            figure_kwargs={"figsize": (WIDTH, 2.4), "sharey": True},
        )
        figure = figure_of(drawn)
    label_axes(figure, [("rank, from 0 to 1", "ECDF − rank" if i == 0 else "") for i in range(len(figure.axes))])
    return figure


def traces(reference: xr.DataTree, datum: int, names: Sequence[str]) -> Figure:
    """The draws of a few chains in their order, one colour each."""
    with offscreen():
        shown = _thinned(coordinates(reference, datum, names), FEW_CHAINS)
        drawn = arviz_plots.plot_trace(shown, figure_kwargs={"figsize": (WIDTH, 2.2)})
        figure = figure_of(drawn)
    label_axes(figure, [("draw", "value" if i == 0 else "") for i in range(len(figure.axes))])
    return figure


def predictive(tree: xr.DataTree, group: str) -> Figure | None:
    """ECDFs of data drawn from the model, beside that of the data; of each datum's mean where all values are 0 or 1.

    Args:
        tree: with ``observed_data`` and the group.
        group: ``"posterior_predictive"`` or ``"prior_predictive"``.

    Returns:
        None where there is no such data.
    """
    if group not in tree.children or len(tree["observed_data"].data_vars) != 1:
        return None
    site = str(next(iter(tree["observed_data"].data_vars)))
    made, seen = tree[group][site], tree["observed_data"][site]
    there = seen.notnull()
    binary = bool((np.isin(seen, (0, 1)) | ~there).all()) and seen.ndim > 1
    made = made.where(there)  # of what is missing (NaN) nothing is compared
    if binary:
        features = [*seen.dims][1:]
        made, seen, there = made.mean(features), seen.mean(features), there.any(features)
    if not there.all():
        made, seen = (
            values.stack(value=list(there.dims)).isel(value=there.to_numpy().ravel()) for values in (made, seen)
        )
    shown = xr.DataTree.from_dict({group: xr.Dataset({"x": made}), "observed_data": xr.Dataset({"x": seen})})
    with offscreen():
        drawn = arviz_plots.plot_ppc_dist(
            shown,
            group=group,
            kind="ecdf",
            num_samples=PREDICTIVE_CURVES,
            visuals={"title": False, "predictive_dist": {"color": BLUE, "alpha": 0.2}, "observed_dist": {}},
            figure_kwargs={"figsize": (WIDTH, 3.0)},
        )
        figure = figure_of(drawn)
    label = f"share of ones in a datum of {site}" if binary else f"value of {site}"
    label_axes(figure, [(label, "share of values up to it")])
    return figure


def _thinned(tree: xr.DataTree, num_chains: int | None = None) -> xr.DataTree:
    """A subset of the draws and, if a number is given, of the chains, from both kinds of starts."""
    draws = tree["posterior"].to_dataset()
    chains = np.linspace(0, draws.sizes["chain"] - 1, num_chains or draws.sizes["chain"]).round().astype(int)
    every = slice(None, None, -(-draws.sizes["draw"] // FEW_DRAWS))
    return xr.DataTree.from_dict({"posterior": draws.isel(chain=chains, draw=every)})
