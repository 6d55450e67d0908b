"""How narrow can bounds of log p(x) be, on drawn and on given data, and at what cost?

On data that were drawn from the model there is an exact posterior draw for each datum, and log p(x) can be bounded from
both sides with a confidence that holds for any guide and any chains. The width between the bounds is the remaining
uncertainty about log p(x). On data that were given the lower bound holds just so; the upper end is an estimate that is
too high on average, by the tangents of the logarithm, and its error holds if the chains reach all of the posterior.

Claim: importance sampling alone leaves a width of nats, because simulated data lie where the encoder was never trained;
annealed chains narrow the interval, down to hundredths of a nat. Given data cost no more.

Sandwiching the marginal likelihood using bidirectional Monte Carlo (Grosse, Ghahramani & Adams, 2015),
arXiv:1511.02543; On the Quantitative Analysis of Decoder-Based Generative Models (Wu et al., 2017), arXiv:1611.04273,
whose bounds on MNIST decoders lie 0.6 to 10 nats apart (their table 2).

The figure should show the lower and the upper bound of the mean converge as the budget grows, from either start; given
data have no upper end while the weights' tail is heavy.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ppvae.inference import Sampling, certify

from .experiment import Result
from .figures.style import BLUE, GREEN, new_panels
from .runs.trained_pair import trained_pair

COLOURS = {"guide": BLUE, "prior": GREEN}
WORDS = {"drawn": "data drawn from the model", "given": "test data"}


@dataclass(frozen=True)
class Config:
    """How large the experiment is.

    Args:
        run: directory of an earlier run whose pair is examined; null trains a VAE on the digits.
        num_data: how many data.
        data: whose log p(x) is bounded: ``drawn`` from the model, ``given`` as test data.
        distributions: budgets, T: 1 is importance sampling alone.
        starts: of the chains: ``guide``, ``prior``.
        num_chains: per datum; null takes 16 of drawn data, and 32 or more of given ones.
        confidence: of the certificates.
        epochs: of the training.
        seed: of the training and the draws.
    """

    run: str | None = None
    num_data: int = 100
    data: tuple[str, ...] = ("drawn", "given")
    distributions: tuple[int, ...] = (1, 64, 256, 1024)
    starts: tuple[str, ...] = ("guide", "prior")
    num_chains: int | None = None
    confidence: float = 0.95
    epochs: int = 200
    seed: int = 0


SMALL = Config(num_data=10, distributions=(1, 32), starts=("guide",), epochs=3)


def run(config: Config = Config()) -> Result:
    """Certify the mean of log p(x) with growing budgets.

    Args:
        config: the size.

    Returns:
        A row per kind of data, start and budget, in nats, and the picture ``width``.
    """
    pair, x, what = trained_pair(config.run, config.num_data, config.epochs, config.seed)
    rows = [
        _row(pair, x, data, start, budget, config)
        for data in config.data
        for start in config.starts
        for budget in config.distributions
    ]
    words = " and ".join(f"{len(x)} {WORDS[data]}" for data in config.data)
    title = f"Certificates of {what}: mean of log p(x) over {words}, in nats"
    return Result(title, rows, _conclusions(rows, config), {"width": width_against_budget(rows, config)})


def _row(pair: Any, x: Any, data: str, start: str, budget: int, config: Config) -> dict[str, Any]:
    asked: dict[str, Any] = {"x": x} if data == "given" else {"like": x}
    started = time.perf_counter()
    certificate = certify(
        pair.model,
        pair.guide,
        **asked,
        confidence=config.confidence,
        width=1e-6,  # never reached: the whole budget is spent
        sampling=Sampling(start=start, num_chains=config.num_chains, max_distributions=budget),  # type: ignore[arg-type]
        seed=config.seed,
        progress=True,
    )
    found = certificate.summary()
    return {
        "data": data,
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
    return [sentence for data in config.data for sentence in _concluded(data, rows, config)]


def _concluded(data: str, rows: list[dict[str, Any]], config: Config) -> list[str]:
    rows = [row for row in rows if row["data"] == data]
    best = min(rows, key=lambda row: row["width"])
    plain = max((row for row in rows if row["distributions"] == 1), key=lambda row: row["width"], default=None)
    found = []
    if math.isfinite(best["width"]):
        sure = (
            f"With confidence {config.confidence:.0%}"
            if data == "drawn"
            else "If the chains reach all of the posterior"
        )
        found.append(
            f"{sure} the mean of log p(x) of {WORDS[data]} lies between {best['lower']:.3f} and {best['upper']:.3f}: "
            f"{best['width']:.3f} nats, after {best['seconds']:.0f} s ({best['distributions']} distributions from the "
            f"{best['start']})."
        )
    if plain is not None:
        left = f"{plain['width']:.2f} nats" if math.isfinite(plain["width"]) else "no upper end"
        found.append(f"Importance sampling alone leaves {left} on {WORDS[data]}.")
    return found


def width_against_budget(rows: list[dict[str, Any]], config: Config) -> Figure:
    """Both bounds of the mean against the number of distributions; the shaded part is the width between them."""
    figure, panels = new_panels(3.8, len(config.data))
    for axes, data in zip(panels, config.data, strict=True):
        _draw(axes, [row for row in rows if row["data"] == data], config)
        axes.set_title(WORDS[data], fontsize=9)
    panels[0].set_ylabel(r"mean of $\log p(x)$ (nats)")
    panels[0].legend(fontsize=8)
    return figure


def _draw(axes: Axes, rows: list[dict[str, Any]], config: Config) -> None:
    for start in config.starts:
        found = [row for row in rows if row["start"] == start]
        budget, lower = ([row[key] for row in found] for key in ("distributions", "lower"))
        upper = [row["upper"] if math.isfinite(row["upper"]) else math.nan for row in found]
        axes.fill_between(budget, lower, upper, color=COLOURS[start], alpha=0.2, linewidth=0)
        axes.plot(budget, lower, color=COLOURS[start], marker="^", markersize=4, label=f"lower bound, from the {start}")
        axes.plot(budget, upper, color=COLOURS[start], marker="v", markersize=4, label=f"upper bound, from the {start}")
    axes.set_xscale("log")
    axes.set_xlabel("distributions (1: draws alone)")
