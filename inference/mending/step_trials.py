"""Steps tried on a guide one after the other, each kept or taken back: what :func:`ppvae.inference.mend` does."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ppvae.errors import NonFiniteError, PairError

from ..pair import MODULE_DIVIDER, Batch, Pair, ParameterValues, Program, Trained, named_parameters
from .mended import (
    DEFENCE,
    FAMILIES,
    GRADIENT_STEPS,
    MIXTURE,
    MORE_STEPS,
    WARM_UP,
    Mended,
    MendingStep,
    with_family,
)
from .mending_data import MendingData, some, training_data
from .mending_plan import ENOUGH, PlannedStep
from .mending_steps import (
    LEAST_GAIN,
    Budget,
    drawn_elbo,
    kept_values,
    paired_gain,
    put_back,
    stored_names,
    train_both,
    train_guide,
)
from .second_part import fit_part_weights, start_where_missed
from .weight_tail import is_heavy, moment_ratio

# In nats per unit: what a step must gain to be tried again.
MUCH = 0.1
# Of the steps of an attempt: those in which gradient steps are trained, since each of them costs some fifty others.
SHARE_OF_GRADIENT_STEPS = 4
# Training data that the weights of a mixture are fitted on, at most.
MIXTURE_DATA = 1000


class StepTrials:
    """The best guide so far, and what was tried."""

    def __init__(
        self, model: Program, guide: Program, data: MendingData, budget: Budget, errors: float, memory_mb: float
    ) -> None:
        self.model, self.guide, self.data, self.budget, self.errors = model, guide, data, budget, errors
        self.memory_mb, self.draws_seed = memory_mb, int(torch.randint(2**31, ()))
        self.before = self.best = self._elbo(guide)
        self.steps: list[MendingStep] = []
        self.families: list[tuple[str, str]] = []
        self.won: dict[str, float] = {}

    def wanted(self, step: PlannedStep, attempt: int) -> bool:
        """Whether a step has something to win still."""
        if attempt or step.reason == "asked for":
            return True
        if step.name == DEFENCE:
            return is_heavy(self.best)
        enough = bool(step.cause) and self.won.get(step.cause, 0.0) >= ENOUGH * step.part
        return step.name == MORE_STEPS or not enough

    def try_step(self, step: PlannedStep) -> bool:
        """Try a step, and keep it or go back; whether it gained much."""
        started = time.monotonic()
        candidate, families = self.guide, self.families
        values = kept_values(self.model, self.guide, self.data.example)
        gain = error = math.nan
        kept, note, tail = False, "", ""
        try:
            if step.name in FAMILIES and (step.name == MIXTURE or step.name not in dict(families)):
                families = [*families, (step.name, self._fresh_name())]
                candidate = with_family(self.model, self.guide, self.data.shown, *families[-1])
            self._train(step.name)(candidate)
            after = self._elbo(candidate)
            gain, error = paired_gain(self.best, after)
            kept = gain > max(self.errors * error, LEAST_GAIN)
            if step.name == DEFENCE:
                ratio, its_error = moment_ratio(self.model, self.guide, candidate, self.data.measured, self.draws_seed)
                kept = ratio > self.errors * its_error and gain > -max(self.errors * error, LEAST_GAIN)
                tail = f"log of the weights' mean square {-ratio:+.2f} ± {its_error:.2g}"
        except (PairError, NonFiniteError) as problem:
            note = str(problem).rstrip(".")
        if kept:
            self.guide, self.families, self.best = candidate, families, after
            self.won[step.cause] = self.won.get(step.cause, 0.0) + gain
        else:
            put_back(values)
        reason = ": ".join(part for part in (step.reason, tail) if part)
        self.steps.append(MendingStep(step.name, gain, error, time.monotonic() - started, kept, note, reason))
        return kept and gain > MUCH and step.name != DEFENCE

    def _fresh_name(self) -> str:
        """A name in Pyro's store that neither the pair nor another one has: the guide may have been mended before."""
        names = [*named_parameters(self.model, self.guide, self.data.example), *stored_names()]
        taken = {name.partition(MODULE_DIVIDER)[0] for name in names}
        return next(name for i in itertools.count() if (name := f"mended_{i}") not in taken)

    def _train(self, name: str) -> Callable[[Program], None]:
        """The training of a step, in place."""
        budget, example = self.budget, self.data.example

        def by(train: Any, share: int = 1) -> Callable[[Program], None]:
            part = replace(budget, steps=max(1, budget.steps // share))
            return lambda guide: train(self.model, guide, self.data.train, example, part)

        def mixture(guide: Any) -> None:
            rows = self._training_rows()
            start_where_missed(self.model, guide, rows)
            for _ in range(2):
                by(train_guide, 2)(guide)
                fit_part_weights(self.model, guide, rows)

        special = {
            WARM_UP: by(train_both),
            GRADIENT_STEPS: by(train_guide, SHARE_OF_GRADIENT_STEPS),
            MIXTURE: mixture,
            DEFENCE: lambda guide: None,
        }
        return special.get(name, by(train_guide))

    def _training_rows(self) -> Batch:
        """Some of the training data."""
        with Pair.on(self.model, self.guide, training_data(self.data)) as pair:
            return some(pair, MIXTURE_DATA)

    def mended(self) -> Mended:
        """The record of all steps.

        Raises:
            PairError: none could be tried.
        """
        if self.steps and all(step.note for step in self.steps):
            raise PairError(f"no step can be tried on this pair: {self.steps[0].note}.")
        leaves = named_parameters(self.model, self.guide, self.data.example)
        values = ParameterValues.copied(self.model, self.guide, leaves)
        return Mended(
            model=Trained(self.model, values),
            guide=Trained(self.guide, values),
            example=self.data.example,
            steps=tuple(self.steps),
            families=tuple(self.families),
            elbo_before=self.before.mean(0),
            elbo=self.best.mean(0),
            gain_error=paired_gain(self.before, self.best)[1],
            held_out=self.data.held_out,
            model_changed=any(step.kept and step.name == WARM_UP for step in self.steps),
        )

    def _elbo(self, guide: Program) -> Tensor:
        return drawn_elbo(self.model, guide, self.data.measured, self.draws_seed, self.memory_mb)
