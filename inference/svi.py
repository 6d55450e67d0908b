"""Stochastic variational inference: train a pair by gradient steps on a Pyro ELBO.

For a mini-batch of data B the step follows the gradient of the per-datum mean of Pyro's loss,

    ℓ(θ, φ) = −(1/|B|) Σ_{x∈B} ELBO(x),      ELBO(x) = E_{q_φ(z|x)}[log p_θ(x, z) − log q_φ(z|x)],

estimated by whatever ELBO object is given (``Trace_ELBO`` by default). The number reported is the per-datum mean ELBO,
in nats, so that it means the same for every batch size.

References:
    Auto-Encoding Variational Bayes (Kingma & Welling, 2014), arXiv:1312.6114.
    Automated Variational Inference in Probabilistic Programming (Wingate & Weber, 2013), arXiv:1301.1299.
"""

from __future__ import annotations

import math
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import torch
from lightning_fabric import Fabric
from pyro.infer import ELBO
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ppvae.datasets import Dataset
from ppvae.errors import NonFiniteError, OptionError, first_line
from ppvae.progress import Progress

from .checkpoint import Keeper, check_fingerprint, read_checkpoint
from .interruption import interruption
from .parameters import own_parameters
from .source import Source
from .traces import Batch, Program, seeded
from .training import Training


