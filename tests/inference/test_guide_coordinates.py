"""Coordinates of a guide whose scales follow other latents: the map, its densities, and what chains find in them."""

import math
from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from gate import slow_but
from torch.distributions import Normal

from ppvae.inference import Annealing, annealed_evidence, certify, estimate_evidence, guide_quality, sample_posterior
from ppvae.inference.pair import Pair, as_batch, in_guide_coordinates, to_u
from ppvae.inference.pair.layout import LAYOUTS
from ppvae.models import VAE, HierarchicalVAE

STEEP, NOISE, WIDTH = 1.5, 1.0, 9
X = torch.tensor([[0.3, -0.2, 0.9, 0.1, -1.4, 0.5, 0.0, -0.6, 1.1], [0.1, 0.2, -0.1, 0.3, 0.0, -0.2, 0.1, 0.0, 0.2]])


def funnel(shift=0.0, width=1.2):
    """v ~ N(0, 1), z_i | v ~ N(0, e^(3v)), x_i ~ N(z_i, 1), and a guide with the same dependence."""

    def model(x):
        with pyro.plate("data", len(x)):
            v = pyro.sample("v", dist.Normal(x.new_tensor(0.0), 1.0))
            scale = (STEEP * v).exp()[..., None].expand(*v.shape, WIDTH)
            z = pyro.sample("z", dist.Normal(0.0, scale).to_event(1))
            pyro.sample("x", dist.Normal(z, NOISE).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            v = pyro.sample("v", dist.Normal(shift + 0.1 * x.sum(-1), width))
            scale = (STEEP * v).exp()[..., None].expand(*v.shape, WIDTH)
            weight = scale**2 / (scale**2 + NOISE**2)
            pyro.sample("z", dist.Normal(weight * x, 1.1 * weight.sqrt() * NOISE).to_event(1))

    return model, guide


def quadrature(x):
    """log p(x) and E[v|x], by an integral over v alone: x_i | v ~ N(0, e^(3v) + 1)."""
    v = torch.linspace(-9, 9, 20001, dtype=torch.float64)
    spread = ((2 * STEEP * v).exp() + NOISE**2).sqrt()
    log_p = Normal(0.0, 1.0).log_prob(v) + Normal(0.0, spread).log_prob(x.double()[..., None]).sum(-2)
    log_evidence = torch.logsumexp(log_p, -1) + math.log(18 / 20000)
    return log_evidence, (log_p - log_evidence[:, None] + math.log(18 / 20000)).exp() @ v


def test_the_map_and_its_densities_are_those_of_the_formula():
    model, guide = funnel()
    x = X.double()
    with Pair.on(model, guide, as_batch(x)) as plain:
        pair = in_guide_coordinates(plain)
        assert pair.by_guide
        torch.manual_seed(0)
        eps = torch.randn(4, 2, 1 + WIDTH, dtype=torch.float64)
        a, e = eps[..., 0], eps[..., 1:]
        v = 0.1 * x.sum(-1) + 1.2 * a
        weight = (2 * STEEP * v).exp() / ((2 * STEEP * v).exp() + NOISE**2)
        z = weight[..., None] * x + 1.1 * weight.sqrt()[..., None] * e
        log_b = math.log(1.2) + WIDTH * (math.log(1.1) + weight.log() / 2)
        prior = Normal(0.0, 1.0).log_prob(v) + Normal(0.0, (STEEP * v).exp()[..., None]).log_prob(z).sum(-1)
        joint = prior + Normal(z, NOISE).log_prob(x).sum(-1)
        u, log_scale = to_u(pair, eps)
        torch.testing.assert_close(u, torch.cat([v[..., None], z], -1))
        torch.testing.assert_close(log_scale, log_b)
        log_guide, log_prior, log_joint = pair.ends(eps)
        torch.testing.assert_close(log_joint, joint + log_b)
        torch.testing.assert_close(log_prior, prior + log_b)
        torch.testing.assert_close(log_guide, Normal(0.0, 1.0).log_prob(eps).sum(-1))
        back = pair.unconstrained({"v": v, "z": z}, 4)
        torch.testing.assert_close(back, eps)
        torch.testing.assert_close(pair.constrained(eps)["z"], z)
        # log q(ε) of the formula is that of the plain pair, with the map's Jacobian.
        torch.testing.assert_close(log_guide, plain.ends(u)[0] + log_b)


@pytest.mark.parametrize("guide_kind", ["ladder", "bottom-up"])
def test_every_layout_gives_the_same_density_and_gradient(guide_kind):
    torch.manual_seed(0)
    net = HierarchicalVAE(6, latent_dims=(3, 2), hidden=4, guide_kind=guide_kind).double()
    x = (torch.rand(3, 6, dtype=torch.float64) > 0.5).double()
    with Pair.on(net.model, net.guide, as_batch(x)) as pair:
        pair = replace(pair, by_guide=True)
        eps = torch.randn(5, 3, pair.dim, dtype=torch.float64)
        found = []
        for layout in LAYOUTS:
            leaf = eps.clone().requires_grad_()
            with torch.enable_grad():
                joint = replace(pair, model_layout=layout, guide_layout=layout).joint(leaf)[0]
                found.append((joint.detach(), torch.autograd.grad(joint.sum(), leaf)[0]))
        for joint, slope in found[1:]:
            torch.testing.assert_close(joint, found[0][0])
            torch.testing.assert_close(slope, found[0][1])


@pytest.mark.slow
def test_compiled_densities_are_those_of_the_programs():
    model, guide = funnel()
    options = {"tolerance": 0.2, "seed": 3, "budget": 40_000}
    compiled = estimate_evidence(model, guide, X, compile=True, **options)
    eager = estimate_evidence(model, guide, X, compile=False, **options)
    torch.testing.assert_close(compiled.log_evidence, eager.log_evidence, rtol=0, atol=0.2)
    assert not compiled.notes


@pytest.mark.parametrize("shift", slow_but([0.0], [0.0, 1.0]))
def test_evidence_of_a_funnel_is_known_and_right(shift):
    model, guide = funnel(shift)
    exact, _ = quadrature(X)
    adaptive = estimate_evidence(model, guide, X, tolerance=0.1, seed=0)
    annealed = annealed_evidence(model, guide, X, 64, 100, seed=0)
    for found in (adaptive, annealed):
        assert found.trusted.all()
        assert ((found.log_evidence - exact).abs() < 4 * found.standard_error + 0.01).all()
    assert (adaptive.log_evidence - exact).abs().max() < 0.15


def neal(slope):
    """Neal's funnel, v ~ N(0, 9) and z_i | v ~ N(0, e^v), as a factor, so that no prior covers it; log Z = 0.

    The guide's scale of z is e^(slope v/2).
    """

    def model(x):
        with pyro.plate("data", len(x)):
            anywhere = dist.Normal(x.new_tensor(0.0), 3.0)
            v = pyro.sample("v", anywhere)
            z = pyro.sample("z", anywhere.expand([WIDTH]).to_event(1))
            target = Normal(0.0, 3.0).log_prob(v) + Normal(0.0, (v / 2).exp()[..., None]).log_prob(z).sum(-1)
            pyro.factor("target", target - Normal(0.0, 3.0).log_prob(v) - Normal(0.0, 3.0).log_prob(z).sum(-1))

    def guide(x):
        with pyro.plate("data", len(x)):
            v = pyro.sample("v", dist.Normal(x.new_tensor(1.0), 2.0))
            scale = 1.3 * (slope * v / 2).exp()[..., None].expand(*v.shape, WIDTH)
            pyro.sample("z", dist.Normal(0.0, scale).to_event(1))

    return model, guide


@pytest.mark.parametrize("slope", [0.0, 1.0])
def test_a_funnel_is_known_where_the_guide_follows_it_and_doubted_where_it_does_not(slope):
    model, guide = neal(slope)
    found = estimate_evidence(model, guide, torch.zeros(6), tolerance=0.1, budget=60_000, seed=0)
    if slope:
        assert found.trusted.all()
        assert (found.log_evidence.abs() < 4 * found.standard_error + 0.01).all()
    else:
        assert (found.log_evidence < -0.2).any()
        assert not found.trusted.any()
        assert any("scales follow the other latents" in remark for remark in found.remarks())


def test_weights_of_chains_have_the_evidence_as_their_mean():
    """E[w] = p(x) for chains that start from a poor guide: of 200 means of 8 chains, at four standard errors."""
    model, guide = funnel(shift=1.5, width=0.8)
    exact, _ = quadrature(X[:1])
    x = X[:1].expand(200, -1)
    found = annealed_evidence(model, guide, x, 8, 12, annealing=Annealing(), seed=1)
    ratio = (found.log_evidence - exact).exp()
    assert (ratio.mean() - 1).abs() < 4 * ratio.std() / math.sqrt(len(ratio))


@pytest.mark.slow
def test_a_posterior_is_reported_in_coordinates_without_the_guide():
    model, guide = funnel()
    _, mean = quadrature(X)
    posterior = sample_posterior(model, guide, X, seed=0)
    assert posterior.converged.all()
    assert posterior.divergences.sum() == 0
    v = posterior.draws["v"].double()
    error = v.std((0, 1)) / posterior.ess_bulk.sqrt()
    assert ((v.mean((0, 1)) - mean).abs() < 4 * error).all()
    torch.testing.assert_close(posterior.unconstrained[..., 0], posterior.draws["v"])
    torch.testing.assert_close(posterior.unconstrained[..., 1:], posterior.draws["z"])
    z = posterior.draws["z"].double()
    log_p = Normal(0.0, 1.0).log_prob(v) + Normal(0.0, (STEEP * v).exp()[..., None]).log_prob(z).sum(-1)
    log_p = log_p + Normal(z, NOISE).log_prob(X.double()).sum(-1)
    torch.testing.assert_close(posterior.log_joint, log_p, rtol=0, atol=2e-3)
    quality = guide_quality(model, guide, X, reference=posterior, seed=0)
    assert all("cannot tell" not in words for words in quality.verdicts)


def test_a_certificate_holds_the_truth():
    model, guide = funnel()
    exact, _ = quadrature(X)
    certificate = certify(model, guide, X, width=0.5, seed=0)
    assert certificate.mean_lower < exact.mean() < certificate.mean_upper < math.inf


def by_guide(model, guide, x):
    """Whether the guide's coordinates are chosen."""
    with Pair.on(model, guide, as_batch(x)) as pair:
        return in_guide_coordinates(pair).by_guide


def test_pairs_that_gain_nothing_stay_as_they_are():
    torch.manual_seed(0)
    x = torch.rand(4, 6).round()
    vae = VAE(6, 2, (4,))
    assert not by_guide(vae.model, vae.guide, x)
    model, guide = funnel()

    def straight(x):
        with pyro.plate("data", len(x)):
            v = pyro.sample("v", dist.Normal(x.new_tensor(0.0), 1.0))
            pyro.sample("z", dist.Normal(x + v[..., None], 1.0).to_event(1))

    def wide(x):
        with pyro.plate("data", len(x)):
            v = pyro.sample("v", dist.StudentT(3.0, x.new_tensor(0.0), 1.0))
            pyro.sample("z", dist.Normal(x, (STEEP * v).exp()[..., None].expand(*v.shape, WIDTH)).to_event(1))

    assert not by_guide(model, straight, X)
    assert not by_guide(model, wide, X)  # not all normal
    assert by_guide(model, guide, X)


def test_a_prior_draw_far_from_a_narrow_guide_keeps_its_weight():
    """Draws 10⁵ guide scales away count: p(x) is right although the guide is a needle at the wrong place."""
    pulled = np.array([0.4, -0.3])
    x = torch.tensor(pulled, dtype=torch.float32)[:, None]

    def model(x):
        with pyro.plate("data", len(x)):
            v = pyro.sample("v", dist.Normal(x.new_tensor(0.0), 1.0))
            z = pyro.sample("z", dist.Normal(v, 1.0))
            pyro.sample("x", dist.Normal(z[..., None], 2.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            v = pyro.sample("v", dist.Normal(x.new_tensor(3.0), 1.0))
            pyro.sample("z", dist.Normal(v - 3.0, 1e-5 * (2 * v).exp()))

    exact = Normal(0.0, math.sqrt(6.0)).log_prob(torch.tensor(pulled))
    assert by_guide(model, guide, x)
    found = estimate_evidence(model, guide, x, tolerance=0.1, seed=0)
    wrong = (found.log_evidence - exact).abs() > 4 * found.standard_error + 0.05
    assert not (wrong & found.trusted).any()
