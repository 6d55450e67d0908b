"""The interface of an experiment, a module of this folder that answers one question.

The module's docstring states the question, the claim and its source. It holds

    Config   a frozen dataclass: how large the experiment is. Its defaults are the full size, under ten minutes. A field
             without a default is given by position (only ``reproduce`` has one).
    SMALL    the smallest Config that still makes sense, for the tests.
    run      run(config: Config = Config()) -> Result

and its name is listed in :data:`EXPERIMENTS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from rich.table import Table

from ppvae.errors import OptionError, RunError, suggestion
from ppvae.printed import Printed, table_in_lines
from ppvae.storage import atomic_path, write_json, write_text

EXPERIMENTS: tuple[str, ...] = (
    "ais_vs_importance",
    "autoencoder_vs_vae",
    "bound_gap",
    "certificate_width",
    "gap_attribution",
    "gallery",
    "gradient_descent",
    "linear_autoencoder_is_pca",
    "linear_vae_is_ppca",
    "missed_modes",
    "objectives",
    "posterior_is_intractable",
    "reproduce",
    "upper_bounds",
)


@dataclass(frozen=True, repr=False)
class Result(Printed):
    """The results of an experiment.

    Attributes:
        title: of the table, with the unit of its numbers.
        rows: the table, a dictionary a row; all rows have the same keys, which are the column titles.
        conclusions: a sentence each, with numbers.
        figures: by file name, without suffix.
    """

    title: str
    rows: Sequence[Mapping[str, Any]]
    conclusions: Sequence[str] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)

    def __repr__(self) -> str:
        return table_in_lines(self.table(), self.conclusions)

    def table(self) -> Table:
        """The rows, to be printed by rich."""
        out = Table(title=self.title, title_justify="left")
        for column in self.rows[0]:
            out.add_column(column, justify="left" if isinstance(self.rows[0][column], str) else "right")
        for row in self.rows:
            out.add_row(*(_shown(value) for value in row.values()))
        return out

    def write(self, folder: Path, config: Any) -> None:
        """Write table, conclusions, configuration and figures; each file appears whole or not at all.

        Raises:
            RunError: the folder cannot be written.
        """
        write_text(folder / "table.csv", pd.DataFrame(list(self.rows)).to_csv(index=False))
        summary = {"title": self.title, "config": asdict(config), "rows": self.rows, "conclusions": self.conclusions}
        write_json(folder / "summary.json", summary)
        for name, figure in self.figures.items():
            with atomic_path(folder / f"{name}.png") as temporary:
                figure.savefig(temporary, dpi=150)


def folder_of(out: str, name: str) -> Path:
    """The folder for the results of an experiment, made if need be.

    Raises:
        RunError: it cannot be made.
    """
    folder = Path(out) / f"experiment-{name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"the folder {folder} cannot be made ({error.strerror}): give another --out.") from error
    return folder


def find(name: str) -> ModuleType:
    """The module of an experiment.

    Raises:
        OptionError: there is no such experiment.
    """
    if name not in EXPERIMENTS:
        raise OptionError(
            f"there is no experiment {name!r}{suggestion(name, EXPERIMENTS)}: give one of {', '.join(EXPERIMENTS)}."
        )
    return importlib.import_module(f"ppvae.experiments.{name}")


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
