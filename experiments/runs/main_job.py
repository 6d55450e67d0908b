"""The main job: how good is this pair on these data?

Train by SVI → estimate log p(x) of every test datum by importance sampling from the guide → show the gap

    log p(x) − ELBO = KL(q(z|x) ‖ p(z|x))

with errors, figures and draws, all in one run directory. `run` does all of it, `evaluate` its second half once more,
by importance sampling or by a method that reaches farther.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from matplotlib.figure import Figure
from rich.table import Table
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from ppvae.datasets import Dataset, load_dataset
from ppvae.errors import OptionError, PpvaeError
from ppvae.inference import Evidence, annealed_evidence, estimate_evidence, fit, importance_evidence
from .make_pair import make_pair
from ppvae.report import write_report
from ppvae.storage import RunDirectory, Settings, data_hash, device_name, versions, write_json

from ..figures import galleries, posterior_figures, style as figures
from ..figures.latent_plane import latent_plane
from .preparation import Say, check_pair, device_of, report
from .saved_run import as_trained, earlier_summary, reopen, told_of
from .samples import STEPS, Views, spread, views

Method = Literal["importance", "ais", "auto"]
Estimate = Callable[..., Evidence]
# What other commands add to a summary, and a new evaluation leaves there.
ADDED = ("certificate", "gap_attribution", "latent_units", "calibration", "quality")
# Chains per datum, where no number of them is asked for.
NUM_CHAINS = 32


@dataclass(frozen=True)
class Result:
    """What a run found out.

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
        numbers, training = self.summary["evidence"], self.summary["training"]
        data = f"{numbers['num_data']} {self.summary['split']} data"
        table = Table(title=f"{self.summary['pair']} on {self.summary['data']}: nats per datum, mean over {data}")
        for column in ("", "mean ± standard error", "of which Monte Carlo"):
            table.add_column(column, justify="right" if column else "left")
        for name, label in (("elbo", "ELBO"), ("log_evidence", "log p(x)"), ("gap", "gap")):
            error, monte_carlo = numbers[f"{name}_standard_error"], numbers[f"{name}_monte_carlo_error"]
            table.add_row(label, f"{numbers[name]:.2f} ± {error:.2f}", f"{monte_carlo:.3f}")
        table.add_section()
        table.add_row("k-hat, mean", f"{numbers['pareto_k_mean']:.2f}", "")
        table.add_row("data with k-hat ≥ 0.7", f"{numbers['pareto_k_share_above_0_7']:.0%}", "")
        table.add_section()
        seconds = self.summary["seconds"]
        table.add_row("training", f"{training['seconds']:.0f} s", f"{training['epochs']} epochs")
        table.add_row("evaluation", f"{seconds['evaluation']:.0f} s", f"{numbers['num_particles']} particles")
        return table


def run(settings: Settings, *, resume: RunDirectory | None = None, command: str = "", say: Say = print) -> Result:
    """Train the pair that the settings name, evaluate it, and write the run directory.

    Args:
        settings: what to do.
        resume: go on in this run directory, whose settings these are, from its checkpoint if it has one.
        command: the command line, to be noted in the summary.
        say: where to write findings and the path of the run directory.

    Returns:
        Result: the evidence and where it was written.

    Raises:
        PpvaeError: something that was given cannot be used; no run directory was made if it showed before training.
        KeyboardInterrupt: Ctrl-C; its message says how to go on.
    """
    settings.check()
    device = device_of(settings)
    data = load_dataset(settings.data, data_dir=settings.data_dir)
    pair = make_pair(settings, data)
    report(check_pair(pair, data, settings.seed), settings, say)
    directory = resume or RunDirectory.create(settings)
    if resume is None:
        directory.write_settings(settings)
    say(f"run directory: {directory.path}")
    try:
        trained = fit(
            pair.model,
            pair.guide,
            data,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            scheduler=partial(CosineAnnealingLR, T_max=settings.epochs) if settings.cosine else None,
            patience=settings.patience,
            seed=settings.seed,
            checkpoint=directory.checkpoint,
            resume=directory.checkpoint.is_file(),
            accelerator=settings.accelerator,
            precision=settings.precision,
        )
        directory.write_metrics(trained.history)
        if trained.stopped == "interrupted":
            raise KeyboardInterrupt
        training = told_of(trained.history, trained.steps, trained.seconds, trained.stopped)
        x = spread(as_trained(data.test, trained.parameters, device), settings.max_eval)
        estimate = partial(_by_importance, settings.num_particles)
        return _evaluated(directory, settings, pair, data, x, "test", training, command, estimate)
    except PpvaeError:
        if resume is None:
            directory.discard()
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; the training is kept: `ppvae run --resume {directory.path}` goes on from there."
        ) from None


