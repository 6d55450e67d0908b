"""Is a linear autoencoder with squared error PCA, and how much does a nonlinear one gain?

Claim. With d < D, affine encoder and decoder and L = ‖x − x̂‖², gradient descent from any random start ends where the
decoder's columns span the d leading principal directions and the mean error is Σ_{j>d} λ_j, the least that rank d
allows. The directions themselves are not identified: any basis of the subspace has the same error, so the columns are
rotated to PCA's by the nearest rotation (orthogonal Procrustes) before they are shown. A deep autoencoder with the same
d is not limited by this bound and reaches a lower error, on held-out data too where there are enough data.

Sources: "Neural networks and principal component analysis" (Baldi & Hornik, 1989), Neural Networks 2; "The
approximation of one matrix by another of lower rank" (Eckart & Young, 1936), Psychometrika 1; "Reducing the
Dimensionality of Data with Neural Networks" (Hinton & Salakhutdinov, 2006), Science 313, for the nonlinear gain.
The results should show largest principal angles of a fraction of a degree, errors that reach the Eckart–Young curve
from above and never cross it, and the deep autoencoders below it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from ppvae.datasets import load_dataset
from ppvae.inference import fit
from ppvae.inference.pair.randomness import seeded
from ppvae.models import Autoencoder

from .experiment import Result
from .figures.linear_autoencoder_figures import components_figure, error_figure


@dataclass(frozen=True)
class Config:
    """How large the experiment is.

    Args:
        digits_dims: d of the autoencoders of the 8×8 digits, D = 64.
        mnist_dims: d of those of grey MNIST, D = 784; `()` leaves MNIST out.
        digits_epochs: passes over the digits' 1297 training rows, in batches of 100.
        mnist_epochs: passes over MNIST's 50 000, in batches of 500.
        hidden: widths of the deep autoencoders' hidden layers.
        seed: of initial weights and batches.
    """

    digits_dims: tuple[int, ...] = (2, 8, 16)
    mnist_dims: tuple[int, ...] = (16,)
    digits_epochs: int = 400
    mnist_epochs: int = 30
    hidden: tuple[int, ...] = (128, 64)
    seed: int = 0


SMALL = Config(digits_dims=(2,), mnist_dims=(), digits_epochs=100, hidden=(64, 32))


@dataclass(frozen=True)
class Pictures:
    """A data set as grey levels from 0 to 1, and its principal components.

    Attributes:
        train: `(num_train, D)`.
        test: `(num_test, D)`, never trained on.
        pca: scikit-learn's, of `train`, with all D components.
        eigenvalues: of the covariance of `train`, divided by num_train, largest first.
    """

    name: str
    train: Tensor
    test: Tensor
    event_shape: tuple[int, ...]
    pca: PCA
    eigenvalues: np.ndarray

    def components(self, d: int) -> np.ndarray:
        """The d leading principal directions, `(D, d)`."""
        return self.pca.components_[:d].T

    def pca_error(self, x: Tensor, d: int) -> float:
        """The mean of ‖x − x̂‖² when x̂ is the projection on the d leading components about the training mean."""
        centred = x.double().numpy() - self.pca.mean_
        inside = centred @ self.components(d)
        return float((centred**2).sum() - (inside**2).sum()) / len(x)


@dataclass(frozen=True)
class DimensionResult:
    """The results of training at one d. Errors are means of ‖x − x̂‖²."""

    pictures: Pictures
    d: int
    decoder: np.ndarray  # (D, d), the linear decoder's weight
    angle: float  # largest principal angle to PCA, degrees
    linear: dict[str, float]  # error on "train" and "test"
    deep: dict[str, float]
    seconds: float  # of the linear training

    @property
    def excess(self) -> float:
        """The linear training error over the Eckart–Young optimum, less 1."""
        return self.linear["train"] / float(self.pictures.eigenvalues[self.d :].sum()) - 1


def run(config: Config = Config()) -> Result:
    """Train linear and deep autoencoders at every d, and compare them with PCA."""
    found = []
    for name, dims, epochs, batch_size, rate in (
        ("digits", config.digits_dims, config.digits_epochs, 100, 0.02),
        ("mnist", config.mnist_dims, config.mnist_epochs, 500, 0.005),
    ):
        if dims:
            pictures = load_pictures(name)
            training = partial(train, pictures, epochs=epochs, batch_size=batch_size, seed=config.seed)
            found += [measure(training, pictures, d, rate, config.hidden) for d in dims]
    worst = max(found, key=lambda one: one.angle)
    highest = max(found, key=lambda one: one.excess)
    figures = {"error": error_figure(found)}
    for name, last in {one.pictures.name: one for one in found}.items():
        figures[f"components_{name}"] = components_figure(last)
    return Result(
        title="Linear autoencoders beside PCA; errors are means of |x - x^|^2, grey levels from 0 to 1",
        rows=[row(one) for one in found],
        conclusions=[
            f"The largest principal angle between a decoder's columns and PCA's is {worst.angle:.2g}° "
            f"({worst.pictures.name}, d = {worst.d}).",
            f"The largest excess over the Eckart–Young optimum is {highest.excess:.2g} of it "
            f"({highest.pictures.name}, d = {highest.d}).",
            *(
                f"{one.pictures.name}, d = {one.d}: held out, the deep autoencoder has "
                f"{one.deep['test'] / one.pictures.pca_error(one.pictures.test, one.d):.0%} of PCA's error."
                for one in found
            ),
        ],
        figures=figures,
    )


def load_pictures(name: str) -> Pictures:
    """The digits in float64, or grey MNIST in float32, with PCA of the training part."""
    data = load_dataset(name)
    if name == "digits":
        train, test = data.train.double() / 16, data.test.double() / 16
    else:  # the grey rows: its validation and test parts are binarised, so the last training rows are held out
        train, test = data.train[:-5000].float(), data.train[-5000:].float()
    pca = PCA(svd_solver="covariance_eigh").fit(train.double().numpy())
    eigenvalues = pca.explained_variance_ * (len(train) - 1) / len(train)
    return Pictures(name, train, test, data.event_shape, pca, eigenvalues)


def train(
    pictures: Pictures, d: int, hidden: tuple[int, ...], learning_rate: float, epochs: int, batch_size: int, seed: int
) -> Autoencoder:
    """Fit an autoencoder from a random start by Adam, whose step shrinks to zero with the cosine."""
    with seeded(seed):
        pair = Autoencoder.for_data(pictures.train, d, hidden=hidden)
    schedule = partial(CosineAnnealingLR, T_max=epochs)
    fit(pair.model, pair.guide, pictures.train, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate,
        scheduler=schedule, seed=seed)  # fmt: skip
    return pair


def measure(
    training: partial[Autoencoder], pictures: Pictures, d: int, rate: float, hidden: tuple[int, ...]
) -> DimensionResult:
    """A linear and a deep autoencoder with the same d."""
    started = time.monotonic()
    linear = training(d, (), rate)
    seconds = time.monotonic() - started
    deep = training(d, hidden, 0.003)
    weight, _ = linear.decoder.parameters()
    decoder = weight.detach().double().numpy()
    angle = np.degrees(subspace_angles(decoder, pictures.components(d)).max())
    errors = [{"train": _error(pair, pictures.train), "test": _error(pair, pictures.test)} for pair in (linear, deep)]
    return DimensionResult(pictures, d, decoder, float(angle), errors[0], errors[1], seconds)


@torch.no_grad()
def _error(pair: Autoencoder, x: Tensor) -> float:
    return float((x - pair.reconstruct(x)).double().square().sum(-1).mean())


def row(one: DimensionResult) -> dict[str, object]:
    """A row of the table."""
    return {
        "data": one.pictures.name,
        "d": one.d,
        "angle (°)": one.angle,
        "PCA": float(one.pictures.eigenvalues[one.d :].sum()),
        "linear": one.linear["train"],
        "excess (%)": 100 * one.excess,
        "deep": one.deep["train"],
        "PCA, held out": one.pictures.pca_error(one.pictures.test, one.d),
        "linear, held out": one.linear["test"],
        "deep, held out": one.deep["test"],
        "seconds": one.seconds,
    }
