"""The evaluation of a trained pair: log p(x), ELBO and gap of every datum, with figures, draws, a summary and the page.

`ppvae run` evaluates the pair that it has trained by importance sampling; `ppvae evaluate` evaluates the pair of an
earlier run, by importance sampling or by annealed chains.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from ppvae.inference import Evidence, annealed_evidence, estimate_evidence, importance_evidence
from ppvae.report import write_report
from ppvae.storage import RunDirectory, data_hash, device_name, versions, write_json

from ..figures import evidence_figures, galleries
from ..figures.latent_plane import latent_plane
from .command_options import EvaluateOptions
from .run_data import Batch, Unit
from .samples import TRAVERSAL_VALUES, Samples, draw_samples
from .saved_run import SavedRun, load_run, saved_summary

Estimate = Callable[..., Evidence]
# The sections that other commands add to a summary: a new evaluation leaves them there.
ADDED = ("certificate", "gap_attribution", "latent_units", "calibration", "quality")
# A training with fewer steps has seldom converged.
FEW_STEPS = 1000
# Chains per datum, where no number of them is given.
NUM_CHAINS = 32


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        directory: where everything was written.
        evidence: log p(x), ELBO and gap of every datum, in nats.
        summary: the content of ``summary.json``.
    """

    directory: RunDirectory
    evidence: Evidence
    summary: dict[str, Any]

    def table(self) -> Table:
        """The numbers, to be printed by rich."""
        numbers, training, shared = self.summary["evidence"], self.summary["training"], self._shared
        table = Table(title=f"{self.summary['pair']} on {self.summary['data']}: {self._what}")
        columns = ("", "± Monte Carlo error", "") if shared else ("", "mean ± standard error", "of which Monte Carlo")
        for i, column in enumerate(columns):
            table.add_column(column, justify="right" if i else "left")
        for name, label in (("elbo", "ELBO"), ("log_evidence", "log p(x)"), ("gap", "gap")):
            error, monte_carlo = numbers[f"{name}_standard_error"], numbers[f"{name}_monte_carlo_error"]
            digits = 3 if shared else 2
            last = "" if shared else f"{monte_carlo:.3f}"
            table.add_row(label, f"{numbers[name]:.2f} ± {error:.{digits}f}", last)
        table.add_section()
        table.add_row("k-hat" if shared else "k-hat, mean", f"{numbers['pareto_k_mean']:.2f}", "")
        if not shared:
            table.add_row("data with k-hat ≥ 0.7", f"{numbers['pareto_k_share_above_0_7']:.0%}", "")
        table.add_section()
        seconds = self.summary["seconds"]
        table.add_row("training", f"{training['seconds']:.0f} s", f"{training['epochs']} epochs")
        table.add_row("evaluation", f"{seconds['evaluation']:.0f} s", f"{numbers['num_particles']} particles")
        return table

    @property
    def _shared(self) -> bool:
        """Whether the data set is one unit."""
        return bool(self.summary["unit"] == "data set")

    @property
    def _what(self) -> str:
        """What the numbers are of."""
        if self._shared:
            return f"nats for the data set of {self.summary['num_rows']} data, all trained on"
        return f"nats per datum, mean over {self.summary['evidence']['num_data']} {self.summary['split']} data"


def evaluate_run(directory: RunDirectory, options: EvaluateOptions, *, command: str = "") -> Evaluation:
    """Evaluate the pair of an earlier run again, and write evidence, posterior, figures and summary anew.

    Args:
        directory: of the run; its settings and its checkpoint give the pair.
        options: the estimator, its size, and the data.
        command: the command line, for the summary.

    Raises:
        PpvaeError: the run, its data or its pair cannot be had; the files of the run stay as they were.
    """
    options.check()
    annealed = options.method == "ais"
    run = load_run(
        directory,
        split=options.split,
        num_particles=None if annealed else options.num_particles,
        seed=options.seed,
        max_eval=options.max_eval,
    )
    chains, distributions = options.num_particles or NUM_CHAINS, options.num_distributions
    estimates: dict[str, Estimate] = {
        "importance": by_importance(run.settings.num_particles),
        "ais": partial(annealed_evidence, num_chains=chains, num_distributions=distributions, progress=True),
        "auto": partial(estimate_evidence, tolerance=options.tolerance, progress=True),
    }
    return write_evaluation(run, estimates[options.method], command)


