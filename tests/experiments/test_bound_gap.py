"""The identity log p(x) = ELBO + gap, each of its terms held against a computation of another kind."""

import math

import numpy as np
import pyro
import pytest
import torch
import truths
import truths_inference

from ppvae.datasets import load_dataset
from ppvae.experiments import bound_gap, exact_terms
from ppvae.inference import fit, log_weights
from ppvae.models import VAE, Binomial, LinearGaussian


@pytest.fixture(scope="module")
def result():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield bound_gap.run(bound_gap.SMALL)
    torch.set_default_dtype(before)


def rows_of(result, pair):
    return [row for row in result.rows if row["pair"] == pair]


@pytest.fixture
def vae():
    x = load_dataset("digits").train[:12]
    return VAE.for_data(x, Binomial(16), latent_dim=2, hidden=(8,)), x


def test_exact_gap_closes_the_identity_and_is_the_closed_form_of_scipy():
    pair, x = LinearGaussian(num_features=5, latent_dim=2), torch.randn(20, 5)
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        gap = exact_terms.exact_gap(pair, x)
        residual = pair.exact_elbo(x) + gap - pair.log_evidence(x)
    W, b, V, c = (p.detach().numpy() for p in (pair.weight, pair.bias, pair.guide_weight, pair.guide_bias))
    noise = np.full(5, (2 * pair.log_noise_scale).exp().item())
    guide = pyro.poutine.trace(pair.guide).get_trace(x).nodes["z"]["fn"]
    covariance = guide.covariance_matrix[0].detach().numpy()
    _, expected = truths.linear_gaussian_elbo(x.numpy(), W, b, noise, V, c, covariance)
    np.testing.assert_allclose(gap, expected, rtol=1e-9)
    assert gap.min() > 0.01
    assert residual.abs().max() < 1e-8


def test_quadrature_is_the_integral_of_the_pairs_own_programs(vae):
    """log p(x) by the shared reference integral; the gap from log weights at the nodes, weighted by q's density."""
    pair, x = vae
    with torch.no_grad():
        log_evidence, gap, shift = exact_terms.quadrature(pair, x, 7.0, 141)
        expected = truths_inference.grid_evidence(pair.model, x, "z", 6.5, 81)
        np.testing.assert_allclose(log_evidence, expected, atol=1e-4)
        axis = torch.linspace(-6.5, 6.5, 101)
        z = torch.cartesian_prod(axis, axis)
        log_joint = pair.decode(z[:, None]).log_prob(x) - 0.5 * z.square().sum(1)[:, None] - math.log(2 * math.pi)
        location, scale = pair.encode(x)
        log_q = torch.distributions.Normal(location, scale).log_prob(z[:, None]).sum(-1)
        kl = (log_q.exp() * (log_q - (log_joint - expected))).sum(0) * (axis[1] - axis[0]) ** 2
    np.testing.assert_allclose(gap, kl, atol=1e-4)
    assert gap.min() > 0.1
    assert 0 < shift < 1e-3


def test_quadrature_says_when_its_nodes_are_too_few(vae):
    pair, x = vae
    with torch.no_grad():
        fine, _, _ = exact_terms.quadrature(pair, x, 7.0, 281)
        coarse, _, shift = exact_terms.quadrature(pair, x, 7.0, 15)
    assert shift > float((fine - coarse).abs().max()) > 1e-3


def test_what_is_looked_at_is_one_training():
    """Stopped after 2 epochs for a look and resumed, the pair ends with the bits of 5 epochs at once."""
    x = load_dataset("digits").train[:50]
    config = bound_gap.Config(epochs=(2, 5), seed=4)
    ends = []
    for at_once in (False, True):
        torch.manual_seed(0)
        pair = VAE.for_data(x, Binomial(16), latent_dim=2, hidden=(4,))
        if at_once:
            fit(pair.model, pair.guide, x, epochs=5, learning_rate=3e-3, seed=4, precision="64-true", progress=False)
        else:
            assert list(bound_gap._training(pair, x, config)) == [0, 2, 5]
        ends.append(torch.cat([parameter.flatten() for parameter in pair.parameters()]))
    assert torch.equal(*ends)


def test_the_linear_pair_closes_the_identity_exactly(result):
    rows = rows_of(result, bound_gap.LINEAR)
    assert [row["epochs"] for row in rows] == [0, *bound_gap.SMALL.epochs]
    for row in rows:
        assert abs(row["ELBO + KL − log p"]) < 1e-8
        assert row["KL(q‖p(z|x))"] > 0.1
        assert row["ELBO"] + row["KL(q‖p(z|x))"] == pytest.approx(row["log p(x)"], abs=1e-8)


def test_the_vae_closes_the_identity_within_the_stated_error(result):
    """Two looks of independent draws, |z| < 4.5 each: a false alarm in 70 000 runs."""
    for row in rows_of(result, bound_gap.FLAT):
        stated = truths_inference.Z_LIMIT * row["± Monte Carlo"] + row["± quadrature"]
        assert abs(row["ELBO + KL − log p"]) < stated < 0.1 * row["KL(q‖p(z|x))"]


def test_the_parts_add_up_and_mutual_information_has_a_ceiling(result):
    assert len(result.rows) == 6
    for row in result.rows:
        assert row["of it I(n; z)"] + row["of it KL(q(z)‖p(z))"] == pytest.approx(row["KL(q‖p(z))"], abs=1e-10)
        assert row["of it I(n; z)"] < math.log(bound_gap.SMALL.num_data)
        if row["pair"] != bound_gap.LINEAR:  # whose ELBO is not from these draws
            assert row["E log p(x|z)"] - row["KL(q‖p(z))"] == pytest.approx(row["ELBO"], abs=1e-10)


def test_the_elbo_of_the_table_is_that_of_the_log_weights():
    """The pair before training is made again from the seed; |z| < 4.5."""
    config = bound_gap.SMALL
    x = load_dataset("digits").train[: config.num_data]
    torch.manual_seed(config.seed)
    LinearGaussian.for_data(x, latent_dim=2)
    pair = VAE.for_data(x, Binomial(16), latent_dim=2, hidden=config.hidden)
    parts = bound_gap.elbo_surgery(pair.model, pair.guide, x, config.num_particles, seed=1)
    log_w = log_weights(pair.model, pair.guide, x, 400, seed=2)
    error = math.hypot(float(log_w.std(0).norm() / 20 / len(x)), parts.summary()["elbo_monte_carlo_error"])
    assert abs(float(log_w.mean()) - parts.summary()["elbo"]) < truths_inference.Z_LIMIT * error


def test_the_bounds_climb_to_the_truth(result):
    """The curve drawn for the linear pair: L_1 ≤ … ≤ L_K ≈ log p(x), from a gap above 1 nat to 0.1."""
    bound, truth, elbo = result.figures["bounds"].axes[0].get_lines()
    climb = np.asarray(bound.get_ydata())
    assert (np.diff(climb) > -0.05).all()
    assert truth.get_ydata()[0] - elbo.get_ydata()[0] > 1
    assert climb[-1] == pytest.approx(truth.get_ydata()[0], abs=0.1)


def test_the_figures_say_what_they_show(result):
    assert set(result.figures) == {"identity", "residual", "bounds", "gap_per_datum", "surgery"}
    for figure in result.figures.values():
        figure.canvas.draw()
        assert all(axes.get_xlabel() for axes in figure.axes)
        assert figure.axes[0].get_ylabel()
    assert any("closed forms" in sentence for sentence in result.conclusions)
