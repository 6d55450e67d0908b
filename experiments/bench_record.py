"""The medians of a bench kept in a file, with machine and versions, and compared with those of the run before."""

from __future__ import annotations

import json
import os
import platform
import resource
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

Result = dict[str, dict[str, float]]

# Changes of a ratio by more than this are shown: medians of a busy machine differ by a tenth.
NOTABLE = 1.15


def keep(result: Result, path: Path) -> None:
    """Write the medians, and what they were measured on, whole or not at all.

    Args:
        result: median seconds of every contender, by task.
        path: of the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".tmp")
    whole.write_text(json.dumps({"machine": machine(), "seconds": result}, indent=1))
    whole.replace(path)


def machine() -> dict[str, Any]:
    """What the medians depend on beside the code, and the peak memory of this process in MiB."""
    versions = {name: metadata.version(name) for name in ("torch", "pyro-ppl", "numpy")}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "peak_mb": round(peak),
        **versions,
    }


def changes(result: Result, path: Path) -> str | Table:
    """What has changed since the run before: ratios to plain torch's, which a slower machine leaves as they are.

    Args:
        result: median seconds of every contender, by task.
        path: of the file that the run before wrote.
    """
    if not path.is_file():
        return f"There is no earlier run to compare with; this one is kept in {path}."
    before = json.loads(path.read_text())
    title = "Ratios to plain torch that changed since the run before"
    same = {k: v for k, v in before["machine"].items() if k != "peak_mb"} == {
        k: v for k, v in machine().items() if k != "peak_mb"
    }
    out = Table(title=title + ("" if same else ", which had another machine or other versions"))
    for column in ("task", "by", "before", "now"):
        out.add_column(column, justify="right" if column in {"before", "now"} else "left")
    for task, medians in result.items():
        old = before["seconds"].get(task, {})
        for name in medians.keys() & old.keys():
            was, now = old[name] / old["plain torch"], medians[name] / medians["plain torch"]
            if not 1 / NOTABLE < now / was < NOTABLE:
                out.add_row(task, name, f"{was:.2f}", f"{now:.2f}")
    return out if out.row_count else "No ratio to plain torch changed by more than a seventh since the run before."
