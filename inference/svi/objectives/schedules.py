"""Weights of the KL term by the number of the step: warm-up and cyclical annealing.

A schedule is any function of the number of steps taken that returns a weight β ≥ 0; these are the usual ones. A
function of the step alone is the same in a training that is resumed. An epoch has ⌈num_data/batch_size⌉ steps.

References:
    Generating Sentences from a Continuous Space (Bowman et al., 2016), arXiv:1511.06349: annealing of the KL.
    Ladder Variational Autoencoders (Sønderby et al., 2016), arXiv:1602.02282: warm-up.
    Cyclical Annealing Schedule: A Simple Approach to Mitigating KL Vanishing (Fu et al., 2019), arXiv:1903.10145.
"""

from __future__ import annotations

from dataclasses import dataclass

from ppvae.errors import OptionError

from ...options import not_negative, whole_number


@dataclass(frozen=True)
class WarmUp:
    """β_t = start + (end − start) · min(1, t/num_steps): a weight that rises over the first steps and then stays.

    Args:
        num_steps: T, after how many steps the weight is ``end``.
        start: the weight of the first step.
        end: the weight from step T on.

    Example:
        >>> weight = WarmUp(num_steps=4)
        >>> [weight(step) for step in (0, 1, 2, 4, 100)]
        [0.0, 0.25, 0.5, 1.0, 1.0]
    """

    num_steps: int
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        """Check the options."""
        whole_number("num_steps", self.num_steps)
        not_negative("start", self.start)
        not_negative("end", self.end)

    def __call__(self, step: int) -> float:
        """β of a step, counted from 0."""
        return self.start + (self.end - self.start) * min(1.0, step / self.num_steps)


@dataclass(frozen=True)
class Cyclical:
    """β_t = min(1, (t mod T)/(R·T)): a weight that rises to 1, stays there, and starts again; 1 after the last cycle.

    Args:
        num_steps: T, steps of a cycle.
        num_cycles: how often it is repeated.
        rising: R, the part of a cycle in which the weight rises, in (0, 1].

    Example:
        >>> weight = Cyclical(num_steps=4, num_cycles=2)
        >>> [weight(step) for step in (0, 1, 2, 3, 4, 5, 8, 100)]
        [0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0]
    """

    num_steps: int
    num_cycles: int = 4
    rising: float = 0.5

    def __post_init__(self) -> None:
        """Check the options."""
        whole_number("num_steps", self.num_steps)
        whole_number("num_cycles", self.num_cycles)
        if not 0 < not_negative("rising", self.rising) <= 1:
            raise OptionError(f"rising must be a part of a cycle, in (0, 1]; it is {self.rising}.")

    def __call__(self, step: int) -> float:
        """β of a step, counted from 0."""
        if step >= self.num_steps * self.num_cycles:
            return 1.0
        return min(1.0, (step % self.num_steps) / (self.rising * self.num_steps))
