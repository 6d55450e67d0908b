"""Which steps are tried on a guide, in which order, and why: the causes of its gap, the largest first.

The gap of some of the data held out is attributed (:func:`ppvae.inference.attribute_gap`, with log p(x) by
:func:`ppvae.inference.estimate_evidence`, which looks for modes that the guide misses). Each part has its steps, the
smallest change first:

    amortisation   more steps; a network that corrects the parameters; gradient steps on each datum
    covariance     full covariance
    flow           a flow
    rest           a mixture: what neither full covariance nor a flow wins, as a mode that is missed
    family         these three, where the guide enumerates a site and the attribution does not split it

The next step of a part is tried while those before have won less than 80 % of it. A part that is below 0.01 nats by two
standard errors has no steps, but for more steps, which are always tried. Where data share latents, or the guide has
parameters for each datum, what is called amortisation is what training has not reached, and gradient steps are left
out. A guide whose gap cannot be attributed gets all steps in the order above.
"""

from __future__ import annotations

from dataclasses import dataclass

from ppvae.errors import NonFiniteError, PairError

from ..evidence import estimate_evidence
from ..gap import GapAttribution, attribute_gap
from ..option_records import Optimiser
from ..pair import Pair, Program
from .mended import CORRECTION, COVARIANCE, DEFENCE, FLOW, GRADIENT_STEPS, MIXTURE, MORE_STEPS, WARM_UP
from .mending_data import MendingData, some
from .mending_steps import LEAST_GAIN

STEPS_OF = {
    "amortisation": (MORE_STEPS, CORRECTION, GRADIENT_STEPS),
    "covariance": (COVARIANCE,),
    "flow": (FLOW,),
    "rest": (MIXTURE,),
}
STEPS_OF_UNSPLIT = {"amortisation": STEPS_OF["amortisation"], "family": (COVARIANCE, FLOW, MIXTURE)}
# The share of a part that is enough; data that are attributed, at most, to so many nats; draws of each.
ENOUGH, ATTRIBUTED, TOLERANCE, DRAWS = 0.8, 20, 0.2, 500


@dataclass(frozen=True)
class PlannedStep:
    """A step to be tried.

    Attributes:
        name: of the step.
        reason: why it is tried.
        cause: the part of the gap that it is to win; empty where none was attributed.
        part: how large that is, in nats.
    """

    name: str
    reason: str
    cause: str = ""
    part: float = 0.0


def planned(model: Program, guide: Program, data: MendingData, steps: int, memory_mb: float) -> list[PlannedStep]:
    """The steps in the order of the causes of the gap, the defence of the tail last.

    Args:
        model: ``model(x, *context)``.
        guide: ``guide(x, *context)``.
        data: whose gap is attributed.
        steps: gradient steps of each attempt; a quarter of them climb to the best members of the attribution.
        memory_mb: budget in MiB for one pass of the pair.
    """
    last = PlannedStep(DEFENCE, "the tail of the weights")
    try:
        found = _attributed(model, guide, data, steps, memory_mb)
    except (PairError, NonFiniteError) as problem:
        why = f"the gap cannot be attributed ({str(problem).rstrip('.')})"
        return [*(PlannedStep(name, why) for names in STEPS_OF.values() for name in names), last]
    return [*ordered(found.summary(), data.divisible), last]


def ordered(parts: dict[str, float], divisible: bool) -> list[PlannedStep]:
    """The steps of the parts of a gap, the largest part first.

    Args:
        parts: ``GapAttribution.summary()``.
        divisible: whether the programs run on some of the data alone.

    Example:
        >>> parts = {"amortisation": 0.2, "covariance": 1.5, "flow": 0.0, "rest": 0.0}
        >>> parts |= {f"{name}_standard_error": 0.001 for name in list(parts)}
        >>> [step.name for step in ordered(parts, True)]
        ['full covariance', 'more steps', 'correction', 'gradient steps']
    """
    found = []
    steps_of = STEPS_OF if "rest" in parts else STEPS_OF_UNSPLIT
    for cause in sorted(steps_of, key=lambda cause: -parts[cause]):
        error = parts[f"{cause}_standard_error"]
        small = parts[cause] + 2 * error < LEAST_GAIN
        for name in steps_of[cause]:
            if (small and name != MORE_STEPS) or (name == GRADIENT_STEPS and not divisible):
                continue
            reason = f"{cause} {parts[cause]:+.2f} ± {error:.2g} nats"
            found.append(PlannedStep(name, reason, cause, 0.0 if small else parts[cause]))
    return found


def as_asked(names: tuple[str, ...] | None, train_model: bool, rest: list[PlannedStep]) -> list[PlannedStep]:
    """The steps whose names were given, or the others; before them a warm-up, if the model may be trained."""
    first = [PlannedStep(WARM_UP, "the model may be trained")] if train_model else []
    return [*first, *(rest if names is None else [PlannedStep(name, "asked for") for name in names])]


def _attributed(model: Program, guide: Program, data: MendingData, steps: int, memory_mb: float) -> GapAttribution:
    with Pair.on(model, guide, data.measured) as pair:
        batch = some(pair, ATTRIBUTED) if data.divisible else pair.batch
    evidence = estimate_evidence(model, guide, batch, tolerance=TOLERANCE, memory_mb=memory_mb)
    optimiser = Optimiser(steps=max(steps // 4, 1))
    return attribute_gap(
        model, guide, batch, evidence=evidence, optimiser=optimiser, num_draws=DRAWS, memory_mb=memory_mb
    )
