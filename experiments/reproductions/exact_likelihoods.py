"""Likelihoods that are known exactly: by quadrature, and of linear-Gaussian models in closed form."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ppvae.datasets import load_dataset
from ppvae.models import FactorAnalysis, ItemResponse, LinearGaussian

from .row import Figure, Published, Row, RowEffort, RowOutcome

# Steps and rate are those of the authors' notebook on linear VAEs.
EM_STEPS, SUBSETS, TRAININGS = 5000, 20, 3
# By how much the ELBO exceeds the likelihood that the notebook prints.
LUCAS_EXCESS = 941.94 - 941.654
LUCAS_STEPS, LUCAS_RATE, LUCAS_LATENTS, LUCAS_IMAGES = 12_000, 1e-3, 200, 1000


def lsat6(effort: RowEffort) -> RowOutcome:
    """The maximum of the marginal likelihood of a two-parameter logistic model, and where it is reached."""
    x = load_dataset("lsat6").undivided().train.double()
    pair = ItemResponse.for_data(x)
    ascent = torch.optim.LBFGS([pair.slope, pair.intercept], max_iter=500, tolerance_grad=1e-9, tolerance_change=1e-12)

    def closure() -> Tensor:
        ascent.zero_grad()
        loss = -pair.log_evidence(x).sum()
        loss.backward()
        return loss

    ascent.step(closure)
    total = float(pair.log_evidence(x).sum().detach())
    values = (total, *pair.slope.tolist(), *pair.intercept.tolist())
    return RowOutcome(tuple(Figure(value, 0.0) for value in values), {"quadrature_nodes": 61})


def factor_analysis(effort: RowEffort) -> RowOutcome:
    """The mean log-likelihood of factor analysis at its maximum, by EM, on the wines of scikit-learn."""
    from sklearn.datasets import load_wine

    values = load_wine().data
    x = torch.tensor((values - values.mean(0)) / values.std(0))
    pair = FactorAnalysis.for_data(x, 3, num_steps=EM_STEPS)
    return RowOutcome((Figure(float(pair.log_evidence(x).mean().detach()), 0.0),), {"steps_of_em": EM_STEPS})


def some_images(seed: int) -> Tensor:
    """A thousand training images of MNIST in [0, 1], drawn at random."""
    grey = load_dataset("mnist").train
    return grey[torch.randperm(len(grey), generator=torch.Generator().manual_seed(seed))[:LUCAS_IMAGES]].double()


def printed_likelihood(x: Tensor) -> float:
    """The mean log-likelihood of probabilistic PCA as the notebook computes it, from the covariance over N − 1.

    The formula takes its covariance for that of the data, so that the quadratic form is D; it is ½ D log(N/(N − 1))
    below the maximum, which divides by N.
    """
    num_data, width = x.shape
    centred = x - x.mean(0)
    values = torch.linalg.eigvalsh(centred.T @ centred / (num_data - 1)).flip(0)
    log_det = values[:LUCAS_LATENTS].log().sum() + (width - LUCAS_LATENTS) * values[LUCAS_LATENTS:].mean().log()
    return -0.5 * float(width * math.log(2 * math.pi) + log_det + width)


def probabilistic_pca(effort: RowEffort) -> RowOutcome:
    """The notebook's likelihood of other thousands of images, and how far it lies below the maximum."""
    printed, above = [], []
    for seed in range(SUBSETS):
        x = some_images(effort.seed + seed)
        printed.append(printed_likelihood(x))
        best = LinearGaussian.maximum_likelihood(x, LUCAS_LATENTS)
        above.append(float(best.log_evidence(x).mean().detach()) - printed[-1])
    figures = (Figure(float(np.mean(printed)), float(np.std(printed, ddof=1))), Figure(float(np.mean(above)), 0.0))
    return RowOutcome(figures, {"subsets": SUBSETS, "printed": printed})


def mean_elbo(pair: LinearGaussian, mean: Tensor, cov: Tensor) -> Tensor:
    """The mean of ``pair.exact_elbo(x)`` over data of this mean and covariance (over N), the guide's being diagonal.

    It is a function of these moments, and needs a fifth of the operations that a thousand images do.
    """
    W, A, noise = pair.weight, pair.guide_weight, (2 * pair.log_noise_scale).exp()
    m = A @ mean + pair.guide_bias
    with_m = cov @ A.T  # the covariance of x and the guide's mean
    rest = (mean - pair.bias - W @ m).square().sum() + cov.trace() - 2 * (W * with_m).sum()
    rest = rest + ((W.T @ W) * (A @ with_m)).sum()
    square = m.square().sum() + (A.T * with_m).sum()
    widths = (1 + W.square().sum(0) / noise) * (2 * pair.guide_log_scale).exp() - 2 * pair.guide_log_scale - 1
    return -0.5 * (len(mean) * (math.log(2 * math.pi) + noise.log()) + rest / noise + square + widths.sum()).squeeze()


