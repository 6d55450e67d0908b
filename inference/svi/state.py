"""The state of a training: parameters, optimiser, scheduler, plateau rule, history and place in the data.

Everything that the next step depends on is here, and :meth:`Training.state_dict` holds all of it.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyro
import torch
from pyro import poutine
from pyro.infer import ELBO
from pyro.poutine import Trace
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ppvae.errors import CheckpointError, PairError, first_line

from ..options import made
from ..pair import (
    FAILURES,
    Arguments,
    Batch,
    ContractError,
    Program,
    buffers_kept,
    elbo_for,
    evaluation_mode,
    failed_run,
    fatal_findings,
    generator_kept,
    map_tensors,
    named_parameters,
    plain_traces,
    reachable_modules,
    sample_sites,
    trainable,
)
from ..resume import fingerprint
from .batches import Source
from .checkpoint import generator_state, put_values, set_generator_state, values_of
from .early_stopping import Plateau
from .launching import place_module
from .loss import Loss, precision_dtype
from .processes import Team
from .reduction import Carried
from .step import Step
from .validation import Validation, mean_score

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Training:
    """The state of a training: parameters, optimiser, scheduler, plateau rule, history and place in the data."""

    def __init__(
        self,
        model: Program,
        guide: Program,
        source: Source,
        loss: ELBO | None,
        fabric: Fabric,
        optimizer: Callable[..., Optimizer],
        learning_rate: float,
        scheduler: Callable[[Optimizer], LRScheduler] | None,
        clip_norm: float | None,
        patience: int | None,
    ) -> None:
        self.model, self.guide, self.clip_norm = model, guide, clip_norm
        self._elbo: Any = loss  # Pyro's base class does not declare what its ELBOs have
        self._fabric, self.team, self.device = fabric, Team(fabric), fabric.device
        self._cast = precision_dtype(fabric)
        self.modules = reachable_modules(model, guide)
        for module in self.modules:
            place_module(fabric, module)
        with torch.no_grad(), buffers_kept(model, guide), generator_kept(), evaluation_mode(model, guide):
            self.pair = trainable(model, guide, Arguments.of(self.to_device(source.shown)))
        self.source = source.cut_as(self.pair, self.team.share)
        first = self.first_batch()
        with buffers_kept(model, guide):
            self.parameters = self._first_run(first)
        for finding in fatal_findings(model, guide, first):
            raise ContractError(finding) from finding.cause
        leaves = list(self.parameters.values())
        self.loss = Loss(model, guide, self._elbo, fabric, leaves, self._num_units)
        self.step, self.carried = Step(self.loss, self.team.size == 1), Carried(leaves)
        self.saved_step: dict[str, Any] | None = None
        self.bare_optimizer = made("optimizer", Optimizer, optimizer, leaves, lr=learning_rate)
        self.optimizer: Any = fabric.setup_optimizers(self.bare_optimizer)
        self.scheduler = made("scheduler", LRScheduler, scheduler, self.bare_optimizer) if scheduler else None
        self.plateau = Plateau(patience) if patience is not None else None
        self.best: dict[str, Any] | None = None
        self.history: list[dict[str, float]] = []
        self.epoch = self.batch_number = self.steps = 0
        self.epoch_sum = self.seconds = 0.0
        self._validation: Validation | None = None

    def first_batch(self) -> Batch:
        """The first of the data, as the programs see them."""
        with generator_kept():
            return self.to_device(self.source.batch(torch.arange(self.source.num_data), 0))

    def _first_run(self, batch: Batch) -> dict[str, Tensor]:
        """Run everything once, so that lazily made parameters exist and a broken pair shows before training."""
        try:
            traces = plain_traces(self.model, self.guide, batch)
            self._elbo = self._elbo or elbo_for(*traces)
            self._num_units = self._units_of(traces, batch)
            parameters = named_parameters(self.model, self.guide, batch)
            with torch.no_grad(), generator_kept(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._elbo.loss(self.model, self.guide, *batch)
        except FAILURES as error:
            if isinstance(error, PairError):
                raise
            raise failed_run(error) from error
        if not parameters:
            raise PairError(
                "the pair has no parameters to train: register networks with pyro.module or make values learnable with "
                "pyro.param."
            )
        for parameter in parameters.values():
            parameter.data = self._fabric.to_device(parameter.data)
        return parameters

    def _units_of(self, traces: tuple[Trace, Trace], batch: Batch) -> int | None:
        """How many units the loss sums: 1 data set, all data of a subsampling plate, None for those of the batch."""
        if self.pair.unit == "data set":
            return 1
        frames = {frame for trace in traces for _, site in sample_sites(trace) for frame in site["cond_indep_stack"]}
        shown = next((f for f in frames if f.name == self.pair.structure.plates.data), None)
        scaled = shown is not None and shown.full_size not in (None, -1, len(batch[0]))
        return shown.full_size if scaled and shown is not None else None

    def to_device(self, batch: Batch) -> Batch:
        """A batch in the place and the type that the accelerator and the precision ask for."""
        there = all(type(leaf) is Tensor and leaf.device == self.device for leaf in batch)  # asked before every step
        moved = batch if there else self._fabric.to_device(batch)
        if self._cast is None:
            return moved
        return map_tensors(lambda leaf: leaf.to(self._cast) if leaf.is_floating_point() else leaf, moved)

    def end_epoch(self, seconds: float) -> None:
        """Validate, write the row of history, step the scheduler, judge the plateau."""
        begun = time.monotonic()
        self.team.check_parameters(self.parameters.values())
        row = {"epoch": self.epoch + 1, "elbo": self.epoch_sum / self.source.num_data}
        scores = self._validation_scores()
        row["validation_elbo"] = float(scores.mean())
        row["validation_standard_error"] = float(scores.std() / math.sqrt(len(scores))) if len(scores) > 1 else math.nan
        row["learning_rate"] = self.bare_optimizer.param_groups[0]["lr"]
        row["seconds"] = seconds
        self.history.append(row)
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(-(row["elbo"] if math.isnan(row["validation_elbo"]) else row["validation_elbo"]))
        elif self.scheduler is not None:
            self.scheduler.step()
        if self.plateau is not None and self.plateau.improves(scores):
            self.best = values_of(self.parameters, self.modules)
        self.epoch, self.batch_number, self.epoch_sum = self.epoch + 1, 0, 0.0
        self.seconds += time.monotonic() - begun

    def _validation_scores(self) -> Tensor:
        """The ELBO of every validation datum, with the same random numbers each time."""
        if self.source.validation is None:
            return torch.full((1,), math.nan, dtype=torch.float64)
        if self._point_mass or self.pair.unit == "data set":  # one number, which process 0 computes
            return self.team.of_all(1, slice(None) if self.team.first else None, self._validation_elbo)
        return self.team.of_all(len(self.source.validation[0]), self.team.share, self._validation_elbo)

    def _validation_elbo(self, share: slice) -> Tensor:
        batch, seed = self.to_device(self.source.validated(share)), self.source.seed
        if self._point_mass:
            return mean_score(self._elbo, (self.model, self.guide), batch, seed, self._num_units)
        num_data = len(self.source.validated(slice(None))[0])
        self._validation = self._validation or Validation(self.model, self.guide, batch, seed, num_data)
        return self._validation.elbo()

    @property
    def _point_mass(self) -> bool:
        """Whether the guide has no density, so that its ELBO is that of Pyro's loss alone."""
        return bool(self.pair.structure.points) and not self.pair.structure.auxiliary

    def restore_best(self) -> None:
        """Go back to the parameters that scored best on the validation data."""
        if self.best is not None:
            put_values(self.parameters, self.modules, self.best, self._fabric.device)

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
        return fingerprint(self.parameters, self.source.marks, **options)

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "values": values_of(self.parameters, self.modules),
            "optimizer": self.bare_optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "plateau": self.plateau.state_dict() if self.plateau else None,
            "best": self.best,
            "step": {"name": self.step.name, "sizes": self.step.sizes, "loss": self.loss.name},
            "generators": generator_state(),
            "history": self.history,
            "place": [self.epoch, self.batch_number, self.steps],
            "sums": [self.epoch_sum, self.seconds],
        }

    def load_state_dict(self, state: dict[str, Any], path: Path) -> None:
        """Go on from :meth:`state_dict`."""
        try:
            put_values(self.parameters, self.modules, state["values"], self._fabric.device)
            self.bare_optimizer.load_state_dict(state["optimizer"])
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
        self.saved_step = state.get("step", {"name": "eager: so was the checkpoint's training", "sizes": []})
        self.epoch, self.batch_number, self.steps = state["place"]
        self.epoch_sum, self.seconds = state["sums"]
        set_generator_state(state["generators"])
