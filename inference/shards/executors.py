"""Which executor computes the shards: processes of this machine, a Dask cluster, Slurm, or one by import path.

Whatever has ``submit(function, argument)`` will do, if what it returns has ``done()`` and ``result()``: any
``concurrent.futures.Executor``, and submitit's executors.
"""

from __future__ import annotations

import importlib
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppvae.errors import OptionError, RunError, first_line

from ..options import shown

ADDRESSES = ("tcp://", "tls://", "ws://", "wss://", "inproc://", "ucx://")
SLURM = "slurm"
# A scheduler that does not answer in so many seconds is not there; jobs of a queue are looked at so often.
PATIENCE, LOOK_EVERY = 10.0, 0.5
# Shards that are handed over for each worker, so that none waits for the next; where workers are not known, so many.
HANDED_OVER, UNKNOWN = 2, 64


@dataclass(frozen=True)
class Computing:
    """Where shards are computed, and how large they are.

    Attributes:
        workers: local processes; 1 computes in this one. With an executor, how many shards it computes at once.
        executor: see :func:`ppvae.inference.in_shards`; None takes local processes.
        shard_size: data in a shard.
    """

    workers: int | None = None
    executor: Any = None
    shard_size: int = 100


@dataclass(frozen=True)
class Opened:
    """An executor that can be handed work.

    Attributes:
        submit: hands over a function and its argument.
        most: how many shards may be handed over before the first is back.
        again: whether a new executor can be opened in the place of one that broke.
        name: what it is, in words.
    """

    submit: Callable[..., Any]
    most: int
    again: bool
    name: str


class _Here:
    """Computes in this process what it is handed."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(function(*arguments))
        except Exception as error:
            done.set_exception(error)
        return done


@contextmanager
def opened(executor: Any, workers: int | None, directory: Path) -> Iterator[Opened]:
    """The executor that was asked for, ready for work; one that was made here is shut down at the end.

    Args:
        executor: see :func:`ppvae.inference.in_shards`.
        workers: see there.
        directory: where Slurm's files go.

    Raises:
        OptionError: there is no such executor.
        RunError: no cluster answers.
    """
    if executor is None:
        with _local(workers or 1) as found:
            yield found
    elif isinstance(executor, str) and executor.startswith(ADDRESSES):
        with _dask(executor, workers) as found:
            yield found
    elif isinstance(executor, str | type) or not hasattr(executor, "submit"):
        made = _slurm(directory, workers) if isinstance(executor, str) and executor == SLURM else _made(executor)
        try:
            yield Opened(made.submit, _most(made, workers), True, type(made).__name__)
        finally:
            getattr(made, "shutdown", lambda **_: None)(wait=False)
    else:
        yield Opened(executor.submit, _most(executor, workers), False, type(executor).__name__)


def first_done(futures: list[Any]) -> list[Any]:
    """Those that are done, of which there is one at least."""
    if all(isinstance(future, Future) for future in futures):
        return list(wait(futures, return_when=FIRST_COMPLETED).done)
    while not (done := [future for future in futures if future.done()]):
        time.sleep(LOOK_EVERY)
    return done


def _most(executor: Any, workers: int | None) -> int:
    known = workers or getattr(executor, "_max_workers", None)
    return HANDED_OVER * known if known else UNKNOWN


@contextmanager
def _local(workers: int) -> Iterator[Opened]:
    if workers == 1:
        yield Opened(_Here().submit, 1, False, "this process")
        return
    from joblib.externals.loky import ProcessPoolExecutor

    pool = ProcessPoolExecutor(workers, initializer=_end_with, initargs=(os.getpid(),))
    try:
        yield Opened(pool.submit, HANDED_OVER * workers, True, f"{workers} processes")
    finally:
        pool.shutdown(wait=True, kill_workers=True)


def _end_with(parent: int) -> None:
    """End this worker when its parent is gone: nobody would hand it work any more."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _dask(address: str, workers: int | None) -> Iterator[Opened]:
    try:
        from distributed import Client
    except ImportError as error:
        raise OptionError(
            f"the executor {address} needs Dask: install it with `pip install 'ppvae[distributed]'`."
        ) from error
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise RunError(
            f"no Dask scheduler answers at {address} ({first_line(error)}): start one with `dask scheduler` and "
            "workers with `dask worker`, or correct the address."
        ) from error
    try:
        client.get_versions(check=True)
        threads = sum(client.nthreads().values())
        if not threads:  # which may be on their way
            warnings.warn(
                f"the Dask scheduler at {address} has no workers yet, for which this waits: start some with `dask "
                f"worker {address} --nthreads 1`.",
                stacklevel=2,
            )
        with client.get_executor() as pool:
            yield Opened(pool.submit, HANDED_OVER * (workers or threads) or UNKNOWN, False, f"Dask at {address}")
    except ValueError as error:
        if "Mismatched versions" not in str(error):
            raise
        raise RunError(
            f"the Dask cluster at {address} has other versions than this process: install the same everywhere "
            f"({' '.join(str(error).split())})."
        ) from error
    finally:
        client.close()


def _slurm(directory: Path, workers: int | None) -> Any:
    try:
        import submitit
    except ImportError as error:
        raise OptionError(
            "the executor slurm needs submitit: install it with `pip install 'ppvae[distributed]'`."
        ) from error
    try:
        made = submitit.AutoExecutor(folder=directory / SLURM, cluster=SLURM)
    except RuntimeError as error:
        raise RunError(
            f"there is no Slurm here ({first_line(error)}): run this where srun is, or give another executor."
        ) from error
    made.update_parameters(name="ppvae", cpus_per_task=1, **({"slurm_array_parallelism": workers} if workers else {}))
    return made


def _made(executor: Any) -> Any:
    """The executor that a function returns, which may be named by import path."""
    function = _function(executor) if isinstance(executor, str) else executor
    if not callable(function):
        raise OptionError(
            f"executor is {shown(executor)}: give an object with submit(), a function that returns one, the address of "
            "a Dask scheduler (tcp://host:8786), slurm, or module:function."
        )
    made = function()
    if not hasattr(made, "submit"):
        raise OptionError(
            f"the executor {shown(executor)} returned a {type(made).__name__}, which has no submit(): let it "
            "return a concurrent.futures.Executor."
        )
    return made


def _function(path: str) -> Any:
    module, colon, name = path.partition(":")
    if not colon or name.startswith("//"):
        raise OptionError(
            f"executor is {path!r}: give the address of a Dask scheduler (tcp://host:8786), slurm, or module:function."
        )
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise OptionError(f"there is no executor {path} ({first_line(error)}): correct the import path.") from error