def linear_vae(effort: RowEffort) -> RowOutcome:
    """By how much the ELBO of a trained linear VAE exceeds what the notebook prints as the likelihood."""
    above, below = [], []
    for seed in range(effort.num_data or TRAININGS):
        x = some_images(effort.seed + seed).to(effort.device)
        with torch.random.fork_rng():
            torch.manual_seed(effort.seed + seed)
            pair = LinearGaussian(x.shape[1], LUCAS_LATENTS, full_covariance=False).to(effort.device)
        mean, cov = (part.float() for part in (x.mean(0), torch.cov(x.T, correction=0)))
        ascent = torch.optim.Adam(pair.parameters(), lr=LUCAS_RATE)
        for _ in range(LUCAS_STEPS):
            ascent.zero_grad()
            (-mean_elbo(pair, mean, cov)).backward()
            ascent.step()
        with torch.no_grad():
            elbo, evidence = float(pair.exact_elbo(x).mean()), float(pair.log_evidence(x).mean())
        above.append(elbo - printed_likelihood(x.cpu()))
        below.append(evidence - elbo)
    details = {"above": above, "log_evidence_above_elbo": below, "steps": LUCAS_STEPS}
    spread = float(np.std(above, ddof=1)) if len(above) > 1 else 0.0
    undecided = _too_wide(spread, max(below))
    return RowOutcome((Figure(float(np.mean(above)), spread, undecided),), details)


def _too_wide(spread: float, left: float) -> str:
    """Why trainings that differ by more than they are to show decide nothing; empty where they differ less."""
    if spread <= LUCAS_EXCESS:
        return ""
    return (
        f"the trainings differ by {spread:.2f} nats, more than the {LUCAS_EXCESS:.2f} that they are to show; they end "
        f"up to {left:.2f} nats below log p(x)"
    )


LUCAS = "Lucas, Tucker, Grosse & Norouzi (2019), arXiv:1911.02469, the authors' notebook"
ITEMS = range(1, 6)
SLOPES, INTERCEPTS = (0.826, 0.723, 0.891, 0.688, 0.657), (2.773, 0.990, 0.249, 1.285, 2.053)

ROWS = (
    Row(
        "lsat6",
        "Two-parameter logistic model of the Law School Admission Test, section 6",
        (
            Published("log-likelihood, nats", -2466.653, 0.0005),
            *(Published(f"slope of item {i}", value, 0.0005) for i, value in zip(ITEMS, SLOPES, strict=True)),
            *(Published(f"intercept of item {i}", value, 0.0005) for i, value in zip(ITEMS, INTERCEPTS, strict=True)),
        ),
        "Bock & Lieberman (1970), Psychometrika 35; the same in R's ltm and mirt",
        "`ItemResponse`, its likelihood by 61 nodes of Gauss-Hermite quadrature, raised by L-BFGS",
        "",
        lsat6,
    ),
    Row(
        "factor_analysis",
        "Factor analysis of the wines, three factors",
        (Published("mean log-likelihood, nats", -15.0802498, 5e-8, better="higher"),),
        "scikit-learn's `FactorAnalysis` (lapack, tolerance 1e-12)",
        "`FactorAnalysis` by 5000 steps of EM, its evidence in closed form",
        "",
        factor_analysis,
    ),
    Row(
        "probabilistic_pca",
        "Probabilistic PCA of 1000 images, 200 latents, and the likelihood that the notebook prints",
        (
            Published("mean log-likelihood as printed, nats", 941.654, 0.0005),
            Published("maximum of the likelihood above it, nats", 392 * math.log(1000 / 999), 5e-7),
        ),
        f"{LUCAS}; the second is not published: ½ D log(N/(N − 1)), what dividing by N − 1 costs",
        "the formula of the notebook on 20 random thousands of images, whose spread is the error; the closed form of "
        "Tipping & Bishop for the maximum",
        "other images: the notebook's are the first thousand in the order of another copy of MNIST",
        probabilistic_pca,
    ),
    Row(
        "linear_vae",
        "A linear VAE on the same, above the printed likelihood",
        (Published("ELBO less the printed likelihood, nats", LUCAS_EXCESS, 0.0055),),
        LUCAS,
        "12 000 steps of Adam at 1e-3 on the exact ELBO of all images, a diagonal covariance that the images share; "
        "three random thousands of images, whose spread is the error",
        "other images; the ELBO is below the maximum of the likelihood, which divides by N",
        linear_vae,
    ),
)
