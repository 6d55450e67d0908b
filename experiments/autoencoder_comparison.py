"""An autoencoder and a VAE with the same likelihood and widths of networks, trained and measured on one data set.

For each the reconstruction, log p(x) under several sources of codes, samples, and how the entropy of q(z|x) changes
when x is degraded. Samples are compared with held-out data by classifiers:
"Revisiting Classifier Two-Sample Tests" (Lopez-Paz & Oquab, 2017), arXiv:1610.06545.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from ppvae.datasets import Dataset, load_dataset
from ppvae.inference import Evidence, fit, importance_evidence
from ppvae.models import VAE, Autoencoder, Bernoulli, Binomial, Likelihood

NUM_SHOWN = 10
CONTROL, AE, AE_FITTED = "other real data", "autoencoder, z ~ N(0, I)", "autoencoder, fitted Gaussian"
VAE_PRIOR, VAE_FITTED = "VAE, its prior N(0, I)", "VAE, fitted Gaussian"
CLASSIFIERS = {"5-NN": KNeighborsClassifier(5), "forest": RandomForestClassifier(100, random_state=0)}


@dataclass(frozen=True)
class DatasetConfig:
    """One data set and the sizes of what is trained on it.

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
class PairComparison:
    """The measurements on one data set.

    Attributes:
        setting: the data set and the sizes.
        event_shape: of its pictures.
        reconstruction: log p(x | z) at the autoencoder's code and at the VAE's mean, ``(2, num_data)`` in nats, of the
            training and the test data.
        evidence: of test data, by the source of the codes.
        accuracy: by source and classifier, the share of held-out data and samples that is classified rightly.
        num_classified: from how many of them.
        entropy_rise: by degradation, the rise of the entropy of q(z|x), ``(num_data,)`` in nats.
        samples: E[x|z], ``(NUM_SHOWN, D)``, by source.
        paths: ``(6, steps, D)``, E[x|z] along three lines between codes, of the autoencoder and of the VAE in turn.
    """

    setting: DatasetConfig
    event_shape: tuple[int, ...]
    reconstruction: dict[str, Tensor]
    evidence: Mapping[str, Evidence]
    accuracy: dict[str, dict[str, float]]
    num_classified: int
    entropy_rise: dict[str, Tensor]
    samples: dict[str, Tensor]
    paths: Tensor


def compare_pairs(setting: DatasetConfig, seed: int) -> PairComparison:
    """Train both pairs on a data set, give each decoder its sources of codes, and measure all of them.

    Args:
        setting: the data set and the sizes.
        seed: of all randomness.
    """
    data = load_dataset(setting.dataset)
    half = setting.num_held_out // 2
    x = _subset(data.train, setting.num_train)
    validation, test = _subset(data.validation, half), _subset(data.test, half)
    torch.manual_seed(seed)
    autoencoder, vae = _trained_pairs(x, validation, _likelihood(data), setting, seed)
    sources = _trained_sources(autoencoder, vae, x, validation, setting, seed)
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
        return PairComparison(
            setting=setting,
            event_shape=data.event_shape,
            reconstruction={"training": _reconstruction(autoencoder, vae, x),
                            "test": _reconstruction(autoencoder, vae, test)},
            evidence=evidence,
            accuracy={name: classifier_accuracy(held_out, other, seed) for name, other in others.items()},
            num_classified=2 * (min(len(held_out), len(x)) // 2),
            entropy_rise=_entropy_rise(vae, test, data.event_shape),
            samples=pictures,
            paths=_paths(autoencoder, vae, test),
        )  # fmt: skip


def _trained_pairs(
    x: Tensor, validation: Tensor, likelihood: Likelihood, setting: DatasetConfig, seed: int
) -> tuple[Autoencoder, VAE]:
    options: dict[str, Any] = {"latent_dim": setting.latent_dim, "hidden": setting.hidden}
    vae = VAE.for_data(x, likelihood, **options)
    autoencoder = Autoencoder.for_data(x, likelihood=copy.deepcopy(likelihood), **options)
    for pair in (autoencoder, vae):
        _train(pair, x, validation, setting, seed)
    return autoencoder, vae


def _trained_sources(
    autoencoder: Autoencoder, vae: VAE, x: Tensor, validation: Tensor, setting: DatasetConfig, seed: int
) -> dict[str, VAE]:
    """Each decoder with each prior over its codes; all but the VAE itself get a guide trained for them."""
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
    return sources


def _likelihood(data: Dataset) -> Likelihood:
    return Bernoulli() if data.total_count is None else Binomial(data.total_count)


def _subset(x: Tensor, number: int) -> Tensor:
    """A random subset of the rows, the same in each run: the test part of binarized_mnist is sorted by class."""
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:number]]


def _train(pair: Any, x: Tensor, validation: Tensor, setting: DatasetConfig, seed: int) -> None:
    fit(pair.model, pair.guide, x, validation=validation, epochs=setting.epochs, learning_rate=2e-3, patience=10,
        seed=seed, accelerator="cpu")  # fmt: skip


def with_prior(pair: Autoencoder | VAE, codes: Tensor | None, x: Tensor, setting: DatasetConfig) -> VAE:
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


def classifier_accuracy(real: Tensor, other: Tensor, seed: int) -> dict[str, float]:
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


def _entropy_rise(vae: VAE, x: Tensor, event_shape: tuple[int, ...]) -> dict[str, Tensor]:
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
