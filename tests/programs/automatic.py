"""Pyro's automatic guides, trained for a few hundred steps and measured as they stand."""

import functools
import math
from dataclasses import replace
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.distributions as td
from pyro import poutine
from pyro.contrib.easyguide import easy_guide
from pyro.distributions.transforms import affine_autoregressive, iterated
from pyro.infer import autoguide
from torch import Tensor

from .program import REFUSED, Program
from .quadrature import hermite_line, hermite_plane, line

NOISE, SPREAD = 0.5, 1.5


# Where the guides of these start: roughly the posterior's mean, so that a short training suffices.
START = {"intercept": 0.5, "slope": [-1.2], "rate": 3.5}


def _start(site):
    """`init_loc_fn`: the value of START, else the prior's median."""
    value = START.get(site["name"])
    return autoguide.init_to_median(site) if value is None else torch.tensor(value)


def _covariates() -> Tensor:
    return torch.tensor([-1.2, -0.8, -0.3, 0.1, 0.4, 0.9, 1.3, 1.6])


def _response() -> Tensor:
    return torch.tensor([1.9, 1.1, 0.8, 0.2, -0.1, -0.3, -1.4, -1.2])


def _regression(t, y):
    """Two sites, of which one is a vector of one number."""
    a = pyro.sample("intercept", dist.Normal(0.0, SPREAD))
    b = pyro.sample("slope", dist.Normal(torch.zeros(1), SPREAD).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(a + b * t, NOISE), obs=y)


def _regression_by(guide, **known) -> Program:
    t, y = _covariates(), _response()
    design = torch.stack([torch.ones(8), t], -1)
    truth = td.MultivariateNormal(torch.zeros(8), SPREAD**2 * design @ design.T + NOISE**2 * torch.eye(8)).log_prob(y)
    covariance = torch.linalg.inv(torch.eye(2) / SPREAD**2 + design.T @ design / NOISE**2)

    def joint(z):
        prior = td.Normal(0.0, SPREAD).log_prob(z).sum(-1)
        return prior + td.Normal(z @ design.T, NOISE).log_prob(y).sum(-1)

    def again():
        loc = covariance @ design.T @ y / NOISE**2
        return hermite_plane(joint, loc.unsqueeze(0), 1.5 * covariance)

    settings = {"train": 150, "learning_rate": 0.02, "num_particles": 5000, "tolerance": 0.05} | known
    return Program(_regression, guide, (t, y), truth.reshape(1), again, unit="data set", **settings)


def auto_diagonal_normal() -> Program:
    """Independent normals over the flattened latents."""
    return _regression_by(autoguide.AutoDiagonalNormal(_regression, init_loc_fn=_start, init_scale=0.2))


def auto_low_rank() -> Program:
    """A covariance of rank one and a diagonal."""
    return _regression_by(
        autoguide.AutoLowRankMultivariateNormal(_regression, init_loc_fn=_start, init_scale=0.2, rank=1)
    )


def auto_structured() -> Program:
    """A normal for each site and a linear dependency between them."""
    guide = autoguide.AutoStructured(
        _regression,
        conditionals={"intercept": "normal", "slope": "normal"},
        dependencies={"slope": {"intercept": "linear"}},
        init_loc_fn=_start,
        init_scale=0.2,
    )
    return _regression_by(guide)


def auto_gaussian() -> Program:
    """A Gaussian whose precision has the model's sparsity."""
    auto_gaussian: Any = autoguide.AutoGaussian  # its __new__ picks the class of the backend
    return _regression_by(auto_gaussian(_regression, init_loc_fn=_start, init_scale=0.2))


def auto_iaf_normal() -> Program:
    """One inverse autoregressive flow, whose parameters Pyro knows under two names."""
    guide = autoguide.AutoIAFNormal(_regression, hidden_dim=[4], num_transforms=1)
    return _regression_by(guide, train=500)


def auto_normalizing_flow() -> Program:
    """Two affine autoregressive layers."""
    flow = functools.partial(iterated, 2, affine_autoregressive, hidden_dims=[4])
    return replace(_regression_by(autoguide.AutoNormalizingFlow(_regression, flow), train=500), num_particles=20_000)


def auto_guide_list() -> Program:
    """A list of two guides over two blocks of sites."""
    guide = autoguide.AutoGuideList(_regression)
    guide.append(autoguide.AutoNormal(poutine.block(_regression, hide=["slope"]), init_loc_fn=_start, init_scale=0.2))
    guide.append(
        autoguide.AutoMultivariateNormal(
            poutine.block(_regression, expose=["slope"]), init_loc_fn=_start, init_scale=0.2
        )
    )
    return _regression_by(guide)


def auto_guide_list_with_a_point_estimate() -> Program:
    """One block is a point estimate: no density, so no evidence."""
    guide = autoguide.AutoGuideList(_regression)
    guide.append(autoguide.AutoNormal(poutine.block(_regression, hide=["slope"]), init_loc_fn=_start, init_scale=0.2))
    guide.append(autoguide.AutoDelta(poutine.block(_regression, expose=["slope"])))
    case = _regression_by(guide)
    return Program(case.model, guide, case.x, REFUSED, unit="data set", train=5)


