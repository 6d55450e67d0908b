"""The trials one after the other, and which unit is explained by which: see :mod:`.explain`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ppvae.errors import NonFiniteError, PairError
from ppvae.progress import Progress

from ..gap import shifted
from ..pair import BlindModel, CutGuide, FreedNoise, Pair, Program, as_batch, cut, has_noise_scale, reads_its_data
from ..svi import Beta, FreeBits, WarmUp
from .explained import (
    DECODER,
    LIKELIHOOD,
    OPTIMISER,
    REDUNDANCY,
    SCHEDULE,
    UNKNOWN,
    ExplainedCollapse,
    Trial,
    UnitCause,
)
from .growth import growth_ratio
from .shared_information import explained_by, explained_share
from .trials import TrialOutcome, Trials

# In nats: what a change must gain, since two short trainings differ by some hundredths by chance. R² from which an
# active unit may be a copy.
LEAST_GAIN, COPY = 0.05, 0.9
# Nats of KL that free bits leave to every number of the latents.
FREE_NATS = 0.25


class CauseSearch:
    """The units that are not explained yet, and what was tried; made and asked by :func:`explain_collapse`."""

    def __init__(self, trials: Trials, errors: float, bar: Progress) -> None:
        self.trials, self.errors, self.bar = trials, errors, bar
        self.present = self.control = trials.present
        self.label = self.present.units.label
        self.open = [j for j, verdict in enumerate(self.present.units.verdict) if verdict != "active"]
        self.done: list[Trial] = []
        self.rows: dict[int, UnitCause] = {
            j: UnitCause(label, float(self.present.units.kl[j]), self.present.units.verdict[j])
            for j, label in enumerate(self.label)
        }
        self.growth = math.nan, math.nan
        self.explained_share = math.nan

    def explained(self) -> ExplainedCollapse:
        """All causes."""
        if self.open:
            self.growth = self._growth()
            for look in (self._longer, self._warm_up, self._shaken, self._noise, self._decoder, self._others):
                if self.open:
                    look()
            self._rest()
        self._copies()
        rows = tuple(self.rows[j] for j in range(len(self.label)))
        return ExplainedCollapse(
            rows, tuple(self.done), self.present.units, *self.growth, explained=self.explained_share
        )

    # --- what is tried, in order ----------------------------------------------------------------------------------

    def _longer(self) -> None:
        weight, loss = self.trials.kl_weight, None
        cause = OPTIMISER
        if weight > 1:
            as_trained = self._try("longer, as trained", self.present, loss=Beta(weight))
            self._name(as_trained, self.present, OPTIMISER)
            cause = SCHEDULE
        found = self._try("longer", self.present, loss=loss)
        self.control = found or self.present
        self._name(found, self.present, cause)

    def _warm_up(self) -> None:
        """A KL term that comes slowly, or has some nats for nothing: the better cure of those that it wakes."""
        before = list(self.open)
        warm = self._try("KL warm-up", self.control, loss=self._warm())
        self._name(warm, self.control, SCHEDULE)
        free = self._try("free bits", self.control, loss=FreeBits(FREE_NATS))
        self._name(free, self.control, SCHEDULE)
        if warm is None or free is None or not self._significant(free.gain(warm)):
            return
        gain, error = free.gain(self.control)
        for j in (j for j in before if self.rows[j].cure == warm.name and free.active(j)):
            self.rows[j] = replace(self.rows[j], cure=free.name, gain=gain, gain_standard_error=error)

    def _shaken(self) -> None:
        self._name(self._try("shaken start", self.control, shaken=True), self.control, OPTIMISER)

    def _noise(self) -> None:
        if self.trials.on(has_noise_scale):
            model = FreedNoise(self.trials.model, _scaled)
            found = self._try("learnt noise", self.control, loss=self._warm(), model=model)
            self._name(found, self.control, LIKELIHOOD)

    def _decoder(self) -> None:
        row = as_batch(self.trials.data.shown)[0]
        row = row.double().mean(0).to(row.dtype)
        if not self.trials.on(lambda pair: reads_its_data(pair, row)):
            return
        model = BlindModel(self.trials.model, row)
        found = self._try("blind decoder", self.control, loss=self._warm(), model=model)
        none = self._without("blind, no latents", range(len(self.label)), model=model)
        if found is None or none is None or not self._significant(found.gain(none)):
            return
        for j in [j for j in self.open if found.active(j)]:
            self._explain(j, DECODER, "latents, if it is blind", found.gain(none), found.name, found.gain(self.control))

    def _others(self) -> None:
        active = [j for j in range(len(self.label)) if self.control.active(j)]
        if not active:
            return
        alone = self._without("the others cut", active, loss=self._warm())
        none = self._without("no latents", range(len(self.label)))
        woken = [] if alone is None else [j for j in self.open if alone.active(j)]
        if alone is None or none is None or not woken or not self._significant(alone.gain(none)):
            return
        self.explained_share = explained_share(alone.means[:, woken], self.control.means[:, active])
        saved = self._cost(self.open)
        for j in list(self.open):
            self._explain(j, REDUNDANCY, "alone, without the others", alone.gain(none), "fewer units", saved)

    def _rest(self) -> None:
        """What no trial has moved."""
        ratio, error = self.growth
        cause = UNKNOWN if ratio - 2 * error > 1 else LIKELIHOOD
        best = max((t for t in self.done if not t.note), key=lambda t: t.gain if t.reference == "longer" else -math.inf,
                   default=None)  # fmt: skip
        number = (best.gain, best.standard_error) if best is not None else (math.nan, math.nan)
        saved = self._cost(self.open) if self.open else (math.nan, math.nan)
        for j in list(self.open):
            self._explain(j, cause, f"{best.name if best else 'nothing'}, best of all", number, "fewer units", saved)

    def _copies(self) -> None:
        """Active units that the others explain."""
        active = [j for j in range(len(self.label)) if self.present.active(j) and not self.rows[j].cause]
        shares = explained_by(self.present.means[:, active])
        suspects = [j for j, share in zip(active, shares, strict=True) if share > COPY]
        if not suspects:
            return
        j = min(suspects, key=lambda j: float(self.present.units.kl[j]))
        if self.control is self.present:
            self.control = self._try("longer", self.present) or self.present
        found = self._without("without it", [j])
        if found is None:
            return
        gain, error = found.gain(self.control)
        if gain > -max(self.errors * error, LEAST_GAIN):
            self.explained_share = shares[active.index(j)]
            self._explain(j, REDUNDANCY, "trained without it", (gain, error), "fewer units", (gain, error))

    # --- how --------------------------------------------------------------------------------------------------------

    def _warm(self) -> Beta:
        return Beta(WarmUp(max(1, self.trials.budget.steps // 2)))

    def _try(self, name: str, reference: TrialOutcome, **changed: Any) -> TrialOutcome | None:
        """A trial, written down; None if it cannot be done."""
        self.bar.advance(0, name)
        try:
            found = self.trials.run(name, **changed)
        except (PairError, NonFiniteError) as problem:
            self.done.append(Trial(name, reference.name, math.nan, math.nan, (), 0.0, str(problem).rstrip(".")))
            return None
        finally:
            self.bar.advance(1, name)
        woken = tuple(self.label[j] for j in self.open if found.active(j))
        self.done.append(Trial(name, reference.name, *found.gain(reference), woken, found.seconds))
        return found

    def _without(self, name: str, units: Any, **changed: Any) -> TrialOutcome | None:
        """A trial with some units cut."""
        try:
            guide = self._cut(list(units), changed.get("model"))
        except PairError as problem:
            self.done.append(Trial(name, self.control.name, math.nan, math.nan, (), 0.0, str(problem).rstrip(".")))
            return None
        return self._try(name, self.control, guide=guide, **changed)

    def _cut(self, units: list[int], model: Program | None = None) -> CutGuide:
        found = self.present.units
        with Pair.on(model or self.trials.model, self.trials.guide, self.trials.data.example) as pair:
            masks = {name: torch.zeros(pair.sites[name].shape, dtype=torch.bool) for name in dict.fromkeys(found.site)}
            for j in units:
                masks[found.site[j]][found.index[j]] = True
            return cut(pair, {name: mask for name, mask in masks.items() if mask.any()})

    def _cost(self, units: list[int]) -> tuple[float, float]:
        """What cutting units gains without training; NaN if they cannot be cut."""
        try:
            return self.trials.cost_of_cutting(self._cut(units))
        except PairError:
            return math.nan, math.nan

    def _growth(self) -> tuple[float, float]:
        try:
            with Pair.on(self.trials.model, self.trials.guide, self.trials.train_data) as train:
                found: tuple[float, float] = self.trials.on(lambda held_out: growth_ratio(train, held_out))
                return found
        except PairError:  # a model that cannot be drawn from
            return math.nan, math.nan

    def _significant(self, gain: tuple[float, float]) -> bool:
        return gain[0] > max(self.errors * gain[1], LEAST_GAIN)

    def _name(self, found: TrialOutcome | None, reference: TrialOutcome, cause: str) -> None:
        """The units that a trial has woken, if it gained, have a cause."""
        if found is None or not self._significant(gain := found.gain(reference)):
            return
        for j in [j for j in self.open if found.active(j)]:
            self._explain(j, cause, f"{found.name}", gain, found.name, gain)

    def _explain(
        self, j: int, cause: str, evidence: str, number: tuple[float, float], cure: str, gain: tuple[float, float]
    ) -> None:
        row = self.rows[j]
        self.rows[j] = UnitCause(row.unit, row.kl, row.verdict, cause, evidence, *number, cure, *gain)
        self.open = [other for other in self.open if other != j]


def _scaled(fn: Any, log_factor: Tensor) -> Any:
    return shifted(fn, {"scale": log_factor})
