"""The linear-Gaussian pair against brute force: scipy's D × D Gaussians, scikit-learn's PCA, and identities."""

import math

import numpy as np
import pyro
import pytest
import torch
import truths
from pyro import poutine
from pyro.infer import Trace_ELBO
from scipy import stats
from sklearn.decomposition import PCA

from ppvae.errors import DataError, OptionError
from ppvae.models import LinearGaussian

N, D, d = 7, 6, 3
KINDS = [(False, True), (False, False), (True, True), (True, False)]


def random_pair(diagonal_noise=False, full_covariance=True, latent_dim=d):
    """A pair whose every parameter is a random number."""
    pair = LinearGaussian(D, latent_dim, diagonal_noise=diagonal_noise, full_covariance=full_covariance)
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    return pair


def numbers(pair):
    """W, b and the diagonal of Ψ."""
    noise = (2 * pair.log_noise_scale).exp().expand(D)
    return [value.detach().numpy() for value in (pair.weight, pair.bias, noise)]


def guide_numbers(pair):
    """V, c and S, read off the guide's own program at x = 0 and at the unit vectors."""
    site = poutine.trace(pair.guide).get_trace(torch.cat([torch.zeros(1, D), torch.eye(D)])).nodes["z"]["fn"]
    loc, base = site.mean.detach(), getattr(site, "base_dist", site)
    covariance = base.covariance_matrix[0] if pair.full_covariance else torch.diag(base.variance[0])
    return (loc[1:] - loc[0]).T.numpy(), loc[0].numpy(), covariance.detach().numpy()


@pytest.mark.parametrize(("diagonal_noise", "full_covariance"), KINDS)
class TestClosedForms:
    def test_log_evidence_is_scipys(self, diagonal_noise, full_covariance):
        pair, x = random_pair(diagonal_noise, full_covariance), torch.randn(N, D)
        expected = truths.linear_gaussian_log_evidence(x.numpy(), *numbers(pair))
        np.testing.assert_allclose(pair.log_evidence(x).detach().numpy(), expected, rtol=0, atol=1e-10)

    def test_posterior_is_the_joint_conditioned(self, diagonal_noise, full_covariance):
        pair, x = random_pair(diagonal_noise, full_covariance), torch.randn(N, D)
        mean, covariance = truths.linear_gaussian_posterior(x.numpy(), *numbers(pair))
        posterior = pair.posterior(x)
        assert posterior.batch_shape == (N,)
        np.testing.assert_allclose(posterior.mean.detach().numpy(), mean, rtol=0, atol=1e-10)
        for row in posterior.covariance_matrix.detach().numpy():
            np.testing.assert_allclose(row, covariance, rtol=0, atol=1e-10)

    def test_gap_is_the_kl_to_the_posterior(self, diagonal_noise, full_covariance):
        pair, x = random_pair(diagonal_noise, full_covariance), torch.randn(N, D)
        elbo, gap = truths.linear_gaussian_elbo(x.numpy(), *numbers(pair), *guide_numbers(pair))
        assert gap.min() > 0.1
        np.testing.assert_allclose(pair.exact_elbo(x).detach().numpy(), elbo, rtol=0, atol=1e-10)
        difference = (pair.log_evidence(x) - pair.exact_elbo(x)).detach().numpy()
        np.testing.assert_allclose(difference, gap, rtol=0, atol=1e-10)

    def test_joint_and_evidence_agree_on_every_log_weight(self, diagonal_noise, full_covariance):
        # log p(x, z) − log p(z | x) = log p(x) for every z: the model's program and the closed forms are one model.
        pair, x = random_pair(diagonal_noise, full_covariance), torch.randn(N, D)
        z = torch.randn(N, d)
        trace = poutine.trace(poutine.condition(pair.model, data={"z": z})).get_trace(x)
        trace.compute_log_prob()
        joint = trace.nodes["z"]["log_prob"] + trace.nodes["x"]["log_prob"]
        log_weight = joint - pair.posterior(x).log_prob(z)
        torch.testing.assert_close(log_weight, pair.log_evidence(x), rtol=0, atol=1e-10)

    def test_monte_carlo_agrees_with_exact_elbo(self, diagonal_noise, full_covariance):
        # One z-test at 4.5 standard errors: a false-alarm rate of 7e-6 for each of the four pairs; the seed is fixed.
        pair, x, K = random_pair(diagonal_noise, full_covariance), torch.randn(N, D), 20_000
        with pyro.plate("particles", K, dim=-2), torch.no_grad():
            guide = poutine.trace(pair.guide).get_trace(x)
            model = poutine.trace(poutine.replay(pair.model, guide)).get_trace(x)
        log_w = sum(_log_prob(model, name) for name in ("z", "x")) - _log_prob(guide, "z")
        assert log_w.shape == (K, N)
        mean_w = log_w.mean(-1)
        error = (mean_w.mean() - pair.exact_elbo(x).mean()).abs()
        assert error < 4.5 * mean_w.std() / math.sqrt(K)

    def test_best_guide_is_a_stationary_point(self, diagonal_noise, full_covariance):
        pair, x = random_pair(diagonal_noise, full_covariance).set_best_guide(), torch.randn(N, D)
        pair.exact_elbo(x).sum().backward()
        for name, parameter in pair.named_parameters():
            if name.startswith("guide_"):
                torch.testing.assert_close(parameter.grad, torch.zeros_like(parameter), rtol=0, atol=1e-9)

    def test_gradient_reaches_every_parameter(self, diagonal_noise, full_covariance):
        pair, x = LinearGaussian.for_data(torch.randn(N, D), d, diagonal_noise=diagonal_noise), torch.randn(N, D)
        assert len(list(pair.parameters())) == 7
        Trace_ELBO().differentiable_loss(pair.model, pair.guide, x).backward()
        for name, parameter in pair.named_parameters():
            assert (parameter.grad != 0).all(), name


