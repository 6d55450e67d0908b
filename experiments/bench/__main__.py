"""The command of the bench: ``python -m ppvae.experiments.bench`` (``make bench``).

For each number of threads, one after the other, a fresh process times all contenders in turns. Then come the curves
of growth and the profiles, with the first of these numbers. The result is kept in ``build/bench/``, or with
``--record`` in ``benchmarks/``, as JSON with a figure and a page, and compared with the run before.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from .bench_page import write_pages
from .bench_record import BenchRecord, changes, machine, now, read_tasks
from .bench_tables import task_tables
from .bench_tasks import say
from .fresh_process import ask
from .growth_curves import CURVES, SMALL_CURVES, Growth, growth_table, measure_growth
from .operator_profiles import OperatorProfile, profile_table

# The last run's, and the recorded one's.
BUILD, RECORDED = Path("build/bench"), Path("benchmarks")
# In each process of a curve's points.
GROWTH_TURNS = 3


def main(words: list[str] | None = None) -> BenchRecord:
    """Run what the words of the command line ask for, print it and keep it."""
    options = _options(words)
    show = Console().print
    if options.profiles:
        record = BenchRecord(machine(), now(), options.small, {}, [], _profiles(options))
    else:
        record = _measured(options)
    for threads, tasks in record.tasks.items():
        for table in task_tables(tasks, threads):
            show(table)
    if record.growth:
        show(growth_table(record.growth))
    for one in record.profiles:
        show(profile_table(one))
    if not options.profiles:
        _keep(record, RECORDED if options.record else BUILD)
    return record


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", nargs="+", type=int, default=[1], help="numbers of threads, each by itself")
    parser.add_argument("--record", action="store_true", help="keep the result in benchmarks/, of the repository")
    parser.add_argument("--small", action="store_true", help="tiny sizes, as a trial: the numbers say nothing")
    parser.add_argument("--eager", action="store_true", help="without those that compile, which takes minutes")
    parser.add_argument("--profiles", action="store_true", help="print the profiles of the operators, and no more")
    return parser.parse_args(words)


def _measured(options: argparse.Namespace) -> BenchRecord:
    request = {"small": options.small, "compiled": not options.eager}
    tasks = {n: read_tasks(ask("ppvae.experiments.bench.bench_tasks", request, n)) for n in options.threads}
    growth: list[Growth] = []
    for curve in SMALL_CURVES if options.small else CURVES:
        say(f"growth: {curve.name}")
        growth.append(measure_growth(curve, GROWTH_TURNS, options.threads[0]))
    return BenchRecord(machine(), now(), options.small, tasks, growth, _profiles(options))


def _profiles(options: argparse.Namespace) -> list[OperatorProfile]:
    say("profiles")
    request = {"small": options.small, "compiled": not options.eager}
    found = ask("ppvae.experiments.bench.operator_profiles", request, options.threads[0])
    return [OperatorProfile.read(one) for one in found]


def _keep(record: BenchRecord, folder: Path) -> None:
    """Compare with the run before, which the folder or else the repository holds; then take its place."""
    known = next((file for path in (folder, RECORDED) if (file := path / "bench.json").is_file()), None)
    if known is None:
        Console().print("There is no earlier run to compare with.")
    else:
        Console().print(changes(record, BenchRecord.read(known)))
    record.keep(folder / "bench.json")
    write_pages(folder)
    Console().print(f"This run is kept in {folder}.")


if __name__ == "__main__":
    main()
