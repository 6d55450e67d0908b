"""How narrow can certified bounds of log p(x) be, and at what cost?

On data that were drawn from the model there is an exact posterior draw for each datum, and log p(x) can be bounded from
both sides with a confidence that holds for any guide and any chains. The width between the bounds is the remaining
uncertainty about log p(x).

Claim: importance sampling alone leaves a width of nats, because simulated data lie where the encoder was never trained;
annealed chains narrow the interval, down to hundredths of a nat.

Sandwiching the marginal likelihood using bidirectional Monte Carlo (Grosse, Ghahramani & Adams, 2015),
arXiv:1511.02543; On the Quantitative Analysis of Decoder-Based Generative Models (Wu et al., 2017), arXiv:1611.04273,
whose bounds on MNIST decoders lie 0.6 to 10 nats apart (their table 2).

The figure should show the lower and the upper bound of the mean converge as the budget grows, from either start.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from ppvae.inference import Sampling, certify

from .experiment import Result
from .figures.style import BLUE, GREEN, new_figure
from .runs.trained_pair import trained_pair

COLOURS = {"guide": BLUE, "prior": GREEN}


@dataclass(frozen=True)
class Config:
    """How large the experiment is.

    Args:
        run: directory of an earlier run whose pair is examined; null trains a VAE on the digits.
        num_data: data drawn from the model.
        distributions: budgets, T: 1 is importance sampling alone.
        starts: of the chains: ``guide``, ``prior``.
        num_chains: per datum.
        confidence: of the certificates.
        epochs: of the training.
        seed: of the training and the draws.
    """

    run: str | None = None
    num_data: int = 100
    distributions: tuple[int, ...] = (1, 64, 256, 1024)
    starts: tuple[str, ...] = ("guide", "prior")
    num_chains: int = 16
    confidence: float = 0.95
    epochs: int = 200
    seed: int = 0


SMALL = Config(num_data=10, distributions=(1, 32), starts=("guide",), num_chains=4, epochs=3)


def run(config: Config = Config()) -> Result:
    """Certify the mean of log p(x) with growing budgets.

    Args:
        config: the size.

    Returns:
        A row per start and budget, in nats, and the picture ``width``.
    """
    pair, x, what = trained_pair(config.run, config.num_data, config.epochs, config.seed)
    rows = [_row(pair, x, start, budget, config) for start in config.starts for budget in config.distributions]
    title = f"Certificates of {what}: mean of log p(x) over {len(x)} data drawn from the model, in nats"
    return Result(title, rows, _conclusions(rows, config), {"width": width_against_budget(rows, config)})


def _row(pair: Any, x: Any, start: str, budget: int, config: Config) -> dict[str, Any]:
    started = time.perf_counter()
    certificate = certify(
        pair.model,
        pair.guide,
        like=x,
        confidence=config.confidence,
        width=1e-6,  # never reached: the whole budget is spent
        sampling=Sampling(start=start, num_chains=config.num_chains, max_distributions=budget),  # type: ignore[arg-type]
        seed=config.seed,
        progress=True,
    )
    found = certificate.summary()
    return {
        "start": start,
        "budget": budget,
        "distributions": found["num_distributions"],
        "lower": found["mean_lower"],
        "upper": found["mean_upper"],
        "width": found["mean_width"],
        "median datum": found["median_datum_width"],
        "transitions per datum": found["transitions"] / len(x),
        "seconds": time.perf_counter() - started,
    }


def _conclusions(rows: list[dict[str, Any]], config: Config) -> list[str]:
    best = min(rows, key=lambda row: row["width"])
    plain = max((row for row in rows if row["distributions"] == 1), key=lambda row: row["width"], default=None)
    found = [
        f"With confidence {config.confidence:.0%} the mean of log p(x) lies between {best['lower']:.3f} and "
        f"{best['upper']:.3f}: {best['width']:.3f} nats, after {best['seconds']:.0f} s ({best['distributions']} "
        f"distributions from the {best['start']})."
    ]
    if plain is not None:
        found.append(f"Importance sampling alone leaves {plain['width']:.2f} nats.")
    return found


def width_against_budget(rows: list[dict[str, Any]], config: Config) -> Figure:
    """Both bounds of the mean against the number of distributions; the shaded part is the width between them."""
    figure, axes = new_figure(3.8)
    for start in config.starts:
        found = [row for row in rows if row["start"] == start]
        budget, lower, upper = ([row[key] for row in found] for key in ("distributions", "lower", "upper"))
        axes.fill_between(budget, lower, upper, color=COLOURS[start], alpha=0.2, linewidth=0)
        axes.plot(budget, lower, color=COLOURS[start], marker="^", markersize=4, label=f"lower bound, from the {start}")
        axes.plot(budget, upper, color=COLOURS[start], marker="v", markersize=4, label=f"upper bound, from the {start}")
    axes.set_xscale("log")
    axes.set(xlabel="distributions (1: importance sampling)", ylabel=r"mean of $\log p(x)$ (nats)")
    axes.legend(fontsize=8)
    return figure
