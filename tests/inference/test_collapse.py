"""Latent units against closed forms, quadrature of the mixtures q(z_j), planted collapse, and the spread over seeds."""

import math
from typing import Any

import numpy as np
import pairs
import pyro
import pyro.distributions as dist
import pytest
import torch
import truths_inference as truths
from pyro import poutine
from scipy import special, stats
from torch.optim.lr_scheduler import CosineAnnealingLR

from ppvae.datasets import load_dataset
from ppvae.errors import DataError, OptionError, PairError
from ppvae.inference import elbo_surgery, fit
from ppvae.inference.latents import active_units
from ppvae.inference.latents.active_units import latent_units
from ppvae.inference.latents.units import ESTIMATES
from ppvae.models import VAE, Binomial, LinearGaussian

INFORMATION = -0.5 * math.log(0.99)


def look(pair, num_particles=20, **options):
    return latent_units(pair.model, pair.guide, pair.x, num_particles, **options)


def z_scores(units, name, truth):
    """How many standard errors the units' estimates lie from the truth."""
    return (abs(getattr(units, name) - torch.as_tensor(truth)) / units.standard_error[name]).tolist()


def mixture_kls(components, prior, z):
    """I(n; z_j) and KL(q(z_j) ‖ p(z_j)) of an even mixture, by the trapezoidal rule; components ``(N, points)``."""
    aggregate = np.logaddexp.reduce(components, 0) - np.log(len(components))
    with np.errstate(invalid="ignore"):
        information = np.nan_to_num(np.exp(components) * (components - aggregate)).mean(0)
        marginal = np.nan_to_num(np.exp(aggregate) * (aggregate - prior))
    return np.trapezoid(information, z), np.trapezoid(marginal, z)


def gaussian_kls(loc, scale, points=20_001):
    """The same for Gaussians ``(N,)`` and a standard normal prior; the closed form of the whole as a check of it."""
    scale = np.broadcast_to(scale, loc.shape)
    z = np.linspace((loc - 12 * scale).min(), (loc + 12 * scale).max(), points)
    information, marginal = mixture_kls(stats.norm(loc[:, None], scale[:, None]).logpdf(z), stats.norm.logpdf(z), z)
    kl = (scale**2 + loc**2 - 1 - np.log(scale**2)).mean() / 2
    assert kl == pytest.approx(information + marginal, abs=1e-8)
    return {"kl": kl, "mutual_information": information, "marginal_kl": marginal}


