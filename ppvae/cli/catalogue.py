"""What `ppvae list` shows of the package, read off its sources: importing them takes seconds, a list none."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

from ppvae.errors import PpvaeError
from ppvae.storage import RunDirectory
from ppvae.with_errors import with_error


def pairs() -> dict[str, str]:
    """The pairs of ppvae.models, a sentence each."""
    programs = {name: _methods(node) & {"model", "guide"} for name, node in _classes().items()}
    while more := {name: own for name, own in _inherited(programs).items() if own != programs[name]}:
        programs |= more
    return {name: _first_sentence(node) for name, node in _public_classes().items() if len(programs[name]) == 2}


def likelihoods() -> dict[str, str]:
    """The likelihoods of ppvae.models, a sentence each."""
    bases = _bases()
    found = {"Likelihood"}
    while more := {name for name, own in bases.items() if own & found} - found:
        found |= more
    return {name: _first_sentence(node) for name, node in _public_classes().items() if name in found - {"Likelihood"}}


def experiments() -> dict[str, str]:
    """The experiments, the question of each."""
    names = _assigned(_folder("experiments") / "experiment.py", "EXPERIMENTS")
    return {name: _first_sentence(_parsed(_folder("experiments") / f"{name}.py")) for name in names}


def data_sets() -> dict[str, str]:
    """The data sets that are known by name."""
    found: dict[str, str] = _assigned(_folder("datasets") / "known.py", "DATASETS")
    return found


def _bases() -> dict[str, set[str]]:
    return {name: {base.id for base in node.bases if isinstance(base, ast.Name)} for name, node in _classes().items()}


def _inherited(methods: dict[str, set[str]]) -> dict[str, set[str]]:
    """The methods of each class with those of its bases."""
    return {
        name: methods[name].union(*(methods.get(base, set()) for base in bases)) for name, bases in _bases().items()
    }


def _public_classes() -> dict[str, ast.ClassDef]:
    classes = _classes()
    public = _assigned(_folder("models") / "__init__.py", "__all__")
    return {name: classes[name] for name in public if name in classes}


def _classes() -> dict[str, ast.ClassDef]:
    bodies = (_parsed(file).body for file in sorted(_folder("models").glob("*.py")))
    return {node.name: node for body in bodies for node in body if isinstance(node, ast.ClassDef)}


def _folder(room: str) -> Path:
    spec = importlib.util.find_spec(f"ppvae.{room}")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _methods(node: ast.ClassDef) -> set[str]:
    return {part.name for part in node.body if isinstance(part, ast.FunctionDef)}


def _assigned(file: Path, name: str) -> Any:
    """The value of a constant of a file."""
    for node in _parsed(file).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return ast.literal_eval(node.value)  # type: ignore[attr-defined]
    raise LookupError(f"{file} assigns nothing to {name}")


def _first_sentence(node: ast.ClassDef | ast.Module) -> str:
    return (ast.get_docstring(node) or "").partition("\n")[0].rstrip(".:")


def numbers_of(directory: RunDirectory) -> list[str]:
    """Pair, data and numbers of a run, for the list."""
    try:
        settings, summary = directory.read_settings(), directory.read_summary()
    except PpvaeError as error:
        return ["?", str(error), "", ""]
    if summary is None:
        return [settings.pair, settings.data, "not evaluated", ""]
    numbers = summary["evidence"]
    values = [with_error(numbers, name) for name in ("log_evidence", "gap")]
    return [summary["pair"], summary["data"], *values]
