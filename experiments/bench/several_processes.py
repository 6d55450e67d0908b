"""How well several processes share a training: the time of a step by one process and by several.

With t₁(B) the time of a step on B rows by one process, and t_n(B) that of n processes on B rows each,

    weak efficiency = t₁(B) / t_n(B)        strong efficiency = t₁(nB) / (n t_n(B))

One thread a process; the steps are those of a pair of :mod:`ppvae.models` on 784 pixels. Trainings take turns, each in
processes of its own, and a time is the median over epochs and turns.
``python -m ppvae.experiments.bench.several_processes`` runs it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ppvae.errors import RunError
from ppvae.inference import Compute, fit
from ppvae.models import Bernoulli, ConvolutionalVAE

from .step_pairs import vae_for

PAIRS: dict[str, Callable[[Tensor], Any]] = {
    "VAE 784-200-200-50": vae_for,
    "ConvolutionalVAE": lambda x: ConvolutionalVAE.for_data(x, Bernoulli()),
}
NUM_FEATURES = 784
MARK = "seconds of a step: "


@dataclass(frozen=True)
class Config:
    """Which pairs on how many rows a process, how much work a turn is, and how many turns there are."""

    cases: tuple[tuple[str, int], ...] = (
        ("VAE 784-200-200-50", 400),
        ("VAE 784-200-200-50", 1200),
        ("ConvolutionalVAE", 100),
    )
    processes: int = 2
    steps: int = 12
    epochs: int = 6
    compiled: bool = False
    turns: int = 3


@dataclass(frozen=True)
class StepTimes:
    """Seconds of a step: by one process on the rows of one and of all, and by all."""

    pair: str
    rows: int
    processes: int
    alone: float
    alone_on_all: float
    together: float

    @property
    def weak(self) -> float:
        """Efficiency at equal rows a process."""
        return self.alone / self.together

    @property
    def strong(self) -> float:
        """Efficiency at equal rows a step."""
        return self.alone_on_all / (self.processes * self.together)


def run(config: Config) -> list[StepTimes]:
    """A row for each case."""
    found = []
    for pair, rows in config.cases:
        kinds = ((1, rows), (config.processes, rows), (1, config.processes * rows))
        seconds: dict[tuple[int, int], list[float]] = {kind: [] for kind in kinds}
        for _ in range(config.turns):
            for processes, each in kinds:
                seconds[processes, each] += _measured(config, pair, processes, each)
        alone, together, alone_on_all = (statistics.median(seconds[kind]) for kind in kinds)
        found.append(StepTimes(pair, rows, config.processes, alone, alone_on_all, together))
    return found


def table(found: list[StepTimes]) -> Table:
    """What :func:`run` found, in milliseconds."""
    shown = Table("pair", "rows a process", "one process", "together", "one on all rows", "weak", "strong")
    for row in found:
        times = [f"{1000 * seconds:.1f} ms" for seconds in (row.alone, row.together, row.alone_on_all)]
        shown.add_row(row.pair, str(row.rows), *times, f"{row.weak:.2f}", f"{row.strong:.2f}")
    return shown


def _measured(config: Config, pair: str, processes: int, rows: int) -> list[float]:
    """Seconds of a step in each epoch but the first, of a training in processes of its own."""
    numbers = (processes, rows, config.steps, config.epochs, int(config.compiled))
    done = subprocess.run(
        [sys.executable, "-m", __spec__.name, pair, *map(str, numbers)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if not lines:
        said = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        raise RunError(f"a training on {processes} processes ended without a time ({said}): run it again.")
    epochs: list[float] = json.loads(lines[0].removeprefix(MARK))
    return epochs


class _Seconds:
    """A logger that keeps how long each epoch took."""

    def __init__(self) -> None:
        self.epochs: list[float] = []

    def log_metrics(self, row: Mapping[str, Any], step: int) -> None:
        self.epochs.append(row["seconds"])


def _train(name: str, processes: int, rows: int, steps: int, epochs: int, compiled: int) -> None:
    """Train, and let the first process print the seconds of a step in each epoch but the first."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.bernoulli(torch.full((steps * rows * processes, NUM_FEATURES), 0.13))
    pair, seconds = PAIRS[name](x), _Seconds()
    fit(
        pair.model,
        pair.guide,
        x,
        epochs=epochs,
        batch_size=rows * processes,
        progress=False,
        accelerator="cpu",
        compute=Compute(devices=processes),
        compile=bool(compiled),
        loggers=[seconds],
    )
    if seconds.epochs:
        print(MARK + json.dumps([epoch / steps for epoch in seconds.epochs[1:]]))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _train(sys.argv[1], *map(int, sys.argv[2:]))
    else:
        Console().print(table(run(Config())))
