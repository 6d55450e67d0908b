"""Linear VAEs by SVI beside Tipping and Bishop's closed form, held to matrices of numpy and scikit-learn's PCA."""

import math
from functools import cache

import numpy as np
import pytest
import torch
import truths
from scipy.linalg import subspace_angles
from scipy.optimize import minimize
from sklearn.decomposition import PCA

from ppvae.datasets import load_dataset
from ppvae.experiments import collapsed_column, restricted_guides
from ppvae.experiments import linear_vae_is_ppca as experiment
from ppvae.inference.latents.stability import column_growth
from ppvae.models import LinearGaussian

D, d = 64, experiment.SMALL.latent_dim


@cache
def small():
    return experiment.run(experiment.SMALL)


@cache
def digits():
    x = load_dataset("digits").train.double()
    return (x - x.mean(0)) / 16


@pytest.fixture
def result():
    return small()  # once, and inside a test: in its floating-point type


@pytest.fixture
def x():
    return digits()


def rows(result):
    return {row["guide's covariance"]: row for row in result.rows}


def eigenvalues(x):
    return np.linalg.eigvalsh(x.numpy().T @ x.numpy() / len(x))[::-1]


@pytest.mark.slow
def test_svi_reaches_the_closed_form(result, x):
    pca = PCA(d).fit(x.numpy())
    # scikit-learn's score has the N − 1 of its covariance; the maximum is that of the covariance divided by N.
    spectrum = pca.explained_variance_ * (len(x) - 1) / len(x)
    noise = (eigenvalues(x).sum() - spectrum.sum()) / (D - d)
    W = pca.components_.T * np.sqrt(spectrum - noise)
    maximum = truths.linear_gaussian_log_evidence(x.numpy(), W, np.zeros(D), np.full(D, noise)).mean()
    for name in ("full", "diagonal"):
        row = rows(result)[name]
        assert row["closed form"] == pytest.approx(maximum, abs=1e-9)
        assert row["best ELBO, closed form"] == pytest.approx(maximum, abs=1e-9)
        assert -1e-9 < maximum - row["log p(x)"] < 0.02
        assert 0 < row["gap"] < 0.02
        assert row["gap"] == pytest.approx(row["log p(x)"] - row["ELBO"], abs=1e-12)
        assert row["σ² / closed form"] == pytest.approx(1, abs=0.01)
        assert 0 < row["angle to PCA (°)"] < 2
        assert row["gap, closed form"] == pytest.approx(0, abs=1e-9)


def test_the_evidence_and_the_angle_are_those_of_the_trained_pair(x):
    torch.manual_seed(1)
    pair, best = LinearGaussian.for_data(x, d), LinearGaussian.maximum_likelihood(x, d)
    config = experiment.Config(latent_dim=d, epochs=2, batch_size=500)
    history = experiment.train(pair, x, config, "test")
    assert [set(state) for state in history] == [{"evidence", "elbo", "excess"}] * 3
    W, b, V, c, S = (
        value.detach().numpy()
        for value in (
            pair.weight,
            pair.bias,
            pair.guide_weight,
            pair.guide_bias,
            pair._guide_scale_tril() @ pair._guide_scale_tril().T,
        )
    )
    noise = np.full(D, math.exp(2 * pair.log_noise_scale.item()))
    elbo, gap = truths.linear_gaussian_elbo(x.numpy(), W, b, noise, V, c, S)
    assert history[-1]["elbo"] == pytest.approx(elbo.mean(), abs=1e-8)
    assert history[-1]["evidence"] == pytest.approx((elbo + gap).mean(), abs=1e-8)
    assert history[-1]["excess"] == pytest.approx(-gap.min(), abs=1e-8)
    assert history[-1]["elbo"] > history[0]["elbo"]
    row = experiment._row("test", pair, best, x, history)
    angle = np.degrees(subspace_angles(W, PCA(d).fit(x.numpy()).components_.T).max())
    assert row["angle to PCA (°)"] == pytest.approx(angle, abs=1e-5)
    assert row["largest ELBO − log p(x)"] == max(state["excess"] for state in history)


