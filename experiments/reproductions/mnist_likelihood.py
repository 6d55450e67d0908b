"""The negative log-likelihood of MNIST under small VAEs: the table that most papers on training objectives share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from pyro.infer import ELBO
from torch import Tensor

from ppvae.datasets import Dataset, evenly_spaced, load_dataset
from ppvae.inference import IWAE
from ppvae.models import VAE, Bernoulli, VampPriorVAE

from .bounds_of_images import chains, drawn_bound
from .row import Figure, Published, Row, RowEffort, RowOutcome
from .training import ENDLESS, trained

BURDA = "Burda, Grosse & Salakhutdinov (2016), arXiv:1509.00519, table 1"
DAIS = "arXiv:2107.10211, table 2"
PYTHAE = "pythae (Chadebec, Vincent & Allassonnière, 2022), reproducibility table"
BURDA_UPDATES = 9_800_000
BATCH_SIZE, LEARNING_RATE, SECONDS = 250, 2e-3, 380.0
PARTICLES = 5000
# Fixed pixels are soon learnt by heart: their training is short enough not to.
FIXED_EPOCHS = 300
# Images for the annealed chains, which cost more.
ANNEALED, CHAINS, DISTRIBUTIONS = 1000, 16, 500


def on_device(data: Dataset, device: str, validation: bool = False) -> Dataset:
    """The training rows on a device, where steps find them; without the validation rows, which cost time."""
    return replace(
        data, train=data.train.to(device), validation=data.validation[: None if validation else 0].to(device)
    )


def vae_for(train: Tensor, latent_dim: int = 50, hidden: tuple[int, ...] = (200, 200), **options: Any) -> VAE:
    """A VAE of Bernoulli pixels whose output starts at the mean of the rows, which may be grey."""
    return VAE.for_data(_zeros_and_ones(train), Bernoulli(), latent_dim=latent_dim, hidden=hidden, **options)


def vamp_prior_for(train: Tensor) -> VampPriorVAE:
    """The VAE of "VAE with a VampPrior": 40 latents, two hidden layers of 300, 500 pseudo-inputs."""
    options = {"latent_dim": 40, "hidden": (300, 300), "num_pseudo_inputs": 500}
    return VampPriorVAE.for_data(_zeros_and_ones(train), Bernoulli(), **options)


def _zeros_and_ones(train: Tensor) -> Tensor:
    return torch.bernoulli(train)


def measured(
    name: str,
    effort: RowEffort,
    data_set: str,
    make: Callable[[Tensor], Any],
    loss: Callable[[], ELBO | None],
    methods: tuple[str, ...],
    epochs: int,
) -> RowOutcome:
    """Train, and estimate the negative log-likelihood of the test images in nats, by each method.

    ``"importance"`` is the bound of Burda et al., from 5000 draws of the guide, over all test images; ``"annealing"``
    adds to it what annealed chains bring more on 1000 of them, so that its error is that of the difference. Pixels that
    are drawn from grey values add the error of the draw, from the difference of two draws.
    """
    effort = replace(effort, seconds=effort.seconds or SECONDS)
    data = on_device(load_dataset(data_set), effort.device)
    options = {"batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE, "epochs": epochs}
    pair, told = trained(name, partial(make, data.train), data, loss, effort, **options)
    test = evenly_spaced(data.test, effort.num_data).to(effort.device)
    drawn = drawn_bound(pair, test, PARTICLES, effort.seed)
    binarisation = binarisation_error(pair, test, effort.seed) if data.binarise else 0.0
    error = math.hypot(float(drawn.standard_error.norm()) / len(test), binarisation)
    over_images = float(drawn.value.std()) / math.sqrt(len(test))
    if len(test) < len(data.test):  # which images they are is an error too
        error = math.hypot(error, over_images)
    value = -float(drawn.value.mean())
    told |= {"elbo": float(drawn.elbo.mean()), "num_data": len(test), "importance": value}
    told |= {"binarisation_error": binarisation, "error_over_images": over_images}
    values = {"importance": (value, error)}
    if "annealing" in methods:
        rows = evenly_spaced(torch.arange(len(test)), ANNEALED)
        some, evidence = chains(pair, test[rows.to(test.device)], CHAINS, DISTRIBUTIONS, effort.seed)
        more = evidence.log_evidence - drawn.value[rows[some]]
        told |= {"annealed_images": len(some), "chains_bring": float(more.mean())}
        told |= {"chains_trusted": float(evidence.trusted.double().mean())}
        values["annealing"] = (value - float(more.mean()), math.hypot(error, float(more.std()) / math.sqrt(len(some))))
    short = f"{told['steps']} steps of {BATCH_SIZE} images, where Burda et al. took {BURDA_UPDATES} of 20"
    return RowOutcome(tuple(Figure(*values[method], undecided=short) for method in methods), told)


def binarisation_error(pair: Any, test: Tensor, seed: int) -> float:
    """The standard error that drawing zeros and ones from grey values brings into a mean log-likelihood.

    Two draws of the same grey images have the same mean but for this error twice over. The images are as many training
    images, whose grey values are at hand, and a short bound stands for log p(x).
    """
    grey = evenly_spaced(load_dataset("mnist").train, len(test)).to(test)
    with torch.random.fork_rng():
        torch.manual_seed(seed + 1)
        one, other = (drawn_bound(pair, torch.bernoulli(grey), 200, seed).value for _ in "ab")
    return float((one - other).std()) / math.sqrt(2 * len(grey))


def _row(
    name: str,
    title: str,
    figures: dict[str, tuple[float, str]],
    run: tuple[str, Callable[[Tensor], Any], Callable[[], ELBO | None]],
    source: str,
    more: str = "",
    epochs: int = ENDLESS,
) -> Row:
    published = tuple(Published(f"{what}, nats", value, 0.005, better="lower") for what, (value, _) in figures.items())
    methods = tuple(method for _, method in figures.values())
    data_set, make, loss = run
    return Row(
        name,
        title,
        published,
        source,
        f"{'pixels drawn afresh at each step' if data_set == 'mnist' else 'fixed binarisation'}, 50 000 training "
        f"images, Adam, batches of {BATCH_SIZE}, learning rate {LEARNING_RATE:g} falling to 0; all test images, "
        "K = 5000 draws of the guide; AIS adds to it what chains bring more on 1000 images",
        f"fewer and larger steps than in the paper, and 50 000 training images{more}",
        lambda effort: measured(name, effort, data_set, make, loss, methods, epochs),
    )


def _elbo() -> None:
    return None


IMPORTANCE, AIS = "negative log-likelihood by K = 5000", "negative log-likelihood by AIS"

ROWS = (
    _row(
        "mnist_vae",
        "VAE 784-200-200-50 on MNIST",
        {IMPORTANCE: (86.76, "importance"), AIS: (86.93, "annealing")},
        ("mnist", vae_for, _elbo),
        f"{BURDA}; {DAIS}",
    ),
    _row(
        "mnist_iwae_5",
        "The same by IWAE, K = 5",
        {IMPORTANCE: (85.54, "importance"), AIS: (85.43, "annealing")},
        ("mnist", vae_for, partial(IWAE, 5)),
        f"{BURDA}; {DAIS}",
    ),
    _row(
        "mnist_iwae_50",
        "The same by IWAE, K = 50",
        {IMPORTANCE: (84.78, "importance"), AIS: (84.46, "annealing")},
        ("mnist", vae_for, partial(IWAE, 50)),
        f"{BURDA}; {DAIS}",
    ),
    _row(
        "fixed_mnist_vae",
        "VAE on binarised MNIST",
        {IMPORTANCE: (88.71, "importance")},
        ("binarized_mnist", vae_for, _elbo),
        BURDA,
        epochs=FIXED_EPOCHS,
    ),
    _row(
        "fixed_mnist_iwae_5",
        "The same by IWAE, K = 5",
        {IMPORTANCE: (87.63, "importance")},
        ("binarized_mnist", vae_for, partial(IWAE, 5)),
        BURDA,
        epochs=FIXED_EPOCHS,
    ),
    _row(
        "fixed_mnist_iwae_50",
        "The same by IWAE, K = 50",
        {"negative log-likelihood by K = 5000": (87.10, "importance"), "the same, pythae": (86.82, "importance")},
        ("binarized_mnist", vae_for, partial(IWAE, 50)),
        f"{BURDA}; {PYTHAE}",
        epochs=FIXED_EPOCHS,
        more="; pythae has another network",
    ),
    _row(
        "fixed_mnist_vamp_prior",
        "VampPrior, 500 pseudo-inputs, on binarised MNIST",
        {
            "negative log-likelihood by K = 5000": (85.57, "importance"),
            "the same, pythae": (85.79, "importance"),
        },
        ("binarized_mnist", vamp_prior_for, _elbo),
        f"Tomczak & Welling (2018), arXiv:1705.07120, table 1; {PYTHAE}",
        epochs=FIXED_EPOCHS,
        more="; the paper has gated layers, ours are tanh",
    ),
)
