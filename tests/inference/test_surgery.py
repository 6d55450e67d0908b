"""ELBO surgery against closed forms, quadrature of the mixture q(z), and the spread over seeds."""

import math

import numpy as np
import pairs
import pyro
import pyro.distributions as dist
import pytest
import torch
import truths_inference as truths
from scipy import stats

from ppvae.errors import OptionError, PairError
from ppvae.inference import importance_evidence
from ppvae.inference.posterior.surgery import TERMS, elbo_surgery
from ppvae.models import LinearGaussian


def carve(pair, num_particles, **options):
    return elbo_surgery(pair.model, pair.guide, pair.x, num_particles, **options)


def z_score(parts, name, truth):
    """How many standard errors the mean of a term lies from its truth."""
    return abs(parts[name] - truth) / parts[f"{name}_monte_carlo_error"]


def mixture_kls(loc, scale, points=20_001):
    """I(n; z) and KL(q(z) ‖ N(0, 1)) of an even mixture of scalar Gaussians, by the trapezoidal rule."""
    z = np.linspace(loc.min() - 12 * scale, loc.max() + 12 * scale, points)
    components = stats.norm(loc[:, None], scale).logpdf(z)
    aggregate = np.logaddexp.reduce(components, 0) - np.log(len(loc))
    information = np.trapezoid(np.exp(components) * (components - aggregate), z, axis=1).mean()
    return information, np.trapezoid(np.exp(aggregate) * (aggregate - stats.norm.logpdf(z)), z)


@pytest.mark.parametrize("memory_mb", [64.0, pytest.param(0.02, marks=pytest.mark.slow)])
def test_one_latent_against_quadrature_of_the_mixture(memory_mb):
    """`line`: z ~ N(0, 1), x ~ N(z, 1), q = N(x/2, s²/2), whole and in many small pieces; five |z| < 4.5."""
    pair = pairs.line(scale=1.25)
    x, variance = pair.x.numpy(), 1.25**2 / 2
    information, marginal = mixture_kls(x / 2, math.sqrt(variance))
    parts = carve(pair, 20_000, seed=3, memory_mb=memory_mb).summary()
    assert z_score(parts, "mutual_information", information) < truths.Z_LIMIT
    assert z_score(parts, "marginal_kl", marginal) < truths.Z_LIMIT
    assert z_score(parts, "kl", information + marginal) < truths.Z_LIMIT
    # E_q[log N(x; z, 1)] = log N(x; x/2, 1) − ½ s²/2, and KL(N(μ, v) ‖ N(0, 1)) = ½ (v + μ² − 1 − log v).
    reconstruction = stats.norm(x / 2, 1).logpdf(x) - variance / 2
    kl = (variance + (x / 2) ** 2 - 1 - math.log(variance)) / 2
    assert z_score(parts, "reconstruction", reconstruction.mean()) < truths.Z_LIMIT
    assert z_score(parts, "elbo", (reconstruction - kl).mean()) < truths.Z_LIMIT
    assert kl.mean() == pytest.approx(information + marginal, abs=1e-9)


def test_two_correlated_latents_against_quadrature_of_the_mixture():
    """The linear-Gaussian pair with its exact posterior as guide, whose covariance is full."""
    pair, x = LinearGaussian(num_features=4, latent_dim=2), 2 * torch.randn(6, 4)
    with torch.no_grad():
        pair.weight.copy_(torch.tensor([[1.0, 0.8], [0.5, 0.9], [-0.3, 0.2], [0.7, 0.1]]))
    pair.set_exact_guide()
    posterior = pair.posterior(x)
    axis = np.linspace(-9, 9, 401)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1)
    cov = posterior.covariance_matrix[0].detach().numpy()
    each = np.stack([stats.multivariate_normal(m, cov).logpdf(grid) for m in posterior.mean.detach().numpy()])
    aggregate = np.logaddexp.reduce(each, 0) - np.log(len(x))
    cell = (axis[1] - axis[0]) ** 2
    information = (np.exp(each) * (each - aggregate)).sum((1, 2)) * cell
    prior = stats.multivariate_normal(np.zeros(2), np.eye(2)).logpdf(grid)
    marginal = (np.exp(aggregate) * (aggregate - prior)).sum() * cell

    surgery = elbo_surgery(pair.model, pair.guide, x, 10_000, seed=0)
    parts = surgery.summary()
    assert z_score(parts, "marginal_kl", marginal) < truths.Z_LIMIT
    assert torch.allclose(surgery.elbo, pair.log_evidence(x), atol=1e-10)  # the guide is exact: no draw differs
    error = surgery.standard_error["mutual_information"].numpy()
    assert (abs(surgery.mutual_information.numpy() - information) < truths.Z_LIMIT * error).all()


