"""The experiments, one question a file; in ``runs`` the work of the commands; and :func:`load`, which opens a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppvae.inference import Fit, Mended

__all__ = ["load"]


def load(run: str | Path, *, pair: Any = None, run_code: bool = False, mended: bool = False) -> Fit | Mended:
    """The trained pair of a run directory that ``ppvae run`` has made, ready to be used: a ``Fit``, as of a training.

    The settings of the run say which pair it is and on which data it was trained, whose shape is needed; the
    checkpoint, which is read without running code, gives the trained values. They are put into the pair and into
    Pyro's parameter store, as after a training.

    Args:
        run: the run directory.
        pair: the pair that was trained, an object with ``model`` and ``guide``; None makes it anew from the settings.
        run_code: whether a file or module of the user's, which the settings may name, may be run to make the pair.
        mended: with the guide that ``ppvae mend`` has found, a ``Mended``; else the pair as it was trained.

    Raises:
        RunError: there is no run.
        OptionError: the settings name code of the user's, and neither ``pair`` nor ``run_code`` was given.
        CheckpointError: the run has no checkpoint, or one of another pair.
        PpvaeError: the data or the pair cannot be had.

    Example:
        >>> import tempfile
        >>> from ppvae.experiments.runs.main_job import run
        >>> from ppvae.storage import Settings
        >>> settings = Settings(epochs=1, num_particles=10, max_eval=4, out=tempfile.mkdtemp(), name="small")
        >>> _ = run(settings, say=lambda line: None)  # ppvae run --epochs 1 ...
        >>> trained = load(f"{settings.out}/small")
        >>> trained.sample(3, seed=0).shape
        torch.Size([3, 64])
    """
    from .runs.reopened import reopened  # slow to import

    return reopened(run, pair, run_code, mended)
