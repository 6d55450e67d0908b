"""The files of a run directory, read and checked before any of them is shown."""

from __future__ import annotations

import base64
import json
import math
import shlex
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ppvae.errors import RunError
from ppvae.storage import RunDirectory, Settings

from .captions import has_caption, place
from .numbers import WRITTEN_BY, Numbers

PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
# The figures that other commands draw than `ppvae evaluate`, where their names do not begin with a section's.
DRAWN_WITH = {"waterfall": "gap_attribution", "ppc_posterior": "quality", "ppc_prior": "quality"}


@dataclass(frozen=True)
class Picture:
    """A figure of the run.

    Attributes:
        uri: the whole picture, as a ``data:`` address.
        width: in pixels.
        height: in pixels.
    """

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Record:
    """The content of a run directory.

    Attributes:
        directory: of the run.
        settings: of the run.
        summary: its numbers; empty while it has none.
        pictures: its figures, by name.
        plane: a two-dimensional latent, decoded on a grid, or None.
    """

    directory: RunDirectory
    settings: Settings
    summary: dict[str, Any]
    pictures: dict[str, Picture]
    plane: dict[str, Any] | None

    @property
    def pair(self) -> str:
        """The name of the pair, that of a file without its folder."""
        return _without_folder(self.settings.pair)

    @property
    def data(self) -> str:
        """The name of the data, that of a file without its folder."""
        return _without_folder(self.settings.data)

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return self.directory.path.resolve().name

    @property
    def word(self) -> str:
        """The path of the folder, quoted for a shell."""
        return shlex.quote(str(self.directory.path))

    def numbers(self, prefix: str = "") -> Numbers:
        """The numbers of the summary."""
        return Numbers(self.summary, str(self.directory.summary), self.word, prefix)


def _without_folder(spec: str) -> str:
    """An absolute path, as ``config.yaml`` has it, from its last part on; other words as they are."""
    return Path(spec).name if Path(spec).is_absolute() else spec


def read_record(directory: RunDirectory) -> Record:
    """Read a run directory.

    Raises:
        RunError: a file is damaged.
    """
    return Record(
        directory=directory,
        settings=directory.read_settings(),
        summary=_read_summary(directory),
        pictures=_read_pictures(directory),
        plane=_read_plane(directory),
    )


def _read_summary(directory: RunDirectory) -> dict[str, Any]:
    content = directory.read_summary()
    if content is None and directory.summary.is_file():
        raise RunError(f"{directory.summary} is damaged: `ppvae evaluate {directory.path}` writes it again.")
    content = content or {}
    # Earlier versions had log p(x) by draws of the guide, and wrote no section of their own for these.
    if "evidence" in content and content.get("method", "importance") == "importance":
        content = {"method": "importance", "draws": content["evidence"]} | content
    return content


def _read_pictures(directory: RunDirectory) -> dict[str, Picture]:
    files = [file for file in (directory.path / "figures").glob("*.png") if has_caption(file.stem)]
    return {file.stem: _picture(file, directory) for file in sorted(files, key=lambda file: place(file.stem))}


def _picture(file: Any, directory: RunDirectory) -> Picture:
    section = DRAWN_WITH.get(file.stem) or next((name for name in WRITTEN_BY if file.stem.startswith(name)), "")
    command = WRITTEN_BY.get(section, "evaluate")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise RunError(f"{file} cannot be read ({error.strerror}): make it readable, or remove it.") from error
    if not (content.startswith(PNG_START) and content.endswith(PNG_END)):
        raise RunError(f"{file} is damaged: `ppvae {command} {directory.path}` draws it again.")
    width, height = (int.from_bytes(content[i : i + 4], "big") for i in (16, 20))
    return Picture("data:image/png;base64," + base64.b64encode(content).decode(), width, height)


def _read_plane(directory: RunDirectory) -> dict[str, Any] | None:
    file = directory.decoder
    if not file.is_file():
        return None
    try:
        return _checked(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError(f"{file} is damaged: `ppvae evaluate {directory.path}` writes it again.") from error


def _checked(plane: dict[str, Any]) -> dict[str, Any]:
    """The parts of a decoded plane, if they fit together.

    Raises:
        ValueError, TypeError, KeyError: they do not.
    """
    axis, shape = [float(a) for a in plane["axis"]], [int(s) for s in plane["event_shape"]]
    low, high = float(plane["low"]), float(plane["high"])
    means = [[float(a), float(b)] for a, b in plane["means"]]
    labels = [str(label) for label in plane.get("labels", [])]
    finite = all(map(math.isfinite, [*axis, low, high, *(a for mean in means for a in mean)]))
    rising = len(axis) > 1 and all(a < b for a, b in pairwise(axis))
    num_bytes = len(base64.b64decode(plane["grid"], validate=True))
    if not (
        finite and rising and low <= high and min(shape) > 0 and num_bytes == len(axis) ** 2 * math.prod(shape)
    ) or (labels and len(labels) != len(means)):
        raise ValueError("its parts do not fit together")
    return {"site": str(plane["site"]), "axis": axis, "event_shape": shape, "low": low, "high": high} | {
        "grid": plane["grid"],
        "means": means,
        **({"labels": labels} if labels else {}),
    }
