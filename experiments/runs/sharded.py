"""An estimator on data of a run: at once in this process, or in shards that are kept in the run directory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from ppvae.inference import in_shards

from .command_options import ShardOptions
from .run_data import Batch
from .saved_run import SavedRun

FOLDER = "shards"


def computed(
    run: SavedRun, how: ShardOptions, estimator: Callable[..., Any], batch: Batch, *, like: bool = False, **options: Any
) -> Any:
    """The record of an estimator.

    Shards of the same estimator with other options, of other data or of other parameters have a folder of their own.

    Args:
        run: the run.
        how: who computes.
        estimator: one that :func:`ppvae.inference.in_shards` takes.
        batch: ``(x, *context)``.
        like: whether data are drawn from the model, as many as ``batch`` has.
        options: of the estimator.
    """
    model, guide, seed = run.pair.model, run.pair.guide, run.settings.seed
    if not how.sharded:
        data = {"like": batch} if like else {"x": batch}
        return estimator(model, guide, **data, **options, seed=seed, progress=True)
    options |= {"like": True} if like else {}
    names = [run.split, len(batch[0]), how.shard_size, seed, sorted(options.items())]
    mark = hashlib.sha256(repr(names).encode() + run.directory.checkpoint.read_bytes()).hexdigest()[:8]
    return in_shards(
        estimator,
        model,
        guide,
        batch if len(batch) > 1 else batch[0],
        directory=run.directory.path / FOLDER / f"{estimator.__name__}-{mark}",
        executor=how.executor,
        workers=how.workers,
        shard_size=how.shard_size,
        seed=seed,
        **options,
    )
