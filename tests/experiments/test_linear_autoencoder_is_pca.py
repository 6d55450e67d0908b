"""Linear autoencoders beside PCA: angle, error, nonlinear gain, the rotation of the components, the pictures."""

import os
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA

from ppvae.datasets import load_dataset
from ppvae.experiments import linear_autoencoder_is_pca as experiment
from ppvae.experiments.figures.linear_autoencoder_figures import rotated_to


@cache
def small():
    return experiment.run(experiment.SMALL)


@pytest.fixture
def result():
    return small()  # once, and inside a test: in its floating-point type


@pytest.mark.slow
def test_the_subspace_is_pca_s_and_the_error_the_optimum(result):
    (row,) = result.rows
    assert 0 < row["angle (°)"] < 0.5
    assert -1e-9 < row["excess (%)"] < 0.1
    x = load_dataset("digits").train.double() / 16
    left_out = torch.linalg.svdvals(x - x.mean(0))[2:].square().sum().item() / len(x)
    assert row["PCA"] == pytest.approx(left_out, rel=1e-9)
    assert row["linear"] == pytest.approx(left_out, rel=1e-3)


@pytest.mark.slow
def test_errors_of_pca_are_scikit_learn_s(result):
    (row,) = result.rows
    digits = load_dataset("digits")
    train, test = (part.double().numpy() / 16 for part in (digits.train, digits.test))
    pca = PCA(2).fit(train)
    for part, expected in ((train, row["PCA"]), (test, row["PCA, held out"])):
        copies = pca.inverse_transform(pca.transform(part))
        assert ((part - copies) ** 2).sum(1).mean() == pytest.approx(expected, rel=1e-9)
    assert row["linear, held out"] == pytest.approx(row["PCA, held out"], rel=1e-3)


@pytest.mark.slow
def test_a_nonlinearity_gains(result):
    (row,) = result.rows
    assert row["deep"] < 0.9 * row["PCA"]
    assert row["deep, held out"] < 0.95 * row["PCA, held out"]


def test_too_short_a_training_is_found_out():
    """The measures can fail: after two epochs the decoder is nowhere near."""
    (row,) = experiment.run(replace(experiment.SMALL, digits_epochs=2)).rows
    assert row["angle (°)"] > 0.5
    assert row["excess (%)"] > 0.1


def test_turning_undoes_any_change_of_basis():
    components, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(7, 3)))
    mixed = components @ np.array([[1.0, 2.0, 0.0], [0.0, -1.0, 3.0], [0.5, 0.0, 1.0]])
    np.testing.assert_allclose(rotated_to(components, mixed), components, atol=1e-12)


def test_turning_stays_in_the_decoder_s_subspace():
    components, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(7, 3)))
    other = np.random.default_rng(2).normal(size=(7, 3))
    turned = rotated_to(components, other)
    np.testing.assert_allclose(turned.T @ turned, np.eye(3), atol=1e-12)
    assert subspace_angles(turned, other).max() < 1e-7
    assert subspace_angles(turned, components).max() > 0.1


@pytest.mark.slow
def test_pictures_say_what_they_show(result, tmp_path):
    assert set(result.figures) == {"error", "components_digits"}
    (axes,) = result.figures["error"].axes
    assert axes.get_xlabel() == "dimensions of the code, d"
    assert axes.get_ylim()[0] == 0
    assert "Procrustes" in result.figures["components_digits"].get_suptitle()
    result.write(tmp_path, experiment.SMALL)
    assert {file.name for file in tmp_path.iterdir()} >= {"table.csv", "error.png", "components_digits.png"}


@pytest.mark.slow
def test_rows_of_the_components_picture_are_alike(result):
    """Two rows of two components: PCA's first, and the turned last; they differ by the angle at most."""
    pictures = [axes.images[0].get_array() for axes in result.figures["components_digits"].axes]
    first, last = np.array(pictures[:2]), np.array(pictures[-2:])
    assert np.abs(first - last).max() < 0.01
    assert np.abs(first).max() > 0.1


@pytest.mark.slow
@pytest.mark.skipif("PPVAE_DATA" not in os.environ, reason="needs MNIST in the folder that PPVAE_DATA names")
def test_mnist_too():
    config = experiment.Config(digits_dims=(), mnist_dims=(4,), mnist_epochs=8, hidden=(32,))
    (row,) = experiment.run(config).rows
    assert row["angle (°)"] < 2
    assert -1e-4 < row["excess (%)"] < 0.1
    assert row["deep, held out"] < row["PCA, held out"]
