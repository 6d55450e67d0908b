"""Put a Pyro program of somebody else's through all that ppvae promises for any pair, and say how far it came.

A program is a class without arguments whose objects are pairs, so that ``ppvae run --pair FILE.py:NAME`` can name it:

    model, guide     the two programs, as their package has them, behind a signature ``(x, *context)`` where it has none
    data()           a small synthetic ``x`` or ``(x, *context)``
    PACKAGE          the distribution that holds the program
    SETTINGS         options of :func:`ppvae.inference.fit`; None where the programs have nothing to train
    PARTICLES        draws of the guide, K; 1000 by default
    train(x)         optional: the package's own trainer, instead of ``fit``
    truth(x)         optional: log p(x) by unit, from another source, after training
    REFUSED          optional: a pattern that the sentence of a refusal matches, where no number is right or can be had
    UNTRAINED        optional: a pattern that the sentence of a training that is refused matches
    PAGE             optional: why no page is asked for, a sentence
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
import tempfile
import warnings
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from importlib import util
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

import arviz_base
import numpy as np
import pyro
import torch

from ppvae.cli import main
from ppvae.errors import PairError, PpvaeError
from ppvae.inference import DrawsFrom, check, fit, importance_evidence, to_datatree

HERE = Path(__file__).resolve().parent
SEED = 0
YES = "yes"


@dataclass
class Row:
    """How far a program came; each answer is ``yes``, what was found, or the sentence that says why not."""

    package: str
    program: str
    trained: str = "–"
    findings: list[Any] = field(default_factory=list)
    unit: str = "–"
    evidence: Any = None
    truth: Any = None
    failure: str = ""
    tree: str = "–"
    page: str = "–"

    @property
    def codes(self) -> list[str]:
        """Of the findings of ``check``, fatal ones with an exclamation mark."""
        return [f"{finding.code}{'!' if finding.fatal else ''}" for finding in self.findings]

    @property
    def error(self) -> float:
        """The largest distance from the truth of a unit that is trusted, in standard errors (at least 1e-3 nats, which
        single precision has)."""
        found = self.evidence
        distance = (found.log_evidence - self.truth).abs() / found.standard_error.clamp(min=1e-3)
        return float(distance[found.trusted].max()) if found.trusted.any() else float("nan")


@contextmanager
def as_users_do():
    """Single precision, no warnings, nothing printed, an empty parameter store, a seed."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    pyro.clear_param_store()
    pyro.set_rng_seed(SEED)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_default_dtype(default)
        pyro.clear_param_store()


def examine(program: type, *, page: bool = False) -> Row:
    """Check, train and measure a program, make its ArviZ object and, if asked, its page."""
    row = Row(f"{program.PACKAGE} {version(program.PACKAGE)}", program.__doc__.strip().splitlines()[0].rstrip("."))
    with as_users_do():
        pair = program()
        x = pair.data()
        found = check(pair.model, pair.guide, x)
        row.findings = list(found)
        row.unit = found.pair.unit if found.pair is not None else "–"
        row.trained = _attempt(lambda: _train(pair, x))
        said = _attempt(lambda: _measure(pair, x, row))
        row.failure = "" if said == YES else said
        row.tree = _attempt(lambda: _tree(pair, x))
    if page:
        row.page = getattr(program, "PAGE", None) or _attempt(lambda: _page(program, x))
    return row


def demand_conformity(program: type) -> None:
    """Assert that a program is trained and measured and has an ArviZ object, or is refused in the words foreseen.

    A unit that is trusted lies within 5 standard errors of the truth, where there is one: among the 40 of a program, a
    false alarm in 40 000.
    """
    row, refused = examine(program), getattr(program, "REFUSED", None)
    if refused is not None:
        assert re.search(refused, row.failure), row
        return
    assert row.failure == "", row.failure
    assert not any(finding.fatal for finding in row.findings), row.findings
    assert row.tree.startswith(YES), row.tree
    assert bool(row.evidence.log_evidence.isfinite().all())
    assert row.truth is None or not row.evidence.trusted.any() or row.error < 5
    assert re.search(getattr(program, "UNTRAINED", "^(fit|own trainer|nothing)"), row.trained), row.trained


