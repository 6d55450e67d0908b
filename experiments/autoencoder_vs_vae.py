"""What does a VAE gain over an autoencoder by giving a distribution over z instead of one z?

An autoencoder and a VAE with the same likelihood and networks of the same widths are trained on the same data. The
claims, each measured without a pretrained network:

- *Likelihood.* The VAE says how probable a held-out x is. The autoencoder does not: without p(z) there is no p(x), and
  p(x | g(f(x))) is no distribution over x. Over all 512 binary 3 × 3 patches the VAE's p(x) sums to 1, and the
  autoencoder's p(x | g(f(x))) does not. With a prior fitted afterwards (below) its decoder becomes a model too; it then
  gets a guide of its own, trained as a VAE's encoder with the decoder held fixed, and is compared by the same bound.
- *Samples.* The VAE is decoded at z ~ N(0, I), which is its prior. For the autoencoder N(0, I) is a guess; a Gaussian
  fitted to its codes is a better one: the ex-post density of "From Variational to Deterministic Autoencoders" (Ghosh et
  al., 2020), arXiv:1903.12436. The VAE gets the same. How well classifiers distinguish samples from held-out data:
  "Revisiting Classifier Two-Sample Tests" (Lopez-Paz & Oquab, 2017), arXiv:1610.06545; 50 % is perfection, up to a
  binomial error. Samples are draws of p(x|z) for all, since data are no averages either.
- *Uncertainty.* q(z|x) has an entropy, which should rise when x is degraded. Whether it does is measured, datum by
  datum.
- *Reconstruction.* The autoencoder is trained for it, and has the lower error on its training data; on other data it
  need not, since the VAE's noise separates its codes.

The results should show that the VAE loses in reconstruction and gains in the others, much of it by its prior over z.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure

from ppvae.datasets import load_dataset
from ppvae.inference import fit, importance_evidence
from ppvae.inference.evidence.evidence import mean_with_errors
from ppvae.models import VAE, Autoencoder, Bernoulli
from ppvae.percent import percent

from .autoencoder_comparison import (
    AE,
    AE_FITTED,
    VAE_FITTED,
    VAE_PRIOR,
    DatasetConfig,
    PairComparison,
    compare_pairs,
)
from .experiment import Result
from .figures.autoencoder_figures import classifier_figure, entropy_figure
from .figures.galleries import gallery


@dataclass(frozen=True)
class Config:
    """How large the experiment is.

    Args:
        settings: the data sets.
        patch_epochs: epochs of training on the 3 × 3 patches.
        patch_particles: for p(x) of each of the 512 patches.
        seed: of all randomness.
    """

    settings: tuple[DatasetConfig, ...] = (
        DatasetConfig("digits", 1297, 500, 8, (64,), 200),
        DatasetConfig("binarized_mnist", 10_000, 2000, 16, (200,), 25),
    )
    patch_epochs: int = 30
    patch_particles: int = 2000
    seed: int = 0


SMALL = Config(settings=(DatasetConfig("digits", 300, 200, 4, (16,), 25, 50),), patch_epochs=3, patch_particles=500)


def run(config: Config = Config()) -> Result:
    """Train both on each data set and compare them.

    Args:
        config: how large.

    Returns:
        Result: a row per data set and source of codes.
    """
    found = [compare_pairs(setting, config.seed) for setting in config.settings]
    totals = patch_totals(config.patch_epochs, config.patch_particles, config.seed)
    figures: dict[str, Figure] = {"classifier_accuracy": classifier_figure(found), "entropy": entropy_figure(found)}
    for comparison in found:
        name, shape = comparison.setting.dataset, comparison.event_shape
        labels = [source.replace(", ", ",\n", 1) for source in comparison.samples]
        pictures = torch.stack(list(comparison.samples.values()))
        figures[f"samples_{name}"] = gallery(pictures, shape, labels, "Samples: E[x|z]")
        title = "From one held-out datum to another: E[x|z] on the line between their codes"
        figures[f"paths_{name}"] = gallery(comparison.paths, shape, ["autoencoder", "VAE"] * 3, title)
    return Result(
        title="An autoencoder and a VAE of the same size; log p in nats per datum",
        rows=[row for comparison in found for row in _rows(comparison)],
        conclusions=[_totals_sentence(*totals), *(line for comparison in found for line in _conclusions(comparison))],
        figures=figures,
    )


def patch_totals(epochs: int, num_particles: int, seed: int) -> tuple[float, float, float]:
    """Σ_x p(x | g(f(x))) of an autoencoder, and Σ_x p(x) of a VAE with its error, over all 512 binary 3 × 3 patches.

    Both are trained on the middles of the digits, black where a count is above 8.

    Args:
        epochs: of training.
        num_particles: for each p(x).
        seed: of all randomness.
    """
    digits = load_dataset("digits").train.reshape(-1, 8, 8)
    x = (digits[:, 2:5, 2:5].flatten(1) > 8).to(digits)
    every = torch.tensor([[n >> bit & 1 for bit in range(9)] for n in range(512)]).to(x)
    torch.manual_seed(seed)
    autoencoder = Autoencoder.for_data(x, 2, Bernoulli(), hidden=(16,))
    vae = VAE.for_data(x, Bernoulli(), latent_dim=2, hidden=(16,))
    for pair in (autoencoder, vae):
        fit(pair.model, pair.guide, x, epochs=epochs, learning_rate=1e-2, seed=seed, accelerator="cpu")
    with torch.no_grad():
        offered = autoencoder.decode(autoencoder.encode(every)).log_prob(every).exp().sum()
    evidence = importance_evidence(vae.model, vae.guide, every, num_particles, seed=seed)
    p = evidence.log_evidence.exp()
    return float(offered), float(p.sum()), float((p * evidence.standard_error).norm())


def _rows(comparison: PairComparison) -> Iterator[dict[str, Any]]:
    for source, accuracy in comparison.accuracy.items():
        evidence = comparison.evidence.get(source)
        known = evidence.summary() if evidence is not None else {}
        yield {
            "data": comparison.setting.dataset,
            "codes from": source,
            "log p(x), test": known.get("log_evidence", math.nan),
            "± standard error": known.get("log_evidence_standard_error", math.nan),
            "gap": known.get("gap", math.nan),
            "k-hat ≥ 0.7": known.get("pareto_k_share_above_0_7", math.nan),
            **{f"{name} accuracy": share for name, share in accuracy.items()},
            "± binomial": 0.5 / math.sqrt(comparison.num_classified),
        }


def _conclusions(comparison: PairComparison) -> Iterator[str]:
    name = comparison.setting.dataset
    for part, values in comparison.reconstruction.items():
        difference = mean_with_errors(values[0] - values[1], torch.zeros_like(values[0]))
        yield (
            f"{name}: log p(x|z) of {part} data is {float(values[0].mean()):.2f} at the autoencoder's code and "
            f"{float(values[1].mean()):.2f} at the VAE's mean, a difference of {difference['']:+.2f} ± "
            f"{difference['_standard_error']:.2f} nats."
        )
    best = comparison.evidence[VAE_PRIOR].log_evidence
    for source in (AE, AE_FITTED, VAE_FITTED):
        difference = mean_with_errors(comparison.evidence[source].log_evidence - best, torch.zeros_like(best))
        yield (
            f"{name}: log p(x) of test data under {source} less that under the VAE, both as bounds by "
            f"{comparison.setting.num_particles} particles and after at most {comparison.setting.epochs} epochs: "
            f"{difference['']:+.2f} ± {difference['_standard_error']:.2f} nats."
        )
    for degradation, rise in comparison.entropy_rise.items():
        change = mean_with_errors(rise, torch.zeros_like(rise))
        rising = percent(float((rise > 0).double().mean()))
        yield (
            f"{name}, {' '.join(degradation.split())}: the entropy of q(z|x) changes by {change['']:+.2f} ± "
            f"{change['_standard_error']:.2f} nats and rises for {rising} of the data; "
            "the autoencoder has none."
        )


def _totals_sentence(offered: float, total: float, error: float) -> str:
    return (
        f"Over all 512 binary patches of 3 × 3, the VAE's p(x) adds up to {total:.4f} ± {error:.4f} and the "
        f"autoencoder's p(x | g(f(x))) to {offered:.1f}: the first is a distribution over x, the second is not."
    )
