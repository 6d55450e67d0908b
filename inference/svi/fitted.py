"""A trained pair: what its training did, and both programs on their trained values, to be saved and loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
from torch import Tensor

from ..pair import Batch, ParameterValues, Program, Trained, as_batch, untrained
from ..prediction import TrainedPair
from .checkpoint import load_parameters, save_values


@dataclass(frozen=True, repr=False)
class Fit(TrainedPair):
    """What a training did, and the trained pair, to be used: see :class:`~ppvae.inference.TrainedPair`.

    To go on, train its two programs: ``fit(result.model, result.guide, more_data)`` starts from the trained values and
    leaves this record as it is.

    Attributes:
        model: the model on its trained values, whatever Pyro's parameter store and its modules hold later.
        guide: the same of the guide.
        example: a batch of the training data; all of them where the programs run on all only.
        history: a row per epoch: ``epoch``, ``elbo`` (mean over the data while they were trained on: minus the loss,
            and so another bound than the ELBO where ``loss`` names another objective),
            ``validation_elbo`` and its ``validation_standard_error`` over the data (NaN without validation data),
            ``learning_rate``, ``seconds``. All ELBOs are per datum, in nats; that of validation is one in any case.
        stopped: why it ended: ``"finished"``, ``"plateau"`` or ``"interrupted"``.
        parameters: the trained values by their names in Pyro's parameter store, in the constrained space.
        steps: gradient steps taken, those before a resume included.
        seconds: time spent, that before a resume included.
        step: how steps were taken: ``"compiled"``, or ``"eager: "`` and why.
        loss: what minus the loss is: ``"ELBO"``, or the name of the objective that was trained by.
        found: names of the parameters whose values were in Pyro's parameter store before, and were trained on.
    """

    model: Trained
    guide: Trained
    history: list[dict[str, float]]
    stopped: str
    parameters: dict[str, Tensor]
    steps: int
    seconds: float
    step: str = "eager"
    loss: str = "ELBO"
    found: tuple[str, ...] = ()

    @property
    def elbo(self) -> float:
        """The last epoch's mean training ELBO (or what ``loss`` names) per datum, in nats; NaN without an epoch."""
        return self.history[-1]["elbo"] if self.history else math.nan

    def save(self, path: str | Path) -> None:
        """Write the trained values and the history to a file that :meth:`load` reads in any process.

        The file holds tensors and numbers, no program; it appears whole or not at all.

        Args:
            path: the file; its folder must exist.

        Raises:
            RunError: the file cannot be written.

        Example:
            >>> import tempfile, torch
            >>> from ppvae.inference import fit, log_weights
            >>> from ppvae.models import LinearGaussian
            >>> x, path = torch.randn(50, 3), Path(tempfile.mkdtemp()) / "fit.pt"
            >>> pair, other = LinearGaussian(3, 1), LinearGaussian(3, 1)
            >>> first = fit(pair.model, pair.guide, x, epochs=2, progress=False)
            >>> first.save(path)
            >>> again = Fit.load(path, other.model, other.guide, x)
            >>> here, there = (log_weights(f.model, f.guide, x, 5, seed=0) for f in (first, again))
            >>> bool((here == there).all())
            True
        """
        told = {
            "history": self.history,
            "stopped": self.stopped,
            "place": [len(self.history), 0, self.steps],
            "sums": [0.0, self.seconds],
            "found": list(self.found),
            "step": {"name": self.step, "sizes": [], "loss": self.loss},
        }
        save_values(Path(path), self.model.values, told)

    @staticmethod
    def load(path: str | Path, model: Program, guide: Program, x: Tensor | Batch) -> Fit:
        """A training that :meth:`save` wrote, with its values put into a pair in place.

        Pyro's parameter store and the pair's modules hold the values afterwards, as after :func:`~ppvae.inference.fit`.

        Args:
            path: the file, or the checkpoint of a training, which then counts as interrupted.
            model: ``model(x, *context)``, the program that was trained.
            guide: ``guide(x, *context)``.
            x: data of the training's shape, on which the pair is run once so that all its parameters exist. Any few
                rows do, unless parameters have a row per datum or a plate has a fixed size: then as many as were
                trained on.

        Raises:
            CheckpointError: the file is missing, damaged, or of another pair; store and modules are as they were.
            PairError: the programs cannot be run on ``x``.
        """
        model, guide = untrained(model, guide)
        told = load_parameters(path, model, guide, x)
        return record(model, guide, told.pop("parameters"), example=as_batch(x), **told)

    def __repr__(self) -> str:
        why = {"plateau": "the validation ELBO no longer improves", "interrupted": "interrupted"}.get(self.stopped)
        lines = [
            f"Fit: {self.loss} {self.elbo:.2f} nats per datum in epoch {len(self.history)}, after {self.steps} steps "
            f"and {self.seconds:.0f} s ({why or self.stopped})"
        ]
        if self.history and not math.isnan(self.history[-1]["validation_elbo"]):
            score = max(row["validation_elbo"] for row in self.history)
            lines.append(f"validation ELBO: {score:.2f} nats per datum in the best epoch")
        lines.append(f"{sum(p.numel() for p in self.parameters.values())} numbers in {len(self.parameters)} parameters")
        lines.append(f"steps: {self.step}")
        if self.found:
            lines.append(f"trained on from values found in Pyro's parameter store: {', '.join(self.found)}")
        return "\n".join(lines)


def record(model: Program, guide: Program, leaves: dict[str, Tensor], **told: Any) -> Fit:
    """The :class:`Fit` of a training from the leaves that it left in Pyro's store and the modules."""
    store = pyro.get_param_store()
    constrained = {name: store[name] if name in store else leaf for name, leaf in leaves.items()}  # noqa: SIM401
    values = ParameterValues.copied(model, guide, leaves)
    parameters = {name: value.detach().clone() for name, value in constrained.items()}
    return Fit(model=Trained(model, values), guide=Trained(guide, values), parameters=parameters, **told)