def _attempt(step) -> str:
    """What a step says; if it refuses, our sentence; if it fails in any other way, the error with its type."""
    try:
        return step() or YES
    except PpvaeError as error:
        return str(error).splitlines()[0]
    except Exception as error:
        lines = str(error).splitlines()
        return f"{type(error).__name__}: {lines[0] if lines else ''}"


def _train(pair, x) -> str:
    if hasattr(pair, "train"):
        pair.train(x)
        return "own trainer"
    if pair.SETTINGS is None:
        return "nothing to train"
    result = fit(pair.model, pair.guide, x, seed=SEED, progress=False, accelerator="cpu", **pair.SETTINGS)
    return f"fit, {len(result.history)} epochs"


def _measure(pair, x, row: Row) -> str:
    num_particles = getattr(pair, "PARTICLES", 1000)
    row.evidence = importance_evidence(pair.model, pair.guide, x, num_particles=num_particles, seed=SEED)
    row.truth = pair.truth(x) if callable(getattr(pair, "truth", None)) else None
    return ""


def _tree(pair, x) -> str:
    few = DrawsFrom(num_draws=10, num_chains=2)
    try:
        tree, said = to_datatree(pair.model, pair.guide, x, draws=few, seed=SEED), ""
    except PairError as error:
        if "predictive=False" not in str(error):
            raise
        tree = to_datatree(pair.model, pair.guide, x, draws=few, predictive=False, seed=SEED)
        said = "yes, predictive=False"
    if tree["posterior"].data_vars:
        arviz_base.extract(tree, group="posterior")  # what ArviZ's own functions read
    return said


def _page(program: type, x) -> str:
    """``ppvae run`` and ``ppvae report`` on the file of the program, with all data in each part."""
    batch = x if isinstance(x, tuple) else (x,)
    if not all(isinstance(part, torch.Tensor) for part in batch):
        return "no: the programs take context that is no array"
    file = Path(str(sys.modules[program.__module__].__file__))
    settings = {"epochs": 2, "batch_size": len(batch[0]), **(program.SETTINGS or {})}
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()), redirect_stderr(StringIO()) as err:
        data, *context = (Path(folder) / f"{i}.npy" for i in range(len(batch)))
        for path, part in zip((data, *context), batch, strict=True):
            np.save(path, part.numpy())
        pyro.clear_param_store()
        command = ["run", "--pair", f"{file}:{program.__name__}", "--data", str(data), "--out", folder]
        command += [word for path in context for word in ("--context", str(path))]
        command += ["--name", "page", "--num_particles", "700", "--accelerator", "cpu"]
        command += [part for name, value in settings.items() for part in (f"--{name}", str(value))]
        for words in (command, ["report", f"{folder}/page"]):
            code = _run(words)
            if code:
                said = [line.strip() for line in err.getvalue().splitlines() if line.strip()]
                return re.sub(r"/\S*/", "", said[-1].removeprefix("ppvae: ")) if said else f"exit {code}"
        return "" if (Path(folder) / "page" / "report.html").is_file() else "no report.html"


def _run(words: list[str]) -> int:
    try:
        return int(main(words) or 0)
    except SystemExit as exit:
        return int(exit.code or 0)


def files() -> dict[str, list[str]]:
    """The files of programs, and which of the modules that they import at the top are not installed."""
    found = {}
    for file in sorted(HERE.glob("of_*.py")):
        body = ast.parse(file.read_text(encoding="utf-8")).body
        names = [a.name for node in body if isinstance(node, ast.Import) for a in node.names]
        names += [str(node.module) for node in body if isinstance(node, ast.ImportFrom)]
        tops = sorted({name.split(".")[0] for name in names})
        found[file.stem] = [name for name in tops if util.find_spec(name) is None]
    return found


def programs(file: str) -> list[type]:
    """The programs of a file, in their order there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = importlib.import_module(f"conformance.{file}")
    return [
        one for one in vars(found).values() if isinstance(one, type) and one.__module__ == found.__name__ and _is(one)
    ]


def _is(one: type) -> bool:
    return hasattr(one, "PACKAGE") and hasattr(one, "data")