def _log_prob(trace, name):
    return trace.nodes[name]["fn"].log_prob(trace.nodes[name]["value"])


@pytest.mark.parametrize("diagonal_noise", [False, True])
def test_exact_guide_closes_the_gap(diagonal_noise):
    pair, x = random_pair(diagonal_noise).set_exact_guide(), torch.randn(N, D)
    torch.testing.assert_close(pair.exact_elbo(x), pair.log_evidence(x), rtol=0, atol=1e-10)
    # Not on the mean alone: every single log weight is log p(x).
    guide = poutine.trace(pair.guide).get_trace(x)
    model = poutine.trace(poutine.replay(pair.model, guide)).get_trace(x)
    log_w = _log_prob(model, "z") + _log_prob(model, "x") - _log_prob(guide, "z")
    torch.testing.assert_close(log_w, pair.log_evidence(x), rtol=0, atol=1e-10)


def test_best_diagonal_guide_leaves_the_familys_gap():
    pair, x = random_pair(full_covariance=False), torch.randn(N, D)
    with torch.no_grad():
        pair.weight.mul_(4)
        pair.log_noise_scale.zero_()
    pair.set_best_guide()
    W, _, noise = numbers(pair)
    M = np.eye(d) + W.T @ np.diag(1 / noise) @ W
    family_gap = 0.5 * (np.log(np.diag(M)).sum() - np.linalg.slogdet(M)[1])
    assert family_gap > 0.01
    gap = pair.log_evidence(x) - pair.exact_elbo(x)
    torch.testing.assert_close(gap, torch.full((N,), family_gap), rtol=0, atol=1e-10)


def test_exact_guide_asks_for_a_full_covariance():
    with pytest.raises(OptionError, match=r"full_covariance is False .* call set_best_guide\(\)\."):
        random_pair(full_covariance=False).set_exact_guide()


def test_one_latent_dimension_needs_no_lower_triangle():
    for full_covariance in (True, False):
        pair, x = random_pair(full_covariance=full_covariance, latent_dim=1).set_exact_guide(), torch.randn(N, D)
        assert pair.guide_lower is None
        torch.testing.assert_close(pair.exact_elbo(x), pair.log_evidence(x), rtol=0, atol=1e-10)


