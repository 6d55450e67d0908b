"""Pairs whose trained values matter: they are measured after `fit` behind lambdas, partials and bound methods.

The guides of the store start far from the posterior: run untrained, they miss log p(x) by nats. Where the model has
parameters, no draw disturbs their gradient, and they reach the maximum of the likelihood.
"""

import functools
import math
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.distributions as td
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn
from torch.distributions import constraints

from .program import Program
from .quadrature import hermite_line


def _x() -> Tensor:
    return torch.tensor([2.1, 3.4, 2.9, 4.4, 3.7])


def _model(x):
    """z ~ N(0, 1), x ~ N(3 + z, 0.5²)."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(3.0 + z, 0.5), obs=x)


def _guide(x):
    """N(gain (x − centre), scale²), all three trained, the last two under constraints."""
    gain = pyro.param("gain", torch.tensor(0.5), constraint=constraints.unit_interval)
    scale = pyro.param("scale", torch.tensor(0.1), constraint=constraints.positive)
    centre = pyro.param("centre", torch.tensor(1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(gain * (x - centre), scale))


def _trained(model, guide, measured=None, **known) -> Program:
    x = _x()

    def joint(z):
        return td.Normal(0.0, 1.0).log_prob(z) + td.Normal(3.0 + z, 0.5).log_prob(x)

    return Program(
        model,
        guide,
        x,
        td.Normal(3.0, math.sqrt(1.25)).log_prob(x),
        lambda: hermite_line(joint, 0.8 * (x - 3), 0.7),
        measured=measured,
        **{"train": 300, "learning_rate": 0.05, "num_particles": 4000, "tolerance": 0.05} | known,
    )


def constrained_parameters() -> Program:
    """Parameters of the store, two of them under constraints, measured as they were trained."""
    return _trained(_model, _guide)


def lambdas_after_training() -> Program:
    """New lambdas around the trained programs run the trained values."""
    return _trained(_model, _guide, lambda model, guide: (lambda x: model(x), lambda x: guide(x)))


def partials_after_training() -> Program:
    """The same behind `functools.partial`."""
    return _trained(_model, _guide, lambda model, guide: (functools.partial(model), functools.partial(guide)))


class _Wrapped:
    """Programs of one's own that call the trained ones: bound methods of a plain class."""

    def __init__(self, model: Any, guide: Any) -> None:
        self.inner = {"model": model, "guide": guide}

    def generate(self, x: Tensor) -> Any:
        return self.inner["model"](x)

    def propose(self, x: Tensor) -> Any:
        return self.inner["guide"](x)


def bound_methods_after_training() -> Program:
    """The same behind bound methods of a plain class."""

    def methods(model, guide):
        wrapped = _Wrapped(model, guide)
        return wrapped.generate, wrapped.propose

    return _trained(_model, _guide, methods)


class _Model(PyroModule):
    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(3.0 + z, 0.5), obs=x)


class _Guide(PyroModule):
    line: Any
    scale: Any

    def __init__(self) -> None:
        super().__init__()
        linear: Any = PyroModule[nn.Linear]
        self.line = linear(1, 1)
        self.scale = PyroParam(torch.tensor(0.8), constraint=constraints.positive)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.line((x - 3).unsqueeze(-1)).squeeze(-1), self.scale))


def pyro_modules_behind_lambdas() -> Program:
    """Two PyroModules, measured behind lambdas."""
    torch.manual_seed(71)
    return _trained(_Model(), _Guide(), lambda model, guide: (lambda x: model(x), lambda x: guide(x)))


def network_behind_a_partial() -> Program:
    """An encoder of `pyro.module`, the model a partial before training and a lambda after it."""
    torch.manual_seed(72)
    encoder = nn.Linear(1, 2)

    def model(x, noise=1.0):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(3.0 + z, noise), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        loc, log_scale = encoder((x - 3).unsqueeze(-1)).unbind(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()))

    half = functools.partial(model, noise=0.5)
    return _trained(half, guide, lambda model, guide: (lambda x: model(x), guide))


def simplex_parameter() -> Program:
    """A mixture's shares under the simplex constraint, the label enumerated: the maximum solves one equation."""
    x = torch.tensor([-1.0, 1.0, 1.0, 1.0, -1.0])

    def model(x):
        share = pyro.param("share", torch.tensor([0.5, 0.5]), constraint=constraints.simplex)
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(share), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(2.0 * c - 1, 0.5), obs=x)

    def guide(x):
        pass

    low, high = td.Normal(-1.0, 0.5).log_prob(x).exp(), td.Normal(1.0, 0.5).log_prob(x).exp()

    def log_p(share):
        return ((1 - share) * low + share * high).log()

    def steps():
        """EM: the share is the mean of its posterior."""
        share = torch.tensor(0.5)
        for _ in range(500):
            share = (share * high / ((1 - share) * low + share * high)).mean()
        return log_p(share)

    grid = torch.linspace(0.001, 0.999, 99_801).unsqueeze(-1)
    best = grid[log_p(grid).sum(-1).argmax()]
    return Program(
        model,
        guide,
        x,
        log_p(best),
        steps,
        again_tolerance=1e-4,
        num_particles=10,
        tolerance=0.01,
        train=200,
    )


def means_of_a_mixture() -> Program:
    """A real and a positive parameter of the model, found at the maximum of the likelihood; then behind lambdas."""
    x = torch.tensor([-1.3, 2.2, 1.4, 1.9, -0.8])

    def model(x):
        low = pyro.param("low", torch.tensor(-0.3))
        high = pyro.param("high", torch.tensor(0.4), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(torch.where(c == 1, high, low), 0.6), obs=x)

    def guide(x):
        pass

    def log_p(low, high):
        return torch.logaddexp(td.Normal(low, 0.6).log_prob(x), td.Normal(high, 0.6).log_prob(x)) - math.log(2)

    def expectation_maximisation():
        low, high = torch.tensor(-0.3), torch.tensor(0.4)
        for _ in range(500):
            odds = torch.sigmoid(td.Normal(high, 0.6).log_prob(x) - td.Normal(low, 0.6).log_prob(x))
            low, high = ((1 - odds) * x).sum() / (1 - odds).sum(), (odds * x).sum() / odds.sum()
        return log_p(low, high)

    low, high = torch.linspace(-1.6, -0.6, 1001).reshape(-1, 1, 1), torch.linspace(1.3, 2.3, 1001).reshape(-1, 1)
    best = int(log_p(low, high).sum(-1).argmax())
    return Program(
        model,
        guide,
        x,
        log_p(low[best // 1001, 0], high[best % 1001]),
        expectation_maximisation,
        again_tolerance=0.005,
        num_particles=10,
        tolerance=0.01,
        train=200,
        measured=lambda model, guide: (lambda x: model(x), lambda x: guide(x)),
    )


PROGRAMS = (
    constrained_parameters,
    lambdas_after_training,
    partials_after_training,
    bound_methods_after_training,
    pyro_modules_behind_lambdas,
    network_behind_a_partial,
    simplex_parameter,
    means_of_a_mixture,
)
