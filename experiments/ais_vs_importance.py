"""How much computation does log p(x) need by draws of the guide, and how much by annealed chains?

Claim: the guide of a trained VAE is narrower than the posterior, so that importance sampling from it rises towards
log p(x) with log K and, for all practical K, stays below it. Annealed chains from the guide exceed it after some tens
of distributions, and those from the prior after some hundreds; both converge to the same value.

On the Quantitative Analysis of Decoder-Based Generative Models (Wu, Burda, Salakhutdinov & Grosse, 2017),
arXiv:1611.04273, table 3: on binarised MNIST 100 distributions from the encoder bring 1.1 nats more than 10 000
draws of it. Importance Weighted Autoencoders (Burda, Grosse & Salakhutdinov, 2016), arXiv:1509.00519, is where most
published "log p(x)" come from: K = 5000 draws.

The figure should show three curves against computation: the lowest and flattest is importance sampling.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ppvae.inference import Annealing, Evidence, annealed_evidence, importance_evidence
from ppvae.inference.option_records import LEAPFROG_STEPS, Start

from .experiment import Result
from .figures.style import BLUE, GREEN, ORANGE, new_figure
from .runs.trained_pair import trained_pair

# What a gradient costs, in evaluations of the density.
GRADIENT = 2
COLOURS = {"importance sampling": ORANGE, "AIS from the guide": BLUE, "AIS from the prior": GREEN}


@dataclass(frozen=True)
class Config:
    """How large the experiment is.

    Args:
        run: directory of an earlier run whose pair is examined; null trains a VAE on the digits.
        num_data: test data, evenly spread over all.
        particles: numbers of draws of the guide, K.
        distributions: numbers of distributions from the guide to the posterior, T.
        distributions_from_prior: the same from the prior.
        num_chains: per datum.
        epochs: of the training.
        seed: of the training and the draws.
    """

    run: str | None = None
    num_data: int = 30
    particles: tuple[int, ...] = (100, 1000, 10_000, 50_000)
    distributions: tuple[int, ...] = (10, 30, 100, 300)
    distributions_from_prior: tuple[int, ...] = (30, 100, 300, 1000)
    num_chains: int = 16
    epochs: int = 200
    seed: int = 0


SMALL = Config(
    num_data=4, particles=(100, 400), distributions=(5, 20), distributions_from_prior=(20,), num_chains=4, epochs=3
)


def run(config: Config = Config()) -> Result:
    """Estimate the same log p(x) by three methods with growing effort.

    Args:
        config: the size.

    Returns:
        A row per method and effort, in nats, and the picture ``effort``.
    """
    pair, x, what = trained_pair(config.run, config.num_data, config.epochs, config.seed)
    shared: dict[str, Any] = {"seed": config.seed, "progress": True}
    rows = [
        _row("importance sampling", k, k, partial(importance_evidence, num_particles=k, **shared), pair, x)
        for k in config.particles
    ]
    counts_of: dict[Start, tuple[int, ...]] = {"guide": config.distributions, "prior": config.distributions_from_prior}
    for start, counts in counts_of.items():
        for t in counts:
            cost = config.num_chains * (t - 1) * LEAPFROG_STEPS * GRADIENT
            size: dict[str, Any] = {"num_chains": config.num_chains, "num_distributions": t}
            anneal = partial(annealed_evidence, **size, annealing=Annealing(start=start), **shared)
            rows.append(_row(f"AIS from the {start}", t, cost, anneal, pair, x))
    title = f"log p(x) of {what}, mean over {len(x)} test data, in nats"
    return Result(title, rows, _conclusions(rows), {"effort": effort_curves(rows, config)})


Row = dict[str, float | str]


def _row(method: str, size: int, cost: int, estimate: Callable[..., Evidence], pair: Any, x: Tensor) -> Row:
    started = time.perf_counter()
    evidence = estimate(pair.model, pair.guide, x)
    seconds = time.perf_counter() - started
    known = evidence.log_evidence.isfinite()
    error = evidence.standard_error[known].nan_to_num(0.0)
    return {
        "method": method,
        "K or T": size,
        "evaluations per datum": cost,
        "log p(x)": float(evidence.log_evidence[known].mean()),
        "Monte Carlo error": float(error.square().sum().sqrt() / max(int(known.sum()), 1)),
        "ESS of the weights / their number": float((evidence.ess / evidence.num_particles).mean()),
        "seconds per datum": seconds / len(known),
    }


def _conclusions(rows: list[Row]) -> list[str]:
    by_method = {name: [row for row in rows if row["method"] == name] for name in COLOURS}
    best = {name: found[-1] for name, found in by_method.items()}
    value = {name: float(row["log p(x)"]) for name, row in best.items()}
    drawn, chained = best["importance sampling"], best["AIS from the guide"]
    found = [
        f"With the largest efforts: importance sampling {value['importance sampling']:.2f} (K = {drawn['K or T']}), "
        f"AIS from the guide {value['AIS from the guide']:.2f} (T = {chained['K or T']}), from the prior "
        f"{value['AIS from the prior']:.2f} nats."
    ]
    passing = [row for row in by_method["AIS from the guide"] if float(row["log p(x)"]) > value["importance sampling"]]
    if passing:
        ratio = float(drawn["evaluations per datum"]) / float(passing[0]["evaluations per datum"])
        gain = float(passing[0]["log p(x)"]) - value["importance sampling"]
        found.append(
            f"{passing[0]['K or T']} distributions from the guide are above {drawn['K or T']} draws of it, by "
            f"{gain:.2f} nats, for 1/{ratio:.1f} of the evaluations."
        )
    return found


def effort_curves(rows: list[Row], config: Config) -> Figure:
    """The estimates against the evaluations of the density that they cost, with ± two Monte Carlo errors."""
    figure, axes = new_figure(3.8)
    for name, colour in COLOURS.items():
        found = [row for row in rows if row["method"] == name]
        cost, value, error = (
            torch.tensor([float(row[key]) for row in found]).numpy()
            for key in ("evaluations per datum", "log p(x)", "Monte Carlo error")
        )
        letter = "K" if name == "importance sampling" else "T"
        axes.plot(cost, value, color=colour, marker="o", markersize=4, label=name)
        axes.fill_between(cost, value - 2 * error, value + 2 * error, color=colour, alpha=0.25, linewidth=0)
        for row, a, b in zip(found, cost, value, strict=True):
            axes.annotate(f"{letter}={row['K or T']}", (a, b), xytext=(3, -10), textcoords="offset points", fontsize=7)
    axes.set_xscale("log")
    values = [float(row["log p(x)"]) for row in rows]
    top, low = max(values), sorted(values)[len(values) // 4]
    axes.set_ylim(low - 0.3 * (top - low) - 0.1, top + 0.15 * (top - low) + 0.1)
    axes.set(
        xlabel=f"evaluations of p(x, z) per datum (a gradient counts as {GRADIENT})", ylabel="mean of log p̂(x) (nats)"
    )
    axes.legend(loc="lower right")
    return figure