def test_evidence_is_accurate_when_the_noise_is_small():
    # In the basis Q, whose vectors W's columns stretch, the features of x are independent one-dimensional Gaussians.
    # Woodbury's difference of two terms of size |r|²/σ² = 1e11 misses by about 1e-4 here.
    noise_scale, lengths = 1e-5, torch.tensor([1.0, 1.5, 2.0])
    Q = torch.linalg.qr(torch.randn(D, D))[0]
    scales = torch.cat([(lengths**2 + noise_scale**2).sqrt(), torch.full((D - d,), noise_scale)])
    coordinates = torch.randn(N, D) * scales
    pair = LinearGaussian(D, d)
    with torch.no_grad():
        pair.weight.copy_(Q[:, :d] * lengths)
        pair.log_noise_scale.fill_(math.log(noise_scale))
    expected = stats.norm(0, scales.numpy()).logpdf(coordinates.numpy()).sum(-1)
    np.testing.assert_allclose(pair.log_evidence(coordinates @ Q.T).detach().numpy(), expected, rtol=0, atol=1e-8)


def test_closed_forms_are_float64_for_float32_parameters():
    pair = random_pair()
    single = LinearGaussian(D, d).float()
    single.load_state_dict(pair.state_dict())
    x = torch.randn(N, D, dtype=torch.float32)
    W, b, _ = numbers(single)
    noise = np.exp(2 * single.log_noise_scale.detach().numpy().astype(float)).repeat(D)
    expected = truths.linear_gaussian_log_evidence(x.double().numpy(), W.astype(float), b.astype(float), noise)
    value = single.log_evidence(x)
    assert value.dtype == torch.float64
    np.testing.assert_allclose(value.detach().numpy(), expected, rtol=0, atol=1e-10)
    assert single.exact_elbo(x).dtype == single.posterior(x).mean.dtype == torch.float64
    # Parameters in float32 miss the posterior by a relative 6e-8, and the ELBO, flat there, misses by its square.
    gap = value - single.set_exact_guide().exact_elbo(x)
    assert (gap.abs() < 1e-10).all()


class TestMaximumLikelihood:
    @pytest.fixture
    def x(self):
        return torch.randn(40, D) @ torch.randn(D, D) + 3

    def test_is_scikit_learns_pca(self, x):
        # scikit-learn divides by N − 1, so that its variances are N/(N − 1) times those of maximum likelihood.
        pair, pca = LinearGaussian.maximum_likelihood(x, d), PCA(d, svd_solver="full").fit(x.numpy())
        W, b, noise = numbers(pair)
        N = len(x)
        np.testing.assert_allclose(b, pca.mean_, atol=1e-12)
        np.testing.assert_allclose(noise, pca.noise_variance_ * (N - 1) / N, rtol=1e-10)
        np.testing.assert_allclose(W @ W.T + np.diag(noise), pca.get_covariance() * (N - 1) / N, rtol=1e-9, atol=1e-12)
        directions = (W / np.linalg.norm(W, axis=0)).T
        np.testing.assert_allclose(np.abs(np.sum(directions * pca.components_, -1)), 1, atol=1e-10)

    def test_likelihood_is_scikit_learns_with_the_divisor_undone(self, x):
        pair, pca = LinearGaussian.maximum_likelihood(x, d), PCA(d, svd_solver="full").fit(x.numpy())
        N = len(x)
        # At the maximum the mean quadratic form is D, and it is D (N − 1)/N under scikit-learn's wider covariance.
        shift = 0.5 * (D * math.log(N / (N - 1)) - D / N)
        assert pair.log_evidence(x).mean().item() == pytest.approx(pca.score(x.numpy()) + shift, abs=1e-10)
        assert shift > 0

    def test_is_a_stationary_point(self, x):
        pair = LinearGaussian.maximum_likelihood(x, d)
        pair.log_evidence(x).sum().backward()
        for name in ("weight", "bias", "log_noise_scale"):
            gradient = pair.get_parameter(name).grad
            torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-8)

    def test_no_neighbour_is_likelier(self, x):
        pair = LinearGaussian.maximum_likelihood(x, d)
        best = pair.log_evidence(x).mean().item()
        start = {name: value.clone() for name, value in pair.state_dict().items()}
        for _ in range(50):
            pair.load_state_dict({name: value + 0.02 * torch.randn_like(value) for name, value in start.items()})
            assert pair.log_evidence(x).mean().item() < best

    def test_its_guide_is_the_posterior(self, x):
        pair = LinearGaussian.maximum_likelihood(x, d)
        torch.testing.assert_close(pair.exact_elbo(x), pair.log_evidence(x), rtol=0, atol=1e-10)

    def test_wide_data(self):
        # More features than data: the eigenvalues beyond the rank are zeros that count in the noise.
        x = torch.randn(5, 9)
        noise = (2 * LinearGaussian.maximum_likelihood(x, 2).log_noise_scale).exp()
        eigenvalues = np.linalg.eigvalsh(np.cov(x.numpy().T, ddof=0))[::-1]
        assert noise.item() == pytest.approx(eigenvalues[2:].mean(), rel=1e-10)

    def test_refuses_what_has_no_maximum(self, x):
        with pytest.raises(DataError, match="latent_dim = 2 directions explain x without noise"):
            LinearGaussian.maximum_likelihood(x[:3], 2)
        with pytest.raises(DataError, match="latent_dim = 5 directions explain x without noise"):
            LinearGaussian.maximum_likelihood(x[:3], 5)
        with pytest.raises(OptionError, match="latent_dim is 6 but x has 6 features; give at most 5"):
            LinearGaussian.maximum_likelihood(x, D)


