"""How much of the ELBO's gap is due to the guide's family, and how much to its amortisation?

    log p(x) − ELBO(q)  =  [log p(x) − ELBO(q*)]  +  [ELBO(q*) − ELBO(q)]
         gap                      family                 amortisation

with q* the best member of the guide's family for the single datum. The first part shrinks with a richer guide, the
second with a larger encoder or longer training.

Claim: both are of the same size. Inference Suboptimality in Variational Autoencoders (Cremer, Li & Duvenaud, 2018),
arXiv:1801.03558, has 1.43 and 1.34 nats for a VAE of binarised MNIST with a mean-field guide (their table 2; log p(x)
was the larger of 5000 draws and an annealed estimate, over 1000 *training* images). Here q* is certified to have
converged, datum by datum, and the part that a full covariance or a flow would remove is given separately.

The figures should show a waterfall from the ELBO up to log p(x), and the two parts of every datum against each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from ppvae.inference import GapAttribution, Optimiser, attribute_gap, estimate_evidence

from .experiment import Result
from .figures.style import BLUE, ORANGE, new_figure
from .figures.waterfall import gap_waterfall
from .runs.trained_pair import trained_pair

# Cremer et al., table 2, mean-field guide on MNIST.
PUBLISHED = {"elbo": -92.57, "log_evidence": -89.80, "total": 2.77, "amortisation": 1.34, "family": 1.43}
LABELS = {
    "elbo": "ELBO",
    "log_evidence": "log p(x)",
    "total": "gap",
    "amortisation": "amortisation",
    "family": "family",
    "covariance": "family: removed by full covariance",
    "flow": "family: removed by a flow beyond that",
    "rest": "family: the rest",
}


@dataclass(frozen=True)
class Config:
    """How large the experiment is.

    Args:
        run: directory of an earlier run whose pair is examined; null trains a VAE on the digits.
        num_data: test data, evenly spread over all.
        tolerance: to which log p(x) is estimated, in nats.
        steps: the budget of a datum's local optimisation, in each family.
        epochs: of the training.
        seed: of the training and the draws.
    """

    run: str | None = None
    num_data: int = 50
    tolerance: float = 0.1
    steps: int = 2000
    epochs: int = 200
    seed: int = 0


SMALL = Config(num_data=3, tolerance=1.0, steps=30, epochs=3)


def run(config: Config = Config()) -> Result:
    """Split the gap of a trained pair.

    Args:
        config: the size.

    Returns:
        A row per part, in nats, and the pictures ``waterfall`` and ``parts``.
    """
    pair, x, what = trained_pair(config.run, config.num_data, config.epochs, config.seed)
    shared: dict[str, Any] = {"seed": config.seed, "progress": True}
    evidence = estimate_evidence(pair.model, pair.guide, x, tolerance=config.tolerance, **shared)
    gap = attribute_gap(pair.model, pair.guide, x, evidence=evidence, optimiser=Optimiser(steps=config.steps), **shared)
    numbers = gap.summary()
    rows = [
        {
            "part": label,
            "mean": numbers[name],
            "standard error": numbers[f"{name}_standard_error"],
            "of which Monte Carlo": numbers[f"{name}_monte_carlo_error"],
            "share of the gap": numbers[name] / numbers["total"] if name not in ("elbo", "log_evidence") else "",
            "resolved": numbers.get(f"{name}_resolved", ""),
            "Cremer et al., MNIST": PUBLISHED.get(name, ""),
        }
        for name, label in LABELS.items()
        if name in numbers
    ]
    figures = {"waterfall": gap_waterfall(numbers), "parts": parts_of_data(gap)}
    title = f"The gap of {what}, mean over {len(x)} test data, in nats"
    return Result(title, rows, _conclusions(numbers, gap, evidence.remarks()), figures)


def _conclusions(numbers: dict[str, float], gap: GapAttribution, remarks: list[str]) -> list[str]:
    def with_error(name: str) -> str:
        return f"{numbers[name]:.2f} ± {numbers[name + '_standard_error']:.2f}"

    share = numbers["amortisation"] / numbers["total"]
    split = []
    if "rest" in numbers:
        split.append(
            f"Full covariance would remove {with_error('covariance')} of the family's part, a flow "
            f"{with_error('flow')} beyond that; {with_error('rest')} remain."
        )
    return [
        f"Of a gap of {with_error('total')} nats, amortisation costs {with_error('amortisation')} ({share:.0%}) "
        f"and the family {with_error('family')}; Cremer et al. found 1.34 and 1.43 of 2.77.",
        *split,
        *gap.remarks(),
        *remarks,
    ]


def parts_of_data(gap: GapAttribution) -> Figure:
    """Family against amortisation, a point per datum, with ± two standard errors; hollow where not resolved."""
    figure, axes = new_figure(4.0)
    error, resolved = gap.standard_error, gap.resolved
    for mask, colour, filled, label in ((resolved, BLUE, True, "resolved"), (~resolved, ORANGE, False, "not resolved")):
        if not mask.any():
            continue
        axes.errorbar(
            gap.amortisation[mask],
            gap.family[mask],
            xerr=2 * error["amortisation"][mask],
            yerr=2 * error["family"][mask],
            fmt="o",
            color=colour,
            markerfacecolor=colour if filled else "none",
            markersize=4,
            elinewidth=0.7,
            label=label,
        )
    wide, high = (1.08 * float(part.max()) for part in (gap.amortisation, gap.family))
    equal = [0, min(wide, high)]
    axes.plot(equal, equal, color="0.6", linewidth=0.8, linestyle="--", label="equal parts")
    axes.set(xlabel="amortisation (nats)", ylabel="family (nats)", ylim=(min(0, axes.get_ylim()[0]), 1.15 * high))
    axes.legend()
    return figure