def test_stopping_after_every_epoch_changes_nothing(x):
    def pair():
        torch.manual_seed(2)
        return LinearGaussian.for_data(x, d)

    config = experiment.Config(latent_dim=d, epochs=3, batch_size=500)
    stopped, straight = pair(), pair()
    experiment.train(stopped, x, config, "test")
    loss = experiment.Trace_ELBO(config.num_particles, vectorize_particles=True, max_plate_nesting=1)
    experiment.fit(straight.model, straight.guide, x, loss=loss, epochs=3, batch_size=500, learning_rate=0.03,
                   scheduler=lambda optimizer: experiment.CosineAnnealingLR(optimizer, 3), accelerator="cpu",
                   precision="64-true", progress=False)  # fmt: skip
    for one, other in zip(stopped.parameters(), straight.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_the_elbo_is_never_above_the_evidence(result):
    for row in result.rows:
        assert row["largest ELBO − log p(x)"] < 1e-10
        assert row["ELBO"] < row["log p(x)"]


@pytest.mark.slow
def test_the_guide_held_at_the_prior_s_scale_reaches_its_own_optimum(result, x):
    """Against a minimiser that knows nothing of W's closed form: the loss by direction in |w_i|² and σ²."""
    spectrum = eigenvalues(x)

    def loss(parameters):
        w2, noise = np.exp(parameters[:-1]), np.exp(parameters[-1])
        # E_q of the joint with the posterior's mean as the location: what is left of λ is λ σ² / (σ² + w²).
        data = (spectrum[:d] / (noise + w2) + w2 / noise).sum() + spectrum[d:].sum() / noise
        return 0.5 * (D * math.log(2 * math.pi * noise) + data)

    found = minimize(loss, np.full(d + 1, -1.0), method="BFGS", options={"gtol": 1e-9})
    row = rows(result)["the prior's"]
    assert row["best ELBO, closed form"] == pytest.approx(-found.fun, abs=1e-7)
    # The ELBO rises to this optimum and the evidence, which it does not follow, ends near the optimum's.
    assert 0 < row["best ELBO, closed form"] - row["ELBO"] < 0.05
    assert row["gap"] == pytest.approx(row["gap, closed form"], abs=0.05)
    assert row["gap, closed form"] > 2
    assert row["σ² / closed form"] == pytest.approx(1, abs=0.02)


@pytest.mark.slow
def test_a_diagonal_guide_of_a_turned_w_has_the_family_s_gap(result, x):
    best = LinearGaussian.maximum_likelihood(x, d)
    Q = torch.linalg.qr(torch.randn(d, d)).Q
    turned = restricted_guides.rotated(best, Q)
    W, noise = best.weight.detach().numpy() @ Q.numpy(), best.log_noise_scale.exp().item() ** 2
    mean, covariance = truths.linear_gaussian_posterior(x.numpy(), W, x.mean(0).numpy(), np.full(D, noise))
    diagonal = np.diag(1 / np.diag(np.linalg.inv(covariance)))
    gap = truths.gaussian_kl(mean, diagonal, mean, covariance).mean()
    assert gap > 0.001
    assert restricted_guides.family_gap(turned) == pytest.approx(gap, abs=1e-8)
    measured = (turned.log_evidence(x) - turned.exact_elbo(x)).mean().item()
    assert measured == pytest.approx(gap, abs=1e-8)
    row = rows(result)["diagonal, W kept turned"]
    assert row["gap"] == pytest.approx(row["gap, closed form"], abs=1e-9)
    assert row["gap"] > 0.01
    assert row["log p(x)"] == pytest.approx(row["closed form"], abs=1e-9)


@pytest.mark.slow
def test_n_minus_one_takes_half_d_log_off_the_likelihood(result, x):
    right, trap = (experiment.formula(x, d, ddof) for ddof in (0, 1))
    assert right == pytest.approx(rows(result)["full"]["closed form"], abs=1e-9)
    assert right - trap == pytest.approx(D / 2 * math.log(len(x) / (len(x) - 1)), rel=1e-9)
    # The trap of the paper: the trained ELBO is above the one and below the other.
    assert trap < rows(result)["full"]["ELBO"] < right
    # The paper's own numbers: 784 pixels, 1000 pictures.
    assert 941.654 + 784 / 2 * math.log(1000 / 999) == pytest.approx(942.046, abs=5e-4)


@pytest.mark.parametrize("ratio", [0.5, 0.9, 1.1, 2.0])
def test_growth_rates_are_second_differences_of_the_likelihood(x, ratio):
    values, vectors = np.linalg.eigh(x.numpy().T @ x.numpy() / len(x))
    values, vectors = values[::-1], vectors[:, ::-1]
    noise = ratio * values[d - 1]
    columns = vectors[:, :d] * np.sqrt(np.clip(values[:d] - noise, 0, None))

    def evidence(length):
        W = columns.copy()
        W[:, -1] = length * vectors[:, d - 1]
        return truths.linear_gaussian_log_evidence(x.numpy(), W, np.zeros(D), np.full(D, noise)).mean()

    step = 1e-3
    second = 2 * (evidence(step) - evidence(0)) / step**2
    found, of_the_elbo = collapsed_column.growth_rates(x, d, ratio)
    assert found == pytest.approx(second, rel=1e-3)
    assert (found > 0) == (of_the_elbo > 0) == (ratio < 1)
    known = column_growth(values[d - 1], noise)
    matrix = np.array([[-1 / noise, values[d - 1] / noise], [values[d - 1] / noise, -values[d - 1]]])
    assert known[1] == pytest.approx(np.linalg.eigvalsh(matrix)[-1], rel=1e-9)
    np.testing.assert_allclose((found, of_the_elbo), known, rtol=1e-9)


@pytest.mark.parametrize("ratio", [0.7, 1.3])
def test_a_collapsed_column_is_a_stationary_point(x, ratio):
    pair = collapsed_column._collapsed(x, d, ratio * collapsed_column.left_out(x, d))
    assert not pair.weight[:, -1].any()
    assert pair.weight[:, : d - 1].norm(dim=0).min() > 0.1
    free = [parameter for name, parameter in pair.named_parameters() if name != "log_noise_scale"]
    for gradient in torch.autograd.grad(pair.exact_elbo(x).mean(), free):
        np.testing.assert_allclose(gradient, 0, atol=1e-10)
    (gradient,) = torch.autograd.grad(pair.log_evidence(x).mean(), [pair.weight])
    np.testing.assert_allclose(gradient, 0, atol=1e-10)


def test_the_growth_rate_is_zero_at_the_left_out_eigenvalue(x):
    assert collapsed_column.left_out(x, d) == pytest.approx(eigenvalues(x)[d - 1], rel=1e-10)
    np.testing.assert_allclose(collapsed_column.growth_rates(x, d, 1.0), 0, atol=1e-10)


@pytest.mark.parametrize(("ratio", "survives"), [(0.8, True), (1.2, False)])
def test_gradient_ascent_of_the_evidence_keeps_or_frees_a_collapsed_column(x, ratio, survives):
    """The rule for the nonlinear flow: from a small column it ends at |w|² = λ − σ², or at nothing."""
    noise = ratio * collapsed_column.left_out(x, d)
    pair = collapsed_column._collapsed(x, d, noise)
    with torch.no_grad():
        # Away from the other columns: along them a small column is neither held back nor driven, to first order.
        pair.weight[:, -1] = 1e-2 * collapsed_column.spectrum(x)[1][:, d - 1 :] @ torch.randn(D - d + 1)
    for _ in range(200):
        (gradient,) = torch.autograd.grad(pair.log_evidence(x).mean(), [pair.weight])
        with torch.no_grad():
            pair.weight[:, -1] += 0.5 * noise * gradient[:, -1]
    length = pair.weight[:, -1].square().sum().item()
    assert length == pytest.approx(max(collapsed_column.left_out(x, d) - noise, 0), abs=1e-6)
    assert (length > 0.01) == survives


@pytest.mark.slow
def test_the_figures_show_the_numbers(result, x):
    training, stability = result.figures["training"], result.figures["stability"]
    for figure in (training, stability):
        figure.canvas.draw()
    (axes,) = training.axes
    assert axes.get_yscale() == "log"
    curves = {line.get_label(): line.get_ydata() for line in axes.lines}
    row = rows(result)["full"]
    assert len(curves["ELBO, S full"]) == experiment.SMALL.epochs + 1
    assert curves["ELBO, S full"][-1] == pytest.approx(row["closed form"] - row["ELBO"], rel=1e-9)
    assert curves[r"$\log p(x)$, S full"][-1] == pytest.approx(row["closed form"] - row["log p(x)"], rel=1e-9)
    assert "nats" in axes.get_ylabel()
    for axes, index in zip(stability.axes, (0, 1), strict=True):
        points = next(line for line in axes.lines if line.get_label() == "second derivative")
        ratios = experiment.SMALL.noise_ratios
        np.testing.assert_allclose(points.get_xdata(), np.array(ratios) * eigenvalues(x)[d - 1])
        known = [collapsed_column.growth_rates(x, d, ratio)[index] for ratio in ratios]
        np.testing.assert_allclose(points.get_ydata(), known)
