"""The manifest of a folder of shards: how the data were cut, and what each shard's result depends on.

    manifest.json        estimator, options, number of data, shard size, seed, digest of the parameters, versions
    shard-0000007.pt     the record of shard 7, with a digest of its data

A shard's seed is a hash of the seed of all and of the shard's number, so that it does not depend on who computes it,
when, or on what has been computed before.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppvae.errors import CheckpointError, RunError
from ppvae.storage import atomic_path, write_json

from ..pair import Batch
from ..resume import digest, read_checkpoint
from .task import demand_same

FILE = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What the shards of a folder are.

    Attributes:
        estimator: the name of the function.
        options: of it, as they are printed.
        num_data: of all shards.
        shard_size: data in a shard, at most.
        seed: of all draws.
        pair: a digest of the parameters' values.
        dtype: torch's default floating-point type.
        versions: of the libraries that compute the bits.
    """

    estimator: str
    options: dict[str, str]
    num_data: int
    shard_size: int
    seed: int
    pair: str
    dtype: str
    versions: dict[str, str]

    @property
    def num_shards(self) -> int:
        """How many shards there are; their sizes differ by one datum at most."""
        return -(-self.num_data // self.shard_size)

    def rows(self, number: int) -> slice:
        """The rows of a shard."""
        return slice(*(self.num_data * n // self.num_shards for n in (number, number + 1)))

    def seed_of(self, number: int) -> int:
        """The seed of a shard."""
        return int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])

    def agree(self, directory: Path) -> None:
        """Write the manifest to a folder, or see that the one there is the same.

        Raises:
            RunError: the folder cannot be written, or its shards were computed by other versions.
            CheckpointError: its shards are of something else.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"the folder {directory} cannot be made ({error.strerror}): give another directory."
            ) from error
        file = directory / FILE
        if not file.exists():
            write_json(file, asdict(self))
            return
        try:
            there: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            saved = dict(there["versions"])
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{file} is damaged: remove the folder and begin anew.") from error
        demand_same(saved, self.versions, "this process")
        for name, value in asdict(self).items():
            if there.get(name) != value:
                what = "another pair" if name == "pair" else f"{name} {there.get(name)}, not {value}"
                raise CheckpointError(
                    f"the shards in {directory} are of {what}: go on as they were begun, or give another directory."
                )


def path_of(directory: Path, number: int) -> Path:
    """The file of a shard."""
    return directory / f"shard-{number:07d}.pt"


def write_shard(directory: Path, number: int, content: bytes) -> None:
    """Keep the result of a shard: its file appears whole or not at all.

    Raises:
        RunError: the file cannot be written; the other shards are kept.
    """
    with atomic_path(path_of(directory, number)) as temporary:
        temporary.write_bytes(content)


def read_shard(directory: Path, number: int, batch: Batch) -> dict[str, Any]:
    """What a shard's file holds.

    Raises:
        CheckpointError: it is damaged, or of other data.
    """
    state = read_checkpoint(path_of(directory, number))
    if state.get("data") != digest(batch):
        raise CheckpointError(
            f"{path_of(directory, number)} is of other data: give the data that the shards were begun with, or another "
            "directory."
        )
    return state