def pair_of(prior, proposal):
    """A model whose latent z has this prior, and a guide z ~ proposal(x)."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            first = z[..., 0] if prior().event_shape else z
            pyro.sample("x", dist.Normal(first.unsqueeze(-1) + torch.zeros(x.shape[-1]), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", proposal(x))

    return model, guide


@pytest.mark.parametrize("full_covariance", [False, True])
@pytest.mark.parametrize("memory_mb", [64.0, pytest.param(0.02, marks=pytest.mark.slow)])
def test_a_linear_pair_against_closed_forms(full_covariance, memory_mb):
    """KL, information and aggregate of every Gaussian marginal; nine |z| < 4.5, and the means' variance exactly."""
    torch.manual_seed(1)
    pair, x = LinearGaussian(5, 3, full_covariance=full_covariance), torch.randn(12, 5)
    with torch.no_grad():
        pair.guide_weight.copy_(torch.randn(3, 5) * torch.tensor([[0.6], [0.2], [0.05]]))
        pair.guide_bias.copy_(torch.tensor([0.3, -0.2, 0.1]))
        pair.guide_log_scale.copy_(torch.tensor([-1.0, -0.1, 0.1]))
        if full_covariance:
            pair.guide_lower.copy_(torch.tensor([0.5, -0.4, 0.3]))
    L = pair._guide_scale_tril().detach()
    loc = (x @ pair.guide_weight.T + pair.guide_bias).detach().numpy()
    scale = (L @ L.T).diagonal().sqrt().numpy()
    units = latent_units(pair.model, pair.guide, x, 4000, seed=0, memory_mb=memory_mb)
    for j in range(3):
        for name, truth in gaussian_kls(loc[:, j], scale[j]).items():
            assert z_scores(units, name, truth)[j] < truths.Z_LIMIT
    np.testing.assert_allclose(units.mean_variance, loc.var(0, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(units.prior_variance, 1.0, rtol=1e-12)
    np.testing.assert_allclose(units.kl, units.mutual_information + units.marginal_kl, atol=1e-12)
    assert units.label == ("z[0]", "z[1]", "z[2]")
    assert not units.averaged.any()


def test_the_error_of_the_means_variance_is_the_jackknifes():
    units = look(pairs.line(), 2, seed=0)
    means = pairs.line().x.numpy() / 2
    left_out = np.array([np.delete(means, n).var(ddof=1) for n in range(len(means))])
    expected = math.sqrt((len(means) - 1) / len(means) * ((left_out - left_out.mean()) ** 2).sum())
    assert units.standard_error["mean_variance"].item() == pytest.approx(expected, rel=1e-10)


def test_planted_dead_units_are_found_and_cost_nothing():
    """Rows 1 and 3 of the encoder are zero and their scales one: the guide of these units is the prior, exactly."""
    pair, x = LinearGaussian(6, 5, full_covariance=False), torch.randn(300, 6)
    dead = [1, 3]
    with torch.no_grad():
        pair.guide_weight.normal_()
        pair.guide_log_scale.fill_(-1.0)
        pair.guide_weight[dead] = 0
        pair.guide_log_scale[dead] = 0
    units = latent_units(pair.model, pair.guide, x, seed=0)
    assert [label for label, v in zip(units.label, units.verdict, strict=True) if v == "collapsed"] == ["z[1]", "z[3]"]
    assert units.verdict.count("active") == 3
    for name in ESTIMATES:
        assert getattr(units, name)[dead].abs().max() < 1e-12
        assert units.standard_error[name][dead].max() < 1e-12
    summary = units.summary()
    assert (summary["active"], summary["collapsed"], summary["active_by_mean_variance"]) == (3, 2, 3)
    assert summary["kl_sum"] == pytest.approx(units.kl.sum().item())
    assert summary["kl_of_collapsed"] == 0
    assert units.remarks()[0] == "2 of 5 latent units have collapsed (z[1], z[3]): they tell nothing about x."
    assert len(units.remarks()) == 1


def test_a_unit_that_speaks_through_its_scale_alone_is_active():
    model, guide = pair_of(
        lambda: dist.Normal(torch.zeros(2), 1.0).to_event(1),
        lambda x: dist.Normal(0.0, torch.stack([x[:, 0].abs() + 0.2, torch.ones(len(x))], -1)).to_event(1),
    )
    x = torch.randn(100, 1)
    units = latent_units(model, guide, x, 200, seed=0)
    assert units.verdict == ("active", "collapsed")
    assert units.mean_variance.tolist() == [0, 0]
    assert units.summary()["active_by_mean_variance"] == 0
    truth = gaussian_kls(np.zeros(100), (x[:, 0].abs() + 0.2).numpy())
    assert z_scores(units, "mutual_information", truth["mutual_information"])[0] < truths.Z_LIMIT
    assert truth["mutual_information"] > INFORMATION


def test_a_guide_that_does_not_heed_x_and_is_not_the_prior_is_called_idle():
    model, guide = pair_of(lambda: dist.Normal(0.0, 1.0), lambda x: dist.Normal(torch.full((len(x),), 0.5), 1.0))
    units = latent_units(model, guide, torch.randn(100, 2), 200, seed=0)
    assert units.verdict == ("collapsed",)
    assert z_scores(units, "kl", 0.125)[0] < truths.Z_LIMIT
    assert units.label == ("z",)
    assert "does not heed x and is not the prior either" in units.remarks()[1]
    assert units.summary()["kl_of_collapsed"] == units.kl.item()
    model, guide = pair_of(lambda: dist.Normal(0.0, 1.0), lambda x: dist.Normal(torch.full((len(x),), 0.2), 1.0))
    near = latent_units(model, guide, torch.randn(100, 2), 200, seed=0)
    assert 0.01 < near.kl.item() < 0.03
    assert len(near.remarks()) == 1


def test_the_verdict_weighs_the_threshold_in_prior_variances_with_two_errors():
    """The mean's variance is 0.04 exactly; the prior's is 1, then 100."""
    x = torch.tensor([[1.0], [-1.0]]).repeat(100, 1) * 0.2 * math.sqrt(199 / 200)

    def verdict(prior_scale, threshold):
        model, guide = pair_of(
            lambda: dist.Normal(0.0, prior_scale), lambda x: dist.Normal(x[:, 0], prior_scale * math.sqrt(0.96))
        )
        units = latent_units(model, guide, x, 200, threshold=threshold, seed=0)
        assert units.mean_variance.item() == pytest.approx(0.04, rel=1e-12)
        assert units.prior_variance.item() == pytest.approx(prior_scale**2, rel=1e-12)
        assert units.summary()["active_by_mean_variance"] == (0.04 / prior_scale**2 > threshold)
        return units.verdict[0]

    assert verdict(1.0, 0.01) == verdict(1.0, 0.03) == "active"
    assert verdict(1.0, 0.05) == verdict(10.0, 0.01) == "collapsed"


def test_few_data_leave_a_unit_undecided():
    model, guide = pair_of(lambda: dist.Normal(0.0, 1.0), lambda x: dist.Normal(0.12 * x[:, 0], 0.99))
    units = latent_units(model, guide, torch.randn(8, 1), 4, seed=0)
    assert units.verdict == ("undecided",)
    assert "undecided within two standard errors (z)" in units.remarks()[0]
    many = latent_units(model, guide, torch.randn(2000, 1), 4, seed=0)
    assert many.verdict == ("active",)
    # One datum of four stands out: 0.0081 is below 0.01, and the jackknife knows that it rests on one.
    one = latent_units(model, guide, torch.tensor([[0.0], [0.0], [0.0], [1.5]]), 1000, seed=0)
    assert one.mean_variance.item() == pytest.approx(0.0081, rel=1e-10)
    assert one.mutual_information.item() + 2 * one.standard_error["mutual_information"].item() < 1.5 * INFORMATION
    assert one.verdict == ("undecided",)


@pytest.mark.slow
def test_a_hierarchy_against_its_gaussian_marginals():
    """`hierarchy`: q(z2|x) is an integral over z1, p(z1) one over z2; both are Gaussian. Twelve |z| < 4.5 and a bias.

    The averages are over 500 draws, their bias of order 1/500 removed from log q alone, so that 0.002 is allowed.
    """
    pair = pairs.hierarchy()
    z1 = pyro.poutine.trace(pair.guide).get_trace(pair.x).nodes["z1"]["fn"]
    down, tau = torch.tensor([[0.8], [-0.5], [0.3]]), 0.6
    top = (down, torch.zeros(3), tau**2 * torch.eye(3), torch.zeros(1), torch.eye(1))
    gain, cov = truths.gaussian_posterior(torch.eye(3), *top)
    loc2 = z1.mean @ gain + 0.4 * cov.sqrt()[0]
    scale2 = (gain.T @ z1.covariance_matrix[0] @ gain + cov).sqrt().item()
    units = look(pair, 400, seed=0)
    assert units.label == ("z1[0]", "z1[1]", "z1[2]", "z2[0]")
    assert units.averaged.all()
    prior = torch.cat([(down**2).flatten() + tau**2, torch.ones(1)])
    np.testing.assert_allclose(units.prior_variance, prior, rtol=0.2)
    assert units.prior_variance[3] == pytest.approx(1, rel=1e-12)
    means = torch.cat([z1.mean, loc2], 1).numpy()
    scales = [*z1.variance[0].sqrt().tolist(), scale2]
    for j in range(4):
        width = prior[j].sqrt().item()  # in units of the prior's scale nothing else changes
        for name, truth in gaussian_kls(means[:, j] / width, scales[j] / width).items():
            error = abs(getattr(units, name)[j].item() - truth)
            assert error < truths.Z_LIMIT * units.standard_error[name][j] + 0.002
    variance = torch.as_tensor(means).var(0)
    np.testing.assert_allclose(units.mean_variance[:3], variance[:3], rtol=1e-12)
    # z2's mean is known by 400 draws of z1: the variance of the means is off by 2 sd(means) sd(noise) / √3 at most.
    noise = (gain.T @ z1.covariance_matrix[0] @ gain).item() / 400
    width = 2 * math.sqrt(variance[3].item() * noise / 3)
    assert units.mean_variance[3].item() == pytest.approx(variance[3].item(), abs=truths.Z_LIMIT * width)


def test_a_site_that_does_not_heed_what_was_drawn_before_it_has_no_parents():
    """a is read from x, b is the prior: its KL is zero to the last digit, which no average would give."""

    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            pyro.sample("b", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(a, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("a", dist.Normal(0.8 * x, 0.4))
            pyro.sample("b", dist.Normal(torch.zeros(len(x)), 1.0))

    units = latent_units(model, guide, torch.randn(200), seed=0)
    assert (units.label, units.verdict) == (("a", "b"), ("active", "collapsed"))
    assert units.averaged.tolist() == [False, False]
    assert units.kl[1] == 0


def test_a_gamma_latent_against_quadrature():
    """`gamma_poisson`: q = Gamma(s(a + x), s(b + 1)) under a Gamma prior; three |z| < 4.5."""
    pair = pairs.gamma_poisson()
    shape, rate = 0.8 * (2.5 + pair.x.numpy()), 0.8 * 1.7
    z = np.linspace(1e-9, 60, 200_001)
    components = stats.gamma(shape[:, None], scale=1 / rate).logpdf(z)
    information, marginal = mixture_kls(components, stats.gamma(2.5, scale=1 / 0.7).logpdf(z), z)
    units = look(pair, 5000, seed=0)
    assert z_scores(units, "mutual_information", information)[0] < truths.Z_LIMIT
    assert z_scores(units, "marginal_kl", marginal)[0] < truths.Z_LIMIT
    kl = torch.distributions.kl_divergence(dist.Gamma(torch.as_tensor(shape), rate), dist.Gamma(2.5, 0.7)).mean().item()
    assert z_scores(units, "kl", kl)[0] < truths.Z_LIMIT
    assert kl == pytest.approx(information + marginal, abs=1e-4)
    assert units.mean_variance.item() == pytest.approx((shape / rate).var(ddof=1), rel=1e-12)
    assert units.prior_variance.item() == pytest.approx(2.5 / 0.7**2, rel=1e-12)


def test_a_dirichlet_has_beta_marginals():
    prior = torch.tensor([1.0, 2.0, 3.0])
    model, guide = pair_of(lambda: dist.Dirichlet(prior), lambda x: dist.Dirichlet(prior + x))
    x = torch.tensor([[9.0, 1.0, 0.0], [0.0, 5.0, 0.0], [2.0, 0.0, 7.0], [0.5, 0.5, 0.5]])
    units = latent_units(model, guide, x, 4000, seed=0)
    concentration = prior + x
    q = torch.distributions.Beta(concentration, concentration.sum(-1, keepdim=True) - concentration)
    kl = torch.distributions.kl_divergence(q, torch.distributions.Beta(prior, 6 - prior)).mean(0)
    assert max(z_scores(units, "kl", kl)) < truths.Z_LIMIT


def test_a_guide_that_draws_a_class_first_is_averaged_over_classes():
    """`mixture_conditional`: q(z|x) = Σ_c q(c) N(z; μ_c(x), σ_c²), the enumerated c drawn as a parent."""
    pair = pairs.build("mixture_conditional")
    odds, z = [0.6, 0.3, 0.1], np.linspace(-15, 15, 20_001)
    components = []
    for c in range(3):
        conditioned: Any = poutine.condition(pair.guide, {"c": torch.full((4,), c)})
        trace: Any = poutine.trace(conditioned).get_trace(pair.x)
        fn = trace.nodes["z"]["fn"]
        components.append(stats.norm(fn.mean.numpy()[:, None], fn.stddev.numpy()[:, None]).logpdf(z) + np.log(odds[c]))
    information, marginal = mixture_kls(np.logaddexp.reduce(components, 0), stats.norm.logpdf(z), z)
    units = look(pair, 200, seed=0)
    assert units.averaged.all()
    for name, truth in (("mutual_information", information), ("marginal_kl", marginal)):
        assert abs(getattr(units, name).item() - truth) < truths.Z_LIMIT * units.standard_error[name].item() + 0.002


def test_units_in_plates_keep_their_places():
    """`plated`: three scalars a datum, KL per unit in closed form; the units are the plate's."""
    pair = pairs.plated()
    fn = pyro.poutine.trace(pair.guide).get_trace(pair.x).nodes["z"]["fn"]
    loc, scale = fn.mean.T.numpy(), fn.stddev[:, 0].numpy()
    units = look(pair, 3000, seed=0)
    assert units.label == ("z[0]", "z[1]", "z[2]")
    assert units.index == ((0,), (1,), (2,))
    for j in range(3):
        for name, truth in gaussian_kls(loc[:, j], scale[j]).items():
            assert z_scores(units, name, truth)[j] < truths.Z_LIMIT
    np.testing.assert_allclose(units.mean_variance, loc.var(0, ddof=1), rtol=1e-12)


def test_plates_and_events_of_several_dims_are_counted_in_order():
    """Unit [p, i, j] has the mean (100 p + 10 i + j) x, so that the means' variance tells the places apart."""
    place = 100 * torch.arange(2.0)[:, None, None] + 10 * torch.arange(3.0)[:, None] + torch.arange(2.0)

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            with pyro.plate("parts", 2, dim=-2):
                z = pyro.sample("z", dist.Normal(torch.zeros(3, 2), 1.0).to_event(2))
            pyro.sample("x", dist.Normal(z.sum((-1, -2)).sum(-2, keepdim=True), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("parts", 2, dim=-2):
            pyro.sample("z", dist.Normal(place[:, None] * x[:, None, None], 1.0).to_event(2))

    x = torch.randn(5)
    units = latent_units(model, guide, x, 2, seed=0)
    assert units.index == tuple((p, i, j) for p in range(2) for i in range(3) for j in range(2))
    assert units.label[7] == "z[1, 0, 1]"
    np.testing.assert_allclose(units.mean_variance, place.flatten() ** 2 * x.var(), rtol=1e-10)


def opaque(loc):
    """N(loc, 1) as one event, in a form that tells neither its mean nor its marginals."""
    return dist.TransformedDistribution(
        dist.Normal(loc, 1.0).to_event(1), [dist.transforms.AffineTransform(0.0, 1.0, event_dim=1)]
    )


@pytest.mark.slow
def test_means_that_are_averages_over_draws_are_freed_of_their_noise():
    """Var(E[z_j|x]) is 0.25 and 0; two draws add ½ to each before the correction. 100 seeds give the error."""
    x = torch.tensor([[0.5], [-0.5]]).repeat(50, 1) * math.sqrt(99 / 100)
    model, guide = pair_of(
        lambda: dist.Normal(torch.zeros(2), 1.0).to_event(1), lambda x: opaque(torch.cat([x, torch.zeros_like(x)], 1))
    )
    runs = [latent_units(model, guide, x, 2, seed=seed) for seed in range(100)]
    found = torch.stack([run.mean_variance for run in runs])
    assert abs(truths.z_score(found[:, 0], 0.25)) < truths.Z_LIMIT
    assert abs(truths.z_score(found[:, 1], 0.0)) < truths.Z_LIMIT
    # The data are ±½, so that drawing them anew adds nothing to the jackknife: it is the spread over draws, ± 7 %.
    stated = torch.stack([run.standard_error["mean_variance"] for run in runs]).square().mean(0).sqrt()
    assert stated[1] == pytest.approx(found[:, 1].std().item(), rel=0.32)
    assert stated[0] == pytest.approx(found[:, 0].std().item(), rel=0.32)


def test_densities_that_are_not_known_are_nan_with_the_reason():
    model, guide = pair_of(
        lambda: dist.Normal(torch.zeros(2), 1.0).to_event(1), lambda x: opaque(torch.cat([x, torch.zeros_like(x)], 1))
    )
    units = latent_units(model, guide, torch.randn(2000, 1), 200, seed=0)
    assert units.kl.isnan().all()
    assert units.mutual_information.isnan().all()
    assert units.verdict == ("active", "collapsed")  # by the means alone
    assert units.reason[0].startswith("of its guide, the numbers of a TransformedDistribution depend on each other")
    assert any("KL and mutual information of z[0], z[1] not known" in remark for remark in units.remarks())


def test_a_prior_that_is_not_known_leaves_the_mutual_information():
    model, guide = pair_of(lambda: opaque(torch.zeros(2)), lambda x: dist.Normal(x.expand(-1, 2), 1.0).to_event(1))
    x = torch.randn(40, 1)
    units = latent_units(model, guide, x, 500, seed=0)
    assert units.kl.isnan().all()
    truth = gaussian_kls(x[:, 0].numpy(), 1.0)["mutual_information"]
    assert max(z_scores(units, "mutual_information", truth)) < truths.Z_LIMIT
    assert any(remark.startswith("KL of z[0], z[1] not known: of its prior") for remark in units.remarks())


def test_a_point_mass_has_no_density_and_its_spread_is_exact():
    model, guide = pair_of(lambda: dist.Normal(0.0, 1.0), lambda x: dist.Delta(x[:, 0]))
    x = torch.randn(60, 1)
    units = latent_units(model, guide, x, 2, seed=0)
    assert "point mass" in units.reason[0]
    assert units.mean_variance.item() == pytest.approx(x.var().item(), rel=1e-12)
    assert units.verdict == ("active",)


def test_no_mean_leaves_the_verdict_to_the_information():
    model, guide = pair_of(lambda: dist.Cauchy(0.0, 1.0), lambda x: dist.Cauchy(3 * x[:, 0], 1.0))
    units = latent_units(model, guide, torch.randn(100, 1), seed=0)
    assert units.mean_variance.isnan().all()
    assert units.verdict == ("active",)


def test_a_guide_beyond_the_support_of_the_prior_has_no_finite_kl():
    model, guide = pair_of(lambda: dist.Gamma(2.0, 1.0), lambda x: dist.Normal(x[:, 0], 1.0))
    units = latent_units(model, guide, torch.randn(50, 1), seed=0)
    assert units.kl.item() == math.inf
    assert units.mutual_information.isfinite().all()
    assert any("not finite" in remark for remark in units.remarks())
    # The supports of q(z|x) differ between data: log N for those that do not meet.
    model, guide = pair_of(lambda: dist.Uniform(0.0, 10.0), lambda x: dist.Uniform(x[:, 0], x[:, 0] + 0.5))
    units = latent_units(model, guide, torch.arange(8.0)[:, None], seed=0)
    assert units.mutual_information.item() == pytest.approx(math.log(8), abs=1e-12)
    assert any("near its ceiling log 8 = 2.08" in remark for remark in units.remarks())


def narrow():
    """a ~ N(0, 1), b ~ N(a, 0.3²): few draws of a make a rough average over them, and one for all forty data."""

    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            b = pyro.sample("b", dist.Normal(a, 0.3))
            pyro.sample("x", dist.Normal(b, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x / 2, 0.7))
            pyro.sample("b", dist.Normal(a, 0.3))

    return pairs.Pair(model, guide, torch.linspace(1, 3, 40))


@pytest.mark.parametrize(("pair", "num_particles"), [(pairs.line, 6), pytest.param(narrow, 8, marks=pytest.mark.slow)])
def test_the_errors_are_the_spread_over_seeds(pair, num_particles, monkeypatch):
    """The spread over 40 seeds is known to 1/√80 = 11 %; 50 % are 4.5 of these. Few parents make theirs count."""
    monkeypatch.setattr(active_units, "PARENTS", 5)
    pair = pair()
    runs = [look(pair, num_particles, seed=seed) for seed in range(40)]
    for term in ESTIMATES[:3]:
        spread = torch.stack([getattr(run, term) for run in runs]).std(0)
        stated = torch.stack([run.standard_error[term] for run in runs]).square().mean(0).sqrt()
        np.testing.assert_allclose(stated, spread, rtol=0.5)


def test_the_log_of_an_average_is_freed_of_its_bias():
    """The mean of 20 exponentials is Gamma(20)/20, whose log is ψ(20) − log 20 = −0.025 on average; 0.003 is left."""
    densities = dist.Exponential(1.0).sample((20, 40_000))
    plain = densities.mean(0).log()
    assert plain.mean().item() == pytest.approx(special.digamma(20) - math.log(20), abs=0.005)
    freed = active_units._log_mean(densities.log())
    assert abs(freed.mean().item()) < 0.003 + truths.Z_LIMIT * freed.std().item() / 200
    assert freed.shape == (40_000,)


def test_a_seed_repeats_and_leaves_the_generators_alone():
    pair = pairs.hierarchy()
    state = torch.get_rng_state()
    first, second = look(pair, 5, seed=5), look(pair, 5, seed=5)
    assert torch.equal(state, torch.get_rng_state())
    for name in ESTIMATES:
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert not torch.equal(first.kl, look(pair, 5, seed=6).kl)


def test_the_dataset_holds_every_number_and_saves(tmp_path):
    units = look(pairs.hierarchy(), 5, seed=0)
    dataset = units.to_dataset()
    assert dataset.unit.values.tolist() == ["z1[0]", "z1[1]", "z1[2]", "z2[0]"]
    assert dataset.site.values.tolist() == ["z1", "z1", "z1", "z2"]
    assert dataset["index"].values.tolist() == ["0", "1", "2", "0"]
    for name in ESTIMATES:
        np.testing.assert_array_equal(dataset[name], getattr(units, name))
        np.testing.assert_array_equal(dataset[f"{name}_standard_error"], units.standard_error[name])
    assert dataset.kl.attrs["units"] == "nats"
    assert dataset.attrs["ceiling"] == units.ceiling == math.log(5)
    dataset.to_netcdf(tmp_path / "units.nc", engine="h5netcdf")
    assert dataset.sel(unit="z2[0]").verdict.item() == units.verdict[3]


@pytest.mark.slow
def test_a_float32_vae_of_too_many_latents_on_the_digits():
    """Twenty-four latents, of which some collapse; their KLs add up to the ELBO's, and the verdicts follow them.

    The guide of a VAE is a product over units: KL(q(z|x) ‖ p(z)) is the sum of theirs. One |z| < 4.5.
    """
    torch.set_default_dtype(torch.float32)
    x = load_dataset("digits").train
    vae = VAE.for_data(x, Binomial(16), latent_dim=24, hidden=(10,))
    fit(vae.model, vae.guide, x, epochs=40, batch_size=100, learning_rate=0.02, seed=0, progress=False,
        scheduler=lambda optimizer: CosineAnnealingLR(optimizer, 40))  # fmt: skip
    units = latent_units(vae.model, vae.guide, x[:300], 20, seed=1)
    parts = elbo_surgery(vae.model, vae.guide, x[:300], 20, seed=2).summary()
    error = math.hypot(parts["kl_monte_carlo_error"], units.standard_error["kl"].norm().item())
    assert abs(units.summary()["kl_sum"] - parts["kl"]) < truths.Z_LIMIT * error
    assert (units.mutual_information <= units.ceiling).all()
    loc, scale = vae.encode(x[:300])
    kl = ((scale**2 + loc**2 - 1) / 2 - scale.log()).mean(0).detach()
    # I ≤ KL and ½ Var(mean) ≤ KL: a unit of hardly any KL is not active, whatever the estimates.
    assert all(verdict != "active" for verdict, nats in zip(units.verdict, kl, strict=True) if nats < 0.003)
    assert all(verdict == "active" for verdict, nats in zip(units.verdict, kl, strict=True) if nats > 1)
    assert (kl > 1).sum() >= 4
    assert "collapsed" in units.verdict


def test_what_has_no_units_is_refused():
    line, conditional = pairs.line(), pairs.conditional()
    with pytest.raises(OptionError, match="at least 2"):
        look(line, 1)
    with pytest.raises(OptionError, match="threshold must lie between 0 and 1"):
        look(line, threshold=0.0)
    with pytest.raises(OptionError, match="memory_mb"):
        look(line, memory_mb=0)
    with pytest.raises(DataError, match="at least 3"):
        look(line.rows(slice(0, 2)))
    with pytest.raises(DataError, match="NaN"):
        latent_units(line.model, line.guide, torch.tensor([0.0, math.nan, 1.0]))
    with pytest.raises(PairError, match="prior of 'z' differs between data"):
        latent_units(conditional.model, conditional.guide, conditional.data)
    with pytest.raises(PairError, match="no continuous latent"):
        look(pairs.build("mixture"))
    autoencoder = pairs.build("autoencoder")
    with pytest.raises(PairError, match="'z' is masked"):
        look(autoencoder)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(PairError, match="prior of 'z' differs between data"):
        latent_units(model, line.guide, line.x)
