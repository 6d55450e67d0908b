"""The page of a run of the bench, and its figure, made from the JSON that the run has left.

``python -m ppvae.experiments.bench.bench_page`` writes ``benchmarks/README.md`` and its figure anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ppvae.storage import atomic_path, write_text

from .bench_record import BenchRecord, Tasks
from .bench_tables import COLUMNS, matrix_rate, milliseconds, task_rows
from .growth_curves import Growth, GrowthCurve
from .operator_profiles import OperatorProfile

RECORDED = Path("benchmarks")
FIGURE = "growth.png"

HEAD = """# Benchmarks

How long ppvae takes for a step of SVI, for log weights and for annealed chains, beside Pyro's own classes, plain torch,
NumPyro and pythae; and how time and memory grow. `make bench` measures it, and this page is made from what
the recorded run has left in `bench.json`.

```
pip install -c constraints.txt -e '.[dev,peers]'      # NumPyro and pythae, where they are to be timed too
make bench                                            # one thread; the result stays in build/bench/
make bench ARGS="--threads 1 2 --record"              # one and two threads; renews benchmarks/, this page too
make bench ARGS=--profiles                            # prints the profiles alone
python -m ppvae.experiments.bench.bench_page          # writes this page again from bench.json
```
"""

TRIAL = "**This was a trial at tiny sizes. Its numbers say nothing about the speed.**\n"

HOW = """## Side by side

In a turn each contender does the same work once, on the same networks, the same data and as many threads. The first
turn warms up; of the others the table has the median and the quartiles, of {turns} turns. For each number of threads
all of this runs in a process of its own, one after the other. *Ratio* is that of the medians to plain torch, written by
hand for this one model; where there is none, to Pyro's own `SVI`. *Of the rate*: the operations of the decoder's matrix
products, which no contender can do without, divided by the whole time, as a share of the rate at which this machine
multiplies large float32 matrices.

{cores}
`fit` puts the data in a new order in each epoch; others take them as they lie.

The VAE is 784-200-200-50 with tanh layers. Steps are those of Adam, without reading programs and compiling, which come
once in a training. pythae's `get_nll` runs on the networks of ours.
"""

KEPT = "Each process has no more cores than threads; else XLA would take all that there are."
FREE = """The processes may use all cores, and NumPyro does: XLA runs products side by side, whatever number of threads
it is told, so that its times for one thread are of up to two cores."""

GROWTH = """## Growth

![Seconds and peak memory against draws, data, latent size and width](growth.png)

Medians, with bands between the quartiles, of {turns} turns in a process for each point; one size grows, and the others
stay.

An estimate spends some time on finding out what the two programs are, whatever the size; in each turn it is measured
by the same estimate with two draws of two data (*fixed*). The slope is that of the log of the seconds beyond it against
the log of the size, by least squares ± its standard error: 1 is time that is linear. So is the slope of log MiB: 0 is
memory that is flat. Memory is the peak in one turn beyond what a process had after the tiny estimate, in which the C
library gives back at once what is freed; passes of more than 64 MiB are split, so that it may grow up to there.
"""

PROFILES = """## Profiles

By `torch.profiler`, with the first number of threads: for each operator how often it was called, and the time in it
without that of operators that it calls. What is between the operators is Python.
Code that inductor has fused is one operator, and its matrix products are others.
The eager step and the transitions by programs are how ppvae took all of them before it compiled them.
"""

BEFORE = """## Before

