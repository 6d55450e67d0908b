"""How fast log weights, densities in each layout and transitions of annealing are, beside peers and plain torch.

All are of the VAE 784-200-200-50, on data of the same kind. Of each task the operations of the decoder's matrix
products are counted: no estimate with as many draws can do without them, so that their share of the rate of
:func:`matrix_product` says how much time goes elsewhere.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import pyro
import torch
from pyro.infer.importance import vectorized_importance_weights
from torch import Tensor

from ppvae.inference import importance_evidence
from ppvae.inference.option_records import LEAPFROG_STEPS
from ppvae.inference.pair import Evaluations, Pair
from ppvae.inference.pair.layout import LAYOUTS, Layout
from ppvae.inference.sampling import forward, tune
from ppvae.models import VAE

from .plain_torch import decoder_flops, decoder_products, torch_anneal, torch_densities, torch_weights
from .pythae_peer import pythae_evidence, pythae_vae
from .side_by_side import Timed, Way, side_by_side
from .step_pairs import LATENT, pixels, vae_for

PRODUCTS = "its matrix products alone"
ANNEALING = "ppvae.inference.sampling.annealing"
WEIGHTS = "the weights alone"
MEMORY_MB = 64.0


@dataclass(frozen=True)
class EvidenceSizes:
    """How much work a turn is.

    Attributes:
        num_data: for the log weights and for the layouts.
        num_particles: log weights of each datum.
        num_annealed: data of the chains.
        num_chains: of each datum.
        num_distributions: of the annealing; one less is the number of transitions.
        num_laid_out: draws in each layout.
        matrix_side: of the square matrices whose product gives the machine's rate.
    """

    num_data: int = 8
    num_particles: int = 5000
    num_annealed: int = 40
    num_chains: int = 16
    num_distributions: int = 11
    num_laid_out: int = 200
    matrix_side: int = 1536


def evidence_tasks(sizes: EvidenceSizes, turns: int, compiled: bool) -> Iterator[tuple[str, Timed]]:
    """What each task is called, and what it took; one after the other.

    Args:
        sizes: how much work a turn is.
        turns: that count.
        compiled: with those that compile.
    """
    yield matrix_product(sizes.matrix_side, turns)
    yield log_weight_task(sizes, turns, compiled)
    yield annealing_task(sizes, turns, compiled)
    yield layout_task(sizes, turns)


def matrix_product(side: int, turns: int) -> tuple[str, Timed]:
    """The product of two square float32 matrices, which gives the rate that the machine can reach."""
    a, b = torch.randn(side, side), torch.randn(side, side)
    spreads = side_by_side({"torch": lambda: a @ b}, 3 * turns)
    return f"float32 product of two {side} × {side} matrices", Timed(spreads, 2.0 * side**3)


def log_weight_task(sizes: EvidenceSizes, turns: int, compiled: bool) -> tuple[str, Timed]:
    """log p̂(x) of some data by draws of the guide; and the weights alone, of a pair that is found out before."""
    x = pixels(sizes.num_data)
    pair, K = vae_for(x), sizes.num_particles
    with Pair.on(pair.model, pair.guide, (x,)) as view, torch.no_grad():
        ways: dict[str, Way] = {
            "ppvae.inference.importance_evidence": lambda: importance_evidence(pair.model, pair.guide, x, K),
            WEIGHTS: lambda: view.gathered_log_weights(K, MEMORY_MB),
        }
        if compiled:
            fused = compiled_density(view)
            ways[f"{WEIGHTS}, compiled"] = lambda: fused.evaluations.log_weights(fused, K, MEMORY_MB)
        ways["pyro's weights, one datum at a time"] = lambda: _pyro_weights(pair, x, K)
        if importlib.util.find_spec("pythae") is not None:
            ways["pythae's get_nll"] = partial(pythae_evidence, pythae_vae(pair), x, K)
        ways[PRODUCTS] = lambda: decoder_products(pair, K, len(x))
        ways["plain torch"] = lambda: torch_weights(pair, x, K)
        flops = float(decoder_flops(pair)) * K * len(x)
        return f"{K} weights of each of {len(x)} data", Timed(side_by_side(ways, turns), flops)


def annealing_task(sizes: EvidenceSizes, turns: int, compiled: bool) -> tuple[str, Timed]:
    """The transitions alone: what the pilot finds is the same for all. The pair is found out and compiled before."""
    x, chains, steps = pixels(sizes.num_annealed), sizes.num_chains, LEAPFROG_STEPS
    pair, transitions = vae_for(x), sizes.num_distributions - 1
    with Pair.on(pair.model, pair.guide, (x,), start="guide") as density:
        tuning = tune(density, "guide", sizes.num_distributions)
        ways: dict[str, Way] = {ANNEALING: lambda: forward(density, tuning, "guide", chains)}
        if compiled:
            fused = compiled_density(density)
            ways[f"{ANNEALING}, compiled"] = lambda: forward(fused, tuning, "guide", chains)
        ways[PRODUCTS] = lambda: decoder_products(pair, chains * len(x), steps * transitions, backward=True)
        ways["plain torch"] = lambda: torch_anneal(pair, x, chains, sizes.num_distributions, steps)
        flops = 2.0 * decoder_flops(pair) * chains * len(x) * steps * transitions
        made = f"{transitions} transitions of {chains} chains for {len(x)} data, {steps} leapfrog steps each"
        return made, Timed(side_by_side(ways, turns), flops)


def compiled_density(density: Pair) -> Pair:
    """The same pair with log densities, their gradients and log weights that are compiled."""
    fused = replace(density, evaluations=Evaluations())
    fused.evaluations.compile(True, fused, 0, 0)
    return fused


def layout_task(sizes: EvidenceSizes, turns: int) -> tuple[str, Timed]:
    """log p(x, z) and log q(z|x) of the same draws in every layout, on a pair that suits them all, found out before."""
    x = pixels(sizes.num_data)
    pair, z = vae_for(x), torch.randn(sizes.num_laid_out, len(x), LATENT)
    with Pair.on(pair.model, pair.guide, (x,)) as view, torch.no_grad():

        def ours(layout: Layout) -> None:
            for body in (view.programs.densities, view.programs.log_guide):
                view.run(body, len(z), {"z": z}, layout)

        ways: dict[str, Way] = {layout: partial(ours, layout) for layout in LAYOUTS}
        ways["plain torch"] = lambda: torch_densities(pair, x, z)
        flops = float(decoder_flops(pair)) * len(z) * len(x)
        return f"densities of {len(z)} draws of {len(x)} data", Timed(side_by_side(ways, turns), flops)


def _pyro_weights(pair: VAE, x: Tensor, num_particles: int) -> None:
    with pyro.get_param_store().scope(), torch.no_grad():
        for datum in x.split(1):
            vectorized_importance_weights(pair.model, pair.guide, datum, num_samples=num_particles, max_plate_nesting=1)
