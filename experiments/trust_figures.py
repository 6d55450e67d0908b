"""Figures of the guide as a posterior: its latent units, its calibration, and how it differs from reference draws."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ppvae.inference import Calibration, LatentUnits, Quality
from ppvae.inference.calibration_view import LEVEL, View
from ppvae.inference.ranks import band

from .figures import BLACK, BLUE, GREEN, ORANGE, new_figure, new_panels

GREY = "0.6"
UNIT_COLOURS = {"active": BLUE, "undecided": ORANGE, "collapsed": GREY}
VIEWS = {"prior": "data drawn from the model", "data": "data drawn near x"}


def units(found: LatentUnits) -> Figure:
    """KL of every latent unit, the busiest first, with ± two standard errors."""
    figure, axes = new_figure(3.6)
    kl, error = found.kl.numpy(), 2 * found.standard_error["kl"].numpy()
    order = np.argsort(-np.nan_to_num(kl, nan=-1.0))
    for verdict, colour in UNIT_COLOURS.items():
        places = [place for place, j in enumerate(order) if found.verdict[j] == verdict]
        which = order[places]
        if places:
            label = f"{verdict} ({len(places)})"
            axes.bar(places, kl[which], yerr=error[which], color=colour, label=label, error_kw={"linewidth": 0.8})
    if len(order) <= 20:
        axes.set_xticks(range(len(order)), [found.label[j] for j in order], rotation=90, fontsize=7)
    axes.set(xlabel="latent unit, the busiest first", ylabel="KL(q(z|x) ‖ p(z)) of the unit (nats)")
    axes.legend()
    return figure


def calibration(found: Calibration) -> Figure:
    """ECDF of the ranks minus that of uniform ones, a curve per unit; a guide that is right stays inside the band."""
    figure, panels = new_panels(3.6, len(found.views))
    for axes, view in zip(panels, found.views, strict=True):
        _ecdf_difference(axes, view)
        axes.set(title=VIEWS[view.anchor], xlabel="PIT: rank of the truth in q")
    panels[0].set_ylabel("ECDF − PIT")
    panels[0].legend(fontsize=8)
    return figure


def _ecdf_difference(axes: Axes, view: View) -> None:
    pit = np.sort(view.pit.numpy(), axis=0)
    place = np.linspace(0, 1, 101)
    z, lower, upper = band(view.num_simulations, LEVEL / pit.shape[1])
    axes.fill_between(z, lower - z, upper - z, color=GREEN, alpha=0.25, linewidth=0, label="band of all units")
    labelled = set()
    for j, verdict in enumerate(view.verdict):
        fine = verdict == "fine"
        curve = np.searchsorted(pit[:, j], place, side="right") / len(pit) - place
        label = "no fault found" if fine else "at fault"
        axes.plot(
            place,
            curve,
            color=GREY if fine else ORANGE,
            linewidth=0.8,
            label=None if label in labelled else label,
        )
        labelled.add(label)
    axes.axhline(0, color=BLACK, linewidth=0.8)


def quality(found: Quality) -> Figure:
    """Width against shift of the guide, a point per datum and coordinate; a guide that is right lies at (0, 1)."""
    figure, axes = new_figure(4.0)
    judged = found.judged
    bias, ratio = found.bias[judged].flatten().numpy(), found.sd_ratio[judged].flatten().numpy()
    axes.scatter(bias, ratio, s=8, color=BLUE, alpha=0.5, linewidth=0, label=f"{int(judged.sum())} data")
    axes.plot(0, 1, marker="+", color=BLACK, markersize=14, label="the posterior itself")
    axes.set_ylim(0, None)
    axes.axhline(1, color=BLACK, linewidth=0.6, linestyle=":")
    axes.set(xlabel="shift of the mean (posterior standard deviations)", ylabel="width: sd of q / sd of the posterior")
    axes.legend()
    return figure
