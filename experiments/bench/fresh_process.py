"""A function of this bench called in a fresh process, with a number of threads of its own and as many cores.

The number of threads is read once by XLA, and memory that a process has once taken is not given back, so that each
measurement of these takes a process. A process gets no more cores than threads, since XLA runs products that do not
need each other at the same time, whatever number of threads it is told. The function's module ends with
``answer(function)``; what goes in and comes out is JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ppvae.errors import RunError

MARK = "result of the process: "
# Whether this system can keep a process to some cores: not macOS, not Windows.
CORES_KEPT = hasattr(os, "sched_setaffinity")


def ask(module: str, request: Mapping[str, Any], threads: int, environment: Mapping[str, str] | None = None) -> Any:
    """What a module's function says to a request; its standard error is this process's.

    Args:
        module: in full, such as ``ppvae.experiments.bench.growth_curves``.
        request: the arguments.
        threads: of the process.
        environment: variables of the process, beside those of this one.

    Raises:
        RunError: the process ended without an answer.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, json.dumps({**request, "threads": threads})],
        env=os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)} | dict(environment or {}),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if not lines:
        raise RunError(f"{module} ended without a result (its exit code is {done.returncode}): run the bench again.")
    return json.loads(lines[-1].removeprefix(MARK))


def answer(function: Callable[..., Any]) -> None:
    """Call the function with the arguments that this process was started with, and print what it returns."""
    request = json.loads(sys.argv[1])
    threads = request.pop("threads")
    torch.set_num_threads(threads)
    keep_to_cores(threads)
    torch.manual_seed(0)
    print(MARK + json.dumps(function(**request)), flush=True)


def keep_to_cores(number: int) -> None:
    """Let this process, and threads that it starts from now on, run on no more cores than this, where it can."""
    if CORES_KEPT:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-number:])
