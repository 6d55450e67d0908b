"""The page of a run: the content of its files, put into the template.

The templates escape every value that is put into them, and nothing may be left out silently. The page holds its
pictures, its style and its programs; it asks for nothing from elsewhere, and its security policy forbids that too.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import ppvae
from ppvae.errors import RunError
from ppvae.storage import RunDirectory, write_text

from .captions import caption
from .claims import claims, verdict_of
from .numbers import WRITTEN_BY
from .record import Record, read_record

TEMPLATES = Path(__file__).resolve().parent / "templates"
# Sections of the summary that all have the same layout: verdict, remarks, figures, numbers.
SECTIONS = {
    "mended": "A mended guide",
    "calibration": "Calibration",
    "quality": "Posterior quality",
    "latent_units": "Latent units",
    "collapse": "Why latent units are unused",
}
# The names of numbers that a reader would not understand.
LABELS = {
    "accuracy": "accuracy of a classifier between guide and reference (0.5: chance)",
    "pareto_k_share_above_0_7": "share of data with k-hat of 0.7 or more",
    "ceiling": "log N, the largest possible mutual information (nats)",
    "kl_guide": "KL(q ‖ p), the gap (nats)",
    "kl_posterior": "KL(p ‖ q) (nats)",
} | {
    word.replace(" ", "_"): f"first fault: {word}"
    for word in (
        "mode missed",
        "correlation missed",
        "shifted",
        "too narrow",
        "too wide",
        "different shape",
    )
}
NOT_NUMBERS = ("verdict", "remarks", "command", "split", "seed")
STOPPED = {
    "finished": "all epochs were done",
    "plateau": "the validation ELBO no longer rose",
    "interrupted": "it was interrupted",
}


def write_report(directory: RunDirectory) -> Path:
    """Write ``report.html`` of a run from the other files of its directory.

    Args:
        directory: of the run.

    Returns:
        Path: of the page.

    Raises:
        RunError: a file of the run is damaged, or the page cannot be written.
    """
    record = read_record(directory)
    write_text(directory.report, run_page(record))
    return directory.report


def run_page(record: Record) -> str:
    """The page of a run, as HTML."""
    numbers = record.numbers()
    summary = record.summary
    check_sections(record)
    return render(
        "report.html.j2",
        run=record,
        summary=summary,
        shared=summary.get("unit") == "data set",
        number=numbers,
        claims=claims(summary, numbers, record.word) if summary else [],
        remarks=remarks(record),
        plain_sections=SECTIONS,
        rows={name: rows(summary[name], name) for name in SECTIONS if name in summary},
        verdict_of=verdict_of,
        stopped=STOPPED,
        options=options(record),
        commands=_commands(summary),
        plane=record.plane,
    )


def _commands(summary: dict[str, Any]) -> list[str]:
    """The command lines that wrote the sections, each once."""
    found = [summary[name].get("command") for name in WRITTEN_BY if name in summary]
    return list(dict.fromkeys(str(command) for command in found if command))


def check_sections(record: Record) -> None:
    """Refuse a summary whose sections are not dictionaries, or whose remarks are not lists.

    Raises:
        RunError: with the section's name.
    """
    summary = record.summary
    if not summary:
        return
    added = [name for name in WRITTEN_BY if name in summary]
    for name in ("evidence", "training", "seconds", "versions", *added):
        if not isinstance(summary.get(name), dict):
            raise _damaged(record, name, f"its {name} is no section")
    if not isinstance(summary.get("remarks", []), list):
        raise _damaged(record, "", "its remarks are no list")
    for name in added:
        if not isinstance(summary[name].get("remarks", []), list):
            raise _damaged(record, name, f"the remarks of its {name} are no list")


def _damaged(record: Record, section: str, what: str) -> RunError:
    command = WRITTEN_BY.get(section, "evaluate")
    return RunError(f"{record.directory.summary} is damaged ({what}): `ppvae {command} {record.word}` writes it again.")


def remarks(record: Record) -> list[str]:
    """The remarks of the summary."""
    return [str(remark) for remark in record.summary.get("remarks", [])]


def rows(section: dict[str, Any], prefix: str) -> list[tuple[str, list[str], str | None]]:
    """The numbers of a section: a label, the keys of its values, the key of their standard error or None.

    Example:
        >>> rows({"kl": 1.5, "kl_standard_error": 0.1, "units": [1, 2], "verdict": "good"}, "unit")
        [('kl', ['unit.kl'], 'unit.kl_standard_error'), ('units', ['unit.units.0', 'unit.units.1'], None)]
    """
    found: list[tuple[str, list[str], str | None]] = []
    for name, value in section.items():
        key, label = f"{prefix}.{name}", LABELS.get(name, str(name).replace("_", " "))
        error = next((f"{name}{end}" for end in ("_standard_error", "_error") if f"{name}{end}" in section), None)
        if name in NOT_NUMBERS or any(
            name.endswith(end) and name.removesuffix(end) in section for end in ("_standard_error", "_error")
        ):
            continue
        if isinstance(value, dict):
            found += [(f"{label}: {inner}", keys, e) for inner, keys, e in rows(value, key)]
        elif isinstance(value, list):
            keys = [f"{key}.{i}" for i, item in enumerate(value) if isinstance(item, int | float | None)]
            found += [(label, keys, None)] if keys and len(keys) == len(value) else []
        elif isinstance(value, bool | int | float | None):
            found.append((label, [key], f"{prefix}.{error}" if error else None))
    return found


def options(record: Record) -> dict[str, str]:
    """The settings as text, as ``config.yaml`` has them."""
    values = {key: value for key, value in record.settings.as_dict().items() if key != "name"}
    return {key: _yaml(value) for key, value in values.items()}


def _yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def render(template: str, **content: Any) -> str:
    """A template with its content put in.

    Args:
        template: its file's name.
        content: what it names.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    environment.globals |= {
        "script": Markup(script),
        "style": Markup(style),
        "policy": _policy(script),
        "version": ppvae.__version__,
        "caption": caption,
        "written_by": WRITTEN_BY,
    }
    return environment.get_template(template).render(**content)


def _policy(script: str) -> str:
    """The security policy: the page may show its own pictures and style and run its own script, nothing else."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = ("default-src 'none'", "img-src data:", "style-src 'unsafe-inline'", f"script-src 'sha256-{digest}'")
    return "; ".join([*allowed, "base-uri 'none'", "form-action 'none'"])
