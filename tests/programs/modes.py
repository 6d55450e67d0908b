"""Networks with dropout or batch statistics, held in every way but as an attribute of a module with the programs."""

import functools
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .network import LinearGuide, decoder_case, normal, prior
from .program import REFUSED, Program


def _data() -> Tensor:
    return torch.tensor([[0.4, -0.3, 0.8, 0.1], [-0.9, 0.5, 0.2, 1.2], [0.0, 0.3, -0.6, 0.2]])


def _dropout(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Dropout(0.4), nn.Linear(16, 4))


def dropout_by_pyro_module() -> Program:
    """A plain function, the network registered with `pyro.module`."""
    return decoder_case(normal(_dropout(21)), _data())


def dropout_in_a_closure() -> Program:
    """A network that no one registers: the function holds it in its closure and it is not trained."""
    network = _dropout(22)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior(x))
            pyro.sample("x", dist.Normal(network(z), 1.0).to_event(1), obs=x)

    return decoder_case(normal(network), _data(), model)


def dropout_behind_a_partial() -> Program:
    """The network is bound to the model with `functools.partial`."""
    network = _dropout(23)

    def model(x, decode: Any = None, noise: float = 1.0):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior(x))
            pyro.sample("x", dist.Normal(decode(z), noise).to_event(1), obs=x)

    return decoder_case(normal(network), _data(), functools.partial(model, decode=network))


def dropout_in_a_nested_function() -> Program:
    """The network sits in a dictionary that a helper of the model's helper reads."""
    networks = {"decoder": _dropout(24)}

    def decode(z):
        def hidden(z):
            return networks["decoder"](z)

        return hidden(z)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior(x))
            pyro.sample("x", dist.Normal(decode(z), 1.0).to_event(1), obs=x)

    return decoder_case(normal(networks["decoder"]), _data(), model)


class _Methods(nn.Module):
    """A network whose `decode` is called, never `forward`: it reads `self.training` by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.out = nn.Parameter(0.6 * torch.randn(2, 16)), nn.Parameter(0.3 * torch.randn(16, 4))

    def decode(self, z: Tensor) -> Tensor:
        return F.dropout(torch.tanh(z @ self.weight), 0.4, self.training) @ self.out


def dropout_by_another_method() -> Program:
    """`F.dropout(..., self.training)` in a method other than `forward`, so that no forward hook fires."""
    torch.manual_seed(25)
    network = _Methods()

    def model(x):
        pyro.module("network", network)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior(x))
            pyro.sample("x", dist.Normal(network.decode(z), 1.0).to_event(1), obs=x)

    return decoder_case(normal(network), _data(), model, in_evaluation=lambda z: _decode_in_evaluation(network, z))


def _decode_in_evaluation(network: _Methods, z: Tensor) -> Tensor:
    return torch.tanh(z @ network.weight) @ network.out


def _batch_norm(seed: int) -> nn.Sequential:
    """BatchNorm1d whose running statistics are far from those of any batch here."""
    torch.manual_seed(seed)
    norm = nn.BatchNorm1d(8)
    norm.running_mean = torch.linspace(-0.5, 0.5, 8)
    norm.running_var = torch.linspace(0.2, 1.5, 8)
    return nn.Sequential(nn.Linear(2, 8), norm, nn.Tanh(), nn.Linear(8, 4))


def batch_norm_by_pyro_module() -> Program:
    """Running statistics in evaluation mode; they must not move either."""
    return decoder_case(normal(_batch_norm(26)), _data())


def batch_norm_in_a_closure() -> Program:
    """The same, unregistered and frozen."""
    network = _batch_norm(27).requires_grad_(False)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior(x))
            pyro.sample("x", dist.Normal(network(z), 1.0).to_event(1), obs=x)

    return decoder_case(normal(network), _data(), model)


def dropout_in_the_guide() -> Program:
    """An encoder with dropout on its input, through `pyro.module` in the guide alone."""
    torch.manual_seed(28)
    network = nn.Linear(2, 4)

    def guide(linear: LinearGuide):
        affine = nn.Linear(4, 2)
        with torch.no_grad():
            affine.weight.copy_(linear.gain)
            affine.bias.copy_(-linear.gain @ linear.centre)
        encoder = nn.Sequential(nn.Dropout(0.9), affine)

        def program(x):
            pyro.module("encoder", encoder)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.MultivariateNormal(encoder(x), scale_tril=linear.tril))

        return program

    return decoder_case(normal(network, 0.5), _data(), guide=guide, num_particles=2000, tolerance=0.03)


def noise_that_grows_every_forty_runs() -> Program:
    """A counter in the model: forty runs agree, and the next forty are another model."""
    runs = [0]

    def model(x):
        runs[0] += 1
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1 + 0.2 * (runs[0] // 40)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.7))

    return Program(model, guide, torch.tensor([0.4, -1.1, 0.9]), REFUSED)


PROGRAMS = (
    noise_that_grows_every_forty_runs,
    dropout_by_pyro_module,
    dropout_in_a_closure,
    dropout_behind_a_partial,
    dropout_in_a_nested_function,
    dropout_by_another_method,
    batch_norm_by_pyro_module,
    batch_norm_in_a_closure,
    dropout_in_the_guide,
)
