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
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import torch
from lightning_fabric import Fabric
from pyro import poutine
from pyro.infer import ELBO
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ppvae.datasets import Dataset
from ppvae.errors import CheckpointError, DataError, NonFiniteError, OptionError, PairError
from ppvae.progress import Progress

from .checkpoint import (
    check_fingerprint,
    fingerprint,
    generator_state,
    read_checkpoint,
    set_generator_state,
    write_checkpoint,
)
from .importance import finite_batch
from .objective import elbo_for
from .parameters import modules_of, named_parameters, own_parameters
from .plateau import Plateau
from .traces import (
    Batch,
    Plates,
    Program,
    as_batch,
    find_plates,
    generator_kept,
    plain_traces,
    rows,
    sample_sites,
    seeded,
)
from .weights import log_weights

# Validation draws at least so many weights in all: a small validation set gets more particles per datum.
VALIDATION_WEIGHTS = 4096


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
    source = _Source.of(data, validation, batch_size, seed)
    if patience is not None and source.validation is None:
        raise OptionError("patience needs validation data: give validation=, or leave patience out.")
    fabric = Fabric(accelerator=accelerator, devices=1, precision=precision)
    with seeded(seed), own_parameters(model, guide, claim=True), _interruption() as interrupted:
        training = _Training(model, guide, source, loss, fabric, optimizer, learning_rate, scheduler,
                             clip_norm, patience)  # fmt: skip
        path = Path(checkpoint) if checkpoint is not None else None
        marks = training.fingerprint(seed=seed, batch_size=batch_size)
        if resume and path is not None:
            state = read_checkpoint(path)
            check_fingerprint(path, state["fingerprint"], marks)
            training.load_state_dict(state, path)
        keeper = _Keeper(training, path, marks, checkpoint_seconds)
        return _train(training, epochs, keeper, interrupted, progress)


def svi_step(training: _Training, batch: Batch) -> float:
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


