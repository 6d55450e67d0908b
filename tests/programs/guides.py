"""Guides that hold more than the latents: observed sites, factors, auxiliary draws. None is part of log q(z | x)."""

import math

import pyro
import pyro.distributions as dist
import torch
import torch.distributions as td
from pyro import poutine

from .program import REFUSED, Program
from .quadrature import hermite_line, line

AUXILIARY = {"is_auxiliary": True}
COUNTS = torch.tensor([0.0, 3.0, 7.0])
FLIPS = torch.tensor([1.0, 6.0, 9.0])


def _gamma_poisson(x):
    with pyro.plate("data", len(x)):
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        pyro.sample("x", dist.Poisson(rate), obs=x)


def _gamma_poisson_truth(x):
    """Gamma(2, 1) and Poisson: a negative binomial of two failures, p(x) = (x + 1) / 2^(x + 2)."""
    return torch.log(x + 1) - (x + 2) * math.log(2)


def _gamma_poisson_again(x):
    """The density of Gamma(2, 1), z exp(−z), times Poisson's, on a fine grid of log z."""

    def joint(u):
        return td.Gamma(2.0, 1.0).log_prob(u.exp()) + td.Poisson(u.exp()).log_prob(x.expand(len(u), -1)) + u

    return line(joint, -16, 5)


def _gamma_poisson_case(guide, **known):
    x = COUNTS.double()
    return Program(
        _gamma_poisson,
        guide,
        x,
        _gamma_poisson_truth(x),
        lambda: _gamma_poisson_again(x),
        **{"tolerance": 1e-6} | known,
    )


def guide_scores_the_count() -> Program:
    """The guide holds a predictor of the very count that is observed, under another name."""

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("predicted", dist.Poisson(pyro.param("mean", torch.tensor(3.0))), obs=x)
            pyro.sample("rate", dist.Gamma(2.0 + x, 2.0))

    return _gamma_poisson_case(guide, num_particles=50)


def guide_scores_the_same_site() -> Program:
    """The observed site has the model's name and a large scale, as an auxiliary classification loss has."""

    def guide(x):
        with pyro.plate("data", len(x)):
            with poutine.scale(scale=25.0):
                pyro.sample("x", dist.Poisson(2.0), obs=x)
            pyro.sample("rate", dist.Gamma(2.0 + x, 2.0))

    return _gamma_poisson_case(guide, num_particles=50)


def guide_penalises_each_datum() -> Program:
    """A factor of a sampled value, in the plate."""

    def guide(x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(2.0 + x, 2.0))
            pyro.factor("penalty", -3.0 * rate, has_rsample=True)

    return _gamma_poisson_case(guide, num_particles=50)


def guide_penalises_its_parameters() -> Program:
    """A factor outside the plate: weight decay written by hand."""

    def guide(x):
        weight = pyro.param("weight", torch.tensor([1.0, -2.0]))
        pyro.factor("decay", -0.5 * (weight**2).sum(), has_rsample=False)
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.Gamma(2.0 + x, 2.0))

    return _gamma_poisson_case(guide, num_particles=50)


def _beta_binomial(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Beta(2.0, 3.0))
        pyro.sample("x", dist.Binomial(10, z), obs=x)


def _beta_binomial_case(guide) -> Program:
    x = FLIPS.double()

    def log_beta(a, b):
        return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)

    choices = -math.log(11) - log_beta(x + 1, 11 - x)
    truth = choices + log_beta(2 + x, 13 - x) - log_beta(torch.tensor(2.0).to(x), torch.tensor(3.0).to(x))

    def joint(z):
        return td.Beta(2.0, 3.0).log_prob(z) + td.Binomial(10, z).log_prob(x.expand(len(z), -1))

    return Program(_beta_binomial, guide, x, truth, lambda: line(joint, 0, 1), tolerance=0.03)


def auxiliary_coin() -> Program:
    """A discrete auxiliary draw chooses between two proposals; each has a density, and each gives p(x) in the mean."""

    def guide(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Bernoulli(0.4), infer=AUXILIARY)
            pyro.sample("z", dist.Beta(1.8 + x + 0.4 * a, 13.0 - x - 0.6 * a))

    return _beta_binomial_case(guide)


def auxiliary_vector() -> Program:
    """A vector-valued auxiliary draw, of another event shape than the latent."""

    def guide(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 0.1).expand([len(x), 3]).to_event(1), infer=AUXILIARY)
            pyro.sample("z", dist.Beta((1.8 + x) * a.mean(-1).exp(), 12.6 - x))

    return _beta_binomial_case(guide)


def auxiliary_chain() -> Program:
    """Two auxiliary draws, the second given the first, then the latent given the second."""
    x = torch.tensor([0.2, -1.5, 1.1, 3.0], dtype=torch.float64)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.5, 1.0))
            pyro.sample("x", dist.Normal(z, 0.7), obs=x)

    loc, scale = (0.5 * 0.49 + x) / 1.49, math.sqrt(0.49 / 1.49)

    def guide(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 1.0), infer=AUXILIARY)
            b = pyro.sample("b", dist.Normal(0.5 * a, 0.3), infer=AUXILIARY)
            pyro.sample("z", dist.Normal((0.5 * 0.49 + x) / 1.49 + 0.1 * b, 1.2 * scale))

    def joint(z):
        return td.Normal(0.5, 1.0).log_prob(z) + td.Normal(z, 0.7).log_prob(x)

    truth = td.Normal(0.5, math.sqrt(1.49)).log_prob(x)
    return Program(model, guide, x, truth, lambda: hermite_line(joint, loc, 0.7), tolerance=0.04)


def guide_whose_draw_is_masked() -> Program:
    """The guide leaves the density of its own draw out: no mean of such weights is p(x)."""
    x = torch.tensor([0.4, -1.1, 0.9])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.8 * x, 0.5).mask(False))

    return Program(model, guide, x, REFUSED)


PROGRAMS = (
    guide_whose_draw_is_masked,
    guide_scores_the_count,
    guide_scores_the_same_site,
    guide_penalises_each_datum,
    guide_penalises_its_parameters,
    auxiliary_coin,
    auxiliary_vector,
    auxiliary_chain,
)
