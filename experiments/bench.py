"""The speed of the slowest operations: a step of SVI, a log weight, a transition of annealing, densities by layout.

Steps of SVI are by :mod:`.bench_training`. Each contender does the same work on the 784-200-200-50 tanh VAE; they
run in turns, so that a busy machine slows all of them alike, and the result is the ratio of medians. ``make bench``
runs it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pyro
import torch
from pyro.infer.importance import vectorized_importance_weights
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ppvae.inference import importance_evidence
from ppvae.inference.option_records import LEAPFROG_STEPS
from ppvae.inference.pair import Evaluations, Pair
from ppvae.inference.pair.layout import LAYOUTS, Layout
from ppvae.inference.sampling import forward, tune
from ppvae.models import VAE

from .bench_record import changes, keep
from .bench_training import torch_log_w, trainers, vae_for

# What the last run found, with the machine and the versions it ran on.
FILE = Path("build/bench.json")


@dataclass(frozen=True)
class Config:
    """How much work a turn is, and how many turns there are."""

    batch_sizes: tuple[int, ...] = (128, 20)
    steps: int = 50
    compiled: bool = True
    num_data: int = 8
    num_particles: int = 5000
    num_chains: int = 16
    num_annealed: int = 40
    num_distributions: int = 11
    num_laid_out: int = 200
    turns: int = 7


def contenders(config: Config) -> dict[str, dict[str, Callable[[], object]]]:
    """For each task, who does it and how; the first of each is ours, the last plain torch."""
    torch.manual_seed(0)
    x = torch.bernoulli(torch.full((config.steps * max(config.batch_sizes), 784), 0.13))
    few = x[: config.num_data]
    ours, theirs, plain = (vae_for(x) for _ in range(3))
    return {
        **{
            f"{config.steps} steps of SVI, {size} data each": {
                **trainers(x[: config.steps * size], size, config.compiled)
            }
            for size in config.batch_sizes
        },
        f"{config.num_particles} weights of each of {config.num_data} data": {
            "ppvae.inference.importance_evidence": lambda: importance_evidence(
                ours.model, ours.guide, few, config.num_particles
            ),
            "pyro's weights, one datum at a time": lambda: _pyro_weights(theirs, few, config.num_particles),
            "plain torch": lambda: _torch_weights(plain, few, config.num_particles),
        },
    }


def _layouts(config: Config) -> dict[str, dict[str, float]]:
    """log p(x, z) and log q(z|x) of the same draws in every layout, on a pair that suits them all, found out before."""
    x = torch.bernoulli(torch.full((config.num_data, 784), 0.13))
    pair = vae_for(x)
    z = torch.randn(config.num_laid_out, len(x), 50)
    with Pair.on(pair.model, pair.guide, (x,)) as view, torch.no_grad():

        def ours(layout: Layout) -> None:
            for body in (view.programs.densities, view.programs.log_guide):
                view.run(body, len(z), {"z": z}, layout)

        ways: dict[str, Callable[[], object]] = {layout: partial(ours, layout) for layout in LAYOUTS}
        ways["plain torch"] = lambda: _torch_densities(pair, x, z)
        return {f"densities of {len(z)} draws of {len(x)} data": _medians(ways, config.turns)}


def _torch_densities(pair: VAE, x: Tensor, z: Tensor) -> Tensor:
    with torch.no_grad():
        loc, scale = pair.encode(x)
        logits = pair.decoder(z)
        log_joint = (x * logits - torch.nn.functional.softplus(logits)).sum(-1) - z.square().sum(-1) / 2
        return log_joint + ((z - loc) / scale).square().sum(-1) / 2 + scale.log().sum(-1)


def _annealing(config: Config) -> dict[str, dict[str, float]]:
    """The transitions alone: what the pilot finds is the same for all. The pair is found out and compiled before."""
    x = torch.bernoulli(torch.full((config.num_annealed, 784), 0.13))
    pair, chains, steps = vae_for(x), config.num_chains, LEAPFROG_STEPS
    with Pair.on(pair.model, pair.guide, (x,), start="guide") as density:
        tuning = tune(density, "guide", config.num_distributions)
        ways: dict[str, Callable[[], object]] = {
            "ppvae.inference.sampling.annealing": lambda: forward(density, tuning, "guide", chains)
        }
        if config.compiled:
            compiled = replace(density, evaluations=Evaluations())
            compiled.evaluations.compile(True, compiled, 0, 0)
            ways["ppvae.inference.sampling.annealing, compiled"] = lambda: forward(compiled, tuning, "guide", chains)
        ways["its matrix products alone"] = lambda: _products(
            pair, chains * len(x), steps * (config.num_distributions - 1)
        )
        ways["plain torch"] = lambda: _torch_anneal(pair, x, chains, config.num_distributions, steps)
        made = f"{config.num_distributions - 1} transitions of {chains} chains for {len(x)} data"
        return {f"{made}, {steps} leapfrog steps each": _medians(ways, config.turns)}


def _products(pair: VAE, rows: int, times: int) -> None:
    """The least that a gradient in z costs: the decoder's matrix products, once forward and once backward."""
    weights = [layer.weight.detach() for layer in pair.decoder.modules() if isinstance(layer, torch.nn.Linear)]
    z = torch.randn(rows, weights[0].shape[1])
    for _ in range(times):
        h = z
        for weight in weights:
            h = h @ weight.T
        for weight in reversed(weights):
            h = h @ weight


