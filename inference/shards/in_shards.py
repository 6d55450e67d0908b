"""An estimate of many data, cut into shards that any executor computes and a folder keeps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ppvae.datasets import Rows
from ppvae.errors import DataError, OptionError, PpvaeError, RunError, first_line
from ppvae.progress import Progress

from ..options import callable_of, instance_of, shown, valid_compute, whole_number
from ..pair import (
    Batch,
    Pair,
    ParameterValues,
    Program,
    Trained,
    as_batch,
    buffers_kept,
    evaluation_mode,
    finite_batch,
    generator_kept,
    named_parameters,
    own_parameters,
)
from ..resume import digest
from .executors import opened
from .gather import gather
from .manifest import Manifest, path_of, read_shard, write_shard
from .task import ESTIMATORS, Task, computing_versions, cut, joined, pickled, public, record_of

# The pair is asked on so many of the data what of the context belongs to each datum.
NUM_ASKED = 64


def in_shards(
    estimator: Callable[..., Any],
    model: Program,
    guide: Program,
    x: Any,
    *,
    directory: str | Path,
    executor: Any = None,
    workers: int | None = None,
    shard_size: int = 100,
    seed: int = 0,
    memory_mb: float = 64.0,
    progress: bool = True,
    **options: Any,
) -> Any:
    """The record that an estimator returns of all data, computed in shards by several workers.

    The data are cut into shards of equal size, each with a seed of its own. Results are kept in ``directory``, a file a
    shard, which appears whole or not at all; called again after whatever interrupted it, the function computes what is
    missing. The result has the same bits whatever the number of workers, the executor and the interruptions were: each
    shard is computed by one thread, with the same versions of torch, Pyro and numpy.

    The pair travels to the workers by cloudpickle with the values of its parameters; the results come back to this
    process, which alone writes into ``directory``. So workers need ppvae, and neither the data nor the directory.

    Args:
        estimator: :func:`~ppvae.inference.estimate_evidence`, ``importance_evidence``, ``annealed_evidence``,
            ``sample_posterior`` or ``certify``.
        model: ``model(x, *context)``, the generative program.
        guide: ``guide(x, *context)``.
        x: data, first dimension ``num_data``; or a tuple ``(x, *context)``; x may be rows that are read from their file
            as they are needed, :class:`ppvae.datasets.Rows`.
        directory: a folder for manifest and shards, made if there is none.
        executor: who computes. None: local processes. An object with ``submit()``, such as any
            ``concurrent.futures.Executor``, Dask's ``client.get_executor()`` or submitit's ``AutoExecutor``; a function
            that returns one, which is called again where one breaks; the address of a Dask scheduler,
            ``"tcp://host:8786"``; ``"slurm"``; or ``"module:function"``.
        workers: local processes, by default 1, which computes in this process; with an executor, how many shards it
            computes at once, if it does not say so itself.
        shard_size: data in a shard, at most; another size has other seeds and so other bits.
        seed: of all draws.
        memory_mb: budget in MiB for one pass of the pair; each worker has as much.
        progress: show a progress bar with the time that remains; it counts what all workers do.
        options: of the estimator; for ``certify``, ``like=True`` draws as many data from the model as there are in
            ``x``, and certifies these.

    Returns:
        The record of all data in their order: an ``Evidence``, a ``Posterior`` or a ``Certificate``. Where the data set
        is the unit there is one shard.

    Raises:
        OptionError: an option has a value that cannot be used, there is no such executor, or the pair cannot be
            pickled.
        CheckpointError: the shards in the directory are of something else.
        RunError: shards failed, the first of which is named; no cluster answers; versions differ; or a file cannot be
            written. What is finished is kept.

    Example:
        >>> import tempfile, torch
        >>> from ppvae.inference import importance_evidence, in_shards
        >>> from ppvae.models import LinearGaussian
        >>> pair, x = LinearGaussian(num_features=3, latent_dim=2), torch.randn(40, 3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     evidence = in_shards(importance_evidence, pair.model, pair.guide, x, num_particles=800,
        ...                          directory=folder, shard_size=10, progress=False)
        >>> len(evidence.log_evidence)
        40
    """
    name = getattr(estimator, "__name__", "")
    if name not in ESTIMATORS or ESTIMATORS[name] is not estimator:
        raise OptionError(f"estimator must be one of {', '.join(ESTIMATORS)}; it is {shown(estimator)}.")
    for which, program in (("model", model), ("guide", guide)):
        callable_of(which, program, f"a program, {which}(x, *context)")
    number, memory_mb, progress = valid_compute(seed, memory_mb, progress)
    if number is None:
        raise OptionError("seed must be an integer, since the shards' own depend on it; it is None.")
    workers = None if workers is None else whole_number("workers", workers)
    shard_size = whole_number("shard_size", shard_size)
    folder = _folder(directory)
    values, *context = _given(x)
    programs, by_row = _travelling(model, guide, values, tuple(context))
    manifest = Manifest(
        name,
        {key: repr(value) for key, value in sorted(options.items())} | {"memory_mb": repr(memory_mb)},
        len(values),
        shard_size if by_row is not None else len(values),
        number,
        digest(programs[0].values.leaves[key] for key in sorted(programs[0].values.leaves)),
        str(torch.get_default_dtype()),
        computing_versions(),
    )
    own = by_row or tuple(False for _ in context)
    sent = pickled(*programs, {**options, "memory_mb": memory_mb})
    manifest.agree(folder)

    def batch(shard: int) -> Batch:
        return cut(values, tuple(context), own, manifest.rows(shard))

    def task(shard: int) -> Task:
        data = batch(shard)
        facts = {"rows": [manifest.rows(shard).start, manifest.rows(shard).stop], "data": digest(data)}
        given = pickled(as_batch(data))
        return Task(sent, name, given, manifest.seed_of(shard), torch.get_default_dtype(), manifest.versions, facts)

    missing = [shard for shard in range(manifest.num_shards) if not path_of(folder, shard).exists()]
    with Progress(name, manifest.num_data, "data", progress) as bar:
        bar.begin_at(manifest.num_data - sum(_size(manifest, shard) for shard in missing))

        def keep(shard: int, content: bytes) -> None:
            write_shard(folder, shard, content)
            bar.advance(_size(manifest, shard), f"{manifest.num_shards} shards")

        try:
            failed = gather(missing, task, keep, partial(opened, executor, workers, folder))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted; finished shards are kept in {folder}, and the same call goes on from there."
            ) from None
    if failed:
        raise _failure(failed, manifest, folder)
    return joined([record_of(read_shard(folder, shard, batch(shard))) for shard in range(manifest.num_shards)])


def _size(manifest: Manifest, shard: int) -> int:
    rows = manifest.rows(shard)
    return int(rows.stop - rows.start)


def _folder(directory: Any) -> Path:
    path = Path(instance_of("directory", directory, (str, Path), "the path of a folder for the shards"))
    if "\0" in str(path) or path.is_file():
        raise OptionError(f"directory must be the path of a folder for the shards; it is {shown(directory)}.")
    return path


def _given(x: Any) -> Batch:
    """``(x, *context)``, of which x may be rows that are read as they are needed.

    Raises:
        DataError: there are no data, or some are infinite.
    """
    batch = x if isinstance(x, tuple) and x else (x,)
    if not isinstance(batch[0], Rows):
        return finite_batch(as_batch(x))
    if not len(batch[0]):
        raise DataError("x holds no data: give at least one datum.")
    return batch


def _failure(failed: dict[int, BaseException], manifest: Manifest, folder: Path) -> PpvaeError:
    """The error of shards that failed; one of ppvae's own keeps its type."""
    shard = min(failed)
    error, rows = failed[shard], manifest.rows(shard)
    reason = first_line(error)
    named = reason if isinstance(error, PpvaeError) else f"{type(error).__name__}: {reason}"
    kind = public(error) if isinstance(error, PpvaeError) else RunError
    return kind(
        f"{len(failed)} of {manifest.num_shards} shards failed, first shard {shard} (rows {rows.start} to "
        f"{rows.stop - 1}): {named.rstrip('.')}. What is finished is kept in {folder}: mend the cause and run the same "
        "again."
    )


def _travelling(
    model: Program, guide: Program, x: Any, context: tuple[Any, ...]
) -> tuple[tuple[Trained, Trained], tuple[bool, ...] | None]:
    """The programs on values of their own, and which of the context has a row for each datum.

    None says that the pair runs on all data at once only.
    """
    some = slice(min(NUM_ASKED, len(x)))
    candidates = tuple(isinstance(one, Tensor) and one.dim() > 0 and len(one) == len(x) for one in context)
    by_row: tuple[bool, ...] | None
    try:
        batch = as_batch(cut(x, context, candidates, some))
        with generator_kept(0), Pair.on(model, guide, batch, density=False) as pair:
            by_row = tuple(pair.arguments.by_row[1:]) if pair.divisible else None
    except PpvaeError:  # such as parameters with a row for each datum
        batch = as_batch(cut(x, context, candidates, slice(None)))
        with generator_kept(0), Pair.on(model, guide, batch, density=False) as pair:
            by_row = tuple(pair.arguments.by_row[1:]) if pair.divisible else None
    if by_row is None:
        batch = as_batch(cut(x, context, candidates, slice(None)))
    if isinstance(model, Trained) and isinstance(guide, Trained):
        return (model, guide), by_row
    with (
        torch.no_grad(),
        buffers_kept(model, guide),
        evaluation_mode(model, guide),
        own_parameters(model, guide),
        generator_kept(0),
    ):
        kept = ParameterValues.copied(model, guide, named_parameters(model, guide, batch))
    return (Trained(model, kept), Trained(guide, kept)), by_row
