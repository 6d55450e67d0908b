"""What a worker runs: one estimator on the data of one shard, from its own seed, by one thread.

The bits of a result depend on the number of threads, on torch's default type and on the versions of the libraries, so
all of these travel with the data. Results travel as the content of the file that will keep them: a tensor that is
handed from process to process through shared memory is lost with the process that made it.
"""

from __future__ import annotations

import platform
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from types import ModuleType
from typing import Any, NamedTuple

import cloudpickle
import torch

from ppvae.errors import OptionError, PpvaeError, RunError, first_line
from ppvae.storage import versions

from ..bounds import Certificate, certify, pooled
from ..evidence import (
    AdaptiveEvidence,
    AnnealedEvidence,
    ImportanceEvidence,
    annealed_evidence,
    estimate_evidence,
    importance_evidence,
)
from ..pair import Batch, Trained, owner
from ..posterior import PER_DATUM, Posterior, sample_posterior
from ..resume import checkpoint_content

ESTIMATORS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (estimate_evidence, importance_evidence, annealed_evidence, sample_posterior, certify)
}
# Pyro's draws come from the generators of the process: two tasks in two threads would take each other's.
ONE_AT_A_TIME = threading.Lock()
RECORDS = {
    kind.__name__: kind for kind in (AdaptiveEvidence, ImportanceEvidence, AnnealedEvidence, Posterior, Certificate)
}
# The libraries that compute the bits.
COMPUTING_LIBRARIES = ("ppvae", "python", "torch", "pyro-ppl", "numpy")


class Task(NamedTuple):
    """A shard's work.

    Attributes:
        programs: model, guide and options, pickled by cloudpickle once for all shards.
        estimator: the name of one of :data:`ESTIMATORS`.
        data: ``(x, *context)`` of the shard, pickled.
        seed: of its draws.
        dtype: torch's default floating-point type.
        versions: of the libraries that the result is asked of.
        facts: what the file says of the shard beside the result.
    """

    programs: bytes
    estimator: str
    data: bytes
    seed: int
    dtype: torch.dtype
    versions: dict[str, str]
    facts: dict[str, Any]


def run_task(task: Task) -> bytes:
    """The content of the shard's file.

    Raises:
        RunError: the worker has other versions of the libraries.
        PpvaeError: as the estimator raises it.
    """
    demand_same(task.versions, computing_versions(), "this worker")
    model, guide, options = cloudpickle.loads(task.programs)
    batch: Batch = cloudpickle.loads(task.data)
    given = {"like": batch} if options.pop("like", False) else {"x": batch}
    try:
        with ONE_AT_A_TIME, _one_thread(), _default_type(task.dtype):
            found = ESTIMATORS[task.estimator](model, guide, **given, **options, seed=task.seed)
    except PpvaeError as error:
        raise public(error)(str(error)) from None  # others hold parts of the programs, which may not travel
    return checkpoint_content({**task.facts, "kind": type(found).__name__, "values": _values(found)})


def public(error: PpvaeError) -> type[PpvaeError]:
    """The type of an error, or that of :mod:`ppvae.errors` that it is one of."""
    return next(kind for kind in type(error).__mro__ if kind.__module__ == PpvaeError.__module__)


def pickled(*things: Any) -> bytes:
    """What travels to a worker; what stands in a user's own files travels with its code.

    Raises:
        OptionError: it cannot be pickled.
    """
    try:
        with _by_value(_own_modules(things)):
            return bytes(cloudpickle.dumps(things if len(things) > 1 else things[0]))
    except Exception as error:  # of whatever type the object's own pickling raises
        raise OptionError(
            f"the pair cannot be sent to a worker, since a part of it cannot be pickled ({first_line(error)}): open "
            "files, locks and connections inside the programs, not before them."
        ) from error


def _own_modules(things: tuple[Any, ...]) -> list[ModuleType]:
    """The modules of programs that are no part of an installed package: a worker may not have them."""
    programs = [thing.program for thing in things if isinstance(thing, Trained)]
    kinds = [kind for program in programs for kind in type(owner(program)).__mro__]
    names = {str(getattr(thing, "__module__", "")) for thing in (*programs, *kinds)} - {"__main__"}
    installed = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))
    found = [sys.modules[name] for name in sorted(names) if name in sys.modules]
    files = {module: getattr(module, "__file__", None) or installed[0] for module in found}
    return [m for m, file in files.items() if not (m.__name__.startswith("ppvae.") or file.startswith(installed))]


@contextmanager
def _by_value(modules: list[ModuleType]) -> Iterator[None]:
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def computing_versions() -> dict[str, str]:
    """The versions of what computes the bits; of Python the first two numbers."""
    found = versions()
    found["python"] = ".".join(platform.python_version_tuple()[:2])
    return {name: found[name] for name in COMPUTING_LIBRARIES}


def demand_same(wanted: dict[str, str], present: dict[str, str], who: str) -> None:
    """Raise RunError where versions differ."""
    for name, version in wanted.items():
        if present.get(name) != version:
            raise RunError(
                f"{who} has {name} {present.get(name)}, and these shards are computed by {name} {version}, which may "
                "give other bits: install the same version, or begin in another directory."
            )


def record_of(state: dict[str, Any]) -> Any:
    """The record that a shard's file holds."""
    return RECORDS[state["kind"]](**state["values"])


def joined(parts: list[Any]) -> Any:
    """One record for the data of all shards, in their order."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, Certificate):
        return pooled(parts)
    if isinstance(first, Posterior):
        return _joined_draws(parts)
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    return replace(type(first).concatenate(parts), notes=notes)


def _joined_draws(parts: list[Posterior]) -> Posterior:
    """Draws stand along the third dimension, ``(num_chains, num_draws, num_data, ...)``."""
    first = parts[0]
    draws = {name: torch.cat([part.draws[name] for part in parts], 2) for name in first.draws}
    named = {name: torch.cat([getattr(part, name) for part in parts], 2) for name in ("unconstrained", "log_joint")}
    told = {name: torch.cat([getattr(part, name) for part in parts]) for name in PER_DATUM}
    return Posterior(draws=draws, coordinates=first.coordinates, **named, **told)


def _values(record: Any) -> dict[str, Any]:
    return {f.name: getattr(record, f.name) for f in fields(record)}


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _default_type(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def cut(x: Any, context: tuple[Any, ...], by_row: tuple[bool, ...], rows: slice) -> Batch:
    """``(x, *context)`` of some rows; ``x`` may be what gives a tensor for a slice."""
    # Copies: a view is pickled with all of the tensor that it shows a part of.
    return (x[rows].clone(), *(v[rows].clone() if mine else v for v, mine in zip(context, by_row, strict=True)))
