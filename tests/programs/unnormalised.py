"""Models whose density is not normalised over the data: the number is the log of an integral, and `check` says so."""

import math
from dataclasses import replace

import pyro
import pyro.distributions as dist
import torch
import torch.distributions as td
from pyro import poutine
from torch import nn
from torch.distributions import constraints

from .network import Decoder, decoder_case
from .program import Program
from .quadrature import hermite_line, line


def factor_that_tilts_the_prior() -> Program:
    """A repulsion from nought as a factor of the latent: its integral, the constant included, is what comes out."""
    x = torch.tensor([0.5, -1.0, 2.0])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.factor("repulsion", 1.5 - torch.exp(-(z**2)))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.55 * x, 0.85))

    def joint(z):
        return td.Normal(0.0, 1.0).log_prob(z) + 1.5 - torch.exp(-(z**2)) + td.Normal(z, 1.0).log_prob(x)

    return Program(
        model,
        guide,
        x,
        line(joint, -10, 10),
        lambda: hermite_line(joint, x / 2, 0.9),
        num_particles=4000,
        tolerance=0.03,
        finding=True,
    )


def likelihood_as_a_factor() -> Program:
    """A loss in place of a likelihood, −|x − z|, added by `pyro.factor`: it lacks the log 2 of Laplace's density."""
    x = torch.tensor([0.5, -1.0, 2.0])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.factor("loss", -(x - z).abs())

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.4 * x, 0.85))

    def log_phi(t):
        return td.Normal(0.0, 1.0).cdf(t).log()

    # ∫ N(z; 0, 1) exp(−|x − z|) dz, by completing the square on each side of x.
    truth = torch.logaddexp(0.5 - x + log_phi(x - 1), 0.5 + x + log_phi(-x - 1))

    def joint(z):
        return td.Normal(0.0, 1.0).log_prob(z) - (x - z).abs()

    return Program(
        model, guide, x, truth, lambda: line(joint, -10, 10), num_particles=4000, tolerance=0.03, finding=True
    )


def flat_prior_by_a_mask() -> Program:
    """The prior is masked out: what is left is the integral of the likelihood of two readings over all z."""
    x = torch.tensor([[0.5, 0.1], [-1.0, -1.4], [2.0, 2.2]])

    def model(x):
        with pyro.plate("data", len(x)):
            with poutine.mask(mask=False):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1), 0.5).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.mean(-1), 0.39))

    truth = td.Normal(x[:, 0], 0.5 * math.sqrt(2)).log_prob(x[:, 1])

    def joint(z):
        return td.Normal(z, 0.5).log_prob(x[:, 0]) + td.Normal(z, 0.5).log_prob(x[:, 1])

    return Program(model, guide, x, truth, lambda: line(joint, -12, 12), finding=True, may_refuse=True)


def prior_of_some_data_masked() -> Program:
    """The prior counts for some of the data only, by a mask in the context."""
    x, known = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([True, False, True])

    def model(x, known):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).mask(known))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x, known):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.where(known, 0.8 * x, x), 0.53))

    truth = torch.where(known, td.Normal(0.0, math.sqrt(1.25)).log_prob(x), torch.zeros(3))

    def joint(z):
        return torch.where(known, td.Normal(0.0, 1.0).log_prob(z), torch.zeros(())) + td.Normal(z, 0.5).log_prob(x)

    return Program(
        model, guide, (x, known), truth, lambda: line(joint, -12, 12), tolerance=0.03, finding=True, may_refuse=True
    )


def improper_prior() -> Program:
    """A prior that is one on the whole line: the integral of the likelihood of two readings over all z."""
    known = flat_prior_by_a_mask()

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.ImproperUniform(constraints.real, (), ()))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1), 0.5).to_event(1), obs=x)

    return replace(known, model=model, may_refuse=False)


def improper_prior_of_a_shared_rate() -> Program:
    """A rate with a prior that is one on the positive line: ∫ Π r^x exp(−r)/x! dr, by a gamma of the right shape."""
    x = torch.tensor([1.0, 3.0, 2.0])

    def model(x):
        rate = pyro.sample("rate", dist.ImproperUniform(constraints.positive, (), ()))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Poisson(rate), obs=x)

    def guide(x):
        pyro.sample("rate", dist.Gamma(x.sum() + 1, 3.0))

    truth = (torch.lgamma(x.sum() + 1) - (x.sum() + 1) * math.log(3) - torch.lgamma(x + 1).sum())[None]

    def again():
        return line(lambda u: td.Poisson(u.exp()).log_prob(x).sum(-1, keepdim=True) + u, -12, 5)

    return Program(model, guide, x, truth, again, unit="data set", num_particles=50, tolerance=1e-5, finding=True)


def grey_pixels_by_logits() -> Program:
    """Grey levels in [0, 1] under Bernoulli(logits, validate_args=False): no density of the data."""
    return _grey_case(lambda logits: dist.Bernoulli(logits=logits, validate_args=False))


def grey_pixels_by_probs() -> Program:
    """The same with probabilities behind a sigmoid, as in many tutorials."""
    return _grey_case(lambda logits: dist.Bernoulli(torch.sigmoid(logits), validate_args=False))


def _grey_case(likelihood) -> Program:
    torch.manual_seed(11)
    network = nn.Sequential(nn.Linear(2, 6), nn.Softplus(), nn.Linear(6, 4))
    x = torch.tensor([[0.1, 0.9, 0.5, 0.3], [0.7, 0.2, 1.0, 0.0], [0.4, 0.6, 0.8, 0.05]])

    def log_likelihood(logits, x):
        return (x * torch.sigmoid(logits).log() + (1 - x) * torch.sigmoid(-logits).log()).sum(-1)

    decoder = Decoder(network, likelihood, log_likelihood, torch.sigmoid, lambda mean: mean * (1 - mean))
    return decoder_case(decoder, x, finding=True)


def continuous_bernoulli() -> Program:
    """The same grey levels under a continuous Bernoulli, whose density over [0, 1] is normalised: nothing to say."""
    torch.manual_seed(12)
    network = nn.Sequential(nn.Linear(2, 6), nn.Softplus(), nn.Linear(6, 4))
    x = torch.tensor([[0.1, 0.9, 0.5, 0.3], [0.7, 0.2, 1.0, 0.0], [0.4, 0.6, 0.8, 0.05]])

    def log_likelihood(logits, x):
        # ∫ exp(t l) dt over [0, 1] is (exp(l) − 1) / l.
        return (x * logits - (torch.special.expm1(logits) / logits).log()).sum(-1)

    decoder = Decoder(
        network,
        lambda logits: dist.ContinuousBernoulli(logits=logits),
        log_likelihood,
        lambda logits: td.ContinuousBernoulli(logits=logits).mean,
        lambda mean: torch.full_like(mean, 1 / 12),
    )
    return decoder_case(decoder, x)


PROGRAMS = (
    factor_that_tilts_the_prior,
    likelihood_as_a_factor,
    flat_prior_by_a_mask,
    prior_of_some_data_masked,
    improper_prior,
    improper_prior_of_a_shared_rate,
    grey_pixels_by_logits,
    grey_pixels_by_probs,
    continuous_bernoulli,
)
