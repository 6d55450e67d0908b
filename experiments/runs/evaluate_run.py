"""The evaluation of a trained pair: log p(x), ELBO and gap of every datum, with figures, draws, a summary and the page.

`ppvae run` evaluates the pair that it has trained; `ppvae evaluate` evaluates the pair of an earlier run. By default
log p(x) is estimated to a tolerance, with the estimator that a datum needs (:mod:`.estimate`); draws of the guide alone
are shown beside it, since their k-hat says whether they would have done, and their K-sample bounds how far they come.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.table import Table

from ppvae.inference import Evidence
from ppvae.percent import percent
from ppvae.printed import Printed, table_in_lines
from ppvae.report import write_report
from ppvae.storage import RunDirectory, write_json
from ppvae.with_errors import with_error

from ..figures import evidence_figures, galleries
from ..figures.latent_plane import latent_plane
from .command_options import EvaluateOptions
from .estimate import Estimation, Measured, measure
from .own_units import of_draws
from .run_data import Unit
from .run_summary import summary_of
from .samples import TRAVERSAL_VALUES, Samples, draw_samples
from .saved_run import SavedRun, load_run

# How log p(x) was estimated, by the method of its record.
METHODS = {"adaptive": "to tolerance", "importance": "draws of q(z|x)", "annealing": "annealed chains"}


@dataclass(frozen=True, repr=False)
class Evaluation(Printed):
    """The result of an evaluation.

    Attributes:
        directory: where everything was written.
        evidence: log p(x), ELBO and gap of every datum, in nats.
        summary: the content of ``summary.json``.
    """

    directory: RunDirectory
    evidence: Evidence
    summary: dict[str, Any]

    def __repr__(self) -> str:
        return table_in_lines(self.table(), [f"{self.summary['conclusion']}.", str(self.directory.path)])

    def table(self) -> Table:
        """The numbers, to be printed by rich."""
        numbers, training, shared = self.summary["evidence"], self.summary["training"], self._shared
        table = Table(title=f"{self.summary['pair']} on {self.summary['data']}: {self._what}")
        columns = ("", "± Monte Carlo error", "") if shared else ("", "mean ± standard error", "of which Monte Carlo")
        for i, column in enumerate(columns):
            table.add_column(column, justify="right" if i else "left", no_wrap=i == 1)
        for name, label in (("log_evidence", "log p(x)"), ("elbo", "ELBO"), ("gap", "gap")):
            monte_carlo = "" if shared else f"{numbers[f'{name}_monte_carlo_error']:.2g}"
            table.add_row(label, with_error(numbers, name), monte_carlo)
        table.add_section()
        for label, share, what in self._shares():
            table.add_row(label, ("yes" if share == 1 else "no") if shared else percent(share), what)
        table.add_section()
        seconds = self.summary["seconds"]
        table.add_row("training", f"{training['seconds']:.0f} s", f"{training['epochs']} epochs")
        table.add_row("evaluation", f"{seconds['evaluation']:.0f} s", METHODS[self.summary["method"]])
        return table

    def _shares(self) -> list[tuple[str, float, str]]:
        """Of how many data log p(x) is known, and of how many draws of the guide alone would do."""
        numbers, of_all = self.summary["evidence"], "" if self._shared else "of the data"
        enough = ("draws of q(z|x) suffice", 1 - self.summary["draws"]["pareto_k_share_above_0_7"], "k-hat < 0.7")
        if self.summary["method"] == "importance":
            return [enough]
        if self.summary["method"] == "adaptive":
            return [(f"known to ± {self.summary['tolerance']:g} nats", numbers["settled_share"], of_all), enough]
        return [("log p(x) to be trusted", numbers["trusted_share"], of_all), enough]

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
    run = load_run(
        directory,
        split=options.split,
        method=options.method,
        tolerance=options.tolerance,
        num_particles=options.num_particles,
        seed=options.seed,
        max_eval=options.max_eval,
    )
    how = Estimation(
        options.method,
        run.settings.num_particles,
        options.tolerance,
        options.eval_minutes,
        options.num_chains,
        options.num_distributions,
        options,
    )
    return write_evaluation(run, how, command)


def write_evaluation(run: SavedRun, how: Estimation, command: str) -> Evaluation:
    """Estimate, sample and draw, write each as soon as it is known, then the summary and the page."""
    started = time.monotonic()
    directory, settings, data = run.directory, run.settings, run.data.data
    measured = measure(run, how)
    samples = draw_samples(run.pair, run.batch, settings.seed, data.columns or ())
    names = {"pair": settings.pair, "data": data.name, "split": run.split, "unit": run.data.unit}
    dataset = measured.evidence.to_dataset()
    if measured.index is not None:
        numbers = run.data.numbers(run.split, settings.max_eval)[measured.index]
        dataset = dataset.assign_coords(row=("datum", numbers.numpy()))
    dataset.attrs |= {**names, "seed": settings.seed}
    directory.write_netcdf("evidence", dataset)
    shared = run.data.unit == "data set"
    drawn = run.x if shared else run.x[torch.tensor(samples.posterior["datum"].to_numpy())]
    draws = of_draws(run.data, drawn, samples.draws)
    draws.attrs |= names
    directory.write_netcdf("posterior", draws)
    plane = None if shared else latent_plane(run.pair, samples.posterior, run.x, data.event_shape, run.labels())
    if plane is not None:
        write_json(directory.decoder, plane)
    figures = _figures(measured, samples, run.training["history"], data.event_shape, run.data.unit)
    for name, figure in figures.items():
        directory.write_figure(name, figure)
    directory.remove_figures("khat", keep=figures)  # of an earlier evaluation
    summary = summary_of(run, measured, how, time.monotonic() - started, command)
    directory.write_summary(summary)
    write_report(directory)
    return Evaluation(directory, measured.evidence, summary)


def _figures(
    measured: Measured, samples: Samples, history: list[dict[str, float]], event_shape: tuple[int, ...], unit: Unit
) -> dict[str, Figure]:
    """Every figure that these results have, by name; a single unit has no distribution over the data."""
    figures = {"bound": evidence_figures.bound_curve(measured.evidence, unit)}
    if unit == "datum":
        figures["gap"] = evidence_figures.gap_histogram(measured.evidence)
    if unit == "datum" and measured.draws.pareto_k.isfinite().any():
        figures["khat"] = evidence_figures.khat(measured.draws)
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
