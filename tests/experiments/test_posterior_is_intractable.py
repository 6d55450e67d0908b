"""The posterior of two latents by quadrature, held to Gaussian closed forms and to a grid that knows only the pair."""

import math
from functools import cache

import numpy as np
import pyro.distributions as dist
import pytest
import torch
import truths
import truths_inference
from torch import nn

from ppvae.datasets import load_dataset
from ppvae.experiments import posterior_is_intractable as experiment
from ppvae.experiments.figures import posterior_panels
from ppvae.models import VAE, Normal
from ppvae.models.networks import MLP

SMALL = experiment.SMALL


@cache
def small():
    return experiment.run(SMALL)


@pytest.fixture
def result():
    return small()  # once, and inside a test: in its floating-point type


@cache
def ink():
    digits = load_dataset("digits")
    return (digits.train >= 8).double(), (digits.test[: SMALL.num_digits] >= 8).double()


@pytest.fixture
def gaussian():
    """A VAE whose decoder is affine: its posterior is Gaussian, and the guide, on purpose, is not that Gaussian."""
    vae = VAE(5, latent_dim=2, hidden=(), likelihood=Normal(0.8), encoder=MLP(5, (), 4), decoder=nn.Linear(2, 5))
    x = torch.randn(3, 5)
    W, b = vae.decoder.weight.detach().numpy(), vae.decoder.bias.detach().numpy()
    return vae, x, W, b, np.full(5, 0.64)


def test_the_grid_holds_a_gaussian_pair_s_evidence_and_posterior(gaussian):
    vae, x, W, b, noise = gaussian
    grid = experiment.on_grid(vae, x, half_width=6.0, points=121)
    np.testing.assert_allclose(
        grid.log_evidence, truths.linear_gaussian_log_evidence(x.numpy(), W, b, noise), atol=1e-9
    )
    mean, covariance = truths.linear_gaussian_posterior(x.numpy(), W, b, noise)
    # The first latent is the first axis: moments would be swapped otherwise.
    mass = grid.posterior * grid.log_cell.exp()
    np.testing.assert_allclose(mass.sum(2) @ grid.axis, mean[:, 0], atol=1e-9)
    np.testing.assert_allclose(mass.sum(1) @ grid.axis, mean[:, 1], atol=1e-9)
    product = torch.outer(grid.axis, grid.axis)
    np.testing.assert_allclose(
        (mass * product).sum((1, 2)).numpy() - mean[:, 0] * mean[:, 1], covariance[0, 1], atol=1e-9
    )


def test_elbo_and_divergence_of_a_gaussian_pair(gaussian):
    vae, x, W, b, noise = gaussian
    grid = experiment.on_grid(vae, x, half_width=7.0, points=281)
    posterior = truths.linear_gaussian_posterior(x.numpy(), W, b, noise)
    evidence = truths.linear_gaussian_log_evidence(x.numpy(), W, b, noise)
    loc, scale = (value.detach().numpy() for value in vae.encode(x))
    kl = [
        truths.gaussian_kl(m, np.diag(s**2), p, posterior[1]) for m, s, p in zip(loc, scale, posterior[0], strict=True)
    ]
    assert min(kl) > 0.05
    np.testing.assert_allclose(experiment.divergence(vae, x, grid), kl, atol=1e-8)
    np.testing.assert_allclose(experiment.elbo(vae, x, order=20), evidence - kl, atol=1e-9)


def test_quadrature_agrees_with_a_grid_that_runs_the_pair_s_own_program(result):
    train, x = ink()
    vae = experiment.trained(train, SMALL)
    known = truths_inference.grid_evidence(vae.model, x, "z", half_width=6.5, points=201)
    np.testing.assert_allclose([row["log p(x)"] for row in result.rows], known, atol=1e-6)
    grid = experiment.on_grid(vae, x, SMALL.half_width, SMALL.points)
    with torch.no_grad():
        log_q = dist.Normal(*vae.encode(x)).to_event(1)
        z = log_q.sample((20_000,))
        log_w = [vae.decode(draw).log_prob(x) + dist.Normal(0.0, 1.0).log_prob(draw).sum(-1) for draw in z.split(2000)]
    log_w = torch.cat(log_w) - log_q.log_prob(z)
    # |z| < 4.5 raises a false alarm once in 147 000 tests; three digits.
    for i, row in enumerate(result.rows):
        assert abs(truths_inference.z_score(log_w[:, i], row["ELBO"])) < truths_inference.Z_LIMIT
    np.testing.assert_allclose(experiment.divergence(vae, x, grid), [row["KL(q‖p)"] for row in result.rows], atol=1e-9)


def test_elbo_and_kl_make_up_the_evidence(result):
    for row in result.rows:
        assert 0 < abs(row["change by refining"]) < 1e-6  # the same grid twice would change nothing
        assert abs(row["ELBO"] + row["KL(q‖p)"] - row["log p(x)"]) < 1e-6
        assert row["ELBO + KL − log p(x)"] == pytest.approx(row["ELBO"] + row["KL(q‖p)"] - row["log p(x)"], abs=1e-12)
        assert row["KL(q‖p)"] > 0.01


