"""The run directory: all files of a run in one folder, none of them ever half-written.

config.yaml      the settings: `ppvae run --config config.yaml` repeats the run
checkpoint.pt    the state of the training, from which `ppvae run --resume` goes on
metrics.csv      a row per epoch
evidence.nc      log p(x), ELBO and their errors, per datum
posterior.nc     draws of the guide, for `arviz.from_netcdf`
mended.pt        the values of a better guide (`ppvae mend`), for `ppvae.experiments.load(RUN, mended=True)`
reference.nc     draws of the posterior by Markov chains, likewise (`ppvae posterior`)
decoder.json     a two-dimensional latent, decoded on a grid
summary.json     the numbers in nats, versions, times
figures/         pictures
report.html      the page, for readers without Python
"""

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections.abc import Container
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from ppvae.errors import RunError

from .files import atomic_path, write_json, write_text
from .settings import Settings

# Colours of a saved figure, which take a third of the space of full colour.
COLOURS = 128


@dataclass(frozen=True)
class RunDirectory:
    """The folder of one run, and where things are in it.

    Args:
        path: the folder.
    """

    path: Path

    @staticmethod
    def create(settings: Settings) -> RunDirectory:
        """Make a new, empty folder; no earlier one is ever used again.

        Args:
            settings: ``out``, ``name``, and, where there is no name, ``pair`` and ``data``, of which it is made.

        Raises:
            RunError: the folder exists already, or cannot be made.
        """
        out = Path(settings.out).expanduser()
        stem = settings.name or "-".join([time.strftime("%Y%m%d-%H%M%S"), _word(settings.pair), _word(settings.data)])
        for number in range(1, 1000):
            path = out / (stem if number == 1 else f"{stem}-{number}")
            try:
                path.mkdir(parents=True)
                return RunDirectory(path)
            except FileExistsError as error:
                if settings.name is not None:
                    raise RunError(f"there is a run at {path} already: give another name, or remove it.") from error
            except OSError as error:
                raise RunError(
                    f"no run directory can be made at {path} ({error.strerror}): give another --out."
                ) from error
        raise RunError(f"{out} has too many runs of the name {stem}: give another name.")

    @staticmethod
    def open(path: str | Path) -> RunDirectory:
        """The folder of an earlier run.

        Raises:
            RunError: it is none.
        """
        directory = RunDirectory(Path(path).expanduser())
        if not directory.config.is_file():
            raise RunError(f"{path} is not a run directory (it has no config.yaml): `ppvae list` shows the runs.")
        return directory

    def discard(self) -> None:
        """Take the folder back if nothing but the settings stands in it: the run never began."""
        if [file.name for file in self.path.iterdir()] == [self.config.name]:
            self.config.unlink()
            self.path.rmdir()

    @property
    def config(self) -> Path:
        """The file of the settings."""
        return self.path / "config.yaml"

    @property
    def checkpoint(self) -> Path:
        """The file of the training's state."""
        return self.path / "checkpoint.pt"

    @property
    def summary(self) -> Path:
        """The file of the numbers."""
        return self.path / "summary.json"

    @property
    def decoder(self) -> Path:
        """The file of a two-dimensional latent, decoded on a grid."""
        return self.path / "decoder.json"

    @property
    def report(self) -> Path:
        """The file of the page."""
        return self.path / "report.html"

    def write_settings(self, settings: Settings) -> None:
        """Write ``config.yaml``. The name is left out: a run that repeats this one gets a folder of its own."""
        values = {key: value for key, value in settings.absolute().as_dict().items() if key != "name"}
        write_text(self.config, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))

    def read_settings(self) -> Settings:
        """The settings of the run.

        Raises:
            RunError: the file is damaged.
        """
        try:
            values = yaml.safe_load(self.config.read_text(encoding="utf-8"))
            unknown = set(values) - {field.name for field in fields(Settings)}
            if unknown:
                raise ValueError(f"unknown option {sorted(unknown)[0]!r}")
            return Settings(**values).check()
        except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise RunError(f"{self.config} cannot be read ({reason}): restore it, or start a new run.") from error

    def write_metrics(self, history: list[dict[str, float]]) -> None:
        """Write ``metrics.csv``, a row per epoch, ELBOs in nats per datum."""
        text = io.StringIO()
        if history:
            writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(history)
        write_text(self.path / "metrics.csv", text.getvalue())

    def write_netcdf(self, name: str, content: Any) -> None:
        """Write an xarray Dataset or DataTree as ``<name>.nc``.

        The file is made in memory first: HDF5 brings the whole process down when the disk is full.
        """
        with atomic_path(self.path / f"{name}.nc") as temporary:
            temporary.write_bytes(content.to_netcdf(None, engine="h5netcdf"))

    def write_figure(self, name: str, figure: Any) -> None:
        """Write a matplotlib figure as ``figures/<name>.png``, in few colours: a page holds many."""
        from PIL import Image

        folder = self.path / "figures"
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise RunError(f"{folder} could not be made ({error.strerror}): give a folder with room.") from error
        drawn = io.BytesIO()
        figure.savefig(drawn, dpi=150)
        small = Image.open(drawn).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        with atomic_path(folder / f"{name}.png") as temporary:
            small.save(temporary, format="png", optimize=True)

    def remove_figures(self, section: str, keep: Container[str]) -> None:
        """Remove the figures whose names begin with a section's name, except those to be kept."""
        for file in (self.path / "figures").glob(f"{section}*.png"):
            if file.stem not in keep:
                file.unlink(missing_ok=True)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write ``summary.json``."""
        write_json(self.summary, summary)

    def read_summary(self) -> dict[str, Any] | None:
        """The numbers, or None while the run has none.

        Raises:
            RunError: the file is damaged.
        """
        if not self.summary.is_file():
            return None
        try:
            content = json.loads(self.summary.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{self.summary} is damaged: `ppvae evaluate {self.path}` writes it again.") from error
        return content if isinstance(content, dict) else None


def all_runs(out: str | Path) -> list[RunDirectory]:
    """The run directories in a folder, in the order of their names; none where there is no such folder."""
    return [RunDirectory(file.parent) for file in sorted(Path(out).expanduser().glob("*/config.yaml"))]


def _word(spec: str) -> str:
    """A pair or a data set as a part of a folder's name: ``my_file.py:MyPair`` → ``MyPair``."""
    last = Path(spec.rpartition(":")[2] or spec).stem
    word = re.sub(r"[^A-Za-z0-9_]+", "-", last).strip("-")
    return word or "own"
