"""The file of a row's result: figures with their standard errors, and all that says where they come from."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import torch

from ppvae.errors import RunError
from ppvae.storage import device_name, versions, write_json

from .row import Figure, Row, RowEffort

# The results that the ledger shows.
RESULTS = Path(__file__).parent / "results"


def reproduce(row: Row, effort: RowEffort) -> dict[str, Any]:
    """Run the protocol of a row, and write what it found to ``NAME.json`` in the folder of the effort.

    Args:
        row: one that can be run.
        effort: how much it may cost, and where it runs.

    Returns:
        The content of the file.

    Raises:
        RunError: the row cannot be run, as it says itself, or the folder cannot be written.
    """
    if row.run is None:
        raise RunError(f"{row.name} cannot be run: {row.open}")
    started = time.monotonic()
    outcome = row.run(effort)
    figures = [
        {"what": published.what} | asdict(figure)
        for published, figure in zip(row.published, outcome.figures, strict=True)
    ]
    record = {
        "row": row.name,
        "figures": figures,
        "config": {name: value for name, value in asdict(effort).items() if name not in {"folder", "seed"}},
        "seed": effort.seed,
        "details": outcome.details,
        "seconds": time.monotonic() - started,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"device": device_name(torch.device(effort.device)), "processors": os.cpu_count()},
        "versions": _versions(),
        "commit": _commit(),
    }
    write_json(effort.folder / f"{row.name}.json", record)
    return record


def figures_of(row: Row, records: Mapping[str, Mapping[str, Any]]) -> list[Figure | None]:
    """Our figures of a row, one for each that was published; None where there is no result.

    Raises:
        RunError: the result is of other figures than the row has now.
    """
    if row.name not in records:
        return [None] * len(row.published)
    found = records[row.name]["figures"]
    if [each["what"] for each in found] != [published.what for published in row.published]:
        raise RunError(f"the result of {row.name} is of other figures than the row has now: run it again.")
    return [Figure(each["value"], each["standard_error"], each["undecided"]) for each in found]


def read_records(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """The results in a folder by the name of their row."""
    found = (json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json")))
    return {record["row"]: record for record in found if "row" in record}


def _versions() -> dict[str, str]:
    """The versions of the libraries; without them, where one of them is installed under another name."""
    try:
        return versions()
    except PackageNotFoundError:
        return {"torch": torch.__version__}


def _commit() -> str | None:
    """The commit of the sources, where they lie in a repository."""
    asked = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
