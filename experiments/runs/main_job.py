"""The main job, `ppvae run`: train a pair by SVI, estimate log p(x) of every test datum, and show the gap

    log p(x) − ELBO = KL(q(z|x) ‖ p(z|x))

with errors, figures and draws, all in one run directory.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch.optim.lr_scheduler import CosineAnnealingLR

from ppvae.errors import PpvaeError
from ppvae.inference import Fit, fit
from ppvae.storage import RunDirectory, Settings

from .estimate import Estimation
from .evaluate_run import Evaluation, write_evaluation
from .make_pair import with_data
from .own_units import of_history
from .preparation import Say, check_pair, device_of, report
from .run_data import RunData, load_pair_and_data
from .run_loggers import finish, loggers_of
from .saved_run import SavedRun, like_parameters, training_summary


def run(settings: Settings, *, resume: RunDirectory | None = None, command: str = "", say: Say = print) -> Evaluation:
    """Train the pair that the settings name, evaluate it, and write the run directory.

    Args:
        settings: the pair, the data, the training and the evaluation.
        resume: go on in this run directory, whose settings these are, from its checkpoint if it has one.
        command: the command line, for the summary.
        say: where findings and the path of the run directory are written.

    Returns:
        Evaluation: the evidence and where it was written.

    Raises:
        PpvaeError: something that was given cannot be used; no run directory was made if it showed before training.
        KeyboardInterrupt: Ctrl-C; its message says how to go on.
    """
    settings = with_data(settings.check())
    device = device_of(settings)
    pair, data = load_pair_and_data(settings)
    report(check_pair(pair, data, settings.seed), settings, say)
    directory = resume or RunDirectory.create(settings)
    if resume is None:
        directory.write_settings(settings)
    say(f"run directory: {directory.path}")
    try:
        trained = _train(pair, data, settings, directory)
        training = training_summary(of_history(data, trained.history), trained.steps, trained.seconds, trained.stopped)
        split = data.part(None)
        batch = like_parameters(data.batch(split, settings.max_eval), trained.parameters, device)
        saved = SavedRun(directory, settings, data, pair, split, batch, training)
        how = Estimation(settings.method, settings.num_particles, settings.tolerance, settings.eval_minutes)
        return write_evaluation(saved, how, command)
    except PpvaeError:
        if resume is None:
            directory.discard()
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; the training is kept: `ppvae run --resume {directory.path}` goes on from there."
        ) from None


def _train(pair: Any, data: RunData, settings: Settings, directory: RunDirectory) -> Fit:
    """Train with a checkpoint in the run directory; an interruption is raised once the metrics are written."""
    loggers = loggers_of(settings.loggers, directory.path)
    trained = fit(
        pair.model,
        pair.guide,
        data.data,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        scheduler=partial(CosineAnnealingLR, T_max=settings.epochs) if settings.cosine else None,
        patience=settings.patience if data.data.divided else None,  # there is nothing to validate on
        seed=settings.seed,
        checkpoint=directory.checkpoint,
        resume=directory.checkpoint.is_file(),
        loggers=loggers,
        accelerator=settings.accelerator,
        precision=settings.precision,
    )
    directory.write_metrics(of_history(data, trained.history))
    finish(loggers)
    if trained.stopped == "interrupted":
        raise KeyboardInterrupt
    return trained