def test_every_site_of_the_guide_counts_and_what_tells_nothing_adds_nothing():
    """`hierarchy`: q(z1|x) q(z2|z1) knows x through z1 alone, so I(n; z1, z2) is that of z1; KL counts both sites."""
    pair = pairs.hierarchy()
    parts = carve(pair, 20_000, seed=0).summary()
    trace = pyro.poutine.trace(pair.guide).get_trace(pair.x)
    z1 = trace.nodes["z1"]["fn"]
    z = z1.sample((20_000,))
    log_q = z1.log_prob(z.unsqueeze(-2))  # (K, N, N)
    terms = log_q.diagonal(dim1=1, dim2=2) - (log_q.logsumexp(-1) - math.log(len(pair.x)))
    other, error = terms.mean().item(), (terms.std(0).norm() / math.sqrt(20_000) / len(pair.x)).item()
    combined = math.hypot(error, parts["mutual_information_monte_carlo_error"])
    assert abs(parts["mutual_information"] - other) < truths.Z_LIMIT * combined
    assert z_score(parts, "elbo", (pair.truth - pair.gap(pair.x)).mean().item()) < truths.Z_LIMIT


def test_parts_add_up_and_stay_below_the_ceiling():
    surgery = carve(pairs.linear(shift=0.6), 50, seed=0)
    assert torch.allclose(surgery.mutual_information + surgery.marginal_kl, surgery.kl, atol=1e-12)
    assert torch.allclose(surgery.reconstruction - surgery.kl, surgery.elbo, atol=1e-12)
    assert surgery.ceiling == math.log(len(surgery.kl))
    assert (surgery.mutual_information <= surgery.ceiling + 1e-12).all()


@pytest.mark.parametrize(("spread", "share"), [(0.0, 0.0), (1e4, 1.0)])
def test_equal_data_tell_nothing_and_distant_data_log_n(spread, share):
    pair = pairs.line(scale=1.0)
    x = torch.arange(5.0) * spread
    surgery = elbo_surgery(pair.model, pair.guide, x, 10, seed=0)
    expected = torch.full((5,), share * math.log(5))
    assert torch.allclose(surgery.mutual_information, expected, atol=1e-10)


def test_the_elbo_is_that_of_the_log_weights():
    pair = pairs.build("vae_binomial")
    evidence = importance_evidence(pair.model, pair.guide, pair.x, 4000, seed=0)
    surgery = carve(pair, 4000, seed=1)
    error = (evidence.elbo_standard_error**2 + surgery.standard_error["elbo"] ** 2).sqrt()
    assert ((surgery.elbo - evidence.elbo).abs() < truths.Z_LIMIT * error).all()


@pytest.mark.slow
def test_the_errors_are_the_spread_over_seeds():
    """The spread over 400 seeds is known to 1/√800 = 3.5 %; 16 % are 4.5 of these."""
    pair = pairs.line(scale=1.25)
    runs = [carve(pair, 20, seed=seed).summary() for seed in range(400)]
    for name in TERMS:
        spread = np.std([run[name] for run in runs], ddof=1)
        stated = math.sqrt(np.mean([run[f"{name}_monte_carlo_error"] ** 2 for run in runs]))
        assert stated == pytest.approx(spread, rel=0.16)


def test_a_seed_repeats_and_leaves_the_generators_alone():
    pair = pairs.line()
    state = torch.get_rng_state()
    first, second = carve(pair, 10, seed=5), carve(pair, 10, seed=5)
    assert torch.equal(state, torch.get_rng_state())
    for name in TERMS:
        assert torch.equal(getattr(first, name), getattr(second, name))


def test_plates_inside_the_data_plate():
    """Their latents are a code like any other: KL(q ‖ p) = reconstruction − ELBO, and the parts add up."""
    plated = pairs.build("plated")
    parts = elbo_surgery(plated.model, plated.guide, plated.x, 400, seed=0)
    error = 4.5 * (parts.standard_error["elbo"].square() + 1e-20).sqrt()
    assert ((parts.elbo - (plated.truth - plated.true_gap)).abs() < error).all()
    torch.testing.assert_close(parts.kl, parts.mutual_information + parts.marginal_kl)


def test_context_that_leaves_the_prior_alone_changes_nothing():
    line = pairs.line()
    alone = carve(line, 10, seed=0)
    beside = elbo_surgery(lambda x, c: line.model(x), lambda x, c: line.guide(x), (line.x, line.x + 1), 10, seed=0)
    for name in alone.standard_error:
        torch.testing.assert_close(getattr(beside, name), getattr(alone, name))


def test_what_cannot_be_carved_up_is_refused():
    line, conditional = pairs.line(), pairs.conditional()
    with pytest.raises(OptionError, match="at least 2"):
        carve(line, 1)
    with pytest.raises(PairError, match="prior differs between data"):
        elbo_surgery(conditional.model, conditional.guide, conditional.data, 10)
    with pytest.raises(PairError, match="enumerat"):
        carve(pairs.build("mixture_in_guide"), 10)

    def with_auxiliary(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Normal(a, 1.0))

    with pytest.raises(PairError, match="'a' is a latent of one program"):
        elbo_surgery(line.model, with_auxiliary, line.x, 10)
