"""Is a linear VAE, trained by SVI from a random start, probabilistic PCA?

    model   z ~ N(0, I_d),  x ~ N(W z + b, σ² I)        guide   q(z|x) = N(V x + c, S)

Claim: yes, where the guide's family contains the posterior. Its evidence, its σ² and the column space of its W are
those of the closed form of Tipping & Bishop, and the gap log p(x) − ELBO vanishes. A diagonal S is enough, since it
rotates W to the rotation whose posterior is diagonal; with any other W the gap is ½ (Σ_i log M_ii − log|M|), with
M = I + WᵀW/σ². A guide with the covariance of the prior, S = I, changes the model: with t = 1/σ, A = Σ_{i≤d} √λ_i and
L = Σ_{j>d} λ_j its best ELBO is in closed form too,

    −½ [D log 2π − 2 D log t + 2 A t + L t² − d],    t = (√(A² + 4 L D) − A) / (2 L),    |w_i|² = σ √λ_i − σ².

A column of W that has collapsed to zero stays there if and only if σ² exceeds the eigenvalue λ that it leaves out. This
holds for the likelihood itself, and for the ELBO at the same σ² (`experiments/collapsed_column.py`).

During training ELBO ≤ log p(x), for every datum in every epoch. Lucas et al. print a log likelihood of 941.654 nats
below their ELBO of 941.94 for 1000 pictures of 784 pixels: np.cov divides by N − 1, which takes ½ D log(N / (N − 1)) =
0.392 off the formula's value; divided by N it is 942.046.

"Probabilistic Principal Component Analysis" (Tipping & Bishop, 1999), J. R. Stat. Soc. B 61(3); "Don't Blame the ELBO!
A Linear VAE Perspective on Posterior Collapse" (Lucas, Tucker, Grosse & Norouzi, 2019), arXiv:1911.02469.

The figure should show two trainings that reach the closed form, and a third that reaches its own closed form above.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from scipy.linalg import subspace_angles
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from ppvae.datasets import load_dataset
from ppvae.inference import fit
from ppvae.inference.latents.stability import column_growth
from ppvae.models import LinearGaussian
from ppvae.progress import Progress

from .collapsed_column import growth_rates, left_out
from .experiment import Result
from .figures.linear_vae_figures import stability_figure, training_figure
from .restricted_guides import PriorScale, best_with_prior_scale, family_gap, rotated


@dataclass(frozen=True)
class Config:
    """How large the experiment is.

    Args:
        latent_dim: d.
        epochs: passes over the digits.
        batch_size: digits a step.
        learning_rate: Adam's at the start; it falls to zero by half a cosine.
        num_particles: draws of the guide a digit and step.
        noise_ratios: the σ² at which a collapsed column is examined, over the eigenvalue left out.
        seed: of the start and the training.
    """

    latent_dim: int = 8
    epochs: int = 200
    batch_size: int = 100
    learning_rate: float = 0.03
    num_particles: int = 4
    noise_ratios: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.05, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0)
    seed: int = 0


SMALL = Config(latent_dim=4, epochs=20, learning_rate=0.05, noise_ratios=(0.5, 0.99, 1.01, 2.0))


def run(config: Config = Config()) -> Result:
    """Train linear VAEs with three families of guides on the digits and compare them with their closed forms.

    Args:
        config: the size.

    Returns:
        A row per guide, in nats per datum, and the pictures ``training`` and ``stability``. The closed forms are those
        of the pair whose ELBO is the highest that the guide's family allows.
    """
    counts = load_dataset("digits").train.double()
    # About the mean and in units of 16: W and V are then of one size, and one learning rate serves both.
    x = (counts - counts.mean(0)) / 16
    d = config.latent_dim
    best = LinearGaussian.maximum_likelihood(x, d)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        pairs = {
            "full": LinearGaussian.for_data(x, d),
            "diagonal": LinearGaussian.for_data(x, d, full_covariance=False),
            "the prior's": PriorScale.for_data(x, d, full_covariance=False),
        }
        turned = rotated(best, torch.linalg.qr(torch.randn(d, d, dtype=x.dtype)).Q)
    optima = {"full": best, "diagonal": best, "the prior's": best_with_prior_scale(x, d)}
    histories = {name: train(pair, x, config, name) for name, pair in pairs.items()}
    rows = [_row(name, pair, optima[name], x, histories[name]) for name, pair in pairs.items()]
    rows.append(_row("diagonal, W kept turned", turned, best, x, [_state(turned, x)], family_gap(turned)))
    rates = {ratio: growth_rates(x, d, ratio) for ratio in config.noise_ratios}
    figures = {
        "training": training_figure(
            histories, _mean(best.log_evidence(x)), _state(optima["the prior's"], x), (len(x), x.shape[1])
        ),
        "stability": stability_figure(rates, left_out(x, d)),
    }
    title = f"Linear VAE on {len(x)} digits, D = {x.shape[1]}, d = {d}: nats per datum, by the guide's covariance"
    return Result(title, rows, _conclusions(rows, x, d, rates), figures)


def train(pair: LinearGaussian, x: Tensor, config: Config, name: str) -> list[dict[str, float]]:
    """Train by SVI; the exact evidence and ELBO after each epoch.

    The training is stopped after each epoch and resumed from its checkpoint, which changes no bit of it.
    """
    # The KL of two diagonal Gaussians is known in closed form, which makes the gradient quieter.
    estimator = Trace_ELBO if pair.full_covariance else TraceMeanField_ELBO
    loss = estimator(num_particles=config.num_particles, vectorize_particles=True, max_plate_nesting=1)
    history = [_state(pair, x)]
    with tempfile.TemporaryDirectory() as folder, Progress(f"SVI, {name}", config.epochs, "epochs") as bar:
        for epoch in range(config.epochs):
            fit(pair.model, pair.guide, x, loss=loss, epochs=epoch + 1, batch_size=config.batch_size,
                learning_rate=config.learning_rate, seed=config.seed, checkpoint=Path(folder) / "state",
                resume=epoch > 0, scheduler=lambda optimizer: CosineAnnealingLR(optimizer, config.epochs),
                accelerator="cpu", precision="64-true", progress=False)  # fmt: skip
            history.append(_state(pair, x))
            bar.advance(1, f"ELBO {history[-1]['elbo']:.2f} nats")
    return history


@torch.no_grad()
def _state(pair: LinearGaussian, x: Tensor) -> dict[str, float]:
    """Means over the data, and the largest excess of the ELBO over log p(x), which a bound never has."""
    evidence, elbo = pair.log_evidence(x), pair.exact_elbo(x)
    return {"evidence": _mean(evidence), "elbo": _mean(elbo), "excess": float((elbo - evidence).max())}


def formula(x: Tensor, latent_dim: int, ddof: int) -> float:
    """−½ [D log 2π + Σ_{i≤d} log λ_i + (D − d) log σ² + D], the maximum of the mean evidence if ddof = 0.

    The last term, D, is the trace of C⁻¹ times the covariance that the data have, the one divided by N. With np.cov's
    own N − 1 the formula takes the λ_i of another covariance, and is no likelihood of any parameters.
    """
    D = x.shape[1]
    eigenvalues = np.linalg.eigvalsh(np.cov(x.numpy().T, ddof=ddof))[::-1]
    noise = eigenvalues[latent_dim:].mean()
    log_det = np.log(eigenvalues[:latent_dim]).sum() + (D - latent_dim) * math.log(noise)
    return float(-0.5 * (D * math.log(2 * math.pi) + log_det + D))


def _row(
    name: str,
    pair: LinearGaussian,
    optimum: LinearGaussian,
    x: Tensor,
    history: Sequence[Mapping[str, float]],
    gap: float | None = None,
) -> dict[str, Any]:
    """One pair against its optimum; the closed form of the gap is the optimum's own unless it is given."""
    end, known = history[-1], _state(optimum, x)
    known_gap = known["evidence"] - known["elbo"] if gap is None else gap
    noise = (2 * (pair.log_noise_scale - optimum.log_noise_scale)).exp().item()
    angles = subspace_angles(pair.weight.detach().numpy(), optimum.weight.detach().numpy())
    return {
        "guide's covariance": name,
        "log p(x)": end["evidence"],
        "closed form": known["evidence"],
        "ELBO": end["elbo"],
        "best ELBO, closed form": known["evidence"] - known_gap,
        "gap": end["evidence"] - end["elbo"],
        "gap, closed form": known_gap,
        "σ² / closed form": noise,
        "angle to PCA (°)": float(np.degrees(angles.max())),
        "largest ELBO − log p(x)": max(state["excess"] for state in history),
    }


