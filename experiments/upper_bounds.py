"""Do the upper bounds of log p(x) agree on data that were drawn from the model, where one of them needs no assumption?

Data drawn from the model come with an exact draw of their posterior, from which annealed chains run backwards: beside
the ordinary weights they give an upper bound whatever the chains are like. On data that were given there is none, and
the upper end comes from the tangents of the logarithm at the ordinary weights, or from coupled chains; both are right
on average, and their errors hold if the chains reach all of the posterior. Here all three are of the same weights.

Claim: on drawn data the tangents agree with the exact bound to within its error once the chains are long enough, and
the interval on given data is then as good as a certificate; coupled chains agree too, and are looser.

Sandwiching the marginal likelihood using bidirectional Monte Carlo (Grosse, Ghahramani & Adams, 2015),
arXiv:1511.02543; Bounding Evidence and Estimating Log-Likelihood in VAE (Struski et al., 2022), arXiv:2206.09453;
Unbiased Markov chain Monte Carlo for intractable target distributions (Middleton et al., 2018), arXiv:1807.08691.

The figure should show the three upper bounds meet the lower one as the chains become longer, the tangents first.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ppvae.inference import Sampling, simulate
from ppvae.inference.bounds.bidirectional import BidirectionalWeights, Effort, gather
from ppvae.inference.bounds.coupled import coupled
from ppvae.inference.bounds.markov import above, below
from ppvae.inference.bounds.tangent import tangent
from ppvae.inference.evidence import tail_shape

from .experiment import Result
from .figures.style import BLACK, BLUE, GREEN, ORANGE, new_figure
from .runs.trained_pair import trained_pair

# The bounds, as columns of the table and in the figure.
BOUNDS = {"lower": BLACK, "exact": GREEN, "tangents": BLUE, "coupled": ORANGE}
# Weights that coupled chains are run on: means of so many groups of the chains.
GROUPS = 16


@dataclass(frozen=True)
class Config:
    """How large the experiment is.

    Args:
        run: directory of an earlier run whose pair is examined; null trains a VAE on the digits.
        num_data: how many data are drawn from the model.
        distributions: from the guide to the posterior, T.
        num_chains: per datum.
        epochs: of the training.
        seed: of the training and the draws.
    """

    run: str | None = None
    num_data: int = 100
    distributions: tuple[int, ...] = (16, 64, 256)
    num_chains: int = 32
    epochs: int = 200
    seed: int = 0


SMALL = Config(num_data=8, distributions=(4, 16), num_chains=16, epochs=3)


def run(config: Config = Config()) -> Result:
    """Bound the mean of log p(x) of drawn data from above in three ways, with growing budgets.

    Args:
        config: the size.

    Returns:
        A row per budget, in nats, and the picture ``bounds``.
    """
    pair, x, what = trained_pair(config.run, config.num_data, config.epochs, config.seed)
    drawn = simulate(pair.model, pair.guide, x, seed=config.seed)
    weights = BidirectionalWeights(pair.model, pair.guide, "guide", Sampling().num_steps, 64.0, True)
    rows = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        for budget in config.distributions:
            started = time.perf_counter()
            effort = Effort(config.num_chains, budget)
            log_w, exact = gather(weights.weights(drawn.batch, drawn.latents, effort, f"{budget} distributions"))
            assert exact is not None  # the data were drawn with their latents
            rows.append(_row(budget, log_w, exact, time.perf_counter() - started))
    title = f"Bounds of {what}: mean of log p(x) over {len(x)} data drawn from the model, in nats"
    return Result(title, rows, _conclusions(rows), {"bounds": bounds_against_budget(rows)})


def _row(budget: int, log_w: Tensor, exact: Tensor, seconds: float) -> dict[str, Any]:
    groups = torch.stack([g.logsumexp(0) - math.log(len(g)) for g in log_w.tensor_split(min(GROUPS, len(log_w)))])
    by_datum = {"exact": above(log_w, exact), "tangents": tangent(log_w), "coupled": coupled(groups)}
    lower = below(log_w, 1)
    row: dict[str, Any] = {"distributions": budget, "lower": float(lower.mean())}
    for name, bound in by_datum.items():
        row[name] = float(bound.mean())
    for name in ("tangents", "coupled"):
        row[f"{name} − exact"], row[f"± of {name}"] = _paired(by_datum[name] - by_datum["exact"])
    row["exact − lower"], row["± of exact"] = _paired(by_datum["exact"] - lower)
    row["tangents − lower"], _ = _paired(by_datum["tangents"] - lower)
    return row | {"median k-hat": float(tail_shape(log_w).median()), "seconds": seconds}


def _paired(difference: Tensor) -> tuple[float, float]:
    return float(difference.mean()), float(difference.std()) / math.sqrt(len(difference))


def _conclusions(rows: list[dict[str, Any]]) -> list[str]:
    last = rows[-1]
    return [
        f"With {last['distributions']} distributions the tangents lie {last['tangents − exact']:+.3f} ± "
        f"{last['± of tangents']:.3f} nats from the bound by exact draws, and coupled chains "
        f"{last['coupled − exact']:+.3f} ± {last['± of coupled']:.3f}.",
        f"The tangents' interval of the mean is {last['tangents − lower']:.3f} nats wide, that of exact draws "
        f"{last['exact − lower']:.3f} ± {last['± of exact']:.3f}, both without margins.",
    ]


def bounds_against_budget(rows: list[dict[str, Any]]) -> Figure:
    """The bounds of the mean against the number of distributions."""
    figure, axes = new_figure(3.6)
    budget = [row["distributions"] for row in rows]
    for name, colour in BOUNDS.items():
        values = [row[name] if math.isfinite(row[name]) else math.nan for row in rows]
        label = "lower bound" if name == "lower" else f"upper bound: {name}"
        axes.plot(budget, values, color=colour, marker="^" if name == "lower" else "v", markersize=5, label=label)
    axes.set_xscale("log")
    axes.set_xlabel("distributions")
    axes.set_ylabel(r"mean of $\log p(x)$ (nats)")
    axes.legend(fontsize=8)
    return figure