def test_importance_sampling_agrees_where_k_hat_trusts_it(result):
    assert all(row["k-hat"] < 0.7 for row in result.rows)
    # |z| < 4.5: a false alarm once in 24 000 runs of three digits with two numbers each, were the errors normal.
    for row in result.rows:
        assert 0 < row["± SE"] < 0.2  # it counts what the heavy tail hides
        assert abs(row["sampled log p(x)"] - row["log p(x)"]) < 4.5 * row["± SE"]
        assert abs(row["sampled log p(x) − ELBO"] - row["KL(q‖p)"]) < 4.5 * row["± SE of that"]


def test_a_coarse_or_narrow_grid_is_found_out(gaussian):
    """What the refinement is for: both ways of being wrong change log p(x) visibly."""
    vae, x, *_ = gaussian
    good = experiment.on_grid(vae, x, 6.0, 121).log_evidence
    assert (experiment.on_grid(vae, x, 6.0, 9).log_evidence - good).abs().max() > 1e-3
    assert (experiment.on_grid(vae, x, 1.0, 121).log_evidence - good).abs().max() > 1e-3


def test_the_second_grid_is_wider_and_finer():
    half_width, points = experiment.refined(experiment.Config(half_width=6.0, points=601))
    assert half_width == 7
    assert 2 * half_width / (points - 1) == pytest.approx(0.02 / 1.5)


def test_levels_of_a_gaussian_are_its_ellipses():
    """Of a Gaussian the densest 39, 86 and 99 % lie within one, two and three standard deviations."""
    axis = np.linspace(-5, 5, 401)
    scale = np.array([0.7, 0.4])
    density = np.exp(-0.5 * ((axis[:, None] / scale[0]) ** 2 + (axis[None, :] / scale[1]) ** 2))
    np.testing.assert_allclose(posterior_panels._levels(density), np.exp(-0.5 * np.array([3, 2, 1]) ** 2), rtol=0.02)


def test_the_figure_shows_posterior_guide_and_digit(result):
    figure = result.figures["posterior"]
    figure.canvas.draw()
    train, x = ink()
    vae = experiment.trained(train, SMALL)
    loc, scale = (value.detach() for value in vae.encode(x))
    panels = [axes for axes in figure.axes if axes.get_xlabel() == "$z_1$"]
    assert len(panels) == SMALL.num_digits
    widths = {round(float(np.diff(axes.get_xlim())[0]), 9) for axes in panels}
    assert len(widths) == 1  # one scale for all
    labels = load_dataset("digits").labels["test"]
    for i, axes in enumerate(panels):
        assert axes.get_ylabel() == "$z_2$"
        assert axes.get_title() == f"digit {labels[i]}"
        low, high = np.array([axes.get_xlim(), axes.get_ylim()]).T
        assert (low < (loc - 2 * scale)[i].numpy()).all()
        assert (high > (loc + 2 * scale)[i].numpy()).all()
        shaded = np.concatenate([path.vertices for path in axes.collections[0].get_paths() if len(path.vertices)])
        assert (low < shaded).all()
        assert (high > shaded).all()
        one, two = axes.patches
        np.testing.assert_allclose(one.get_center(), loc[i])
        np.testing.assert_allclose((one.get_width(), one.get_height()), 2 * scale[i])
        np.testing.assert_allclose((two.get_width(), two.get_height()), 4 * scale[i])
        (inset,) = axes.child_axes
        np.testing.assert_array_equal(inset.images[0].get_array(), x[i].reshape(8, 8))


def test_the_shaded_region_has_the_first_latent_across(gaussian):
    vae, x, W, b, noise = gaussian
    grid = experiment.on_grid(vae, x[:1], 6.0, 241)
    loc, scale = (value.detach() for value in vae.encode(x[:1]))
    figure = posterior_panels.posterior_panels(grid, loc, scale, torch.zeros(1, 2, 2), [0])
    mean = truths.linear_gaussian_posterior(x[:1].numpy(), W, b, noise)[0][0]
    inner = figure.axes[0].collections[0].get_paths()[-1].vertices
    np.testing.assert_allclose((inner.min(0) + inner.max(0)) / 2, mean, atol=0.06)
    assert math.dist(mean, mean[::-1]) > 0.2  # swapped axes would show


def test_what_k_hat_distrusts_is_said_apart(result):
    doubted = {**result.rows[0], "k-hat": 0.9, "sampled log p(x)": result.rows[0]["log p(x)"] - 3}
    said = experiment._conclusions([doubted, *result.rows[1:]], SMALL)
    assert any("2 of 3 digits" in sentence for sentence in said)
    assert any("-3.00 nats at k-hat 0.90" in sentence for sentence in said)
    assert not any("warns" in sentence for sentence in result.conclusions)
