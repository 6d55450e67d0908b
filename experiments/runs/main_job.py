"""The main job, `ppvae run`: train a pair by SVI, estimate log p(x) of every test datum, and show the gap

    log p(x) − ELBO = KL(q(z|x) ‖ p(z|x))

with errors, figures and draws, all in one run directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppvae.errors import PpvaeError, ProcessError
from ppvae.inference import Compute, Fit, fit
from ppvae.inference.svi import helps, team_of
from ppvae.storage import RunDirectory, Settings

from .estimate import Estimation
from .evaluate_run import Evaluation, write_evaluation
from .make_pair import with_data
from .own_units import of_history
from .preparation import Say, check_pair, compute_of, device_of, report, training_options
from .run_data import RunData, load_pair_and_data
from .run_loggers import finish, loggers_of
from .saved_run import SavedRun, like_parameters, training_summary

# The exit code of a process that has helped with what cannot be done, as that of the command line.
BAD_INPUT = 2


def run(
    settings: Settings, *, resume: RunDirectory | None = None, command: str = "", say: Say = print
) -> Evaluation | None:
    """Train the pair that the settings name, evaluate it, and write the run directory.

    Args:
        settings: the pair, the data, the training and the evaluation.
        resume: go on in this run directory, whose settings these are, from its checkpoint if it has one.
        command: the command line, for the summary.
        say: where findings and the path of the run directory are written.

    Returns:
        Evaluation: the evidence and where it was written; None in a process that has helped to train.

    Raises:
        PpvaeError: something that was given cannot be used; no run directory was made if it showed before training.
        KeyboardInterrupt: Ctrl-C; its message says how to go on.
    """
    settings = with_data(settings.check())
    compute = compute_of(settings)
    device = device_of(settings)
    pair, data = load_pair_and_data(settings)
    if helps(compute):
        _help(pair, data, settings, compute)
        return None
    report(check_pair(pair, data, settings.seed), settings, say)
    team = team_of(settings.accelerator, settings.precision, compute)
    directory = team.of_first(lambda: resume or _new_directory(settings))
    say(f"run directory: {directory.path}")
    try:
        loggers = loggers_of(settings.loggers, directory.path)
        trained = _train(pair, data, settings, directory, compute, loggers)
        directory.write_metrics(of_history(data, trained.history))
        finish(loggers)
        if trained.stopped == "interrupted":
            raise KeyboardInterrupt
        training = training_summary(of_history(data, trained.history), trained.steps, trained.seconds, trained.stopped)
        split = data.part(None)
        batch = like_parameters(data.batch(split, settings.max_eval), trained.parameters, device)
        saved = SavedRun(directory, settings, data, pair, split, batch, training)
        how = Estimation(settings.method, settings.num_particles, settings.tolerance, settings.eval_minutes)
        return write_evaluation(saved, how, command)
    except PpvaeError as error:
        if isinstance(error, ProcessError):
            raise ProcessError(f"{error} `ppvae run --resume {directory.path}` goes on.") from error
        if resume is None:
            directory.discard()
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; the training is kept: `ppvae run --resume {directory.path}` goes on from there."
        ) from None


def _new_directory(settings: Settings) -> RunDirectory:
    directory = RunDirectory.create(settings)
    directory.write_settings(settings)
    return directory


def _help(pair: Any, data: RunData, settings: Settings, compute: Compute) -> None:
    """Train with process 0, which speaks and writes for all.

    Raises:
        ProcessError: another process has ended.
        SystemExit: the training has failed, as process 0 says.
    """
    team = team_of(settings.accelerator, settings.precision, compute)
    try:
        directory = team.of_first(lambda: RunDirectory(Path(settings.out)))  # process 0 knows it
        _train(pair, data, settings, directory, compute, ())
    except ProcessError:
        raise
    except PpvaeError as error:
        raise SystemExit(BAD_INPUT) from error


def _train(
    pair: Any, data: RunData, settings: Settings, directory: RunDirectory, compute: Compute, loggers: Sequence[Any]
) -> Fit:
    """Train with a checkpoint in the run directory."""
    return fit(
        pair.model,
        pair.guide,
        data.data,
        **training_options(settings, data),
        checkpoint=directory.checkpoint,
        resume=directory.checkpoint.is_file(),
        loggers=loggers,
        compute=compute,
    )
