"""Can q(z|x) of an earlier run be trusted as a posterior? Three looks at it, from the cheapest on.

Which latent units it uses (:func:`ppvae.inference.latent_units`), whether it is calibrated on data that the model makes
(:func:`ppvae.inference.calibrate`), and how it differs from reference draws of the posterior, datum by datum
(:func:`ppvae.inference.guide_quality`). Each adds a file, figures and a section to the run directory; the reference
draws stay there too, for ArviZ.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import xarray as xr
from matplotlib.figure import Figure
from torch import Tensor

from ppvae.inference import (
    LatentUnits,
    Posterior,
    Quality,
    calibrate,
    column_stability,
    guide_quality,
    latent_units,
    sample_posterior,
    to_datatree,
)
from ppvae.inference.sites import sites_of
from ppvae.inference.verdict import CANNOT_TELL, GOOD, WORDS
from ppvae.models import LinearGaussian
from ppvae.storage import RunDirectory

from ..figures import latent_space as latent_figures, posterior_figures, guide_quality as trust_figures
from .sections import Examination, check_counts, check_evaluated, write_section
from .saved_run import Reopened, reopen
from .samples import spread

# Draws of each chain that are shown and kept: of the reference every few.
KEPT_DRAWS = 100
# Data on the latent map; coordinates in a forest, in planes, and of chains.
MAPPED, IN_FOREST, IN_PLANES, OF_CHAINS = 200, 12, 3, 4


def trust_run(
    directory: RunDirectory,
    *,
    split: str = "test",
    num_data: int = 20,
    num_simulations: int = 1000,
    num_units_data: int = 500,
    seed: int | None = None,
    command: str = "",
) -> Examination:
    """Look at the guide of an earlier run as a posterior.

    Args:
        directory: of the run.
        split: ``"test"`` or ``"validation"``.
        num_data: data whose posterior is drawn from for reference, evenly spread over all.
        num_simulations: data that the model makes, for calibration.
        num_units_data: data over which the latent units are examined.
        seed: of all draws; that of the run by default.
        command: the command line, for the summary.

    Raises:
        PpvaeError: the run, its data or its pair cannot be had, or the pair cannot be looked at in this way.
        KeyboardInterrupt: Ctrl-C; its message says what is kept.
    """
    check_counts(num_data=(num_data, 1), num_simulations=(num_simulations, 20), num_units_data=(num_units_data, 1))
    check_evaluated(directory)
    run = reopen(directory, split=split, max_eval=num_units_data, seed=seed)
    told = {"split": split, "seed": run.settings.seed, "command": command}
    started = time.monotonic()
    try:
        units = _look_at_units(run, told)
        calibrated = _look_at_calibration(run, num_simulations, told)
        judged = _look_at_quality(run, num_data, told, started)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; what was finished stands in {directory.path}, and the same command begins again."
        ) from None
    rows = [
        ("latent units", f"{units['active']} of {units['num_units']}", "active"),
        ("calibration", "", str(calibrated["verdict"])),
        ("guide against reference", f"{judged['num_judged']} of {judged['num_data']}", judged["verdict"]),
        ("  KL(q ‖ p), the gap", _with_error(judged, "kl_guide"), "nats"),
        ("  KL(p ‖ q)", _with_error(judged, "kl_posterior"), "nats"),
    ]
    remarks = [*units["remarks"], *calibrated["remarks"], *judged["remarks"]]
    return Examination(directory, "can q(z|x) be trusted as a posterior?", rows, {"remarks": remarks})


def _look_at_units(run: Reopened, told: dict[str, Any]) -> dict[str, Any]:
    model, guide, seed = run.pair.model, run.pair.guide, run.settings.seed
    units = latent_units(model, guide, run.x, seed=seed, progress=True)
    numbers = units.summary()
    section = {
        **numbers,
        "verdict": f"{numbers['active']} of {numbers['num_units']} latent units are active, "
        f"{numbers['collapsed']} collapsed",
        "remarks": [*units.remarks(), *_why_collapsed(run, units)],
        **told,
    }
    figures = {"latent_units": trust_figures.units(units)}
    some = spread(run.x, MAPPED)
    place = latent_figures.latent_map(to_datatree(model, guide, some, num_draws=25, predictive=False, seed=seed))
    write_section(run, "latent_units", units.to_dataset(), section, figures | _those({"latent_units_map": place}))
    return section


def _why_collapsed(run: Reopened, units: LatentUnits) -> list[str]:
    """Of a linear decoder it is known why: a sentence for each reason."""
    pair = run.pair
    if not isinstance(pair, LinearGaussian):
        return []
    stability = column_stability(pair.weight, (2 * pair.log_noise_scale).exp(), run.data.train.to(pair.weight))
    collapsed = [j for j, verdict in enumerate(units.verdict) if verdict == "collapsed"]
    return [f"{units.label[j]} has collapsed: {stability.reason(j)}" for j in collapsed]


def _look_at_calibration(run: Reopened, num_simulations: int, told: dict[str, Any]) -> dict[str, Any]:
    model, guide, seed = run.pair.model, run.pair.guide, run.settings.seed
    with sites_of(model, guide, (run.x[:2],)) as sites:
        summed = sorted(sites.summed)  # simulations near the data cannot be drawn there
    anchor: Literal["prior", "both"] = "prior" if summed else "both"
    found = calibrate(model, guide, run.x, anchor=anchor, num_simulations=num_simulations, seed=seed, progress=True)
    remarks = found.remarks()
    if summed:
        remarks.append(f"simulations near the data cannot be drawn, since {', '.join(summed)} is summed out.")
    section = {**found.summary(), "remarks": remarks, **told}
    write_section(run, "calibration", found.to_dataset(), section, posterior_figures.calibrations(found))
    return section


def _look_at_quality(run: Reopened, num_data: int, told: dict[str, Any], started: float) -> dict[str, Any]:
    model, guide, seed = run.pair.model, run.pair.guide, run.settings.seed
    x, which = spread(run.x, num_data), _places(run, num_data)
    reference = sample_posterior(model, guide, x, seed=seed, progress=True)
    quality = guide_quality(model, guide, x, reference, seed=seed, progress=True)
    trees = _trees(run, x, reference, which)
    run.directory.write_netcdf("reference", trees.reference)
    section = {
        **quality.summary(),
        "verdict": _in_words(quality.verdicts),
        "remarks": [*quality.remarks(), *reference.remarks()],
        **told,
        "seconds": time.monotonic() - started,
    }
    figures = _figures(quality, reference, trees, which)
    figures |= _those(
        {
            "quality_exact": latent_figures.exact_posteriors(run.pair, x, reference.coordinates, which, seed),
            "ppc_posterior": posterior_figures.predictive(trees.guide, "posterior_predictive"),
            "ppc_prior": posterior_figures.predictive(trees.guide, "prior_predictive"),
        }
    )
    write_section(run, "quality", quality.to_dataset(), section, figures)
    return section


@dataclass(frozen=True)
class _Trees:
    """Draws of three kinds for the same data, as many of each.

    Attributes:
        guide: with data that the model makes.
        reweighted: the guide's, resampled by their weights.
        reference: those of Markov chains.
    """

    guide: xr.DataTree
    reweighted: xr.DataTree
    reference: xr.DataTree


def _trees(run: Reopened, x: Tensor, reference: Posterior, which: Sequence[int]) -> _Trees:
    num_chains, num_draws = reference.log_joint.shape[:2]
    kept = {site: value[:, :: -(-num_draws // KEPT_DRAWS)] for site, value in reference.draws.items()}
    model, guide, seed = run.pair.model, run.pair.guide, run.settings.seed
    size: dict[str, Any] = {"num_chains": num_chains, "num_draws": next(iter(kept.values())).shape[1]}
    size |= {"seed": seed, "coords": {"datum": which}}
    told = replace(reference, draws=kept)
    return _Trees(
        guide=to_datatree(model, guide, x, **size),
        reweighted=to_datatree(model, guide, x, draws="psis", predictive=False, **size),
        reference=to_datatree(model, guide, x, draws=told, predictive=False, **size),
    )


def _places(run: Reopened, num_data: int) -> list[int]:
    """Where the data that are judged stand in their part of the data."""
    part = run.data.validation if run.split == "validation" else run.data.test
    return spread(spread(torch.arange(len(part)), run.settings.max_eval), num_data).tolist()


def _figures(quality: Quality, reference: Posterior, trees: _Trees, which: Sequence[int]) -> dict[str, Figure]:
    """The guide beside the reference: all data at once, then one datum that is neither among the best nor the worst."""
    figures = {"quality": trust_figures.quality(quality)} if quality.judged.any() else {}
    refused = (~quality.judged).nonzero().flatten()
    if len(refused):
        worst = int(refused[reference.rhat[refused].nan_to_num(torch.inf).argmax()])
        names = posterior_figures.farthest(trees.guide, trees.reference, worst, OF_CHAINS)
        figures["quality_refused"] = _titled(posterior_figures.traces(trees.reference, worst, names), which[worst])
    datum = _typical(quality)
    if datum is None:
        return figures
    farthest = posterior_figures.farthest(trees.guide, trees.reference, datum, IN_FOREST)
    every = {"guide": trees.guide, "guide, reweighted": trees.reweighted, "reference": trees.reference}
    planes = posterior_figures.farthest(trees.guide, trees.reference, datum, IN_PLANES)
    drawn = {
        "quality_forest": posterior_figures.forest(every, datum, farthest),
        "quality_ranks": posterior_figures.ranks(trees.reference, datum, farthest[:OF_CHAINS]),
        "quality_traces": posterior_figures.traces(trees.reference, datum, farthest[:OF_CHAINS]),
    }
    if len(planes) > 1:
        drawn["quality_pair"] = posterior_figures.pairs(trees.guide, trees.reference, datum, planes)
    return figures | {name: _titled(figure, which[datum]) for name, figure in drawn.items()}


def _typical(quality: Quality) -> int | None:
    """The datum whose KL(q ‖ p) is the median of those that had a reference."""
    judged = quality.judged.nonzero().flatten()
    if not len(judged):
        return None
    order = quality.kl_guide[judged].argsort()
    return int(judged[order[len(order) // 2]])


def _titled(figure: Figure, datum: int) -> Figure:
    figure.suptitle(f"datum {datum}", fontsize=9)
    return figure


def _those(figures: dict[str, Figure | None]) -> dict[str, Figure]:
    """The figures that there are."""
    return {name: figure for name, figure in figures.items() if figure is not None}


def _in_words(verdicts: tuple[tuple[str, ...], ...]) -> str:
    """For how many of the data that could be judged the guide is wrong, and what is wrong with most of them."""
    first = Counter(words[0] for words in verdicts)
    unclear, good = first.pop(CANNOT_TELL, 0), first.pop(GOOD, 0)
    wrong = first.total()
    found = []
    if wrong:
        most = max((word for word in WORDS if word in first), key=lambda word: first[word])
        found.append(f"wrong for {wrong} of {wrong + good} data, first of all {most} ({first[most]})")
    elif good:
        found.append(f"good for {good} of {good} data")
    if unclear:
        found.append(f"cannot tell for {unclear} of {len(verdicts)} data")
    return "; ".join(found)


def _with_error(numbers: dict[str, Any], name: str) -> str:
    if name not in numbers or not torch.tensor(numbers[name]).isfinite():
        return "not known"
    return f"{numbers[name]:.2f} ± {numbers[name + '_standard_error']:.2f}"