def _torch_anneal(
    pair: VAE, x: Tensor, chains: int, num_distributions: int, steps: int, epsilon: float = 0.1
) -> Tensor:
    """Annealing as published, for one VAE by hand: one step size, and a new gradient at each temperature."""
    with torch.no_grad():
        loc, scale = pair.encode(x)

    def ends(z: Tensor) -> tuple[Tensor, Tensor]:
        logits = pair.decoder(z)
        joint = (x * logits - torch.nn.functional.softplus(logits)).sum(-1) - z.square().sum(-1) / 2
        return -((z - loc) / scale).square().sum(-1) / 2 - scale.log().sum(-1), joint

    def slope(z: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        z = z.detach().requires_grad_()
        start, joint = ends(z)
        target = (1 - beta) * start + beta * joint
        return target.detach(), torch.autograd.grad(target.sum(), z)[0]

    z = loc + scale * torch.randn(chains, *loc.shape)
    log_w, betas = torch.zeros(chains, len(x)), torch.linspace(0, 1, num_distributions + 1).tolist()
    for before, beta in pairwise(betas):
        with torch.no_grad():
            start, joint = ends(z)
        log_w += (beta - before) * (joint - start)
        if beta == 1:
            break
        momentum, end = torch.randn_like(z), z
        target, gradient = slope(z, beta)
        energy = momentum.square().sum(-1) / 2 - target
        for _ in range(steps):
            momentum = momentum + epsilon / 2 * gradient
            end = end + epsilon * momentum
            target, gradient = slope(end, beta)
            momentum = momentum + epsilon / 2 * gradient
        accepted = torch.rand(log_w.shape).log() < energy - momentum.square().sum(-1) / 2 + target
        z = torch.where(accepted[..., None], end, z)
    return log_w


def _pyro_weights(pair: VAE, x: Tensor, num_particles: int) -> None:
    with torch.no_grad():
        for datum in x.split(1):
            vectorized_importance_weights(pair.model, pair.guide, datum, num_samples=num_particles, max_plate_nesting=1)
    pyro.clear_param_store()


def _torch_weights(pair: VAE, x: Tensor, num_particles: int) -> None:
    with torch.no_grad():
        for datum in x.split(1):
            torch_log_w(pair, datum, num_particles).logsumexp(0)


def run(config: Config) -> dict[str, dict[str, float]]:
    """Median seconds of every contender, by task."""
    result = {task: _medians(ways, config.turns) for task, ways in contenders(config).items()}
    return result | _annealing(config) | _layouts(config)


def _medians(ways: dict[str, Callable[[], object]], turns: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            own = way()  # some count the seconds of their work themselves, without getting ready
            if turn:  # the first turn warms up
                seconds[name].append(own if isinstance(own, float) else time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in seconds.items()}


def table(result: dict[str, dict[str, float]]) -> Table:
    """The medians and their ratios to plain torch's."""
    out = Table(title=f"Medians side by side, {torch.get_num_threads()} threads")
    for column in ("task", "by", "seconds", "× plain torch"):
        out.add_column(column, justify="right" if column in {"seconds", "× plain torch"} else "left")
    for task, medians in result.items():
        plain = medians["plain torch"]
        for name, seconds in medians.items():
            out.add_row(task, name, f"{seconds:.3f}", f"{seconds / plain:.2f}")
        out.add_section()
    return out


if __name__ == "__main__":
    result = run(Config())
    Console().print(table(result))
    Console().print(changes(result, FILE))
    keep(result, FILE)
