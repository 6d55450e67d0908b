"""The forms a pair can take: parameters in the store, methods of a module, PyroModules, and the project's own."""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
import truths_inference as truths
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn
from torch.distributions import constraints

from .pair import Pair

SIGMA = 0.8


def _weight() -> Tensor:
    return torch.tensor([[0.9, 0.1], [-0.4, 0.7], [0.3, 0.5]])


def _x() -> Tensor:
    return torch.tensor([[0.5, -1.0, 0.2], [1.5, 0.3, 0.9], [-0.7, 0.8, -1.1], [0.0, 0.0, 0.0]])


def _numbers(weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    return weight, bias, SIGMA**2 * torch.eye(3), torch.zeros(2), torch.eye(2)


def _gap(x: Tensor, loc: Tensor, std: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    true_loc, true_cov = truths.gaussian_posterior(x, *_numbers(weight, bias))
    return truths.gaussian_kl(loc, torch.diag(std**2), true_loc, true_cov)


def stored() -> Pair:
    """Plain functions with `pyro.param`, one of them constrained to be positive."""

    def decoder() -> tuple[Tensor, Tensor]:
        return pyro.param("weight", _weight), pyro.param("bias", torch.tensor([0.1, 0.0, -0.2]))

    def encoder() -> tuple[Tensor, Tensor]:
        std = pyro.param("std", torch.tensor([0.75, 0.85]), constraint=constraints.positive)
        return pyro.param("encoder", lambda: 0.5 * _weight().T), std

    def model(x: Tensor) -> None:
        weight, bias = decoder()
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight.T + bias, SIGMA).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        matrix, std = encoder()
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ matrix.T, std).to_event(1))

    def log_evidence(x: Tensor) -> Tensor:
        return truths.gaussian_evidence(x, *_numbers(*decoder()))

    def gap(x: Tensor) -> Tensor:
        matrix, std = encoder()
        return _gap(x, x @ matrix.T, std, *decoder())

    return Pair(model, guide, _x(), log_evidence=log_evidence, gap=gap, stored=True)


class _Methods(nn.Module):
    """Model and guide are bound methods; `pyro.module` registers the parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder, self.encoder = nn.Linear(2, 3), nn.Linear(3, 2)
        self.log_std = nn.Parameter(torch.tensor([-0.3, -0.2]))
        with torch.no_grad():
            self.decoder.weight.copy_(_weight())
            self.decoder.bias.fill_(0.1)
            self.encoder.weight.copy_(0.5 * _weight().T)
            self.encoder.bias.fill_(-0.05)

    def model(self, x: Tensor) -> None:
        pyro.module("methods", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), SIGMA).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("methods", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), self.log_std.exp()).to_event(1))


def methods() -> Pair:
    """Bound methods of an `nn.Module`."""
    net = _Methods()

    def log_evidence(x: Tensor) -> Tensor:
        return truths.gaussian_evidence(x, *_numbers(net.decoder.weight, net.decoder.bias))

    def gap(x: Tensor) -> Tensor:
        return _gap(x, net.encoder(x), net.log_std.exp(), net.decoder.weight, net.decoder.bias)

    return Pair(net.model, net.guide, _x(), log_evidence=log_evidence, gap=gap, modules=(net,))


class _Model(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.decoder: Any = PyroModule[nn.Linear](2, 3)  # type: ignore[call-arg, arg-type]
        with torch.no_grad():
            self.decoder.weight.copy_(_weight())
            self.decoder.bias.fill_(-0.1)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), SIGMA).to_event(1), obs=x)


class _Guide(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.encoder: Any = PyroModule[nn.Linear](3, 2)  # type: ignore[call-arg, arg-type]
        self.std: Any = PyroParam(torch.tensor([0.8, 0.85]), constraint=constraints.positive)
        with torch.no_grad():
            self.encoder.weight.copy_(0.5 * _weight().T)
            self.encoder.bias.fill_(0.0)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), self.std).to_event(1))


def pyro_modules() -> Pair:
    """Two PyroModules, one with a constrained PyroParam."""
    model, guide = _Model(), _Guide()

    def log_evidence(x: Tensor) -> Tensor:
        return truths.gaussian_evidence(x, *_numbers(model.decoder.weight, model.decoder.bias))

    def gap(x: Tensor) -> Tensor:
        return _gap(x, guide.encoder(x), guide.std, model.decoder.weight, model.decoder.bias)

    return Pair(model, guide, _x(), log_evidence=log_evidence, gap=gap, modules=(model, guide))
