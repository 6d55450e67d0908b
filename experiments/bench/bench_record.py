"""The file that a run of the bench leaves: medians and quartiles with machine and versions, and what has changed."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.table import Table

from ppvae.storage import write_json

from .fresh_process import CORES_KEPT
from .growth_curves import FIELDS, Growth, GrowthCurve, GrowthSetting
from .operator_profiles import OperatorProfile
from .side_by_side import Spread, Timed

Tasks = dict[str, Timed]

# Changes of a ratio by more than this are shown: medians of a busy machine differ by a tenth.
NOTABLE = 1.15
# What the ratios are taken to: the first that has done the task.
BASES = ("plain torch", "pyro.infer.SVI")
LIBRARIES = ("torch", "pyro-ppl", "numpy", "numpyro", "jax", "pythae")


@dataclass(frozen=True)
class BenchRecord:
    """What a run of the bench has measured, and on what.

    Attributes:
        machine: processor, cores, Python and versions.
        date: when it ended, UTC.
        small: whether the sizes were those of a trial, which say nothing.
        tasks: what took how long, by the number of threads.
        growth: the curves, with the first of these numbers of threads.
        profiles: of the operators, as well.
        cores_kept: whether each process had no more cores than threads.
    """

    machine: dict[str, Any]
    date: str
    small: bool
    tasks: dict[int, Tasks]
    growth: list[Growth] = field(default_factory=list)
    profiles: list[OperatorProfile] = field(default_factory=list)
    cores_kept: bool = CORES_KEPT

    def keep(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> BenchRecord:
        """What :meth:`keep` has written."""
        kept = json.loads(path.read_text(encoding="utf-8"))
        tasks = {int(threads): read_tasks(each) for threads, each in kept["tasks"].items()}
        profiles = [OperatorProfile.read(one) for one in kept["profiles"]]
        growth = [_growth(one) for one in kept["growth"]]
        cores_kept = kept.get("cores_kept", False)  # runs of earlier code
        return cls(kept["machine"], kept["date"], kept["small"], tasks, growth, profiles, cores_kept)


def read_tasks(kept: Mapping[str, Any]) -> Tasks:
    """From what :func:`dataclasses.asdict` made of them."""
    return {
        name: Timed({by: Spread(**spread) for by, spread in task["seconds"].items()}, task["flops"])
        for name, task in kept.items()
    }


def _growth(kept: Mapping[str, Any]) -> Growth:
    curve = kept["curve"]
    made = GrowthCurve(GrowthSetting(**curve["setting"]), curve["along"], tuple(curve["sizes"]))
    seconds, tiny, mebibytes = (tuple(Spread(**one) for one in kept[name]) for name in FIELDS)
    return Growth(made, seconds, tiny, mebibytes)


def now() -> str:
    """The time of day, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def machine() -> dict[str, Any]:
    """What the seconds depend on beside the code."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: found for name in LIBRARIES if (found := _version(name))},
    }


def _processor() -> str:
    """The name of the processor, which Linux alone says in a file."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def base(task: Timed) -> float | None:
    """The median that ratios of a task are taken to; None where it has none."""
    return next((task.seconds[name].median for name in BASES if name in task.seconds), None)


def changes(record: BenchRecord, before: BenchRecord) -> str | Table:
    """What has changed since another run: ratios to plain torch's, which a slower machine leaves as they are.

    Args:
        record: of this run.
        before: of the other.
    """
    same = record.machine == before.machine
    title = f"Ratios that changed since the run of {before.date[:10]}"
    out = Table(title=title + ("" if same else ", which had another machine or other versions"))
    for column in ("threads", "task", "by", "before", "now"):
        out.add_column(column, justify="right" if column in {"before", "now"} else "left")
    for threads, tasks in record.tasks.items():
        for name, was, now in _ratios(tasks, before.tasks.get(threads, {})):
            if not 1 / NOTABLE < now / was < NOTABLE:
                out.add_row(str(threads), *name, f"{was:.2f}", f"{now:.2f}")
    return out if out.row_count else "No ratio changed by more than a seventh since the run before."


def _ratios(tasks: Tasks, before: Tasks) -> list[tuple[tuple[str, str], float, float]]:
    """Task and contender, and the ratios before and now, of those that both runs have."""
    found = []
    for name in tasks.keys() & before.keys():
        was, now = base(before[name]), base(tasks[name])
        if was is not None and now is not None:
            both = tasks[name].seconds.keys() & before[name].seconds.keys()
            found += [
                ((name, by), before[name].seconds[by].median / was, tasks[name].seconds[by].median / now)
                for by in sorted(both)
            ]
    return found
