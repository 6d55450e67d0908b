"""Contenders that do the same work, in turns, so that a busy machine slows all of them alike.

In a turn every contender does its work once. The first turn warms up and does not count; of the others the median and
the quartiles are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro

# What a contender does in a turn.
Way = Callable[[], object]


class OwnSeconds(float):
    """Seconds that a contender returns, which counts those of its work without getting ready."""


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of what was measured in several turns."""

    median: float
    lower: float
    upper: float
    turns: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of these values, at least one, to four digits."""
        values = list(values)
        lower, median, upper = (float(f"{value:.4g}") for value in np.quantile(values, (0.25, 0.5, 0.75)))
        return cls(median, lower, upper, len(values))


@dataclass(frozen=True)
class Timed:
    """What a task took.

    Attributes:
        seconds: of every contender, in their order.
        flops: floating-point operations of the matrix products that the task cannot do without; 0 if not counted.
    """

    seconds: Mapping[str, Spread]
    flops: float = 0.0


class Turns:
    """The seconds of every contender, turn by turn.

    Args:
        ways: what each does, by its name.
        first: names of contenders that lead the turns (see :class:`AfterEpochs`), shown before the others.
    """

    def __init__(self, ways: Mapping[str, Way], first: Iterable[str] = ()) -> None:
        self._ways = ways
        self.seconds: dict[str, list[float]] = {name: [] for name in (*first, *ways)}

    def take(self) -> None:
        """Let every contender do its work once."""
        for name, way in self._ways.items():
            started = time.perf_counter()
            own = way()
            self.seconds[name].append(own if isinstance(own, OwnSeconds) else time.perf_counter() - started)

    def spreads(self, steps: int = 1) -> dict[str, Spread]:
        """The seconds of a step in each turn but the first, where a turn has so many."""
        return {name: Spread.of(each / steps for each in seconds[1:]) for name, seconds in self.seconds.items()}


class AfterEpochs:
    """A logger of :func:`ppvae.inference.fit` that lets the others take their turn after some epochs of a training.

    A training that compiles its step takes seconds to get ready, so that it is not begun anew for each turn.

    Args:
        turns: of the others.
        name: of the training.
        epochs: of the training, in a turn.
    """

    def __init__(self, turns: Turns, name: str, epochs: int = 1) -> None:
        self._turns, self._name, self._epochs = turns, name, epochs
        self._seconds = 0.0

    def log_metrics(self, row: Mapping[str, Any], step: int) -> None:
        """Add an epoch; where a turn is full, let the others work, with a parameter store of their own."""
        self._seconds += row["seconds"]
        if step % self._epochs == 0:
            self._turns.seconds[self._name].append(self._seconds)
            with pyro.get_param_store().scope():
                self._turns.take()
            self._seconds = 0.0


def side_by_side(ways: Mapping[str, Way], turns: int) -> dict[str, Spread]:
    """The seconds of every contender in so many turns.

    Args:
        ways: what each does, by its name.
        turns: that count; one more warms up.
    """
    taken = Turns(ways)
    for _ in range(turns + 1):
        taken.take()
    return taken.spreads()