def evaluate(
    directory: RunDirectory,
    *,
    method: Method = "importance",
    num_particles: int | None = None,
    num_distributions: int = 200,
    tolerance: float = 0.1,
    max_eval: int | None = None,
    split: str = "test",
    seed: int | None = None,
    command: str = "",
) -> Result:
    """Evaluate the pair of an earlier run again, and write evidence, posterior, figures and summary anew.

    Args:
        directory: of the run; its settings and its checkpoint give the pair.
        method: ``"importance"``, ``"ais"`` or ``"auto"``: by :func:`ppvae.inference.importance_evidence`,
            :func:`ppvae.inference.annealed_evidence` or :func:`ppvae.inference.estimate_evidence`.
        num_particles: draws per datum, those of the run by default; with ``"ais"`` chains per datum, 32 by default.
        num_distributions: of annealing, with ``"ais"``.
        tolerance: in nats, with ``"auto"``.
        max_eval: how many data to evaluate on, evenly spread over all; as the run by default.
        split: ``"test"`` or ``"validation"``.
        seed: of the draws; that of the run by default.
        command: the command line, to be noted in the summary.

    Returns:
        Result: as :func:`run` gives it.

    Raises:
        PpvaeError: the run, its data or its pair cannot be had; what it had stays as it was.
    """
    if method not in get_args(Method):
        raise OptionError(f"method must be importance, ais or auto; it is {method!r}.")
    chains = num_particles or NUM_CHAINS
    if method == "ais":
        num_particles = None
    run = reopen(directory, split=split, num_particles=num_particles, seed=seed, max_eval=max_eval)
    estimate: Estimate = {
        "importance": partial(_by_importance, run.settings.num_particles),
        "ais": partial(annealed_evidence, num_chains=chains, num_distributions=num_distributions, progress=True),
        "auto": partial(estimate_evidence, tolerance=tolerance, progress=True),
    }[method]
    return _evaluated(run.directory, run.settings, run.pair, run.data, run.x, split, run.training, command, estimate)


def _by_importance(num_particles: int, model: Any, guide: Any, x: Tensor, *, seed: int) -> Evidence:
    return importance_evidence(model, guide, x, num_particles, seed=seed, progress=True)


def _evaluated(
    directory: RunDirectory,
    settings: Settings,
    pair: Any,
    data: Dataset,
    x: Tensor,
    split: str,
    training: dict[str, Any],
    command: str,
    estimate: Estimate,
) -> Result:
    """Evidence → views → figures, each written as soon as it is known; then the summary, and the page."""
    started = time.monotonic()
    evidence = estimate(pair.model, pair.guide, x, seed=settings.seed)
    seen = views(pair, x, settings.seed)
    dataset = evidence.to_dataset()
    dataset.attrs |= {"pair": settings.pair, "data": data.name, "split": split, "seed": settings.seed}
    directory.write_netcdf("evidence", dataset)
    seen.draws.attrs |= {"pair": settings.pair, "data": data.name, "split": split}
    directory.write_netcdf("posterior", seen.draws)
    plane = latent_plane(pair, seen.posterior, x, data.event_shape)
    if plane is not None:
        write_json(directory.decoder, plane)
    for name, figure in draw(evidence, seen, training["history"], data.event_shape).items():
        directory.write_figure(name, figure)
    summary = {
        "pair": settings.pair,
        "data": data.name,
        "split": split,
        "units": "nats",
        "method": evidence.method,
        "evidence": evidence.summary(),
        "remarks": evidence.remarks(),
        "training": {key: value for key, value in training.items() if key != "history"},
        "seconds": {"training": training["seconds"], "evaluation": time.monotonic() - started},
        "seed": settings.seed,
        "data_sha256": data_hash(data),
        "device": device_name(x.device),
        "versions": versions(),
        "command": command,
    }
    earlier = earlier_summary(directory)
    summary |= {name: earlier[name] for name in ADDED if name in earlier}
    directory.write_summary(summary)
    write_report(directory)
    return Result(directory, evidence, summary)


def draw(
    evidence: Evidence, seen: Views, history: list[dict[str, float]], event_shape: tuple[int, ...]
) -> dict[str, Figure]:
    """Every figure there is for these results, by name."""
    drawn = {"bound": figures.bound_curve(evidence), "gap": figures.gap_histogram(evidence)}
    if evidence.method == "importance" and evidence.pareto_k.isfinite().any():
        drawn["khat"] = posterior_figures.khat(evidence)
    if history:
        drawn["training"] = figures.training_curve(history)
    if seen.reconstructions is not None:
        drawn["reconstructions"] = galleries.reconstructions(seen.data, seen.reconstructions, event_shape)
    if seen.prior is not None:
        drawn["prior"] = galleries.prior_samples(seen.prior, event_shape)
    if seen.traversal is not None:
        drawn["traversal"] = galleries.latent_traversal(seen.traversal, event_shape, seen.dimensions, STEPS.tolist())
    return drawn
