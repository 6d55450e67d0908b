"""Lightning Fabric on the devices that were asked for, and the processes that it starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from torch import nn

from ppvae.errors import OptionError, PpvaeError, ProcessError, first_line

from ..option_records import Compute
from .processes import GO_ON, Team

if TYPE_CHECKING:
    from lightning_fabric import Fabric  # which is slow to import

T = TypeVar("T")


def fabric_of(accelerator: str, precision: Any, compute: Compute = Compute()) -> Fabric:
    """Lightning Fabric on these devices.

    Raises:
        OptionError: there is no such accelerator or precision here, or not so many devices.
    """
    from lightning_fabric import Fabric

    several = compute.num_processes > 1
    chosen: Any = compute.precision or precision
    try:
        return Fabric(
            accelerator=accelerator,
            devices=compute.devices,
            num_nodes=compute.num_nodes,
            strategy=_strategy(compute) if several else "auto",
            precision=chosen,
        )
    except Exception as error:  # Fabric raises a different type for each kind of mistake
        words = "accelerator, precision or compute" if several else "accelerator or precision"
        raise OptionError(f"{words} cannot be used: {first_line(error)}") from error


def _strategy(compute: Compute) -> Any:
    """Fabric's DDP, which starts the processes; the gradients are averaged by :class:`Team`."""
    from lightning_fabric.strategies import DDPStrategy
    from lightning_fabric.utilities.imports import _IS_INTERACTIVE

    start = {"ddp": "popen", "ddp_spawn": "spawn", "ddp_fork": "fork", "ddp_notebook": "fork"}
    method: Any = start.get(compute.strategy, "fork" if _IS_INTERACTIVE else "popen")
    return DDPStrategy(start_method=method, timeout=timedelta(seconds=compute.timeout))


def starts_a_function(fabric: Fabric) -> bool:
    """Whether processes are made for one function, instead of each running the whole script."""
    from lightning_fabric.strategies.launchers import _MultiProcessingLauncher

    return isinstance(fabric.strategy.launcher, _MultiProcessingLauncher)


def launch(fabric: Fabric, job: Callable[..., T], *args: Any) -> T:
    """Call ``job(fabric, *args)`` in every process; what process 0 returns.

    Raises:
        OptionError: the processes cannot be started from here.
        ProcessError: one of them has ended.
    """
    if fabric.world_size > 1 and not starts_a_function(fabric):
        _refuse_without_script(fabric)
    if not starts_a_function(fabric):
        fabric.launch()
        return job(fabric, *args)
    from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

    try:
        return fabric.launch(job, *args)
    except ProcessExitedException as error:
        raise ProcessError(f"a process of the training has ended ({first_line(error)}); {GO_ON}") from error
    except ProcessRaisedException as error:
        said = str(error).strip().splitlines()[-1]
        guard = ' Start a script\'s work under `if __name__ == "__main__":`.' * ("__main__" in str(error))
        raise ProcessError(f"a process of the training has failed ({said}).{guard}") from error
    except Exception as error:
        if isinstance(error, PpvaeError) or not _cannot_be_sent(error):
            raise
        raise OptionError(
            f"the pair or its data cannot be sent to other processes ({first_line(error)}): define them at the top of "
            'a file, or take strategy="ddp" in a script and "ddp_fork" elsewhere.'
        ) from error


def _cannot_be_sent(error: Exception) -> bool:
    return "pickle" in f"{type(error).__name__} {error}".lower() or "local object" in str(error)


def _refuse_without_script(fabric: Fabric) -> None:
    """Strategy ddp runs the script again, which must be one."""
    import __main__

    environment: Any = getattr(fabric.strategy, "cluster_environment", None)
    external = environment is not None and environment.creates_processes_externally
    if not external and getattr(__main__, "__spec__", None) is None and not os.path.isfile(sys.argv[0]):
        raise OptionError(
            'strategy "ddp" runs the script again in each process, and there is no script here: put the call in a '
            'file, or give Compute(strategy="ddp_fork").'
        )


def team_of(accelerator: str, precision: Any, compute: Compute) -> Team:
    """This process among those that run this script; they are started where they are not yet.

    Raises:
        OptionError: they cannot be started.
    """
    fabric = fabric_of(accelerator, precision, compute)
    if starts_a_function(fabric):  # fit makes them, and this process is alone before and after
        return Team(fabric_of(accelerator, precision))
    return launch(fabric, Team)


def helps(compute: Compute) -> bool:
    """Whether this process was started to help another one: it is not the first of several."""
    if compute.num_processes == 1:
        return False
    from lightning_fabric.utilities.rank_zero import rank_zero_only

    return int(getattr(rank_zero_only, "rank", 0)) != 0


def place_module(fabric: Fabric, module: nn.Module) -> None:
    """Move and convert a module in place, without Fabric's wrapper: that of DDP would reduce gradients too."""
    if fabric.world_size == 1:
        fabric.setup_module(module)
        return
    fabric._precision.convert_module(module)
    fabric.to_device(module)
