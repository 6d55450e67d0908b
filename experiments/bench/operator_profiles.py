"""Which operators of torch take the time of a training step, of log weights, and of a transition of annealing.

By ``torch.profiler``: for each operator how often it was called, and the seconds in it without those of operators that
it calls. What is left of the whole is Python. Code that inductor has fused is one operator, and its matrix products are
others. ``python -m ppvae.experiments.bench --profiles`` prints the tables alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from ppvae.inference import fit, importance_evidence
from ppvae.inference.pair import Pair
from ppvae.inference.sampling import forward, tune
from ppvae.percent import percent

from .evidence_speed import EvidenceSizes, compiled_density
from .fresh_process import answer
from .step_pairs import pixels, vae_for

REST, FUSED = "between the operators", "code that inductor has fused"
NUM_SHOWN = 8


@dataclass(frozen=True)
class OperatorTime:
    """What one operator took."""

    name: str
    calls: int
    seconds: float


@dataclass(frozen=True)
class OperatorProfile:
    """The operators that took most of some work.

    Attributes:
        work: in words.
        seconds: of all of it, while it was profiled.
        operators: from the one that took most on, and at last what was spent between them.
    """

    work: str
    seconds: float
    operators: tuple[OperatorTime, ...]

    @classmethod
    def of(cls, work: str, seconds: float, profiler: Any) -> OperatorProfile:
        """From a profiler that has stopped."""
        events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
        found = [OperatorTime(_name(event.key), event.count, event.self_cpu_time_total / 1e6) for event in events]
        rest = OperatorTime(REST, 0, max(0.0, seconds - sum(one.seconds for one in found)))
        return cls(work, seconds, (*found[:NUM_SHOWN], rest))

    def share_of(self, operator: OperatorTime) -> str:
        """An operator's share of all of it, as per cent."""
        return percent(operator.seconds / self.seconds if self.seconds else 0.0)

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> OperatorProfile:
        """From what :func:`dataclasses.asdict` made of one."""
        return cls(record["work"], record["seconds"], tuple(OperatorTime(**row) for row in record["operators"]))


def measure_profiles(small: bool, compiled: bool) -> list[dict[str, Any]]:
    """The profiles of all work, as dictionaries.

    Args:
        small: at sizes that say nothing, for a trial.
        compiled: with compiled code too, which takes half a minute.
    """
    sizes = EvidenceSizes(2, 50, 2, 2, 3) if small else EvidenceSizes()
    batch, steps = (4, 2) if small else (128, 20)
    kinds = (False, True) if compiled else (False,)
    found = [profile_steps(batch, steps, kind) for kind in kinds]
    found.append(profile_weights(sizes))
    found += profile_transitions(sizes, kinds)
    return [asdict(one) for one in found]


class _SecondEpoch:
    """A logger that profiles the second epoch of a training."""

    def __init__(self) -> None:
        self.profiler, self.seconds = _profiler(), 0.0

    def log_metrics(self, row: Mapping[str, Any], step: int) -> None:
        if step == 1:
            self.profiler.start()
        elif step == 2:
            self.profiler.stop()
            self.seconds = row["seconds"]


def profile_steps(batch_size: int, steps: int, compiled: bool) -> OperatorProfile:
    """Steps of a training of the VAE."""
    x, logger = pixels(steps * batch_size), _SecondEpoch()
    pair = vae_for(x)
    options: dict[str, Any] = {"epochs": 2, "batch_size": batch_size, "progress": False}
    fit(pair.model, pair.guide, x, compile=compiled, loggers=[logger], **options)
    how = "compiled" if compiled else "eager"
    return OperatorProfile.of(f"{steps} steps of SVI, {batch_size} data each, {how}", logger.seconds, logger.profiler)


def profile_weights(sizes: EvidenceSizes) -> OperatorProfile:
    """log p̂(x) by draws of the guide."""
    x = pixels(sizes.num_data)
    pair = vae_for(x)
    return _profiled(
        f"importance_evidence, {sizes.num_particles} weights of each of {len(x)} data",
        lambda: importance_evidence(pair.model, pair.guide, x, sizes.num_particles),
    )


def profile_transitions(sizes: EvidenceSizes, kinds: Iterable[bool]) -> list[OperatorProfile]:
    """Transitions of annealing, by programs and compiled."""
    x, chains = pixels(sizes.num_annealed), sizes.num_chains
    pair, found = vae_for(x), []
    with Pair.on(pair.model, pair.guide, (x,), start="guide") as density:
        tuning = tune(density, "guide", sizes.num_distributions)
        for compiled in kinds:
            one = compiled_density(density) if compiled else density
            made = f"{sizes.num_distributions - 1} transitions of {chains} chains for {len(x)} data"
            how = "compiled" if compiled else "by programs"
            found.append(_profiled(f"{made}, {how}", partial(forward, one, tuning, "guide", chains)))
    return found


def profile_table(one: OperatorProfile) -> Table:
    """The operators with their calls, milliseconds and shares of the whole."""
    shown = Table(title=f"{one.work}: {1000 * one.seconds:.0f} ms under the profiler")
    for column in ("operator", "calls", "ms", "share"):
        shown.add_column(column, justify="left" if column == "operator" else "right")
    for row in one.operators:
        shown.add_row(row.name, str(row.calls or ""), f"{1000 * row.seconds:.1f}", one.share_of(row))
    return shown


def _profiled(work: str, run: Callable[[], object]) -> OperatorProfile:
    run()  # warms up
    with _profiler() as profiler:
        started = time.perf_counter()
        run()
        seconds = time.perf_counter() - started
    return OperatorProfile.of(work, seconds, profiler)


def _name(key: str) -> str:
    return FUSED if "CompiledFxGraph" in key else key


def _profiler() -> Any:
    return profile(activities=[ProfilerActivity.CPU])


if __name__ == "__main__" and len(sys.argv) == 2:
    answer(measure_profiles)
