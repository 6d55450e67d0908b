"""The epochs of a training: steps, their errors, checkpoints and loggers."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any

from ppvae.errors import NonFiniteError, ProcessError, first_line
from ppvae.progress import Progress

from ..pair import Batch, failed_run, in_a_program, raised_by_a_program
from .checkpoint import Keeper
from .choice import Compile, choose_step
from .parts import save_logs
from .state import Training
from .step import NotFinite, svi_step


def train(
    training: Training,
    epochs: int,
    compile: Compile,
    keeper: Keeper,
    loggers: Sequence[Any],
    progress: bool,
) -> str:
    """Train, and return why the training ended."""
    per_epoch = training.source.num_batches
    stopped = "finished"
    speaks = training.team.first
    with warnings.catch_warnings(), Progress("SVI", epochs * per_epoch, "steps", progress and speaks) as bar:
        warnings.filterwarnings("ignore", "Encountered NaN")  # said better by NonFiniteError
        # Resumed at the end of an epoch, the scheduler's step comes first, and rightly so.
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
        bar.begin_at(training.epoch * per_epoch + training.batch_number)
        bar.advance(0, "compiling the step" if compile else "")
        choose_step(training, compile, epochs)
        while training.epoch < epochs:
            if training.plateau is not None and training.plateau.reached:
                stopped = "plateau"
                break
            if not _train_epoch(training, keeper, bar):
                stopped = "interrupted"
                break
            for logger in loggers if speaks else ():
                logger.log_metrics(dict(training.history[-1]), step=training.epoch)
    keeper.now(None if stopped == "interrupted" else stopped)
    save_logs(loggers if speaks else ())
    if stopped != "interrupted":
        training.restore_best()
    return stopped


def _train_epoch(training: Training, keeper: Keeper, bar: Progress) -> bool:
    """Go on to the end of the epoch; False when interrupted before it."""
    order = training.source.order(training.epoch)
    started = time.monotonic()
    while training.batch_number < training.source.num_batches:
        begun = time.monotonic()
        training.team.seed_step(training.source.seed, training.steps)
        batch = training.to_device(training.source.batch(order, training.batch_number))
        elbo = _guarded_step(training, batch, keeper)
        training.epoch_sum += elbo * training.source.size(training.batch_number)
        training.batch_number += 1
        training.steps += 1
        training.seconds += time.monotonic() - begun
        bar.advance(1, f"epoch {training.epoch + 1} · {training.loss.name} {elbo:.2f} nats")
        keeper.if_due()
        if training.team.stopping():
            return False
    try:
        training.end_epoch(time.monotonic() - started)
    except ProcessError:
        keeper.now()
        raise
    except ValueError as error:  # Pyro refuses parameters that are not finite
        keeper.now()
        if raised_by_a_program(error.__cause__ or error):
            raise
        raise NonFiniteError(
            f"the validation data cannot be scored after epoch {training.epoch + 1}: {first_line(error)}. Try a "
            "smaller learning_rate, or the clip_norm of fit."
        ) from error
    return True


def _guarded_step(training: Training, batch: Batch, keeper: Keeper) -> float:
    """A step, or a clear error before any parameter is touched."""
    try:
        return svi_step(training, batch)
    except ProcessError:
        keeper.now()
        raise
    except Exception as error:
        not_finite = isinstance(error, NotFinite | ValueError) and not raised_by_a_program(error)
        if not (not_finite or in_a_program(error)):
            raise
        if not not_finite:
            keeper.now()
            raise failed_run(error) from error
        reason = training.broken_sites(batch) if isinstance(error, NotFinite) else first_line(error)
        keeper.now()
        raise NonFiniteError(
            f"training stopped in epoch {training.epoch + 1}, step {training.batch_number + 1} of "
            f"{training.source.num_batches}: {reason}; the parameters are those of the last good step. Try a smaller "
            "learning_rate, data on a smaller scale, or the clip_norm of fit."
        ) from error
