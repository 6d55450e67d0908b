"""What an evaluation of many data would cost, from a pilot on few of them.

The pilot estimates log p(x) to the tolerance as `ppvae evaluate` does, on four portions of data drawn at random, whose
sizes n_i are in the ratio 1 : 2 : 3 : 4, and takes the time s_i of each. A portion costs something beside its data:
with the line s = a + b·n through the four, an evaluation in portions of 100 costs

    core seconds of N data = N · (a + 100·b)/100 + W · startup,

where each of W workers takes the startup to import and to load the run. The interval is that of the line at n = 100,
with t of 2 degrees of freedom; the cost per datum is at most that of the largest portion, which larger ones share.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from ppvae.errors import OptionError
from ppvae.inference import Evidence, estimate_evidence, importance_evidence
from ppvae.percent import percent
from ppvae.progress import Progress
from ppvae.storage import RunDirectory

from .estimate import PORTION
from .planning_options import PlanOptions
from .saved_run import SavedRun, load_run

# Sizes of the pilot's portions, as shares of it.
SHARES = (0.1, 0.2, 0.3, 0.4)
WORKERS = (1, 4, 16, 64, 256, 1024)


@dataclass(frozen=True)
class EvaluationPlan:
    """What an evaluation costs.

    Attributes:
        num_data: how many data are to be evaluated.
        tolerance: to which, in nats.
        sizes: data of each portion of the pilot.
        seconds: of one core, for each portion.
        startup: of one core until a worker begins, in seconds.
        spread: standard deviation of log p(x) over the data of the pilot, in nats.
        settled: share of the pilot's data that reached the tolerance.
        datum_bytes: of one datum, as it is read.
        device: what the pilot ran on; on a processor a second is that of one core, elsewhere that of the device.

    Example:
        >>> plan = EvaluationPlan(1_000_000, 0.1, (10, 20, 30, 40), (7, 11, 17, 21), 10.0, 20.0, 1.0, 256, "cpu")
        >>> round(plan.per_datum, 2), round(plan.error, 2), [round(value) for value in plan.core_hours(100)]
        (0.5, 0.09, [114, 139, 165])
        >>> plan.workers_for(2.0), plan.standard_error
        (70, 0.02)
    """

    num_data: int
    tolerance: float
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    startup: float
    spread: float
    settled: float
    datum_bytes: int
    device: str

    @property
    def per_datum(self) -> float:
        """Core seconds per datum, in portions of the evaluation's size."""
        largest = self.seconds[-1]
        return min(max(self._line()[0] / PORTION, largest / max(PORTION, self.sizes[-1])), largest / self.sizes[-1])

    @property
    def error(self) -> float:
        """Half the width of the 95 % interval of :attr:`per_datum`."""
        from scipy.stats import t  # slow to import

        return float(t.ppf(0.975, len(self.sizes) - 2)) * self._line()[1] / PORTION

    def _line(self) -> tuple[float, float]:
        """The fitted line at the size of the evaluation's portions, and its standard error."""
        n, s = np.asarray(self.sizes, dtype=float), np.asarray(self.seconds)
        slope, start = np.polyfit(n, s, 1)
        variance = float(((s - start - slope * n) ** 2).sum()) / (len(n) - 2)
        away = (PORTION - n.mean()) ** 2 / ((n - n.mean()) ** 2).sum()
        return float(start + slope * PORTION), math.sqrt(variance * (1 / len(n) + float(away)))

    @property
    def standard_error(self) -> float:
        """The standard error of the mean of log p(x) over all data, in nats, from the spread between data."""
        return self.spread / math.sqrt(self.num_data)

    def core_hours(self, workers: int = 1) -> tuple[float, float, float]:
        """Core hours of the evaluation: low, expected and high."""
        starts = workers * self.startup
        low = max(self.per_datum - self.error, 0.0)
        all_three = (low, self.per_datum, self.per_datum + self.error)
        return tuple((self.num_data * one + starts) / 3600 for one in all_three)  # type: ignore[return-value]

    def hours(self, workers: int) -> float:
        """Hours until the last of so many workers ends, if each takes the same share."""
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
            table.add_column(name, justify="right" if i else "left", no_wrap=i > 0)
        for workers in [count for count in WORKERS if count <= self.num_data]:
            low, expected, high = self.core_hours(workers)
            table.add_row(str(workers), f"{self.hours(workers):.3g}", f"{expected:.3g} [{low:.3g}, {high:.3g}]")
        return table

    def remarks(self, hours: float | None = None) -> list[str]:
        """Remarks on the plan, a sentence each."""
        found = [
            f"{self.per_datum:.3g} ± {self.error:.2g} core seconds per datum, and {self.startup:.0f} s until a worker "
            f"begins, on this machine ({self.device}).",
            f"the mean of log p(x) will have a standard error of {self.standard_error:.2g} nats from the spread between"
            f" data; {percent(self.settled)} of the pilot's data reached the tolerance.",
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
        raise OptionError(
            "this run has no held-out data: `ppvae evaluate` measures all of it at once, and nothing is to be planned."
        )
    sizes = [round(share * min(options.pilot, len(run.x))) for share in SHARES]
    if sizes[0] < 1 or len(set(sizes)) < len(SHARES):
        raise OptionError(
            f"a pilot takes 10 data or more; the run has {len(run.x)} to evaluate: `ppvae evaluate` measures them."
        )
    clock = time.process_time if run.x.device.type == "cpu" else time.monotonic
    order = torch.randperm(len(run.x), generator=torch.Generator().manual_seed(run.settings.seed))
    _measured(run, order[:2], options.tolerance)  # what is done once in a process
    startup, seconds, found = time.process_time(), [], []
    with Progress("pilot", sum(sizes), "data") as bar:
        for index in order[: sum(sizes)].split(sizes):
            began = clock()
            found.append(_measured(run, index, options.tolerance))
            seconds.append(clock() - began)
            bar.advance(len(index))
    settled = sum(one.summary()["settled_share"] * n for one, n in zip(found, sizes, strict=True)) / sum(sizes)
    return EvaluationPlan(
        num_data=options.data,
        tolerance=options.tolerance,
        sizes=tuple(sizes),
        seconds=tuple(seconds),
        startup=startup,
        spread=float(torch.cat([one.log_evidence for one in found]).double().std()),
        settled=settled,
        datum_bytes=sum(part[0].numel() * part.element_size() for part in run.batch if len(part) == len(run.x)),
        device=run.x.device.type,
    )


def _measured(run: SavedRun, index: Tensor, tolerance: float) -> Evidence:
    """What an evaluation does with a portion: log p(x) to the tolerance, and draws of the guide."""
    batch, seed = run.data.rows(run.batch, index), run.settings.seed
    importance_evidence(run.pair.model, run.pair.guide, batch, run.settings.num_particles, seed=seed)
    return estimate_evidence(run.pair.model, run.pair.guide, batch, tolerance=tolerance, seed=seed)


def _size(num_bytes: float) -> str:
    """A number of bytes in words."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if num_bytes < 1000 or unit == "TB":
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    raise AssertionError
