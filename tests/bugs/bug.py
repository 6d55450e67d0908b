"""What the planted bugs share: their record, data, and parts of programs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

Programs = tuple[Callable[..., Any], Callable[..., Any], Any]


@dataclass(frozen=True)
class Bug:
    """A bug, and what `check` must say of it.

    Attributes:
        make: the model, the guide and the data, with the bug or mended: ``make(mended)``.
        code: of the finding.
        site: that it names.
    """

    make: Callable[[bool], Programs]
    code: str
    site: str = ""


def data(num_data: int = 12, num_features: int = 3) -> Tensor:
    """Real numbers, ``(num_data, num_features)``."""
    return torch.randn(num_data, num_features, generator=torch.Generator().manual_seed(0))


def counts() -> Tensor:
    """Zeros and ones, ``(12, 3)``."""
    return (data() > 0).to(torch.get_default_dtype())


def standard(size: int = 2) -> Any:
    """N(0, I)."""
    return dist.Normal(torch.zeros(size), 1.0).to_event(1)


def likelihood(z: Tensor, num_features: int = 3) -> Any:
    """x ~ N((Σz, …, Σz), I)."""
    return dist.Normal(z.sum(-1, keepdim=True).expand(*z.shape[:-1], num_features), 1.0).to_event(1)


def model(x: Tensor) -> None:
    """z ~ N(0, I₂), and its likelihood."""
    with pyro.plate("data", len(x)):
        pyro.sample("x", likelihood(pyro.sample("z", standard())), obs=x)


def linear(inputs: int = 3, outputs: int = 2) -> nn.Linear:
    """A layer whose weights are always the same."""
    layer = nn.Linear(inputs, outputs)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return layer


def encoder_guide() -> Callable[..., Any]:
    """q(z|x) = N(affine(x), I₂), its layer registered."""
    layer = linear()

    def guide(x: Tensor) -> None:
        pyro.module("encoder", layer)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(layer(x), 1.0).to_event(1))

    return guide
