"""Stochastic variational inference: train a pair by gradient steps on a Pyro ELBO.

For a mini-batch of data B the step follows the gradient of the per-datum mean of Pyro's loss,

    ℓ(θ, φ) = −(1/|B|) Σ_{x∈B} ELBO(x),      ELBO(x) = E_{q_φ(z|x)}[log p_θ(x, z) − log q_φ(z|x)],

estimated by whatever ELBO object is given (``Trace_ELBO`` by default), or the objective that is given in its place. The
number reported is its per-datum mean in nats, so that it means the same for every batch size; that of validation data
is the ELBO, whatever the objective.

References:
    Auto-Encoding Variational Bayes (Kingma & Welling, 2014), arXiv:1312.6114.
    Automated Variational Inference in Probabilistic Programming (Wingate & Weber, 2013), arXiv:1301.1299.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pyro.infer import ELBO
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ppvae.datasets import Dataset
from ppvae.errors import NonFiniteError, OptionError, first_line
from ppvae.progress import Progress

from ..options import (
    file_path,
    flag,
    flag_or,
    not_negative,
    positive_number,
    valid_seed,
    whole_number,
)
from ..pair import (
    Batch,
    Program,
    failed_run,
    in_a_program,
    programs_named,
    raised_by_a_program,
    restored,
    seeded,
    trained_parameters,
)
from ..resume import check_fingerprint, read_checkpoint
from .batches import Source
from .checkpoint import Keeper
from .choice import Compile, choose_step
from .fitted import Fit, record
from .interruption import interruption
from .loss import fabric_of
from .parts import check_parts, checked_loggers, save_logs
from .state import Training
from .step import NotFinite, svi_step


def fit(
    model: Program,
    guide: Program,
    data: Tensor | Batch | Dataset,
    *,
    loss: ELBO | None = None,
    epochs: int = 100,
    batch_size: int = 100,
    learning_rate: float = 1e-3,
    optimizer: Callable[..., Optimizer] = Adam,
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    clip_norm: float | None = None,
    validation: Tensor | Batch | None = None,
    patience: int | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 30.0,
    compile: Compile = "auto",
    loggers: Sequence[Any] = (),
    accelerator: str = "auto",
    precision: Any = "32-true",
    progress: bool = True,
) -> Fit:
    """Train a pair by SVI. The parameters change in place: modules hold the trained weights afterwards.

    Pyro's parameter store then holds what Pyro's own ``SVI`` would have left there, so that ``Predictive``,
    ``pyro.param`` and the store's ``save`` work. Plain parameters that it held before are trained on, and named in
    ``Fit.found``; the parameters of a module are those that the module holds. ``Fit.model`` and ``Fit.guide`` keep the
    trained values whatever happens to the store and the modules later.

    Args:
        model: ``model(x, *context)``, the generative program.
        guide: ``guide(x, *context)``.
        data: training data, first dimension N; a tuple ``(x, *context)``; or a :class:`ppvae.datasets.Dataset`, whose
            validation part is then used too (and whose rows are binarised afresh at each draw where it says so).
        loss: a Pyro ELBO object; ``Trace_ELBO()`` by default, ``TraceEnum_ELBO`` where a site is enumerated. Or an
            objective of :mod:`ppvae.inference.svi.objectives`, such as ``DReG(num_particles=8)``.
        epochs: passes over the data.
        batch_size: data per step; the last batch of an epoch may be smaller.
        learning_rate: handed to the optimiser as ``lr``.
        optimizer: a torch optimiser class (or a ``functools.partial`` of one), called as ``optimizer(params, lr=...)``.
        scheduler: makes a torch learning-rate scheduler from the optimiser; stepped once per epoch.
        clip_norm: the gradient's global norm is clipped to this; None leaves it.
        validation: data to score after every epoch.
        patience: stop after so many epochs without a visible improvement of the validation ELBO
            (:class:`ppvae.inference.svi.early_stopping.Plateau`) and return to the best parameters.
        seed: of all randomness; the global generators are left as they were.
        checkpoint: file to keep the state of the training in.
        resume: go on from ``checkpoint``. Killed at any point and resumed, a training ends with the same bits.
        checkpoint_seconds: how often to write the checkpoint; it is also written at the end and on Ctrl-C.
        compile: True compiles the step (programs, loss and gradients as one piece of code, without Python), which
            then takes about half of the time or less; the result is the same up to rounding. False never does. "auto"
            compiles where that can be done and 5000 steps or more pay for the half minute that it takes; the second
            time the code comes from inductor's cache on the disk (``TORCHINDUCTOR_CACHE_DIR``). ``Fit.step`` says
            which it was, and if steps are eager, why. A training that goes on from a checkpoint keeps its kind.
        loggers: are given the row of ``Fit.history`` after each epoch, by ``log_metrics(row, step=epoch)``: those of
            Lightning Fabric (``lightning_fabric.loggers.CSVLogger("logs")``, ``TensorBoardLogger``; ``MLFlowLogger``
            and ``WandbLogger`` of Lightning), or an object of one's own with this method.
        accelerator: Lightning Fabric's (``"auto"``, ``"cpu"``, ``"cuda"``, …).
        precision: Lightning Fabric's (``"32-true"``, ``"bf16-mixed"``, ``"64-true"``, …).
        progress: show a progress bar with the time that remains.

    Returns:
        Fit: the history and how it ended. Ctrl-C ends a training early and returns what there is.

    Raises:
        OptionError: an option has no meaningful value, or ``compile`` is True and the step cannot be compiled.
        DataError: the data are empty or hold NaN or infinite values.
        PairError: the pair cannot be run on the data, has no parameters, or has a fault that ``check`` calls fatal.
        NonFiniteError: the loss or its gradient is not finite; the parameters are those of the last good step.
        CheckpointError: the checkpoint is missing, damaged or of another training, or of one by compiled steps that
            cannot be compiled here.

    Example:
        >>> import torch
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(200, 5) @ torch.randn(5, 5)
        >>> pair = LinearGaussian(num_features=5, latent_dim=2)
        >>> result = fit(pair.model, pair.guide, x, epochs=20, learning_rate=1e-2, progress=False)
        >>> result.history[-1]["elbo"] > result.history[0]["elbo"]
        True
    """
    epochs, batch_size = whole_number("epochs", epochs), whole_number("batch_size", batch_size)
    learning_rate = positive_number("learning_rate", learning_rate)
    clip_norm = None if clip_norm is None else positive_number("clip_norm", clip_norm)
    patience = None if patience is None else whole_number("patience", patience)
    checkpoint_seconds = not_negative("checkpoint_seconds", checkpoint_seconds)
    resume, progress, path = flag("resume", resume), flag("progress", progress), file_path("checkpoint", checkpoint)
    number = valid_seed(seed)
    compile = flag_or("auto", "compile", compile)
    check_parts(model, guide, loss, optimizer, scheduler)
    loggers = checked_loggers(loggers)
    if number is None:
        raise OptionError("seed must be an integer, since the order of the data depends on it; it is None.")
    if resume and path is None:
        raise OptionError("resume needs checkpoint, the file to go on from.")
    source = Source.of(data, validation, batch_size, number)
    if patience is not None and source.validation is None:
        raise OptionError("patience needs validation data: give validation=, or leave patience out.")
    fabric = fabric_of(accelerator, precision)
    model, guide = restored(model, guide)
    with (
        seeded(number),
        trained_parameters(model, guide) as before,
        interruption() as interrupted,
        programs_named(),
    ):
        training = Training(model, guide, source, loss, fabric, optimizer, learning_rate, scheduler,
                             clip_norm, patience)  # fmt: skip
        marks = training.fingerprint(seed=number, batch_size=batch_size, loss=training.loss.name)
        if resume and path is not None:
            state = read_checkpoint(path)
            check_fingerprint(path, state["fingerprint"], marks)
            training.load_state_dict(state, path)
        keeper = Keeper(training, path, marks, checkpoint_seconds)
        stopped = _train(training, epochs, compile, keeper, interrupted, loggers, progress)
        return _fit(training, stopped, set(before["params"]))


def _train(
    training: Training,
    epochs: int,
    compile: Compile,
    keeper: Keeper,
    interrupted: threading.Event,
    loggers: Sequence[Any],
    progress: bool,
) -> str:
    """Train, and say why it ended."""
    per_epoch = training.source.num_batches
    stopped = "finished"
    with warnings.catch_warnings(), Progress("SVI", epochs * per_epoch, "steps", progress) as bar:
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
            if not _train_epoch(training, keeper, interrupted, bar):
                stopped = "interrupted"
                break
            for logger in loggers:
                logger.log_metrics(dict(training.history[-1]), step=training.epoch)
    keeper.now(None if stopped == "interrupted" else stopped)
    save_logs(loggers)
    if stopped != "interrupted":
        training.restore_best()
    return stopped


def _fit(training: Training, stopped: str, before: set[str]) -> Fit:
    """The record of a training that has ended."""
    training.optimizer.zero_grad(set_to_none=True)
    trained = training.model, training.guide, training.parameters
    return record(
        *trained,
        example=training.first_batch(),
        history=training.history,
        stopped=stopped,
        steps=training.steps,
        seconds=training.seconds,
        step=training.step.name,
        loss=training.loss.name,
        found=tuple(name for name in training.parameters if name in before),
    )


def _train_epoch(training: Training, keeper: Keeper, interrupted: threading.Event, bar: Progress) -> bool:
    """Go on to the end of the epoch; False when interrupted before it."""
    order = training.source.order(training.epoch)
    started = time.monotonic()
    while training.batch_number < training.source.num_batches:
        begun = time.monotonic()
        batch = training.to_device(training.source.batch(order, training.batch_number))
        elbo = _guarded_step(training, batch, keeper)
        training.epoch_sum += elbo * len(batch[0])
        training.batch_number += 1
        training.steps += 1
        training.seconds += time.monotonic() - begun
        bar.advance(1, f"epoch {training.epoch + 1} · {training.loss.name} {elbo:.2f} nats")
        keeper.if_due()
        if interrupted.is_set():
            return False
    try:
        training.end_epoch(time.monotonic() - started)
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
