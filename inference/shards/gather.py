"""The shards that are missing, computed by an executor: retried where they fail, kept as they come."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import AbstractContextManager
from typing import Any

from ppvae.errors import PpvaeError, RunError

from .executors import Opened, first_done
from .task import Task, run_task

# How often a shard is tried that fails for a reason that may pass, or in whose time a worker died.
ATTEMPTS = 3
# A shard in whose time so many workers died is tried by itself, so that it takes no other with it.
SUSPECT = 2
# So many shards that fail before any has succeeded are enough to stop.
ENOUGH_FAILURES = 3


def gather(
    missing: Sequence[int],
    task: Callable[[int], Task],
    keep: Callable[[int, bytes], None],
    open_executor: Callable[[], AbstractContextManager[Opened]],
) -> dict[int, BaseException]:
    """Compute shards.

    Args:
        missing: their numbers.
        task: what a worker is handed of a shard.
        keep: is given each result as it comes.
        open_executor: opens the executor, again where one broke.

    Returns:
        Those that failed, with the error.

    Raises:
        RunError: a result cannot be kept, or an executor broke that cannot be opened again.
    """
    todo, deaths, failures = deque(missing), Counter[int](), Counter[int]()
    failed: dict[int, BaseException] = {}
    kept = 0
    while todo and not (len(failed) >= ENOUGH_FAILURES and not kept):
        flying: dict[Any, int] = {}
        with open_executor() as executor:
            try:
                while (todo or flying) and not (len(failed) >= ENOUGH_FAILURES and not kept):
                    alone = any(deaths[n] >= SUSPECT for n in (*todo, *flying.values()))
                    while todo and len(flying) < (1 if alone else executor.most):
                        number = todo[0]  # which stays there if the executor breaks now
                        flying[executor.submit(run_task, task(number))] = number
                        todo.popleft()
                    broken: BrokenExecutor | None = None
                    for future in first_done(list(flying)):
                        number = flying[future]
                        outcome = _outcome(future)
                        if isinstance(outcome, BrokenExecutor):
                            broken = outcome  # once the others that are done are kept
                            continue
                        del flying[future]
                        if isinstance(outcome, bytes):
                            keep(number, outcome)
                            kept += 1
                            continue
                        failures[number] += 1
                        if isinstance(outcome, PpvaeError) or failures[number] >= ATTEMPTS:
                            failed[number] = outcome
                        else:
                            todo.append(number)
                    if broken is not None:
                        raise broken
            except BrokenExecutor as error:
                lost = sorted({*flying.values()})
                if not executor.again:
                    raise RunError(
                        f"{executor.name} broke while shards {_few(lost)} were computed ({error}): what is finished is "
                        "kept; run it again with another executor."
                    ) from error
                for number in reversed(lost):
                    deaths[number] += 1
                    if deaths[number] > ATTEMPTS:
                        failed[number] = error
                    else:
                        todo.appendleft(number)
    return failed


def _outcome(future: Any) -> BaseException | bytes:
    """The error or the result of a future."""
    try:
        found: bytes = future.result()
        return found
    except Exception as error:
        return error


def _few(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")
