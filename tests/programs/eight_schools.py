"""Eight schools, centred and not: two programs of one evidence, by a plane and with the mean in closed form."""

import pyro
import pyro.distributions as dist
import torch
import torch.distributions as td
from torch import Tensor

from .program import Program
from .quadrature import line, plane


def _schools() -> tuple[Tensor, Tensor]:
    """Rubin (1981), Estimation in Parallel Randomized Experiments: effects and their standard errors."""
    effect = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    return effect, torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def _eight_schools(model, guide) -> Program:
    """mu ~ N(0, 5²), tau ~ HalfCauchy(5), theta_j ~ N(mu, tau²), y_j ~ N(theta_j, sigma_j²)."""
    y, sigma = _schools()

    def joint(z):
        mu, log_tau = z[..., :1], z[..., 1:]
        log_p = td.Normal(mu, (sigma**2 + (2 * log_tau).exp()).sqrt()).log_prob(y).sum(-1)
        prior = td.Normal(0.0, 5.0).log_prob(mu) + td.HalfCauchy(5.0).log_prob(log_tau.exp()) + log_tau
        return prior[..., 0] + log_p

    def again():
        """mu in closed form: y is Gaussian given tau."""

        def given(log_tau):
            spread = (sigma**2 + (2 * log_tau).exp()).diag_embed() + 25.0
            log_p = td.MultivariateNormal(torch.zeros(8), spread).log_prob(y).unsqueeze(-1)
            return log_p + td.HalfCauchy(5.0).log_prob(log_tau.exp()) + log_tau

        return line(given, -20, 9, 5000)

    truth = plane(joint, (-30, -20), (40, 9), 500)
    return Program(model, guide, (y, sigma), truth, again, unit="data set", num_particles=4000, tolerance=0.05)


def _mean_given(tau, y, sigma):
    """The posterior of mu given tau, a twentieth wider; shape of tau."""
    weight = 1 / (sigma**2 + tau.reshape(-1, 1) ** 2)
    precision = 1 / 25.0 + weight.sum(-1)
    loc, scale = (weight * y).sum(-1) / precision, 1.05 / precision.sqrt()
    return dist.Normal(loc.reshape(tau.shape), scale.reshape(tau.shape))


def eight_schools_centred() -> Program:
    """theta itself is the latent."""

    def model(y, sigma):
        mu, tau = pyro.sample("mu", dist.Normal(0.0, 5.0)), pyro.sample("tau", dist.HalfCauchy(5.0))
        with pyro.plate("schools", len(y)):
            theta = pyro.sample("theta", dist.Normal(mu, tau))
            pyro.sample("y", dist.Normal(theta, sigma), obs=y)

    def guide(y, sigma):
        tau = pyro.sample("tau", dist.HalfCauchy(4.0))
        mu = pyro.sample("mu", _mean_given(tau, y, sigma))
        precision = tau**-2 + sigma**-2
        with pyro.plate("schools", len(y)):
            pyro.sample("theta", dist.Normal((mu / tau**2 + y / sigma**2) / precision, precision.rsqrt()))

    return _eight_schools(model, guide)


def eight_schools_non_centred() -> Program:
    """theta = mu + tau eta, with eta the latent: another program of the same evidence."""

    def model(y, sigma):
        mu, tau = pyro.sample("mu", dist.Normal(0.0, 5.0)), pyro.sample("tau", dist.HalfCauchy(5.0))
        with pyro.plate("schools", len(y)):
            eta = pyro.sample("eta", dist.Normal(0.0, 1.0))
            theta = pyro.deterministic("theta", mu + tau * eta)
            pyro.sample("y", dist.Normal(theta, sigma), obs=y)

    def guide(y, sigma):
        tau = pyro.sample("tau", dist.HalfCauchy(4.0))
        mu = pyro.sample("mu", _mean_given(tau, y, sigma))
        precision = 1 + (tau / sigma) ** 2
        with pyro.plate("schools", len(y)):
            pyro.sample("eta", dist.Normal(tau * (y - mu) / sigma**2 / precision, precision.rsqrt()))

    return _eight_schools(model, guide)


PROGRAMS = (
    eight_schools_centred,
    eight_schools_non_centred,
)
