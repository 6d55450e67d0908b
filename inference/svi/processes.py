"""The processes of a training, which agree on every step.

Each process takes its share of a batch and the gradient of the mean loss over it. With n_r of the n rows on process r,

    g = Σ_r (n_r / n) g_r

is the gradient of the mean over the batch, whatever holds the parameters: Pyro's store or modules. One all-reduce a
step carries it (:mod:`.reduction`), and with it the loss, the buffers of process 0 (as DDP has them), and whether a
process has failed or was interrupted: so that all of them end at the same step.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyro
import torch
from torch import Tensor

from ppvae.errors import PpvaeError, ProcessError, first_line

if TYPE_CHECKING:
    from lightning_fabric import Fabric  # which is slow to import

T = TypeVar("T")
# How far apart parameters on two processes may be, relative to the sum of all: rounding on other hardware.
APART = 1e-6
GO_ON = "nothing before its last checkpoint is lost: resume it, with any number of processes."


@contextmanager
def answered() -> Iterator[None]:
    """Turn the failure of a collective operation into a sentence.

    Raises:
        ProcessError: another process has ended, or does not answer.
    """
    try:
        yield
    except RuntimeError as error:
        raise ProcessError(
            f"another process of this training has ended or does not answer ({first_line(error)[:100]}); {GO_ON}"
        ) from error


class Team:
    """This process among those of a training; alone, it does nothing.

    Args:
        fabric: launched.

    Attributes:
        rank: the number of this process.
        size: how many there are.
        stop: whether all processes have agreed to stop, since one was interrupted.
    """

    def __init__(self, fabric: Fabric) -> None:
        self.rank, self.size, self._fabric = fabric.global_rank, fabric.world_size, fabric
        self.interrupted = threading.Event()
        self.stop = False
        self._on_device = fabric.device.type != "cpu"
        if self.size > 1:
            _let_others_go_first("gloo_tcp_loop")

    @property
    def first(self) -> bool:
        """Whether this process speaks, logs and writes for all."""
        return self.rank == 0

    @property
    def share(self) -> slice:
        """The rows of a batch that this process takes."""
        return slice(self.rank, None, self.size) if self.size > 1 else slice(None)

    def seed_step(self, seed: int, step: int) -> None:
        """Start this process's noise for a step, from the seed, the step and the process alone."""
        if self.size == 1:
            return
        number = int(np.random.SeedSequence([seed, step, self.rank]).generate_state(1)[0])
        if self._on_device or torch.cuda.is_initialized():
            pyro.set_rng_seed(number)
            return
        # torch.manual_seed asks for all kinds of devices too, with the stack of its caller, which takes 0.7 ms.
        random.seed(number)
        np.random.seed(number)  # noqa: NPY002, which programs may draw by
        torch.default_generator.manual_seed(number)

    def stopping(self) -> bool:
        """Whether to stop after this step."""
        return self.stop if self.size > 1 else self.interrupted.is_set()

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place.

        Raises:
            ProcessError: another process has ended, or does not answer.
        """
        if self.size > 1:
            with answered():
                torch.distributed.all_reduce(values)
        return values

    def of_all(self, num: int, share: slice | None, make: Callable[[slice], Tensor]) -> Tensor:
        """Numbers of which each process makes its share, on all processes, ``(num,)``.

        Args:
            num: how many there are.
            share: which of them this process makes; None makes none.
            make: makes them; what it raises is raised on all processes.
        """
        if self.size == 1:
            return make(slice(None))
        found = torch.zeros(num + 1, dtype=torch.float64, device=self._fabric.device)
        error: BaseException | None = None
        if share is not None and len(range(num)[share]):
            try:
                found[:num][share] = make(share).to(found)
            except Exception as caught:  # the others must hear of it
                error, found[num] = caught, 1.0
        if self.sum(found)[num]:
            raise self.failures(error) or ProcessError("a process has failed")
        return found[:num]

    def of_first(self, make: Callable[[], T]) -> T:
        """What process 0 makes, on all processes; or the error that it raises."""
        if self.size == 1:
            return make()
        value, error = None, None
        if self.first:
            try:
                value = make()
            except PpvaeError as caught:
                error = caught
        with answered():
            value, error = self._fabric.broadcast((value, error))
        if error is not None:
            raise error
        return value  # type: ignore[return-value]

    def same(self, what: str, value: Any) -> None:
        """Raise ProcessError, on all processes, unless all of them have the same value."""
        if self.size == 1:
            return
        differs = torch.tensor(float(value != self.of_first(lambda: value)), device=self._fabric.device)
        if self.sum(differs) > 0:
            raise ProcessError(
                f"{what} are not the same on all processes: what a script makes at random before it trains must be "
                "seeded."
            )

    def check_parameters(self, parameters: Iterable[Tensor]) -> None:
        """Raise ProcessError, on all processes, where their parameters have come apart."""
        if self.size == 1:
            return
        total = sum((p.detach().double().abs().sum() for p in parameters), torch.zeros((), device=self._fabric.device))
        pair = torch.stack((total if self.first else torch.zeros_like(total), total / self.size))
        first, mean = self.sum(pair.double()).tolist()
        if not abs(first - mean) <= APART * (1 + abs(first)):
            raise ProcessError(
                "the parameters are not the same on all processes any more: the optimiser or a program changes them by "
                "what differs between processes, such as noise; train on one process."
            )

    def failures(self, error: BaseException | None) -> BaseException | None:
        """The error of the first process that has one."""
        found: list[Any] = [None] * self.size
        sent = (
            error
            if error is None or isinstance(error, PpvaeError)
            else ProcessError(f"{type(error).__name__}: {error}")
        )
        with answered():
            torch.distributed.all_gather_object(found, sent)
        rank = next(i for i, one in enumerate(found) if one is not None)
        return error if rank == self.rank else found[rank]


def _let_others_go_first(name: str) -> None:
    """Let the threads of this process that have this name wait for a core while another thread runs on it (Linux).

    Gloo's thread spins while data have arrived that no thread has asked for yet. Where processes are as many as cores,
    it takes the core of the thread that is about to ask, until the next tick of the scheduler (4 ms).
    """
    if not hasattr(os, "SCHED_BATCH"):
        return
    for thread in Path("/proc/self/task").glob("*"):
        with suppress(OSError):
            if (thread / "comm").read_text().strip() == name:
                os.sched_setscheduler(int(thread.name), os.SCHED_BATCH, os.sched_param(0))
