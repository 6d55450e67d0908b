"""Short trainings from the trained state, each with one thing changed, and what became of ELBO and latent units.

All begin from the same values, take the same number of steps and are measured on the same data held out, with the same
seed of the draws, so that their differences are paired by datum. The pair is put back after each.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..latents import LatentUnits, latent_units
from ..mending import (
    Budget,
    MendingData,
    drawn_elbo,
    kept_values,
    paired_gain,
    put_back,
    some,
    train_pair,
    training_data,
)
from ..pair import Pair, Program, unit_draws

# Data held out that the ELBO is measured on, and data that the units are looked at on, at most.
ELBO_DATA, UNIT_DATA = 1000, 300
# Training data that the direction of growth is found on.
TRAIN_DATA = 1000
# Draws of the guide that a unit's mean is averaged over.
MEAN_DRAWS = 50
# A shaken start: noise in units of the root mean square of each parameter, and at least so large.
SHAKE, LEAST_SHAKE = 0.3, 0.05


@dataclass(frozen=True)
class TrialOutcome:
    """A pair after a training.

    Attributes:
        name: what was changed.
        log_w: log p(x, z) − log q(z|x) of draws, ``(num_draws, num_data)``.
        units: what each latent unit does.
        means: E_q[z_j|x], ``(num_data, num_units)``.
        seconds: that the training took.
    """

    name: str
    log_w: Tensor
    units: LatentUnits
    means: Tensor
    seconds: float

    def active(self, unit: int) -> bool:
        """Whether a unit tells something about x."""
        return self.units.verdict[unit] == "active"

    def gain(self, reference: TrialOutcome) -> tuple[float, float]:
        """ELBO less that of another, paired by datum, in nats, and its standard error."""
        return paired_gain(reference.log_w, self.log_w)


class Trials:
    """A pair, the data, and how trainings are done and measured."""

    def __init__(
        self, model: Program, guide: Program, data: MendingData, budget: Budget, kl_weight: float, memory_mb: float
    ) -> None:
        self.model, self.guide, self.data, self.budget, self.memory_mb = model, guide, data, budget, memory_mb
        self.kl_weight = kl_weight
        self._seed = int(torch.randint(2**31, ()))
        self._start = kept_values(model, guide, data.example)
        with Pair.on(model, guide, data.measured) as pair:
            self._elbo_data, self._unit_data = some(pair, ELBO_DATA), some(pair, UNIT_DATA)
        with Pair.on(model, guide, training_data(data)) as pair:
            self.train_data = some(pair, TRAIN_DATA)
            if len(self._unit_data[0]) < UNIT_DATA:  # too few to see small activity: that of training data will do
                self._unit_data = some(pair, UNIT_DATA)
        self.present = self._measured("as it is", model, guide, time.monotonic())

    def run(
        self, name: str, *, loss: Any = None, model: Program | None = None, guide: Program | None = None,
        shaken: bool = False,
    ) -> TrialOutcome:  # fmt: skip
        """Train from the present state with something changed, measure, and put the pair back.

        Raises:
            PairError: the programs as changed cannot be run or trained.
            NonFiniteError: the training broke down.
        """
        model, guide, started = model or self.model, guide or self.guide, time.monotonic()
        try:
            if shaken:
                self._shake()
            train_pair(model, guide, self.data.train, self.data.example, self.budget, loss)
            return self._measured(name, model, guide, started)
        finally:
            put_back(self._start)

    def cost_of_cutting(self, guide: Program) -> tuple[float, float]:
        """What the present pair gains with another guide, without training, and the standard error."""
        return paired_gain(self.present.log_w, self._elbo(self.model, guide))

    def on(self, look: Callable[[Pair], Any]) -> Any:
        """The result of a function of the pair on the data held out."""
        with Pair.on(self.model, self.guide, self._elbo_data) as pair:
            return look(pair)

    def _measured(self, name: str, model: Program, guide: Program, started: float) -> TrialOutcome:
        seconds = time.monotonic() - started
        units = latent_units(model, guide, self._unit_data, seed=self._seed, memory_mb=self.memory_mb)
        with Pair.on(model, guide, self._unit_data) as pair, torch.no_grad():
            sites = dict.fromkeys(units.site)
            means = [unit_draws(pair, "guide", site, MEAN_DRAWS).means.mean(0) for site in sites]
        return TrialOutcome(name, self._elbo(model, guide), units, torch.cat(means, -1).double().cpu(), seconds)

    def _elbo(self, model: Program, guide: Program) -> Tensor:
        return drawn_elbo(model, guide, self._elbo_data, self._seed, self.memory_mb)

    def _shake(self) -> None:
        for leaf, value in self._start:
            scale = max(float(value.square().mean().sqrt()) * SHAKE, LEAST_SHAKE)
            leaf.data.add_(scale * torch.randn_like(leaf))
