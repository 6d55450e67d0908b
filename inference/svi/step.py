"""The step of a training: eager, as Pyro's own SVI takes it, or compiled, behind one interface.

A compiled step is the same function of the parameters, the batch and the noise, up to rounding, without Python
(:mod:`.graph`, :mod:`.compiled`). A graph is only as good as what it was recorded from, so it is trusted as follows.

- It is tried before the first step: against the eager step, on two batches, with other noise and with the parameters
  moved. What was taken for a constant and is none shows here, and random numbers from outside torch.
- Python values that the programs reach are compared before *every* step (:class:`ppvae.inference.graphs.PythonState`).
- What neither can see (a file, a clock, an object of another library) is caught by a trial at the start of an epoch, on
  the batch and with the noise of the step that follows, once ``TRIAL_EVERY`` steps have passed: steps of the epochs
  before may have been taken with old values, so a warning says so.
- Checks of distributions are part of the graph. Where one comes out otherwise, that step is taken eagerly, with the
  same noise, and raises what the eager step raises.

From whatever fails on, steps are eager, and ``Fit.step`` says why.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from pyro.infer import TraceEnum_ELBO
from torch import Tensor

from ..graphs import NoGraph, PythonState
from ..pair import FAILURES, Batch, buffers_kept, plain_traces, sample_sites
from .adam import adam_step
from .compiled import Compiled, shape_of
from .loss import Loss
from .reduction import step_of_all

# Steps between two trials: one costs an eager and a compiled step, about four steps, so that all of them cost 1 %.
TRIAL_EVERY = 500
# Noise and movement of the parameters in the second trial.
TRIAL_SEED, NUDGE = 20_231, 1e-3

COMPILED, EAGER = "compiled", "eager"


class Step:
    """Loss and gradients of a batch, eager until :meth:`compile` succeeds.

    Attributes:
        name: ``"compiled"``, or ``"eager: "`` and why.
        sizes: rows of the batches that it is compiled for.
    """

    def __init__(self, loss: Loss, alone: bool = True) -> None:
        self.name = EAGER
        self.sizes: list[int] = []
        self._loss, self._alone = loss, alone
        self._compiled: dict[tuple[Any, ...], Compiled] = {}
        self._last: Compiled | None = None
        self._state: PythonState | None = None
        self._since_trial = 0

    def __call__(self, batch: Batch) -> tuple[float, Tensor, bool]:
        """The loss of a batch, the global norm of its gradients, and whether both are finite.

        The gradients are left in the parameters, which have none before. Among several processes the norm is that of
        the sum, so that eager steps leave it out (NaN).
        """
        self._last = self._trusted(batch) if self._compiled else None
        if self._last is None:
            return self._eager(batch)
        noise = _generators()
        loss, norm, finite, passed = self._last(batch)
        self._since_trial += 1
        if passed:
            return loss, norm, finite
        self._last = None
        _set_generators(noise)
        for parameter in self._loss.parameters:
            parameter.grad = None
        return self._eager(batch)

    def at(self, number: int) -> None:
        """Tell an objective that depends on it (a warm-up) which step of the training comes next."""
        if hasattr(self._loss.elbo, "at_step"):
            self._loss.elbo.at_step(number)

    def keep(self) -> None:
        """Write into the buffers what the last step wrote, once its loss and gradients are known to be finite."""
        if self._last is not None:
            self._last.keep()

    def compile(self, batches: list[Batch], other: Batch) -> None:
        """Compile the step for batches of these shapes.

        Args:
            batches: one of each shape.
            other: another batch of the first one's shape.

        Raises:
            NoGraph: it cannot be compiled, or is not the eager step; the sentence says why.
        """
        state = PythonState(self._loss.model, self._loss.guide, vars(self._loss.elbo))
        try:
            made = self._made(batches, other)
        except NoGraph:
            if (changed := state.changed()) is not None:  # which says more than what comes of it
                raise NoGraph(f"the programs change a Python value as they run ({changed})") from None
            raise
        finally:
            changed = state.changed()
            state.restore()
        if changed is not None:
            raise NoGraph(f"the programs change a Python value as they run ({changed})")
        self._compiled, self._state, self.name = made, state, COMPILED

    def be_eager(self, why: str) -> None:
        """Take eager steps from here on."""
        self._compiled, self.sizes, self.name = {}, [], f"{EAGER}: {why}"

    def begin_epoch(self, batch: Batch, number: int) -> None:
        """Try the compiled step again, if the last trial is old, on the batch that the epoch begins with."""
        compiled = self._compiled.get(shape_of(batch))
        if compiled is None or self._since_trial < TRIAL_EVERY:
            return
        self._since_trial = 0
        differing = compiled.disagrees(batch)
        if differing is not None:
            self.be_eager(f"compiled and eager steps disagree from step {number} on ({differing})")
            warnings.warn(
                f"{differing} of the compiled step is not that of the programs any more: they read something that "
                f"changes and cannot be seen. The last {TRIAL_EVERY} steps or more may be of old values; from step "
                f"{number} on steps are eager. Train again with fit(..., compile=False).",
                stacklevel=2,
            )

    def _made(self, batches: list[Batch], other: Batch) -> dict[tuple[Any, ...], Compiled]:
        if str(self._loss.fabric._precision.precision) == "16-mixed":
            raise NoGraph("with precision 16-mixed the gradients are scaled")
        _refuse_score_functions(self._loss, batches[0])
        made = {shape_of(batch): self._tried(batch) for batch in batches}
        if shape_of(other) in made:
            _try(made[shape_of(other)], other, TRIAL_SEED, NUDGE)
        return made

    def _tried(self, batch: Batch) -> Compiled:
        compiled = Compiled(self._loss, batch)
        _try(compiled, batch)
        return compiled

    def _trusted(self, batch: Batch) -> Compiled | None:
        changed = self._state.changed() if self._state is not None else None
        if changed is not None:
            self.be_eager(f"a Python value that the programs read has changed ({changed})")
            return None
        return self._compiled.get(shape_of(batch))

    def _eager(self, batch: Batch) -> tuple[float, Tensor, bool]:
        loss = self._loss.backward(batch)
        if not self._alone:
            return loss, torch.tensor(math.nan), False
        norm = torch.nn.utils.get_total_norm([p.grad for p in self._loss.parameters if p.grad is not None])
        return loss, norm, math.isfinite(loss) and math.isfinite(norm)


class NotFinite(Exception):
    """A loss or gradient is not finite."""


def svi_step(training: Any, batch: Batch) -> float:
    """One gradient step on the per-datum mean loss of a batch; the ELBO per datum before the step, in nats."""
    for parameter in training.parameters.values():
        parameter.grad = None
    training.step.at(training.steps)
    if training.batch_number == 0 and len(batch[0]):
        training.step.begin_epoch(batch, training.steps + 1)
    loss, norm, finite = step_of_all(training, batch)
    if not finite:
        raise NotFinite
    if training.clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(training.parameters.values(), training.clip_norm, norm)
    if training.team.size == 1:  # else it is done, and the buffers are those of process 0
        training.step.keep()
    if training.step.sizes:  # Fabric's wrapper scales gradients and moves them between processes: these have neither
        adam_step(training.bare_optimizer)
    else:
        training.optimizer.step()
    return -loss


def _try(compiled: Compiled, batch: Batch, seed: int | None = None, nudge: float = 0.0) -> None:
    try:
        differing = compiled.disagrees(batch, seed, nudge)
    except FAILURES as error:
        raise NoGraph(f"the compiled step cannot be run ({type(error).__name__})") from error
    if differing is not None:
        raise NoGraph(
            f"the compiled step is not the eager one ({differing} differs): the programs do more than torch sees"
        )


def _refuse_score_functions(loss: Loss, batch: Batch) -> None:
    """Their estimators learn baselines on the way, which are no function of the batch."""
    with buffers_kept(loss.model, loss.guide):
        _, guide_trace = plain_traces(loss.model, loss.guide, batch)
    for name, site in sample_sites(guide_trace):
        asked = site["infer"]
        summed = isinstance(loss.elbo, TraceEnum_ELBO) and asked.get("enumerate") and not asked.get("num_samples")
        if not (site["is_observed"] or site["fn"].has_rsample or summed):
            raise NoGraph(f"site {name!r} of the guide has no reparameterised draw (a score-function estimator)")


def _generators() -> tuple[Tensor, list[Tensor]]:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def _set_generators(states: tuple[Tensor, list[Tensor]]) -> None:
    torch.set_rng_state(states[0])
    if states[1]:
        torch.cuda.set_rng_state_all(states[1])
