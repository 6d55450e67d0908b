"""A mended guide: the program, what was tried, and what each step gained and cost."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ppvae.errors import CheckpointError

from ..pair import Batch, Pair, ParameterValues, Program, Trained, as_batch, untrained, where_parameters_are
from ..prediction import TrainedPair
from ..records import row
from ..resume import read_checkpoint
from ..svi import load_parameters, save_values
from .mended_guide import corrected, mapped
from .mixed_guide import mixed
from .stepped_guide import stepped

# The programs that a guide may be mended by, the smallest first.
CORRECTION, COVARIANCE, FLOW = "correction", "full covariance", "flow"
GRADIENT_STEPS, MIXTURE, DEFENCE = "gradient steps", "mixture", "defence"
FAMILIES = CORRECTION, GRADIENT_STEPS, COVARIANCE, FLOW, MIXTURE, DEFENCE
# A step that trains what is there already; one that trains the model too.
MORE_STEPS, WARM_UP = "more steps", "warm-up"


@dataclass(frozen=True)
class MendingStep:
    """A step that was tried.

    Attributes:
        name: ``"warm-up"``, ``"more steps"``, ``"correction"``, ``"gradient steps"``, ``"full covariance"``,
            ``"flow"``, ``"mixture"`` or ``"defence"``.
        gain: of the ELBO on the data held out, in nats, paired by datum; NaN where the step could not be tried.
        standard_error: of ``gain``.
        seconds: that it took.
        kept: whether the gain was so many standard errors.
        note: why it could not be tried.
        reason: why it was tried; of a defence also what became of the tail of the weights.
    """

    name: str
    gain: float
    standard_error: float
    seconds: float
    kept: bool
    note: str = ""
    reason: str = ""


@dataclass(frozen=True, repr=False)
class Mended(TrainedPair):
    """A trained pair with a better guide, to be used, saved and trained on like any other.

    ``guide`` is a program on its own values; it draws the same sites as the guide that it began as, and has a density
    in closed form. ``fit(mended.model, mended.guide, x)`` goes on training it.

    Attributes:
        steps: what was tried, in order.
        families: of the networks that were added, in order, each with its name in Pyro's parameter store.
        elbo_before: of the guide as it came, by unit of the data held out, in nats.
        elbo: of the mended guide, on the same data.
        gain_error: the standard error of the mean of ``elbo − elbo_before``.
        held_out: whether these data were held out from training; where not, they are the training data.
        model_changed: whether the model was trained too.
    """

    steps: tuple[MendingStep, ...]
    families: tuple[tuple[str, str], ...]
    elbo_before: Tensor
    elbo: Tensor
    gain_error: float
    held_out: bool
    model_changed: bool

    @property
    def seconds(self) -> float:
        """What all steps took, the ones that were not kept too."""
        return sum(step.seconds for step in self.steps)

    def summary(self) -> dict[str, float]:
        """ELBO before and after, and the paired gain with its standard error, in nats; seconds; steps kept."""
        return {
            "num_data": len(self.elbo),
            "elbo_before": float(self.elbo_before.mean()),
            "elbo": float(self.elbo.mean()),
            "gain": float((self.elbo - self.elbo_before).mean()),
            "gain_standard_error": self.gain_error,
            "seconds": self.seconds,
            "num_kept": sum(step.kept for step in self.steps),
        }

    def remarks(self) -> list[str]:
        """What a reader of the numbers must be told, a sentence each; empty when there is nothing."""
        found = [f"{step.name} could not be tried: {step.note}." for step in self.steps if step.note]
        if not any(step.kept for step in self.steps):
            found.append("no step gained enough on the data held out: the guide is the one that came.")
        if not self.held_out:
            found.append("no data can be held out from this pair: the gains are those of the training data.")
        if self.model_changed:
            found.append("the model was trained too: log p(x) is that of another model, to be estimated again.")
        return found

    def save(self, path: str | Path) -> None:
        """Write the values of the pair to a file of tensors and numbers that :meth:`load` reads in any process.

        Args:
            path: the file; its folder must exist.

        Raises:
            RunError: the file cannot be written.
        """
        steps = [list(astuple(step)) for step in self.steps]
        told = {
            "history": [],
            "place": [0, 0, 0],
            "sums": [0.0, self.seconds],
            "mended": {
                "families": [list(one) for one in self.families],
                "steps": steps,
                "elbo_before": self.elbo_before,
                "elbo": self.elbo,
                "gain_error": self.gain_error,
                "held_out": self.held_out,
                "model_changed": self.model_changed,
            },
        }
        save_values(Path(path), self.guide.values, told)  # type: ignore[attr-defined]

    @staticmethod
    def load(path: str | Path, model: Program, guide: Program, x: Tensor | Batch) -> Mended:
        """The mended pair that :meth:`save` wrote, with its values put into the programs in place.

        Args:
            path: the file.
            model: ``model(x, *context)``, the program that was mended.
            guide: ``guide(x, *context)``, the guide as it came.
            x: data of the training's shape, on which the pair is run so that all its parameters exist.

        Raises:
            CheckpointError: the file is missing, damaged, or of another pair.
            PairError: the programs cannot be run on ``x``.
        """
        told = read_checkpoint(Path(path)).get("mended")
        if not isinstance(told, dict):
            raise CheckpointError(f"{path} holds no mended guide: give the file that Mended.save wrote.")
        model, guide = untrained(model, guide)
        batch = where_parameters_are(model, guide, as_batch(x))
        for family, name in told["families"]:
            guide = with_family(model, guide, batch, family, name)
        leaves = load_parameters(path, model, guide, batch)["parameters"]
        values = ParameterValues.copied(model, guide, leaves)
        families = tuple((family, name) for family, name in told["families"])
        steps = tuple(MendingStep(*one) for one in told["steps"])
        rest = {name: told[name] for name in ("elbo_before", "elbo", "gain_error", "held_out", "model_changed")}
        return Mended(Trained(model, values), Trained(guide, values), batch, steps, families, **rest)

    def __repr__(self) -> str:
        found = self.summary()
        rows = [
            row(step.name, "not tried" if math.isnan(step.gain) else f"{step.gain:+.3f}")
            + ("" if math.isnan(step.gain) else f" ± {step.standard_error:.2g}")
            + f"   {'kept' if step.kept else 'not kept'}, {step.seconds:.0f} s"
            + (f"; {step.reason}" if step.reason else "")
            for step in self.steps
        ]
        where = "held out" if self.held_out else "of the training"
        return "\n".join(
            [
                f"Mended: ELBO {found['elbo_before']:.2f} → {found['elbo']:.2f} nats, gain {found['gain']:.3f} ± "
                f"{found['gain_standard_error']:.2g}, on data {where}",
                *rows,
                *(f"  {remark}" for remark in self.remarks()),
            ]
        )


def with_family(model: Program, guide: Program, batch: Batch, family: str, name: str) -> Any:
    """The guide with networks of a family, whose name in Pyro's store is given; it is the guide at first.

    Raises:
        PairError: that cannot be had for this guide.
    """
    with Pair.on(model, guide, batch) as pair:
        if family == CORRECTION:
            return corrected(pair, name)
        if family == GRADIENT_STEPS:
            return stepped(pair, name)
        if family in (MIXTURE, DEFENCE):
            return mixed(pair, name, defence=family == DEFENCE)
        return mapped(pair, name, flow=family == FLOW)
