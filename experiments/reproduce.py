"""Does the ledger's published figure come out again?

Each row of the ledger is a figure that others have published, and a protocol that computes it with the pairs,
objectives and estimators of this package. The row is run, its figures are held against the published ones, and the
result is written to a small file, from which the page of the ledger is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ppvae.errors import RunError

from .experiment import Result
from .reproductions import Figure, RowEffort, find_row, verdict
from .reproductions import reproduce as reproduce_row


@dataclass(frozen=True)
class Config:
    """Which row, and at what effort.

    Args:
        row: name of the row, such as lsat6; the page of the ledger lists them.
        seed: of all randomness.
        device: where a row that trains networks runs.
        seconds: of training, for a row that trains for a time; null takes the row's own.
        num_data: data to evaluate on; null takes the row's own.
        folder: for checkpoints and the file of the result; a row that is started again with it goes on.
    """

    row: str
    seed: int = 0
    device: Literal["cpu", "cuda"] = "cpu"
    seconds: float | None = None
    num_data: int | None = None
    folder: str = "runs/reproductions"


SMALL = Config("lsat6")


def run(config: Config = SMALL) -> Result:
    """Run the protocol of a row.

    Args:
        config: which row.

    Returns:
        A line for each figure.

    Raises:
        OptionError: there is no such row.
        RunError: the row cannot be run, or the folder cannot be written.
    """
    row, folder = find_row(config.row), Path(config.folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"the folder {folder} cannot be made ({error.strerror}): give another --folder.") from error
    effort = RowEffort(config.seed, config.device, config.seconds, config.num_data, folder)
    found = reproduce_row(row, effort)["figures"]
    lines = [
        {
            "figure": published.what,
            "published": published.value,
            "ours": ours["value"],
            "standard error": ours["standard_error"],
            "verdict": verdict(published, Figure(ours["value"], ours["standard_error"], ours["undecided"])),
        }
        for published, ours in zip(row.published, found, strict=True)
    ]
    said = [f"{each['what']}: {each['undecided']}." for each in found if each["undecided"]]
    return Result(f"{row.title} ({row.source})", lines, [*said, str(folder / f"{row.name}.json")])