What earlier versions took, as recorded then: one thread of a Xeon at 2.5 GHz, medians in turns, not of this run.
"""

# What, then, and beside it.
RECORDED_BEFORE = (
    (
        "a step of SVI, VAE, 128 data, before steps were compiled",
        "11.2 – 12.8 ms",
        "Pyro's `SVI` 12.0 – 12.7 ms, plain torch 8.8 – 9.8 ms, NumPyro 4.9 – 5.1 ms",
    ),
    (
        "log densities with gradients, 16 chains for 40 data, before they were compiled",
        "23.4 ms",
        "their matrix products alone 7.8 ms",
    ),
    ("the same in another run: by programs, compiled", "18.3 ms, 10.7 ms", "their matrix products alone 5.3 ms"),
    (
        "5 transitions with their first draws: by programs, compiled",
        "421 ms, 274 ms",
        "plain torch 366 ms, matrix products alone 117 ms",
    ),
)


def page(record: BenchRecord) -> str:
    """The page as Markdown.

    Args:
        record: what a run has measured.
    """
    parts = [HEAD, *([TRIAL] if record.small else []), _machine(record)]
    spreads = [spread for tasks in record.tasks.values() for task in tasks.values() for spread in task.seconds.values()]
    cores = KEPT if record.cores_kept else FREE
    parts.append(HOW.format(turns=_numbers(spread.turns for spread in spreads), cores=cores))
    parts += [_tasks(tasks, threads) for threads, tasks in record.tasks.items()]
    parts += [_growth(record.growth)] if record.growth else []
    parts += [PROFILES, *map(_profile, record.profiles)] if record.profiles else []
    return "\n".join([*parts, BEFORE, _table(("what", "then", "beside it"), RECORDED_BEFORE, left=3)])


def write_pages(folder: Path) -> None:
    """Write the page and the figure of the run whose ``bench.json`` the folder holds, into the folder.

    Raises:
        RunError: they cannot be written.
    """
    from ..figures.growth_figures import growth_figure  # matplotlib is slow to import

    record = BenchRecord.read(folder / "bench.json")
    if record.growth:
        with atomic_path(folder / FIGURE) as file:
            growth_figure(record.growth).savefig(file, dpi=150)
    write_text(folder / "README.md", page(record))


def _machine(record: BenchRecord) -> str:
    known = record.machine
    versions = [f"{name} {known[name]}" for name in known if name not in {"processor", "cores", "system"}]
    where = f"{known['processor']}, {known['cores']} cores, {known['system']}"
    return f"Measured on {record.date[:10]} on {where}; {', '.join(versions)}.\n"


def _tasks(tasks: Tasks, threads: int) -> str:
    rate, before, rows = matrix_rate(tasks), None, []
    for row in task_rows(tasks):
        rows.append((row.task if row.task != before else "", *row.cells[1:]))
        before = row.task
    title = f"### {threads} thread{'s' if threads > 1 else ''}\n"
    said = f"\nFloat32 products run at {rate / 1e9:.0f} Gflop/s.\n" if rate else ""
    return f"{title}{said}\n{_table(COLUMNS, rows, left=2)}"


def _growth(found: Sequence[Growth]) -> str:
    rows = []
    for one in found:
        seconds, peaks = ([f"{spread.median:.2g}" for spread in row] for row in (one.seconds, one.mebibytes))
        slopes = [f"{value:.2f} ± {error:.2f}" for value, error in (one.time_slope, one.memory_slope)]
        fixed = f"{np.median([spread.median for spread in one.tiny]):.2g}"
        cells = (
            _stays(one.curve),
            ", ".join(map(str, one.curve.sizes)),
            ", ".join(seconds),
            fixed,
            slopes[0],
            ", ".join(peaks),
            slopes[1],
        )
        rows.append((f"`{one.curve.setting.estimator}` against `{one.curve.along}`", *cells))
    turns = _numbers(spread.turns for one in found for spread in one.seconds)
    columns = ("curve", "others", "sizes", "seconds", "fixed", "slope", "MiB", "slope of MiB")
    return f"{GROWTH.format(turns=turns)}\n{_table(columns, rows, left=3)}"


def _stays(curve: GrowthCurve) -> str:
    """The sizes that do not grow."""
    names = {"num_draws": "draws", "num_data": "data", "latent_dim": "latents", "width": "units"}
    rest = [f"{getattr(curve.setting, name)} {word}" for name, word in names.items() if name != curve.along]
    return ", ".join(rest)


def _profile(one: OperatorProfile) -> str:
    rows = []
    for row in one.operators:
        rows.append(
            (
                f"`{row.name}`" if row.calls else row.name,
                str(row.calls or ""),
                milliseconds(row.seconds),
                one.share_of(row),
            )
        )
    columns = ("operator", "calls", "ms", "share")
    return f"### {one.work}: {milliseconds(one.seconds)} ms\n\n{_table(columns, rows, left=1)}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> str:
    """A Markdown table, whose first columns stand to the left and the others to the right."""
    rule = ["---"] * left + ["---:"] * (len(columns) - left)
    lines = [columns, rule, *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _numbers(values: Iterable[int]) -> str:
    return " or ".join(str(value) for value in sorted(set(values)))


if __name__ == "__main__":
    write_pages(RECORDED)
