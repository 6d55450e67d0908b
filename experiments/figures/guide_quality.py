"""Figures of the guide as a posterior: its latent units, and how it differs from reference draws."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ppvae.inference import LatentUnits, Quality

from .style import BLACK, BLUE, GREY, ORANGE, new_figure

UNIT_COLOURS = {"active": BLUE, "undecided": ORANGE, "collapsed": GREY}


def latent_unit_bars(found: LatentUnits) -> Figure:
    """KL of every latent unit, the largest first, with ± two standard errors."""
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


def width_against_shift(found: Quality) -> Figure:
    """Width against shift of the guide, a point per datum and coordinate; an exact guide lies at (0, 1)."""
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
