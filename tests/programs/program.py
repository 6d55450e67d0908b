"""The record of two programs, their data, and the value that must come out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

REFUSED = "refused"


@dataclass(frozen=True)
class Program:
    """A model, a guide, data, and log p(x) by mathematics.

    ``truth`` is log p(x) in nats: ``(num_data,)``, or ``(1,)`` where ``unit`` is "data set"; or ``REFUSED`` where no
    number is right. ``again`` computes the truth by a second route, in torch alone, to ``again_tolerance``.

    ``finding`` says that `check` must report something: together with a number, that the number is the log of an
    integral and no log density; together with ``REFUSED``, that a finding is accepted in place of the refusal.
    ``may_refuse`` accepts a refusal in place of the number.

    ``tolerance`` is the largest error in nats; the test also asks that it be four standard errors at least.
    ``train`` epochs of `fit` at ``learning_rate`` come first. ``measured`` turns the trained model and guide into the
    callables that are measured, such as lambdas around them.
    """

    model: Callable[..., Any]
    guide: Callable[..., Any]
    x: Any
    truth: Tensor | str
    again: Callable[[], Tensor] | None = None
    again_tolerance: float = 1e-6
    unit: str = "datum"
    num_particles: int = 2000
    tolerance: float = 0.02
    train: int = 0
    learning_rate: float = 0.05
    measured: Callable[[Any, Any], tuple[Any, Any]] | None = None
    finding: bool = False
    may_refuse: bool = False
