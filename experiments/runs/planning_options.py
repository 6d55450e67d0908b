"""The options of `ppvae sweep` and `ppvae plan`; see :mod:`.command_options`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ppvae.errors import OptionError
from ppvae.storage import check_count


@dataclass(frozen=True)
class SweepOptions:
    """How many trials a sweep takes, and where it is kept.

    Args:
        trials: in all, those of other processes and those that were given up or failed included.
        out: folder that holds the sweeps.
        name: of the sweep's folder, which all its processes share; null takes that of the file.
    """

    trials: int = 30
    out: str = "sweeps"
    name: str | None = None

    def check(self) -> None:
        """Raise OptionError where a number cannot be used."""
        check_count("trials", self.trials)


@dataclass(frozen=True)
class PlanOptions:
    """The evaluation that is planned, and the pilot that tells what it costs.

    Args:
        data: how many data are to be evaluated.
        tolerance: to which log p(x) is to be estimated: half the width of a datum's 95 % interval, in nats.
        hours: within which it is to end; null says it for some numbers of workers.
        pilot: data that the pilot evaluates, drawn at random from the test data.
        seed: of the pilot; null takes that of the run.
    """

    data: int = 10000
    tolerance: float = 0.1
    hours: float | None = None
    pilot: int = 100
    seed: int | None = None

    def check(self) -> None:
        """Raise OptionError where a number cannot be used."""
        check_count("data", self.data)
        check_count("pilot", self.pilot, least=10)
        if self.hours is not None and not 0 < self.hours < math.inf:
            raise OptionError(f"hours must be a positive number; it is {self.hours}.")
