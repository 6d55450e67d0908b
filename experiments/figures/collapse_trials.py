"""The figure of the trials on unused latent units: what each gained, and how many units it woke."""

from __future__ import annotations

from matplotlib.figure import Figure

from ppvae.inference import ExplainedCollapse

from .style import BLACK, BLUE, new_figure


def collapse_trials(found: ExplainedCollapse) -> Figure:
    """ELBO after each trial less that of its reference, with ± two standard errors, and the number of units woken."""
    done = [trial for trial in found.trials if not trial.note]
    figure, axes = new_figure(0.8 + 0.4 * max(len(done), 3))
    places = range(len(done))
    gains, errors = [trial.gain for trial in done], [2 * trial.standard_error for trial in done]
    axes.barh(places, gains, xerr=errors, color=BLUE, error_kw={"linewidth": 0.8})
    axes.axvline(0, color=BLACK, linewidth=0.6)
    axes.set_yticks(places, [f"{trial.name} ({len(trial.woken)} woken)" for trial in done], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=0.1)
    axes.set_xlabel("gain of the ELBO on data held out (nats)")
    return figure