class TestForData:
    def test_starts_at_the_datas_moments(self):
        x = torch.randn(30, D) * torch.arange(1.0, D + 1) + 5
        mean, std = x.mean(0), x.std(0, correction=0)
        pca, factor = LinearGaussian.for_data(x, d), LinearGaussian.for_data(x, d, diagonal_noise=True)
        torch.testing.assert_close(pca.bias.detach(), mean)
        torch.testing.assert_close(pca.log_noise_scale.exp().detach(), std.square().mean().sqrt()[None])
        torch.testing.assert_close(factor.log_noise_scale.exp().detach(), std)

    def test_guide_starts_at_the_prior(self):
        V, c, S = guide_numbers(LinearGaussian.for_data(torch.randn(30, D), d))
        assert not V.any()
        assert not c.any()
        np.testing.assert_array_equal(S, np.eye(d))

    def test_constant_feature_starts_at_the_common_scale(self):
        x = torch.randn(30, D)
        x[:, 2] = 1.0
        pair = LinearGaussian.for_data(x, d, diagonal_noise=True)
        expected = x.var(0, correction=0).mean().sqrt().log().item()
        assert pair.log_noise_scale[2].item() == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("diagonal_noise", [False, True])
    def test_start_follows_the_units_of_the_data(self, diagonal_noise):
        # A change of units s is a change of variables: log p(s x) = log p(x) − Σ log s, from the very start.
        x = torch.randn(30, D)
        units = 10.0 ** torch.arange(-3.0, D - 3) if diagonal_noise else torch.full((D,), 1e4)
        starts = []
        for data in (x, x * units):
            torch.manual_seed(1)
            pair = LinearGaussian.for_data(data, d, diagonal_noise=diagonal_noise)
            starts.append(pair.log_evidence(data))
        torch.testing.assert_close(starts[1], starts[0] - units.log().sum(), rtol=0, atol=1e-10)

    def test_takes_the_type_of_the_data(self):
        pair = LinearGaussian.for_data(torch.randn(30, D, dtype=torch.float32), d)
        assert {parameter.dtype for parameter in pair.parameters()} == {torch.float32}

    def test_refuses_data_that_do_not_vary(self):
        with pytest.raises(DataError, match="x does not vary from row to row"):
            LinearGaussian.for_data(torch.ones(4, D), d)
        x = torch.randn(4, D)
        x[1, 2] = torch.nan
        with pytest.raises(
            DataError, match="1 of the 24 values of x are not finite: the first is nan in row 1, feature 2"
        ):
            LinearGaussian.for_data(x, d)

    def test_refuses_sizes(self):
        with pytest.raises(OptionError, match="latent_dim is 0; give"):
            LinearGaussian(D, 0)
        with pytest.raises(OptionError, match="num_features is 0; give"):
            LinearGaussian(0, d)


def test_prior_predictive_has_the_marginal_covariance():
    # Each entry of the sample covariance has standard error sqrt((C_ii C_jj + C_ij²) / n); 21 entries at 5 standard
    # errors make a false-alarm rate of 1.2e-5; the seed is fixed.
    pair, n = random_pair(), 20_000
    drawn = poutine.uncondition(pair.model)(torch.zeros(n, D)).detach()
    W, _, noise = numbers(pair)
    C = torch.as_tensor(W @ W.T + np.diag(noise))
    error = (torch.cov(drawn.T) - C).abs()
    assert (error < 5 * torch.sqrt((C.diag()[:, None] * C.diag() + C**2) / n)).all()
