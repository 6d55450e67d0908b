"""What does it buy that a VAE gives a distribution over z, and not a z?

An autoencoder and a VAE with the same likelihood and networks of the same widths are trained on the same data. The
claims, each with a number that needs no pretrained network:

- *Likelihood.* The VAE says how probable a held-out x is. The autoencoder does not: without p(z) there is no p(x), and
  p(x | g(f(x))) is no distribution over x. On 3 × 3 patches all 512 pictures can be summed over: the VAE's p(x) adds up
  to 1, what the autoencoder offers does not. With a prior stated afterwards (below) its decoder becomes a model too; it
  then gets a guide of its own, trained as a VAE's encoder with the decoder held fixed, and is judged by the same bound.
- *Samples.* The VAE is decoded at z ~ N(0, I), which is its prior. For the autoencoder N(0, I) is a guess; a Gaussian
  fitted to its codes is a better one: the ex-post density of "From Variational to Deterministic Autoencoders" (Ghosh et
  al., 2020), arXiv:1903.12436. The VAE gets the same repair. How well classifiers tell samples from held-out data:
  "Revisiting Classifier Two-Sample Tests" (Lopez-Paz & Oquab, 2017), arXiv:1610.06545; 50 % is perfection, up to a
  binomial error. Samples are draws of p(x|z) for all, since data are no averages either.
- *Uncertainty.* q(z|x) has an entropy, which should rise when x is degraded. Whether it does is measured, datum by
  datum.
- *Reconstruction* is what the autoencoder is for, and on the data that it is trained on it must win; on others it need
  not, since the VAE's noise keeps its codes apart.

The reader should see the price and the purchase, and that a good part of the purchase is the prior over the codes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from ppvae.datasets import Dataset, load_dataset
from ppvae.inference import Evidence, fit, importance_evidence
from ppvae.inference.evidence import mean_with_errors
from ppvae.models import VAE, Autoencoder, Bernoulli, Binomial, Likelihood

from .experiment import Result
from .figures.galleries import gallery
from .figures.style import BLUE, GREEN, ORANGE, new_figure, new_panels

NUM_SHOWN = 10
CONTROL, AE, AE_FITTED = "other real data", "autoencoder, z ~ N(0, I)", "autoencoder, fitted Gaussian"
VAE_PRIOR, VAE_FITTED = "VAE, its prior N(0, I)", "VAE, fitted Gaussian"
CLASSIFIERS = {"5-NN": KNeighborsClassifier(5), "forest": RandomForestClassifier(100, random_state=0)}


@dataclass(frozen=True)
class Setting:
    """One data set and what is trained on it.

    Args:
        dataset: a name for `load_dataset` whose data are counts or zeros and ones: digits or binarized_mnist.
        num_train: training data.
        num_held_out: held-out data, half each of the validation part, which stops the trainings, and of the test part.
        latent_dim: length of z.
        hidden: widths of the encoders.
        epochs: at most so many; each training stops when its own validation score no longer rises.
        num_particles: for log p(x) of the test part.
    """

    dataset: str
    num_train: int
    num_held_out: int
    latent_dim: int
    hidden: tuple[int, ...]
    epochs: int
    num_particles: int = 500


@dataclass(frozen=True)
class Config:
    """How large the experiment is.

    Args:
        settings: the data sets.
        patch_epochs: epochs of training on the 3 × 3 patches.
        patch_particles: for p(x) of each of the 512 patches.
        seed: of all randomness.
    """

    settings: tuple[Setting, ...] = (
        Setting("digits", 1297, 500, 8, (64,), 200),
        Setting("binarized_mnist", 10_000, 2000, 16, (200,), 25),
    )
    patch_epochs: int = 30
    patch_particles: int = 2000
    seed: int = 0


SMALL = Config(settings=(Setting("digits", 300, 200, 4, (16,), 25, 50),), patch_epochs=3, patch_particles=500)


@dataclass(frozen=True)
class Comparison:
    """All that was found on one data set.

    Attributes:
        setting: which.
        event_shape: of its pictures.
        reconstruction: log p(x | z) at the autoencoder's code and at the VAE's mean, ``(2, num_data)`` in nats, of the
            training and the test data.
        evidence: of test data, by the source of the codes.
        told: by source and classifier, the share of held-out data and samples that is told apart.
        num_told: from how many of them.
        widened: by degradation, the rise of the entropy of q(z|x), ``(num_data,)`` in nats.
        samples: E[x|z], ``(NUM_SHOWN, D)``, by source.
        paths: ``(6, steps, D)``, E[x|z] along three lines between codes, of the autoencoder and of the VAE in turn.
    """

    setting: Setting
    event_shape: tuple[int, ...]
    reconstruction: dict[str, Tensor]
    evidence: dict[str, Evidence]
    told: dict[str, dict[str, float]]
    num_told: int
    widened: dict[str, Tensor]
    samples: dict[str, Tensor]
    paths: Tensor


def run(config: Config = Config()) -> Result:
    """Train both on each data set and compare them.

    Args:
        config: how large.

    Returns:
        Result: a row per data set and source of codes.
    """
    found = [_compare(setting, config.seed) for setting in config.settings]
    totals = patch_totals(config.patch_epochs, config.patch_particles, config.seed)
    figures: dict[str, Figure] = {"told_apart": told_apart_figure(found), "entropy": entropy_figure(found)}
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
        conclusions=[_of_totals(*totals), *(line for comparison in found for line in _conclusions(comparison))],
        figures=figures,
    )


def _compare(setting: Setting, seed: int) -> Comparison:
    data = load_dataset(setting.dataset)
    half = setting.num_held_out // 2
    x, validation, test = _some(data.train, setting.num_train), _some(data.validation, half), _some(data.test, half)
    likelihood = _likelihood(data)
    torch.manual_seed(seed)
    options: dict[str, Any] = {"latent_dim": setting.latent_dim, "hidden": setting.hidden}
    vae = VAE.for_data(x, likelihood, **options)
    autoencoder = Autoencoder.for_data(x, likelihood=copy.deepcopy(likelihood), **options)
    for pair in (autoencoder, vae):
        _train(pair, x, validation, setting, seed)
    with torch.no_grad():
        codes, location, scale = autoencoder.encode(x), *vae.encode(x)
        drawn = location + scale * torch.randn_like(scale)
    sources = {
        AE: with_prior(autoencoder, None, x, setting),
        AE_FITTED: with_prior(autoencoder, codes, x, setting),
        VAE_PRIOR: vae,
        VAE_FITTED: with_prior(vae, drawn, x, setting),
    }
    for name, pair in sources.items():
        if name != VAE_PRIOR:
            _train(pair, x, validation, setting, seed)
    evidence = {
        name: importance_evidence(pair.model, pair.guide, test, setting.num_particles, seed=seed, progress=True)
        for name, pair in sources.items()
    }
    with torch.no_grad():
        held_out = torch.cat([validation, test])[torch.randperm(2 * half)]
        z = torch.randn(len(held_out), setting.latent_dim)
        samples = {name: pair.decode(z).sample() for name, pair in sources.items()}
        pictures = {name: pair.likelihood.mean(pair.decoder(z[:NUM_SHOWN])) for name, pair in sources.items()}
        others = {CONTROL: x[torch.randperm(len(x))[: len(held_out)]], **samples}
        return Comparison(
            setting=setting,
            event_shape=data.event_shape,
            reconstruction={"training": _reconstruction(autoencoder, vae, x),
                            "test": _reconstruction(autoencoder, vae, test)},
            evidence=evidence,
            told={name: told_apart(held_out, other, seed) for name, other in others.items()},
            num_told=2 * (min(len(held_out), len(x)) // 2),
            widened=_widened(vae, test, data.event_shape),
            samples=pictures,
            paths=_paths(autoencoder, vae, test),
        )  # fmt: skip


def _likelihood(data: Dataset) -> Likelihood:
    return Bernoulli() if data.total_count is None else Binomial(data.total_count)


def _some(x: Tensor, number: int) -> Tensor:
    """Rows from all over the data, the same in each run: the test part of binarized_mnist is sorted by class."""
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:number]]


def _train(pair: Any, x: Tensor, validation: Tensor, setting: Setting, seed: int) -> None:
    fit(pair.model, pair.guide, x, validation=validation, epochs=setting.epochs, learning_rate=2e-3, patience=10,
        seed=seed, accelerator="cpu")  # fmt: skip


def with_prior(pair: Autoencoder | VAE, codes: Tensor | None, x: Tensor, setting: Setting) -> VAE:
    """The pair's decoder, held fixed, under a Gaussian prior, with an untrained guide: a model of x.

    A prior N(m, L Lᵀ) over z is N(0, I) over u with z = m + L u, so that the map goes in front of the decoder.

    Args:
        pair: whose decoder and likelihood are copied.
        codes: ``(num_codes, latent_dim)``, to which the prior is fitted; None leaves it at N(0, I).
        x: the data, from which the guide takes their scale.
        setting: the sizes of the guide.
    """
    place = nn.Linear(setting.latent_dim, setting.latent_dim)
    mean, root = torch.zeros(setting.latent_dim), torch.eye(setting.latent_dim)
    if codes is not None:
        mean, root = codes.mean(0), torch.linalg.cholesky(torch.cov(codes.T).reshape(root.shape))
    with torch.no_grad():
        place.weight.copy_(root)
        place.bias.copy_(mean)
    decoder = nn.Sequential(place, copy.deepcopy(pair.decoder)).requires_grad_(False)
    likelihood = copy.deepcopy(pair.likelihood)
    model = VAE.for_data(x, likelihood, latent_dim=setting.latent_dim, hidden=setting.hidden, decoder=decoder)
    return model.eval()  # in training mode Pyro warns of parameters that are held fixed


def _reconstruction(autoencoder: Autoencoder, vae: VAE, x: Tensor) -> Tensor:
    copies = autoencoder.decode(autoencoder.encode(x)), vae.decode(vae.encode(x)[0])
    return torch.stack([p.log_prob(x) for p in copies])


def told_apart(real: Tensor, other: Tensor, seed: int) -> dict[str, float]:
    """The share of rows that each classifier, trained on the first half of both, assigns rightly in the second.

    If both are samples of one distribution, n shares are right with probability ½ each: ½ ± ½/√n.

    Args:
        real: ``(num_real, D)``.
        other: ``(num_other, D)``; as many rows of each are used as both have.
        seed: of the classifiers that draw.
    """
    n = min(len(real), len(other))
    middle = n // 2
    parts = [(torch.cat([real[rows], other[rows]]).numpy(), np.repeat([0, 1], rows.stop - rows.start))
             for rows in (slice(0, middle), slice(n - middle, n))]  # fmt: skip
    out = {}
    for name, classifier in CLASSIFIERS.items():
        fresh = copy.deepcopy(classifier)
        if "random_state" in fresh.get_params():
            fresh.set_params(random_state=seed)
        out[name] = float(fresh.fit(*parts[0]).score(*parts[1]))
    return out


def _widened(vae: VAE, x: Tensor, event_shape: tuple[int, ...]) -> dict[str, Tensor]:
    """By how much the entropy of q(z|x), Σ_j log σ_j + constant, rises when x is degraded, datum by datum."""
    pictures = x.reshape(-1, *event_shape)
    chosen = torch.rand_like(x) < 0.3
    lower = torch.arange(event_shape[0])[:, None] >= event_shape[0] // 2
    others = torch.stack([column[torch.randperm(len(x))] for column in x.T], 1)
    degraded = {
        "lower half erased": torch.where(lower, 0.0, pictures).flatten(1),
        "30 % erased": torch.where(chosen, 0.0, x),
        "30 % taken\nfrom other data": torch.where(chosen, others, x),
    }
    entropy = vae.encode(x)[1].log().sum(-1)
    return {name: vae.encode(y)[1].log().sum(-1) - entropy for name, y in degraded.items()}


def _paths(autoencoder: Autoencoder, vae: VAE, x: Tensor) -> Tensor:
    """E[x|z] on the lines between the codes of three couples of data, ``(6, NUM_SHOWN, D)``."""
    share = torch.linspace(0, 1, NUM_SHOWN)[:, None]
    rows = []
    for i in range(3):
        for pair, codes in (
            (autoencoder, autoencoder.encode(x[2 * i : 2 * i + 2])),
            (vae, vae.encode(x[2 * i : 2 * i + 2])[0]),
        ):
            rows.append(pair.likelihood.mean(pair.decoder((1 - share) * codes[0] + share * codes[1])))
    return torch.stack(rows)


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


def _rows(comparison: Comparison) -> Iterator[dict[str, Any]]:
    for source, told in comparison.told.items():
        evidence = comparison.evidence.get(source)
        known = evidence.summary() if evidence is not None else {}
        yield {
            "data": comparison.setting.dataset,
            "codes from": source,
            "log p(x), test": known.get("log_evidence", math.nan),
            "± standard error": known.get("log_evidence_standard_error", math.nan),
            "gap": known.get("gap", math.nan),
            "k-hat ≥ 0.7": known.get("pareto_k_share_above_0_7", math.nan),
            **{f"{name} tells": share for name, share in told.items()},
            "± binomial": 0.5 / math.sqrt(comparison.num_told),
        }


def _conclusions(comparison: Comparison) -> Iterator[str]:
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
    for degradation, rise in comparison.widened.items():
        change = mean_with_errors(rise, torch.zeros_like(rise))
        yield (
            f"{name}, {' '.join(degradation.split())}: the entropy of q(z|x) changes by {change['']:+.2f} ± "
            f"{change['_standard_error']:.2f} nats and rises for {float((rise > 0).double().mean()):.0%} of the data; "
            "the autoencoder has none."
        )


def _of_totals(offered: float, total: float, error: float) -> str:
    return (
        f"Over all 512 binary patches of 3 × 3, the VAE's p(x) adds up to {total:.4f} ± {error:.4f} and the "
        f"autoencoder's p(x | g(f(x))) to {offered:.1f}: the first is a distribution over x, the second is not."
    )


def told_apart_figure(found: list[Comparison]) -> Figure:
    """How often a classifier tells held-out data from samples, with binomial errors.

    Args:
        found: a panel each.
    """
    figure, panels = new_panels(3.2, len(found))
    for axes, comparison in zip(panels, found, strict=True):
        places = np.arange(len(comparison.told))
        for shift, (classifier, colour) in zip(
            (-0.12, 0.12), zip(CLASSIFIERS, (BLUE, ORANGE), strict=True), strict=True
        ):
            share = np.array([told[classifier] for told in comparison.told.values()])
            error = 2 * np.sqrt(np.maximum(share * (1 - share), 1e-4) / comparison.num_told)
            axes.errorbar(share, places + shift, xerr=error, color=colour, linestyle="", marker="o", markersize=4,
                          capsize=2, label=classifier)  # fmt: skip
        axes.axvline(0.5, color=GREEN, linestyle="--", linewidth=1)
        axes.set_yticks(places, list(comparison.told) if axes is panels[0] else [""] * len(places))
        axes.set(xlim=(0.42, 1.02), ylim=(len(places) - 0.5, -0.5), xlabel="told apart rightly (± 2 errors)")
        axes.set_title(comparison.setting.dataset, fontsize=9)
    panels[0].legend(fontsize=8, loc="upper right")
    return figure


def entropy_figure(found: list[Comparison]) -> Figure:
    """By how much q(z|x) widens when x is degraded: mean ± 2 standard errors, and the middle half of the data.

    Args:
        found: a colour each.
    """
    figure, axes = new_figure(3.2)
    for shift, comparison, colour in zip((-0.1, 0.1), found, (BLUE, ORANGE), strict=False):
        rises = list(comparison.widened.values())
        places = np.arange(len(rises)) + shift
        middle = [rise.quantile(torch.tensor([0.25, 0.75]).to(rise)).tolist() for rise in rises]
        axes.vlines(places, *zip(*middle, strict=True), color=colour, alpha=0.3, linewidth=6)
        mean = [float(rise.mean()) for rise in rises]
        error = [2 * float(rise.std()) / math.sqrt(len(rise)) for rise in rises]
        axes.errorbar(places, mean, yerr=error, color=colour, linestyle="", marker="o", markersize=4, capsize=3,
                      label=comparison.setting.dataset)  # fmt: skip
    axes.axhline(0, color="0.5", linewidth=0.8)
    axes.set_xticks(range(len(found[0].widened)), list(found[0].widened))
    axes.set_ylabel("rise of q(z|x)'s entropy (nats)\n± 2 errors; middle half shaded")
    axes.legend()
    return figure
