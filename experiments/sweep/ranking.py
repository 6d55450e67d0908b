"""Which trial of a sweep is the best, and from which others it can be told apart.

All trials are measured on the same data, so they are compared by paired differences d_i of log p(x_i), with

    mean(d) ± t_{n−1}(1 − α/(2m)) · sd(d)/√n,      α = 0.05,

and m the number of all pairs of measured trials (Bonferroni): with probability 95 % every one of these intervals holds
at once, those of the trial that came out best among them. So the choice of the best is paid for. The spread of d over
the data holds the Monte Carlo error of both estimates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

ALPHA = 0.05


@dataclass(frozen=True)
class MeasuredTrial:
    """A trial that was measured.

    Attributes:
        number: of the trial.
        log_evidence: of each datum, in nats, ``(num_data,)``.
        default: whether it has the default options.
    """

    number: int
    log_evidence: np.ndarray
    default: bool = False

    @property
    def mean(self) -> float:
        """log p(x), the mean over the data."""
        return float(self.log_evidence.mean())


@dataclass(frozen=True)
class Difference:
    """The best trial against another, paired by datum, in nats.

    Attributes:
        other: number of the other trial.
        default: whether the other has the default options.
        mean: of best − other.
        standard_error: of it.
        low: lower end of its interval, which holds at once with those of all pairs.
        high: upper end.
    """

    other: int
    default: bool
    mean: float
    standard_error: float
    low: float
    high: float

    @property
    def told_apart(self) -> bool:
        """Whether the best is better by more than the error."""
        return self.low > 0


@dataclass(frozen=True)
class Ranking:
    """The best trial against all others.

    Attributes:
        best: number of the trial with the highest mean.
        differences: against the others, nearest first.
        num_pairs: pairs of measured trials, for all of which the intervals hold at once.
        num_data: data that they were measured on.
    """

    best: int
    differences: tuple[Difference, ...]
    num_pairs: int
    num_data: int

    @property
    def tied(self) -> list[int]:
        """Trials that cannot be told from the best."""
        return [one.other for one in self.differences if not one.told_apart]

    @property
    def against_default(self) -> Difference | None:
        """The best against the default; None where it is the default, or that was not measured."""
        return next((one for one in self.differences if one.default), None)

    def conclusion(self) -> str:
        """What can be said, in a sentence or two."""
        if not self.differences:
            return "One trial was measured: there is nothing to compare it with."
        default = self.against_default
        said = []
        if not self.tied:
            said.append(f"Trial {self.best} is better than every other trial.")
        else:
            several = f"trial {self.tied[0]}" if len(self.tied) == 1 else f"{len(self.tied)} others"
            said.append(f"No winner: trial {self.best} has the highest log p(x), and cannot be told from {several}.")
        if default is not None:
            against = f"{default.mean:.2f} nats per datum, between {default.low:.2f} and {default.high:.2f}"
            said.append(
                f"It is better than the default by {against}."
                if default.told_apart
                else f"It cannot be told from the default: the difference is {against}."
            )
        return " ".join(said).replace("-", "−")


def ranked(trials: list[MeasuredTrial]) -> Ranking:
    """The best of some trials, against all others.

    Args:
        trials: at least one, measured on the same data in the same order.

    Example:
        >>> x = np.linspace(-3, -1, 50)
        >>> others = [MeasuredTrial(0, x, default=True), MeasuredTrial(2, x - 9)]
        >>> found = ranked([*others, MeasuredTrial(1, x + 1 + 0.1 * np.cos(9 * x))])
        >>> found.best, found.tied, round(found.differences[0].mean)
        (1, [], 1)
        >>> print(found.conclusion().partition(".")[0])
        Trial 1 is better than every other trial
    """
    from scipy.stats import t  # slow to import

    best = max(trials, key=lambda one: one.mean)
    pairs, n = math.comb(len(trials), 2), len(best.log_evidence)
    factor = float(t.ppf(1 - ALPHA / (2 * max(pairs, 1)), n - 1)) if n > 1 else math.inf
    found = []
    for one in trials:
        if one is best:
            continue
        d = best.log_evidence - one.log_evidence
        mean, error = float(d.mean()), float(d.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
        found.append(Difference(one.number, one.default, mean, error, mean - factor * error, mean + factor * error))
    return Ranking(best.number, tuple(sorted(found, key=lambda one: one.mean)), pairs, n)
