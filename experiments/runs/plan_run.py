"""What an evaluation of many data would cost, from a pilot on few of them.

The pilot estimates log p(x) to the tolerance as `ppvae evaluate` does, on P portions of n data drawn at random, and takes
the time of each. With c_i the core seconds per datum of portion i,

    core seconds of N data = N · (mean(c) ± t_{P−1} · sd(c)/√P) + W · s,

for W workers that each take s to start: to import, and to load the run.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from rich.table import Table

from ppvae.errors import OptionError
from ppvae.inference import estimate_evidence, importance_evidence
from ppvae.progress import Progress
from ppvae.storage import RunDirectory

from .command_options import PlanOptions
from .saved_run import load_run

# Portions of the pilot; their spread is the error of the plan.
PORTIONS = 4
WORKERS = (1, 4, 16, 64, 256, 1024)


@dataclass(frozen=True)
class EvaluationPlan:
    """What an evaluation costs.

    Attributes:
        num_data: how many data are to be evaluated.
        tolerance: to which, in nats.
        seconds: of one core per datum, one number for each portion of the pilot.
        startup: of one core until a worker begins, in seconds.
        spread: standard deviation of log p(x) over the data of the pilot, in nats.
        settled: share of the pilot's data that reached the tolerance.
        datum_bytes: of one datum, as it is read.
        device: what the pilot ran on; on a processor a second is that of one core, elsewhere that of the device.

    Example:
        >>> plan = EvaluationPlan(1_000_000, 0.1, (0.3, 0.5, 0.4, 0.4), 10.0, 20.0, 1.0, 256, "cpu")
        >>> [round(value) for value in plan.core_hours(100)], round(plan.hours(100), 1)
        ([75, 111, 147], 1.1)
        >>> plan.workers_for(1.0), plan.standard_error
        (112, 0.02)
    """

    num_data: int
    tolerance: float
    seconds: tuple[float, ...]
    startup: float
    spread: float
    settled: float
    datum_bytes: int
    device: str

    @property
    def per_datum(self) -> float:
        """Core seconds per datum."""
        return sum(self.seconds) / len(self.seconds)

    @property
    def error(self) -> float:
        """Half the width of its 95 % interval."""
        from scipy.stats import t  # slow to import

        n = len(self.seconds)
        variance = sum((one - self.per_datum) ** 2 for one in self.seconds) / (n - 1)
        return float(t.ppf(0.975, n - 1)) * math.sqrt(variance / n)

    @property
    def standard_error(self) -> float:
        """Of the mean of log p(x) over so many data, in nats: what the spread between data leaves."""
        return self.spread / math.sqrt(self.num_data)

    def core_hours(self, workers: int = 1) -> tuple[float, float, float]:
        """Low, expected and high."""
        starts = workers * self.startup
        low = max(self.per_datum - self.error, 0.0)
        all_three = (low, self.per_datum, self.per_datum + self.error)
        return tuple((self.num_data * one + starts) / 3600 for one in all_three)  # type: ignore[return-value]

    def hours(self, workers: int) -> float:
        """Until the last of so many workers ends, if each takes the same share."""
        return (self.startup + math.ceil(self.num_data / workers) * self.per_datum) / 3600

    def workers_for(self, hours: float) -> int | None:
        """How many workers end within so many hours; None where not even one datum each would do."""
        left = 3600 * hours - self.startup
        each = math.floor(left / self.per_datum) if left > 0 else 0
        return math.ceil(self.num_data / each) if each else None

    def table(self) -> Table:
        """The plan, to be printed by rich."""
        table = Table(title=f"log p(x) of {self.num_data:,} data to ± {self.tolerance:g} nats".replace(",", "\u202f"))
        for i, name in enumerate(("workers, one core each", "hours", "core-hours, 95 % interval")):
            table.add_column(name, justify="right" if i else "left")
        for workers in [count for count in WORKERS if count <= self.num_data]:
            low, expected, high = self.core_hours(workers)
            table.add_row(str(workers), f"{self.hours(workers):.3g}", f"{expected:.3g} [{low:.3g}, {high:.3g}]")
        return table

    def remarks(self, hours: float | None = None) -> list[str]:
        """What else is known, a sentence each."""
        found = [
            f"{self.per_datum:.3g} ± {self.error:.2g} core seconds per datum, and {self.startup:.0f} s until a worker "
            f"begins, on this machine ({self.device}).",
            f"the mean of log p(x) will have a standard error of {self.standard_error:.2g} nats from the spread between"
            f" data; {self.settled:.0%} of the pilot's data reached the tolerance.",
            f"the data are {_size(self.num_data * self.datum_bytes)}, and the results, 8 numbers a datum, "
            f"{_size(self.num_data * 64)}.",
        ]
        if hours is not None:
            workers = self.workers_for(hours)
            found.append(
                f"within {hours:g} hours no number of workers ends."
                if workers is None
                else f"{workers} worker{'s' * (workers > 1)} end{'s' * (workers == 1)} within {hours:g} hours."
            )
        return found


def plan_run(directory: RunDirectory, options: PlanOptions) -> EvaluationPlan:
    """Run the pilot on data of an earlier run.

    Args:
        directory: of the run.
        options: of the evaluation that is planned, and of the pilot.

    Raises:
        PpvaeError: the run cannot be had, or has one evidence for all of its data.
    """
    options.check()
    run = load_run(directory, tolerance=options.tolerance, seed=options.seed)
    if not run.data.data.divided:
        raise OptionError("this run has no held-out data: its evaluation is of all data at once, and is not divided.")
    size = min(options.pilot, len(run.x)) // PORTIONS
    if size < 1:
        raise OptionError(f"pilot must be {PORTIONS} data or more, and the run needs as many; it has {len(run.x)}.")
    cpu = run.x.device.type == "cpu"
    clock = time.process_time if cpu else time.monotonic
    order = torch.randperm(len(run.x), generator=torch.Generator().manual_seed(run.settings.seed))
    model, guide, num_particles = run.pair.model, run.pair.guide, run.settings.num_particles
    seconds, values, settled = [], [], []
    startup = 0.0
    with Progress("pilot", PORTIONS * size, "data") as bar:
        for number in range(-1, PORTIONS):
            index = order[: min(size, 2)] if number < 0 else order[number * size : (number + 1) * size]
            batch, began = run.data.rows(run.batch, index), clock()
            evidence = estimate_evidence(model, guide, batch, tolerance=options.tolerance, seed=run.settings.seed)
            importance_evidence(model, guide, batch, num_particles, seed=run.settings.seed)
            if number < 0:  # what is done once in a process
                startup = time.process_time()
                continue
            seconds.append((clock() - began) / size)
            values.append(evidence.log_evidence)
            settled.append(evidence.summary()["settled_share"])
            bar.advance(size)
    return EvaluationPlan(
        options.data,
        options.tolerance,
        tuple(seconds),
        startup,
        float(torch.cat(values).double().std()),
        sum(settled) / PORTIONS,
        sum(part[0].numel() * part.element_size() for part in run.batch if len(part) == len(run.x)),
        run.x.device.type,
    )


def _size(num_bytes: float) -> str:
    """A number of bytes in words."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if num_bytes < 1000 or unit == "TB":
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    raise AssertionError
