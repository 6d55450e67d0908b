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

import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyro
from pyro.infer import ELBO
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ppvae.datasets import Dataset
from ppvae.errors import OptionError, PpvaeError

from ..option_records import Compute, record_of
from ..options import (
    file_path,
    flag,
    flag_or,
    not_negative,
    positive_number,
    valid_seed,
    whole_number,
)
from ..pair import Batch, Program, programs_named, restored, seeded, trained_parameters
from ..resume import check_fingerprint, read_checkpoint, write_checkpoint
from .batches import Source
from .checkpoint import Keeper, put_values, values_of
from .choice import Compile
from .fitted import Fit, record
from .interruption import interruption
from .launching import fabric_of, launch, starts_a_function
from .loop import train
from .parts import check_parts, checked_loggers
from .placement import fabric_for
from .state import Training

if TYPE_CHECKING:
    from lightning_fabric import Fabric


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
    compute: Compute = Compute(),
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
        accelerator: Lightning Fabric's (``"auto"``, ``"cpu"``, ``"cuda"``, …). ``"auto"`` is the CPU, with a warning,
            for programs that fail on the accelerator, as those do that make tensors on the CPU.
        precision: Lightning Fabric's (``"32-true"``, ``"bf16-mixed"``, ``"64-true"``, …).
        compute: several processes, ``Compute(devices=2)``: each takes its share of every batch, and the step is that
            of the whole batch, as on one process. Noise differs between processes and depends on ``seed`` alone; batch
            norm takes its statistics from a process's share. Process 0 logs and writes the checkpoint, from which
            any number of processes goes on. In a script every process runs all of it and gets the same ``Fit``.
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
        ProcessError: another process of the training has ended or does not answer.

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
    record_of("compute", compute, Compute)
    model, guide = restored(model, guide)
    fabric = fabric_for(model, guide, source, accelerator, precision, compute)
    options = {"seed": number, "batch_size": batch_size}
    plan = _Plan((model, guide, source, loss), (optimizer, learning_rate, scheduler, clip_norm, patience), epochs,
                 compile, path, resume, checkpoint_seconds, loggers, progress, options)  # fmt: skip
    with (
        seeded(number),
        trained_parameters(model, guide) as before,
        interruption() as interrupted,
        programs_named(),
    ):
        if starts_a_function(fabric):
            training, stopped = _trained_elsewhere(plan, fabric, fabric_of(accelerator, compute.precision or precision))
        else:
            training, stopped = launch(fabric, _train, plan, interrupted)
        return _fit(training, stopped, set(before["params"]))


@dataclass(frozen=True)
class _Plan:
    """What a training is told, in any process."""

    parts: tuple[Any, Any, Any, Any]
    steps: tuple[Any, Any, Any, Any, Any]
    epochs: int
    compile: Compile
    path: Path | None
    resume: bool
    checkpoint_seconds: float
    loggers: Sequence[Any]
    progress: bool
    options: dict[str, Any]

    def training(self, fabric: Fabric) -> Training:
        model, guide, source, loss = self.parts
        return Training(model, guide, source, loss, fabric, *self.steps)


def _train(fabric: Fabric, plan: _Plan, interrupted: threading.Event) -> tuple[Training, str]:
    """Train in this process, and with the others; the training, and why it ended."""
    training = plan.training(fabric)
    team = training.team
    team.interrupted = interrupted
    marks = training.fingerprint(**plan.options, loss=training.loss.name)
    team.same("the pair, the data or the options", marks)
    if plan.resume and plan.path is not None:
        path = plan.path
        training.load_state_dict(team.of_first(lambda: _checkpoint(path, marks)), path)
    elif team.size > 1:  # all begin where process 0 does
        values = team.of_first(lambda: values_of(training.parameters, training.modules))
        put_values(training.parameters, training.modules, values, training.device)
    keeper = Keeper(training, plan.path if team.first else None, marks, plan.checkpoint_seconds)
    return training, train(training, plan.epochs, plan.compile, keeper, plan.loggers, plan.progress)


def _checkpoint(path: Path, marks: dict[str, str]) -> dict[str, Any]:
    state = read_checkpoint(path)
    check_fingerprint(path, state["fingerprint"], marks)
    return state


def _trained_elsewhere(plan: _Plan, fabric: Fabric, here: Fabric) -> tuple[Training, str]:
    """Train in processes made for it, and put what they have reached into this one."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trained.pt"
        store = pyro.get_param_store().get_state()
        error = launch(fabric, partial(_train_and_write, plan=plan, store=store, file=file))
        if error is not None:
            raise error
        training, state = plan.training(here), read_checkpoint(file)
        training.load_state_dict(state, file)
    training.step.name = state["step"]["name"]
    return training, state["stopped"]


def _train_and_write(fabric: Fabric, plan: _Plan, store: Any, file: Path) -> PpvaeError | None:
    """Train in a process made for it; process 0 writes what was reached."""
    pyro.get_param_store().set_state(store)
    try:
        with seeded(plan.options["seed"]), interruption() as interrupted, programs_named():
            training, stopped = _train(fabric, plan, interrupted)
            if training.team.first:
                write_checkpoint(file, {**training.state_dict(), "stopped": stopped})
    except PpvaeError as error:
        return error
    return None


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