def by_importance(num_particles: int) -> Estimate:
    """Importance sampling from the guide, with so many draws per datum."""

    def estimate(model: Any, guide: Any, x: Batch, *, seed: int) -> Evidence:
        return importance_evidence(model, guide, x, num_particles, seed=seed, progress=True)

    return estimate


def write_evaluation(run: SavedRun, estimate: Estimate, command: str) -> Evaluation:
    """Estimate, sample and draw, write each as soon as it is known, then the summary and the page."""
    started = time.monotonic()
    directory, settings, data = run.directory, run.settings, run.data.data
    evidence = estimate(run.pair.model, run.pair.guide, run.batch, seed=settings.seed)
    samples = draw_samples(run.pair, run.batch, settings.seed)
    names = {"pair": settings.pair, "data": data.name, "split": run.split, "unit": run.data.unit}
    dataset = evidence.to_dataset()
    dataset.attrs |= {**names, "seed": settings.seed}
    directory.write_netcdf("evidence", dataset)
    samples.draws.attrs |= names
    directory.write_netcdf("posterior", samples.draws)
    shared = run.data.unit == "data set"
    plane = None if shared else latent_plane(run.pair, samples.posterior, run.x, data.event_shape)
    if plane is not None:
        write_json(directory.decoder, plane)
    figures = _figures(evidence, samples, run.training["history"], data.event_shape, run.data.unit)
    for name, figure in figures.items():
        directory.write_figure(name, figure)
    directory.remove_figures("khat", keep=figures)  # of an earlier evaluation by draws of the guide
    summary = _summary(run, evidence, time.monotonic() - started, command)
    directory.write_summary(summary)
    write_report(directory)
    return Evaluation(directory, evidence, summary)


def _summary(run: SavedRun, evidence: Evidence, seconds: float, command: str) -> dict[str, Any]:
    """The content of ``summary.json``, with the sections that it had."""
    remarks = evidence.remarks()
    summary = {
        "pair": run.settings.pair,
        "data": run.data.data.name,
        "split": run.split,
        "unit": run.data.unit,
        "num_rows": len(run.x),
        "units": "nats",
        "method": evidence.method,
        "evidence": evidence.summary(),
        "remarks": [*run.remarks("max_eval", run.settings.max_eval), *_few_steps(run), *remarks],
        "doubtful": bool(remarks),
        "training": {key: value for key, value in run.training.items() if key != "history"},
        "seconds": {"training": run.training["seconds"], "evaluation": seconds},
        "seed": run.settings.seed,
        "data_sha256": data_hash(run.data.data),
        "device": device_name(run.x.device),
        "versions": versions(),
        "command": command,
    }
    earlier = saved_summary(run.directory)
    return summary | {name: earlier[name] for name in ADDED if name in earlier}


def _few_steps(run: SavedRun) -> list[str]:
    """That a training on all data at once is short: an epoch of it is few steps."""
    steps, epochs = run.training["steps"], run.training["epochs"]
    if run.data.data.divided or steps >= FEW_STEPS or not epochs:
        return []
    each = f"{steps // epochs} step{'s' * (steps > epochs)}"
    return [
        f"the training had {steps} gradient steps, since all data together make an epoch of {each}: if the ELBO still "
        "rises at its end (metrics.csv), it was too short; give more --epochs, such as 3000, or a larger "
        "--learning_rate, such as 0.01."
    ]


def _figures(
    evidence: Evidence, samples: Samples, history: list[dict[str, float]], event_shape: tuple[int, ...], unit: Unit
) -> dict[str, Figure]:
    """Every figure that these results have, by name; a single unit has no distribution over the data."""
    figures = {"bound": evidence_figures.bound_curve(evidence, unit)}
    if unit == "datum":
        figures["gap"] = evidence_figures.gap_histogram(evidence)
    if unit == "datum" and evidence.method == "importance" and evidence.pareto_k.isfinite().any():
        figures["khat"] = evidence_figures.khat(evidence)
    if history:
        figures["training"] = evidence_figures.training_curve(history, unit)
    if samples.reconstructions is not None:
        figures["reconstructions"] = galleries.reconstructions(samples.data, samples.reconstructions, event_shape)
    if samples.prior is not None:
        figures["prior"] = galleries.prior_samples(samples.prior, event_shape)
    if samples.traversal is not None:
        figures["traversal"] = galleries.latent_traversal(
            samples.traversal, event_shape, samples.dimensions, TRAVERSAL_VALUES.tolist()
        )
    return figures
