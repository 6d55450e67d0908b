"""A published figure, the protocol that led to it, and the verdict on our own.

    allowed = max(2 √(SE² + SE_published²), spread, half a digit)
    verdict = not decided    if the run itself says why it cannot tell, unless ours is on the good side or as good
              reproduced     if |ours − published| ≤ allowed
              better         if ours is beyond that on the good side
              not reproduced if it is on the bad side, and nothing is known that excuses it

Of a fact, which one can only hit or miss, neither side is good: a run that cannot tell does not decide it by a hit.
SE is that of the difference to the published figure: what both share (the test images, say) is no part of it. Where the
paper states how much its figure varies from run to run, that is ``spread``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["reproduced", "better", "not reproduced", "not decided", "open"]


@dataclass(frozen=True)
class Published:
    """A figure that others have published.

    Attributes:
        what: the quantity, with its unit.
        value: as published.
        half_digit: half a unit of the last digit that is printed.
        better: on which side of it a figure is better; ``"neither"`` for a fact that one can only hit or miss.
        standard_error: as published; 0 where none is.
        spread: how much the paper says that it varies from run to run; 0 where it does not.
        why: what was found out about a figure of ours that misses it.
    """

    what: str
    value: float
    half_digit: float
    better: Literal["higher", "lower", "neither"] = "neither"
    standard_error: float = 0.0
    spread: float = 0.0
    why: str = ""


@dataclass(frozen=True)
class Figure:
    """Our own figure.

    Attributes:
        value: of the quantity that was published.
        standard_error: of its difference to the published one; 0 where it is exact.
        undecided: why a miss would decide nothing, such as a training cut short; empty if it would.
    """

    value: float
    standard_error: float
    undecided: str = ""


@dataclass(frozen=True)
class RowEffort:
    """How much a row may cost, and where it runs.

    Attributes:
        seed: of all randomness.
        device: ``"cpu"`` or ``"cuda"``.
        seconds: of training, where the row trains for a time; None takes the row's own.
        num_data: data to evaluate on, where the row takes some of them; None takes the row's own.
        folder: for checkpoints and the file of the result; it must exist.
        compile: as ``fit`` has it.
    """

    seed: int = 0
    device: str = "cpu"
    seconds: float | None = None
    num_data: int | None = None
    folder: Path = Path()
    compile: bool | Literal["auto"] = "auto"


@dataclass(frozen=True)
class RowOutcome:
    """What a run found.

    Attributes:
        figures: one for each published figure of the row, in their order.
        details: of the run: steps, epochs, other numbers that a reader may ask for.
    """

    figures: tuple[Figure, ...]
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A row of the ledger.

    Attributes:
        name: by which ``ppvae experiment reproduce NAME`` runs it.
        title: what is measured.
        published: the figures.
        source: the paper or program that they are from.
        protocol: how ours are computed.
        differences: in what that differs from the source; empty if in nothing that is known.
        run: the protocol, a function; None where it cannot be run, as ``open`` says.
        open: why there is no figure of ours.
    """

    name: str
    title: str
    published: tuple[Published, ...]
    source: str
    protocol: str
    differences: str
    run: Callable[[RowEffort], RowOutcome] | None
    open: str = ""


def verdict(published: Published, figure: Figure | None) -> Verdict:
    """The verdict on a figure: see the module.

    Example:
        >>> paper = Published("negative log-likelihood, nats", 86.8, 0.05, better="lower")
        >>> [verdict(paper, Figure(value, 0.1)) for value in (86.9, 86.5, 87.1)]
        ['reproduced', 'better', 'not reproduced']
        >>> verdict(paper, Figure(87.1, 0.1, undecided="a tenth of the steps"))
        'not decided'
    """
    if figure is None:
        return "open"
    errors = 2 * math.hypot(figure.standard_error, published.standard_error)
    allowed = max(errors, published.spread, published.half_digit) * (1 + 1e-9)  # decimals have no exact binary form
    difference = figure.value - published.value
    if figure.undecided and published.better == "neither":
        return "not decided"
    if abs(difference) <= allowed:
        return "reproduced"
    if published.better != "neither" and (difference > 0) == (published.better == "higher"):
        return "better"
    return "not decided" if figure.undecided else "not reproduced"