def easy_guide_over_a_group() -> Program:
    """`easy_guide`: both sites as one group under one multivariate normal."""

    @easy_guide(_regression)
    def guide(self, t, y):
        group = self.group(match="intercept|slope")
        loc = pyro.param("guide_loc", torch.tensor([0.5, -1.2]))
        tril = pyro.param("guide_tril", 0.2 * torch.eye(2), constraint=dist.constraints.lower_cholesky)
        group.sample("latents", dist.MultivariateNormal(loc, scale_tril=tril))

    return _regression_by(guide)


def _counts() -> Tensor:
    return torch.tensor([3.0, 5.0, 2.0, 4.0, 6.0, 3.0, 3.0])


def _count_model(x):
    rate = pyro.sample("rate", dist.Gamma(3.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Poisson(rate), obs=x)


def _counts_by(guide, **known) -> Program:
    """rate ~ Gamma(3, 1), x ~ Poisson(rate): a latent on the positive line, in closed form."""
    x = _counts()
    shape, rate = 3.0 + float(x.sum()), 1.0 + len(x)
    truth = math.lgamma(shape) - math.lgamma(3.0) - shape * math.log(rate) - torch.lgamma(x + 1).sum().reshape(1)

    def joint(u):
        return td.Gamma(3.0, 1.0).log_prob(u.exp()) + u + td.Poisson(u.exp()).log_prob(x).sum(-1, keepdim=True)

    settings = {"train": 150, "learning_rate": 0.02, "num_particles": 4000, "tolerance": 0.05} | known
    return Program(_count_model, guide, x, truth, lambda: line(joint, -3, 4), unit="data set", **settings)


def auto_normal_on_the_positive_line() -> Program:
    """Mean field through the map to the positive line, and its Jacobian."""
    return _counts_by(autoguide.AutoNormal(_count_model, init_loc_fn=_start, init_scale=0.3))


def auto_multivariate_on_the_positive_line() -> Program:
    """The flattened latents' Delta with the log density of the map."""
    return _counts_by(autoguide.AutoMultivariateNormal(_count_model, init_loc_fn=_start, init_scale=0.3))


def auto_laplace_on_the_positive_line() -> Program:
    """The mode is trained; the Gaussian about it is the guide."""
    return _counts_by(autoguide.AutoLaplaceApproximation(_count_model, init_loc_fn=_start))


def auto_structured_on_the_positive_line() -> Program:
    """`AutoStructured` with one site."""
    guide = autoguide.AutoStructured(
        _count_model, conditionals="normal", dependencies={}, init_loc_fn=_start, init_scale=0.3
    )
    return _counts_by(guide)


def auto_delta_on_the_positive_line() -> Program:
    """A point estimate: refused."""
    case = _counts_by(autoguide.AutoDelta(_count_model))
    return Program(case.model, case.guide, case.x, REFUSED, unit="data set", train=5)


def _local_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 0.6), obs=x)


def _local_by(guide, **known) -> Program:
    x = torch.tensor([0.9, -0.4, 1.6])

    def joint(z):
        return td.Normal(0.0, 1.0).log_prob(z) + td.Normal(z, 0.6).log_prob(x)

    truth = td.Normal(0.0, math.sqrt(1.36)).log_prob(x)

    def again():
        return hermite_line(joint, 0.7 * x, 0.7)

    settings = {"train": 150, "learning_rate": 0.02, "num_particles": 4000, "tolerance": 0.05}
    if known.get("unit") == "data set":
        return Program(
            _local_model, guide, x, truth.sum().reshape(1), lambda: again().sum().reshape(1), **settings | known
        )
    return Program(_local_model, guide, x, truth, again, **settings | known)


def auto_normal_with_local_latents() -> Program:
    """One latent a datum: the unit is the datum, the guide has a row of parameters for each."""
    return _local_by(autoguide.AutoNormal(_local_model, init_scale=0.4))


def auto_multivariate_with_local_latents() -> Program:
    """One joint normal over the latents of all data: they are one draw, so that the unit is the data set."""
    guide = autoguide.AutoMultivariateNormal(_local_model, init_scale=0.4)
    return _local_by(guide, unit="data set", may_refuse=True, num_particles=8000)


PROGRAMS = (
    auto_diagonal_normal,
    auto_low_rank,
    auto_structured,
    auto_gaussian,
    auto_iaf_normal,
    auto_normalizing_flow,
    auto_guide_list,
    auto_guide_list_with_a_point_estimate,
    easy_guide_over_a_group,
    auto_normal_on_the_positive_line,
    auto_multivariate_on_the_positive_line,
    auto_laplace_on_the_positive_line,
    auto_structured_on_the_positive_line,
    auto_delta_on_the_positive_line,
    auto_normal_with_local_latents,
    auto_multivariate_with_local_latents,
)