@dataclass(frozen=True)
class _Source:
    """The data of a training, in an order that depends on the seed and the epoch alone."""

    data: Batch
    validation: Batch | None
    draw: Callable[[Tensor], Tensor]
    batch_size: int
    seed: int

    @staticmethod
    def of(data: Any, validation: Any, batch_size: int, seed: int) -> _Source:
        draw: Callable[[Tensor], Tensor] = lambda x: x  # noqa: E731
        if isinstance(data, Dataset):
            validation = data.validation if validation is None else validation
            data, draw = data.train, data.draw
        batch = finite_batch(as_batch(data))
        for i, part in enumerate(batch[1:], 1):
            if isinstance(part, Tensor) and part.dim() and len(part) != len(batch[0]):
                raise DataError(
                    f"data[{i}] has {len(part)} rows and data[0] has {len(batch[0])}: the members of a tuple of data "
                    "must run over the same data."
                )
        held_out = finite_batch(as_batch(validation)) if validation is not None else None
        return _Source(batch, held_out, draw, batch_size, seed)

    @property
    def num_batches(self) -> int:
        return math.ceil(len(self.data[0]) / self.batch_size)

    def order(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(len(self.data[0]), generator=generator)

    def batch(self, order: Tensor, number: int) -> Batch:
        picked = rows(self.data, order[number * self.batch_size : (number + 1) * self.batch_size])
        return (self.draw(picked[0]), *picked[1:])


class _Training:
    """The state of a training: parameters, optimiser, scheduler, plateau rule, history and place in the data."""

    def __init__(
        self,
        model: Program,
        guide: Program,
        source: _Source,
        loss: ELBO | None,
        fabric: Fabric,
        optimizer: Callable[..., Optimizer],
        learning_rate: float,
        scheduler: Callable[[Optimizer], LRScheduler] | None,
        clip_norm: float | None,
        patience: int | None,
    ) -> None:
        self.model, self.guide, self.source, self.clip_norm = model, guide, source, clip_norm
        self._elbo: Any = loss  # Pyro's base class does not declare what its ELBOs have
        self._fabric = fabric
        self._cast = precision_dtype(fabric)
        self.modules = modules_of(model, guide)
        for module in self.modules:
            fabric.setup_module(module)  # moves and converts the module itself; its wrapper is not needed
        first = self._first_batch()
        plates, self.parameters = self._first_run(first)
        # A subsampling plate scales the loss of a batch up to the whole data set.
        self._whole = plates.size if plates.size != len(first[0]) else None
        self._optimizer = optimizer(list(self.parameters.values()), lr=learning_rate)
        self.optimizer: Any = fabric.setup_optimizers(self._optimizer)
        self.scheduler = scheduler(self._optimizer) if scheduler else None
        self.plateau = Plateau(patience) if patience is not None else None
        self.best: dict[str, Tensor] | None = None
        self.history: list[dict[str, float]] = []
        self.epoch = self.batch_number = self.steps = 0
        self.epoch_sum = self.seconds = 0.0

    def _first_batch(self) -> Batch:
        with generator_kept():
            return self.to_device(self.source.batch(torch.arange(len(self.source.data[0])), 0))

    def _first_run(self, batch: Batch) -> tuple[Plates, dict[str, Tensor]]:
        """Run everything once, so that lazily made parameters exist and a broken pair shows before training."""
        try:
            traces = plain_traces(self.model, self.guide, batch)
            plates = find_plates(*traces, len(batch[0]))
            self._elbo = self._elbo or elbo_for(*traces, plates.nesting)
            parameters = named_parameters(self.model, self.guide, batch)
            with torch.no_grad(), generator_kept(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._elbo.loss(self.model, self.guide, *batch)
        except (ValueError, RuntimeError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
            if isinstance(error, PairError):
                raise
            raise PairError(f"the pair cannot be run on the data: {first_line(error)}") from error
        if not parameters:
            raise PairError(
                "the pair has no parameters to train: register networks with pyro.module or make values learnable with "
                "pyro.param."
            )
        for parameter in parameters.values():
            parameter.data = self._fabric.to_device(parameter.data)
        return plates, parameters

    def to_device(self, batch: Batch) -> Batch:
        moved = self._fabric.to_device(batch)
        if self._cast is None:
            return moved
        return tuple(b.to(self._cast) if isinstance(b, Tensor) and b.is_floating_point() else b for b in moved)

    def loss(self, batch: Batch) -> float:
        """The per-datum mean loss of a batch; its gradients are left in the parameters."""
        size = self._whole or len(batch[0])
        with self._fabric.autocast():
            if hasattr(self._elbo, "differentiable_loss"):
                loss = self._elbo.differentiable_loss(self.model, self.guide, *batch) / size
        if hasattr(self._elbo, "differentiable_loss"):
            self._fabric.backward(loss)
            return loss.item()
        with self._fabric.autocast():  # ELBOs that only know how to leave gradients behind
            value = self._elbo.loss_and_grads(self.model, self.guide, *batch) / size
        for parameter in self.parameters.values():
            if parameter.grad is not None:
                parameter.grad.div_(size)
        return float(value)

    def end_epoch(self, seconds: float) -> None:
        """Validate, write the row of history, step the scheduler, judge the plateau."""
        row = {"epoch": self.epoch + 1, "elbo": self.epoch_sum / len(self.source.data[0])}
        scores = self._validation_scores()
        row["validation_elbo"] = float(scores.mean())
        row["validation_standard_error"] = float(scores.std() / math.sqrt(len(scores))) if len(scores) > 1 else math.nan
        row["learning_rate"] = self._optimizer.param_groups[0]["lr"]
        row["seconds"] = seconds
        self.history.append(row)
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(-(row["elbo"] if math.isnan(row["validation_elbo"]) else row["validation_elbo"]))
        elif self.scheduler is not None:
            self.scheduler.step()
        if self.plateau is not None and self.plateau.improves(scores):
            self.best = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.epoch, self.batch_number, self.epoch_sum = self.epoch + 1, 0, 0.0

    def _validation_scores(self) -> Tensor:
        """The ELBO of every validation datum, with the same random numbers each time."""
        if self.source.validation is None:
            return torch.full((1,), math.nan, dtype=torch.float64)
        batch = self.to_device(self.source.validation)
        particles = math.ceil(VALIDATION_WEIGHTS / len(batch[0]))
        return log_weights(self.model, self.guide, batch, particles, seed=self.source.seed).mean(0)

    def restore_best(self) -> None:
        """Go back to the parameters that scored best on the validation data."""
        if self.best is not None:
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(self.best[name])

    def broken_sites(self, batch: Batch) -> str:
        """The sites whose log density is not finite on a batch, in words."""
        with torch.no_grad(), generator_kept(), pyro.validation_enabled(False), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            guide_trace = poutine.trace(self.guide).get_trace(*batch)
            model_trace = poutine.trace(poutine.replay(self.model, trace=guide_trace)).get_trace(*batch)
            names = []
            for program, trace in (("guide", guide_trace), ("model", model_trace)):
                trace.compute_log_prob()
                names += [
                    f"{name!r} of the {program}"
                    for name, s in sample_sites(trace)
                    if not s["log_prob"].isfinite().all()
                ]
        return f"the log density of site {' and of site '.join(names)} is not finite" if names else "a gradient is not"

    def fingerprint(self, **options: Any) -> dict[str, str]:
        """What a checkpoint of this training must agree with."""
        return fingerprint(self.parameters, self.source.data, **options)

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "parameters": {name: p.detach() for name, p in self.parameters.items()},
            "buffers": [{name: b for name, b in m.named_buffers()} for m in self.modules],
            "optimizer": self._optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "plateau": self.plateau.state_dict() if self.plateau else None,
            "best": self.best,
            "generators": generator_state(),
            "history": self.history,
            "place": [self.epoch, self.batch_number, self.steps],
            "sums": [self.epoch_sum, self.seconds],
        }

    def load_state_dict(self, state: dict[str, Any], path: Path) -> None:
        """Go on from :meth:`state_dict`."""
        try:
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(state["parameters"][name])
                for module, buffers in zip(self.modules, state["buffers"], strict=True):
                    for name, buffer in module.named_buffers():
                        buffer.copy_(buffers[name])
            self._optimizer.load_state_dict(state["optimizer"])
            if self.scheduler is not None and state["scheduler"] is not None:
                self.scheduler.load_state_dict(state["scheduler"])
            if self.plateau is not None and state["plateau"] is not None:
                self.plateau.load_state_dict(state["plateau"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"the checkpoint {path} does not fit this training ({first_line(error)}): resume it with the options "
                "it was started with."
            ) from error
        self.best, self.history = state["best"], state["history"]
        self.epoch, self.batch_number, self.steps = state["place"]
        self.epoch_sum, self.seconds = state["sums"]
        set_generator_state(state["generators"])


class _Keeper:
    """Writes the checkpoint every so often."""

    def __init__(self, training: _Training, path: Path | None, marks: dict[str, str], every: float) -> None:
        self._training, self._path, self._marks, self._every = training, path, marks, every
        self._last = time.monotonic()

    def now(self) -> None:
        """Write it."""
        if self._path is not None:
            write_checkpoint(self._path, {"fingerprint": self._marks, **self._training.state_dict()})
        self._last = time.monotonic()

    def if_due(self) -> None:
        """Write it if the last one is old."""
        if self._path is not None and time.monotonic() - self._last >= self._every:
            self.now()


def _train(training: _Training, epochs: int, keeper: _Keeper, interrupted: threading.Event, progress: bool) -> Fit:
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


def _train_epoch(training: _Training, keeper: _Keeper, interrupted: threading.Event, bar: Progress) -> bool:
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
    training.end_epoch(time.monotonic() - started)
    return True


def _guarded_step(training: _Training, batch: Batch, keeper: _Keeper) -> float:
    """A step, or a clear error before any parameter is touched."""
    try:
        return svi_step(training, batch)
    except (_NotFinite, ValueError) as error:
        reason = training.broken_sites(batch) if isinstance(error, _NotFinite) else first_line(error)
        keeper.now()
        raise NonFiniteError(
            f"training stopped in epoch {training.epoch + 1}, step {training.batch_number + 1} of "
            f"{training.source.num_batches}: {reason}; the parameters are those of the last good step. Try a smaller "
            "learning_rate, clip_norm, or data on a smaller scale."
        ) from error


@contextmanager
def _interruption() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, so that a step is never cut in half; a second Ctrl-C stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.getsignal(signal.SIGINT)

    def note(*_: Any) -> None:
        event.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


def precision_dtype(fabric: Fabric) -> torch.dtype | None:
    """The dtype that a ``*-true`` precision other than 32 converts data to; None where data stay as they are."""
    return {"64-true": torch.float64, "16-true": torch.float16, "bf16-true": torch.bfloat16}.get(
        str(fabric._precision.precision)
    )


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


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
