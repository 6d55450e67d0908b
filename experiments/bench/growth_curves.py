"""How seconds and peak memory of the estimators grow with draws, chains, data, latent size and width of the networks.

Each point of a curve is measured in a fresh process: the estimate is made at a tiny size (two draws of two data), which
warms up, and then in each turn at the tiny size and at its own. Memory is the peak above what another process had after
warming up, in which the C library gives back at once what is freed: else the peak is that of what it keeps for later.
The slope of the log of the seconds beyond those at the tiny size, which find out what the two programs
are, against log size is fitted by least squares; 1 is time that is linear. So is that of log MiB; 0 is memory that is
flat.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from rich.table import Table

from ppvae.inference import annealed_evidence, importance_evidence
from ppvae.models import VAE, Bernoulli

from .fresh_process import answer, ask
from .peak_memory import PeakMemory
from .side_by_side import Spread
from .step_pairs import pixels

# What is measured at a size.
FIELDS = ("seconds", "tiny", "mebibytes")
# For glibc: large blocks are taken from the system one by one, and go back to it when they are freed.
GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}

Estimator = Literal["importance_evidence", "annealed_evidence"]


@dataclass(frozen=True)
class GrowthSetting:
    """One estimate.

    Attributes:
        estimator: which.
        num_draws: particles or chains per datum.
        num_data: N.
        latent_dim: length of z.
        width: of the two hidden layers of encoder and decoder.
        num_distributions: of the annealing.
    """

    estimator: Estimator
    num_draws: int
    num_data: int
    latent_dim: int = 50
    width: int = 200
    num_distributions: int = 11


@dataclass(frozen=True)
class GrowthCurve:
    """Estimates that differ in one size.

    Attributes:
        setting: the others' sizes.
        along: the field of the setting that differs.
        sizes: its values, rising.
    """

    setting: GrowthSetting
    along: str
    sizes: tuple[int, ...]

    @property
    def name(self) -> str:
        """What grows in which estimator."""
        return f"{self.setting.estimator} against {self.along}"


@dataclass(frozen=True)
class Growth:
    """A curve with what was measured at each of its sizes: seconds there and at the tiny size, and the peak memory."""

    curve: GrowthCurve
    seconds: tuple[Spread, ...]
    tiny: tuple[Spread, ...]
    mebibytes: tuple[Spread, ...]

    @property
    def time_slope(self) -> tuple[float, float]:
        """Of the log of the seconds beyond those at the tiny size against log size, with its standard error."""
        both = zip(self.seconds, self.tiny, strict=True)
        return slope(self.curve.sizes, [whole.median - tiny.median for whole, tiny in both])

    @property
    def memory_slope(self) -> tuple[float, float]:
        """Of log MiB against log size, with its standard error."""
        return slope(self.curve.sizes, [spread.median for spread in self.mebibytes])


_IMPORTANCE = GrowthSetting("importance_evidence", num_draws=5000, num_data=4)
_ANNEALED = GrowthSetting("annealed_evidence", num_draws=16, num_data=8, num_distributions=6)
CURVES = (
    GrowthCurve(_IMPORTANCE, "num_draws", (10_000, 20_000, 40_000, 80_000)),
    GrowthCurve(replace(_IMPORTANCE, num_draws=1000), "num_data", (64, 128, 256, 512)),
    GrowthCurve(_IMPORTANCE, "latent_dim", (25, 50, 100, 200)),
    GrowthCurve(_IMPORTANCE, "width", (100, 200, 400, 800)),
    GrowthCurve(_ANNEALED, "num_draws", (64, 128, 256, 512)),
    GrowthCurve(_ANNEALED, "num_data", (32, 64, 128, 256)),
)
# The same at sizes that take seconds, for a trial.
SMALL_CURVES = (
    GrowthCurve(replace(_IMPORTANCE, num_draws=100, num_data=2), "num_draws", (100, 200, 400)),
    GrowthCurve(replace(_ANNEALED, num_draws=2, num_data=2, num_distributions=3), "num_data", (2, 4, 8)),
)


def measure_growth(curve: GrowthCurve, turns: int, threads: int) -> Growth:
    """Two processes for each size, one after the other: for the seconds, and for the memory in one turn."""
    settings = [asdict(curve.setting) | {curve.along: size} for size in curve.sizes]
    times = [ask(__spec__.name, {"setting": one, "turns": turns}, threads) for one in settings]
    sizes = [ask(__spec__.name, {"setting": one, "turns": 1}, threads, GIVEN_BACK) for one in settings]
    seconds, tiny = (tuple(Spread.of(one[name]) for one in times) for name in FIELDS[:2])
    return Growth(curve, seconds, tiny, tuple(Spread.of(one["mebibytes"]) for one in sizes))


def measure_setting(setting: dict[str, Any], turns: int) -> dict[str, list[float]]:
    """Seconds of an estimate, those at the tiny size, and the estimate's peak MiB, in each turn.

    Args:
        setting: the fields of a :class:`GrowthSetting`.
        turns: that count.
    """
    one = GrowthSetting(**setting)
    x = pixels(one.num_data)
    pair = VAE.for_data(x, Bernoulli(), latent_dim=one.latent_dim, hidden=(one.width, one.width))
    tiny, work = _estimate(pair, x[:2], replace(one, num_draws=2)), _estimate(pair, x, one)
    tiny()
    memory = PeakMemory()
    found: dict[str, list[float]] = {name: [] for name in FIELDS}
    for _ in range(turns):
        times = [time.perf_counter()]
        tiny()
        times.append(time.perf_counter())
        found["mebibytes"].append(memory.of(work))
        times.append(time.perf_counter())
        found["tiny"].append(times[1] - times[0])
        found["seconds"].append(times[2] - times[1])
    return found


def _estimate(pair: VAE, x: Any, setting: GrowthSetting) -> Callable[[], object]:
    model, guide, draws = pair.model, pair.guide, setting.num_draws
    if setting.estimator == "importance_evidence":
        return lambda: importance_evidence(model, guide, x, draws)
    return lambda: annealed_evidence(model, guide, x, draws, setting.num_distributions, compile=False)


def slope(sizes: tuple[int, ...], values: list[float]) -> tuple[float, float]:
    """Slope of log value against log size by least squares, and its standard error (NaN for two sizes or zeros)."""
    if min(values) <= 0:
        return math.nan, math.nan
    a, b = np.log(np.asarray(sizes, float)), np.log(np.asarray(values))
    a = a - a.mean()
    found = float(a @ b / (a @ a))
    rest = b - b.mean() - found * a
    degrees = len(a) - 2
    return found, math.sqrt(float(rest @ rest) / degrees / float(a @ a)) if degrees > 0 else math.nan


def growth_table(found: list[Growth]) -> Table:
    """A row for each curve: the sizes, what the ends took, and the slopes."""
    shown = Table("curve", "sizes", "seconds", "slope", "MiB", "slope of MiB", title="Growth")
    for growth in found:
        ends = [f"{row[0].median:.3g} … {row[-1].median:.3g}" for row in (growth.seconds, growth.mebibytes)]
        slopes = ["{:.2f} ± {:.2f}".format(*pair) for pair in (growth.time_slope, growth.memory_slope)]
        sizes = ", ".join(map(str, growth.curve.sizes))
        shown.add_row(growth.curve.name, sizes, ends[0], slopes[0], ends[1], slopes[1])
    return shown


if __name__ == "__main__" and len(sys.argv) == 2:
    answer(measure_setting)