def _conclusions(
    rows: Sequence[Mapping[str, Any]], x: Tensor, d: int, rates: Mapping[float, tuple[float, float]]
) -> list[str]:
    full, diagonal, wrong, turned = rows
    elbo, right, trap = full["ELBO"], formula(x, d, 0), formula(x, d, 1)
    grow = max((ratio for ratio, pair in rates.items() if min(pair) > 0), default=math.nan)
    die = min((ratio for ratio, pair in rates.items() if max(pair) < 0), default=math.nan)
    eigenvalue = left_out(x, d)
    errors = [
        abs(found / known - 1)
        for ratio, pair in rates.items()
        for found, known in zip(pair, column_growth(eigenvalue, ratio * eigenvalue), strict=True)
    ]
    return [
        f"SVI comes within {right - full['log p(x)']:.4f} (full covariance) and {right - diagonal['log p(x)']:.4f} "
        f"(diagonal) nats per datum of the maximum {right:.3f}; the gap that is left is {full['gap']:.4f} and "
        f"{diagonal['gap']:.4f}.",
        f"Held at the prior's covariance, the guide costs {full['log p(x)'] - wrong['log p(x)']:.2f} nats of evidence "
        f"and leaves a gap of {wrong['gap']:.2f}, {wrong['gap, closed form']:.2f} in closed form; a diagonal guide of "
        f"W turned at random leaves {turned['gap']:.2f}, {turned['gap, closed form']:.2f} in closed form.",
        f"The largest ELBO − log p(x) of any datum after any epoch is "
        f"{max(row['largest ELBO − log p(x)'] for row in rows):.1g} nats.",
        f"With np.cov's N − 1 the formula gives {trap:.4f} nats, {elbo - trap:.4f} below the trained ELBO of "
        f"{elbo:.4f}; with N it gives {right:.4f}, {right - elbo:.4f} above it.",
        f"A collapsed column grows at σ² up to {grow:g} λ and dies from {die:g} λ on (λ = {eigenvalue:.4f} left out), "
        f"by the evidence and by the ELBO alike; the rates agree with the closed form to a relative {max(errors):.0e}.",
    ]


def _mean(values: Tensor) -> float:
    return float(values.detach().mean())