@dataclass(frozen=True)
class Fit:
    """What a training did.

    Attributes:
        history: a row per epoch: ``epoch``, ``elbo`` (mean over the data while they were trained on),
            ``validation_elbo`` and its ``validation_standard_error`` over the data (NaN without validation data),
            ``learning_rate``, ``seconds``. All ELBOs are per datum, in nats.
        stopped: why it ended: ``"finished"``, ``"plateau"`` or ``"interrupted"``.
        parameters: the trained values by their names in Pyro's parameter store, in the constrained space.
        steps: gradient steps taken, those before a resume included.
        seconds: time spent, that before a resume included.
    """

    history: list[dict[str, float]]
    stopped: str
    parameters: dict[str, Tensor]
    steps: int
    seconds: float

    @property
    def elbo(self) -> float:
        """The last epoch's mean training ELBO per datum, in nats; NaN when no epoch was completed."""
        return self.history[-1]["elbo"] if self.history else math.nan


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
    accelerator: str = "auto",
    precision: Any = "32-true",
    progress: bool = True,
) -> Fit:
    """Train a pair by SVI. The parameters change in place: modules hold the trained weights afterwards.

    The pair gets a parameter store of its own (:mod:`ppvae.inference.parameters`): training neither reads nor changes
    Pyro's global one, and every function of :mod:`ppvae.inference` finds the pair's parameters again.

    Args:
        model: ``model(x, *context)``, the generative program.
        guide: ``guide(x, *context)``.
        data: training data, first dimension N; a tuple ``(x, *context)``; or a :class:`ppvae.datasets.Dataset`, whose
            validation part is then used too (and whose rows are binarised afresh at each draw where it says so).
        loss: a Pyro ELBO object; ``Trace_ELBO()`` by default, ``TraceEnum_ELBO`` where a site is enumerated.
        epochs: passes over the data.
        batch_size: data per step; the last batch of an epoch may be smaller.
        learning_rate: handed to the optimiser as ``lr``.
        optimizer: a torch optimiser class (or a ``functools.partial`` of one), called as ``optimizer(params, lr=...)``.
        scheduler: makes a torch learning-rate scheduler from the optimiser; stepped once per epoch.
        clip_norm: the gradient's global norm is clipped to this; None leaves it.
        validation: data to score after every epoch.
        patience: stop after so many epochs without a visible improvement of the validation ELBO
            (:class:`ppvae.inference.plateau.Plateau`) and return to the best parameters.
        seed: of all randomness; the global generators are left as they were.
        checkpoint: file to keep the state of the training in.
        resume: go on from ``checkpoint``. Killed at any point and resumed, a training ends with the same bits.
        checkpoint_seconds: how often to write the checkpoint; it is also written at the end and on Ctrl-C.
        accelerator: Lightning Fabric's (``"auto"``, ``"cpu"``, ``"cuda"``, …).
        precision: Lightning Fabric's (``"32-true"``, ``"bf16-mixed"``, ``"64-true"``, …).
        progress: show a progress bar.

    Returns:
        Fit: the history and how it ended. Ctrl-C ends a training early and returns what there is.

    Raises:
        OptionError: an option has no meaningful value.
        DataError: the data are empty or hold NaN or infinite values.
        PairError: the pair cannot be run on the data, or has no data plate or no parameters.
        NonFiniteError: the loss or its gradient is not finite; the parameters are those of the last good step.
        CheckpointError: the checkpoint is missing, damaged or of another training.

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
    _check_options(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, clip_norm=clip_norm,
                   patience=patience, checkpoint_seconds=checkpoint_seconds)  # fmt: skip
    if resume and checkpoint is None:
        raise OptionError("resume needs checkpoint, the file to go on from.")
    source = Source.of(data, validation, batch_size, seed)
    if patience is not None and source.validation is None:
        raise OptionError("patience needs validation data: give validation=, or leave patience out.")
    fabric = _fabric(accelerator, precision)
    with seeded(seed), own_parameters(model, guide, claim=True), interruption() as interrupted:
        training = Training(model, guide, source, loss, fabric, optimizer, learning_rate, scheduler,
                             clip_norm, patience)  # fmt: skip
        path = Path(checkpoint) if checkpoint is not None else None
        marks = training.fingerprint(seed=seed, batch_size=batch_size)
        if resume and path is not None:
            state = read_checkpoint(path)
            check_fingerprint(path, state["fingerprint"], marks)
            training.load_state_dict(state, path)
        keeper = Keeper(training, path, marks, checkpoint_seconds)
        return _train(training, epochs, keeper, interrupted, progress)


def _fabric(accelerator: str, precision: Any) -> Fabric:
    try:
        return Fabric(accelerator=accelerator, devices=1, precision=precision)
    except (ValueError, RuntimeError) as error:
        raise OptionError(f"accelerator or precision cannot be used: {first_line(error)}") from error


def svi_step(training: Training, batch: Batch) -> float:
    """One gradient step on the per-datum mean loss of a batch; the ELBO per datum before the step, in nats."""
    training.optimizer.zero_grad(set_to_none=True)
    loss = training.loss(batch)
    gradients = [p.grad for p in training.parameters.values() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise _NotFinite
    if training.clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(training.parameters.values(), training.clip_norm, norm)
    training.optimizer.step()
    return -loss


class _NotFinite(Exception):
    """A loss or gradient is not finite."""


def _train(training: Training, epochs: int, keeper: Keeper, interrupted: threading.Event, progress: bool) -> Fit:
    per_epoch = training.source.num_batches
    stopped = "finished"
    with warnings.catch_warnings(), Progress("SVI", epochs * per_epoch, "steps", progress) as bar:
        warnings.filterwarnings("ignore", "Encountered NaN")  # said better by NonFiniteError
        # Resumed at the end of an epoch, the scheduler's step comes first, and rightly so.
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
        bar.begin_at(training.epoch * per_epoch + training.batch_number)
        while training.epoch < epochs:
            if training.plateau is not None and training.plateau.reached:
                stopped = "plateau"
                break
            if not _train_epoch(training, keeper, interrupted, bar):
                stopped = "interrupted"
                break
    keeper.now()
    if stopped != "interrupted":
        training.restore_best()
    store = pyro.get_param_store()
    constrained = {name: store[name] if name in store else p for name, p in training.parameters.items()}  # noqa: SIM401
    values = {name: value.detach().clone() for name, value in constrained.items()}
    return Fit(training.history, stopped, values, training.steps, training.seconds)


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
        bar.advance(1, f"epoch {training.epoch + 1} · ELBO {elbo:.2f} nats")
        keeper.if_due()
        if interrupted.is_set():
            return False
    try:
        training.end_epoch(time.monotonic() - started)
    except ValueError as error:  # Pyro refuses parameters that are not finite
        keeper.now()
        raise NonFiniteError(
            f"the validation data cannot be scored after epoch {training.epoch + 1}: {first_line(error)}. Try a "
            "smaller learning_rate, or the clip_norm of fit."
        ) from error
    return True


def _guarded_step(training: Training, batch: Batch, keeper: Keeper) -> float:
    """A step, or a clear error before any parameter is touched."""
    try:
        return svi_step(training, batch)
    except (_NotFinite, ValueError) as error:
        reason = training.broken_sites(batch) if isinstance(error, _NotFinite) else first_line(error)
        keeper.now()
        raise NonFiniteError(
            f"training stopped in epoch {training.epoch + 1}, step {training.batch_number + 1} of "
            f"{training.source.num_batches}: {reason}; the parameters are those of the last good step. Try a smaller "
            "learning_rate, data on a smaller scale, or the clip_norm of fit."
        ) from error


def _check_options(**options: Any) -> None:
    for name in ("epochs", "batch_size", "patience"):
        value = options[name]
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise OptionError(f"{name} must be an integer of at least 1; it is {value!r}.")
    for name in ("learning_rate", "clip_norm"):
        value = options[name]
        if value is not None and not (isinstance(value, int | float) and 0 < value < math.inf):
            raise OptionError(f"{name} must be a positive number; it is {value!r}.")
    if not options["checkpoint_seconds"] >= 0:
        raise OptionError(f"checkpoint_seconds must not be negative; it is {options['checkpoint_seconds']!r}.")
