"""All tasks of the bench that are timed side by side, with their sizes; they run in one process with its threads."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from .evidence_speed import EvidenceSizes, evidence_tasks
from .fresh_process import answer
from .side_by_side import Timed
from .step_pairs import STEP_PAIRS, pixels
from .training_steps import pair_steps, vae_steps


@dataclass(frozen=True)
class BenchSizes:
    """How much work a turn is, and how many turns there are.

    Attributes:
        vae_batches: data in a step of the VAE, and steps in a turn.
        pairs: of :data:`.step_pairs.STEP_PAIRS`, that are trained.
        pair_batch: data in a step of theirs.
        pair_steps: in a turn.
        evidence: of log weights and chains.
        turns: that count; one more warms up.
    """

    vae_batches: tuple[tuple[int, int], ...] = ((20, 40), (128, 20), (1024, 4))
    pairs: tuple[str, ...] = tuple(STEP_PAIRS)
    pair_batch: int = 128
    pair_steps: int = 10
    evidence: EvidenceSizes = field(default_factory=EvidenceSizes)
    turns: int = 7


# Sizes of a trial, which takes a minute and whose numbers say nothing.
SMALL = BenchSizes(
    ((4, 2), (3, 2)), ("logistic regression, AutoNormal",), 4, 2, EvidenceSizes(2, 100, 2, 2, 3, 3, 64), 2
)


def measure_tasks(small: bool, compiled: bool) -> dict[str, Any]:
    """What each task took, by its name, as dictionaries; says how far it is on standard error.

    Args:
        small: at the sizes of a trial.
        compiled: with those that compile, which takes minutes.
    """
    found, started = {}, time.monotonic()
    for name, task in tasks(SMALL if small else BenchSizes(), compiled):
        found[name] = asdict(task)
        say(f"threads {torch.get_num_threads()}, after {time.monotonic() - started:.0f} s: {name}")
    return found


def tasks(sizes: BenchSizes, compiled: bool) -> Iterator[tuple[str, Timed]]:
    """What each task is called, and what it took; one after the other."""
    for batch, steps in sizes.vae_batches:
        torch.manual_seed(0)
        yield f"a step of SVI, VAE, {batch} data", Timed(vae_steps(pixels(batch * steps), batch, sizes.turns, compiled))
    for name in sizes.pairs:
        spreads = pair_steps(STEP_PAIRS[name], sizes.pair_batch, sizes.pair_steps, sizes.turns, compiled)
        yield f"a step of SVI, {name}, {sizes.pair_batch} data", Timed(spreads)
    yield from evidence_tasks(sizes.evidence, sizes.turns, compiled)


def say(line: str) -> None:
    """A line about the progress, on standard error."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__" and len(sys.argv) == 2:
    answer(measure_tasks)
