"""A decoder of two latents with a guide that is linear in x, and log p(x) on a plane.

z ~ N(0, I₂), x ~ likelihood(network(z)). The guide is N(A (x − x̄), 1.2 S), the best linear predictor of z from x under
the model: A = C_zx C_xx⁻¹ and S = I − A C_xz, from draws of the model. A mild decoder has nearly such a posterior.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.distributions as td
from torch import Tensor, nn

from .program import Program
from .quadrature import hermite_plane, plane


@dataclass(frozen=True)
class Decoder:
    """A network, the likelihood of its output in Pyro, and the same in torch alone with its mean and variance."""

    network: Any
    likelihood: Callable[[Tensor], Any]
    log_likelihood: Callable[[Tensor, Tensor], Tensor]
    mean: Callable[[Tensor], Tensor]
    variance: Callable[[Tensor], Tensor]


def normal(network: Any, noise: float = 1.0) -> Decoder:
    """x ~ N(network(z), noise²)."""
    return Decoder(
        network,
        lambda loc: dist.Normal(loc, noise),
        lambda loc, x: td.Normal(loc, noise).log_prob(x).sum(-1),
        lambda loc: loc,
        lambda mean: torch.full_like(mean, noise**2),
    )


class LinearGuide(nn.Module):
    """Best linear prediction of z from x: ``forward(x)`` gives its mean; ``tril`` and ``covariance`` its spread."""

    def __init__(self, decoder: Decoder, in_evaluation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        z = torch.randn(20_000, 2)
        with torch.no_grad():
            mean = decoder.mean(in_evaluation(z))
        self.centre = mean.mean(0)
        cross = z.T @ (mean - self.centre) / len(z)
        spread = (mean - self.centre).T @ (mean - self.centre) / len(z) + decoder.variance(mean).mean(0).diag()
        self.gain = torch.linalg.solve(spread, cross.T).T
        self.covariance = torch.eye(2) - self.gain @ cross.T
        self.tril = torch.linalg.cholesky(1.2 * self.covariance)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.centre) @ self.gain.T


def prior(x: Tensor) -> Any:
    """N(0, I₂) for each row of x."""
    return dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1)


def decoder_case(
    decoder: Decoder,
    x: Tensor,
    model: Callable[..., Any] | None = None,
    guide: Callable[[LinearGuide], Callable[..., Any]] | None = None,
    in_evaluation: Callable[[Tensor], Tensor] | None = None,
    context: tuple[Any, ...] = (),
    **known: Any,
) -> Program:
    """The case of a decoder; `model` and `guide` replace the plain programs, `in_evaluation` the network's output.

    ``in_evaluation`` maps rows (n, 2) to outputs (n, num_features), or (n, num_data, num_features) where they differ
    by datum; it must be what the network computes in evaluation mode.
    """
    output = in_evaluation or _in_evaluation(decoder.network)
    linear = LinearGuide(decoder, lambda z: _first(output(z)))

    def plain_model(x, *context):
        pyro.module("decoder", decoder.network)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior(x))
            pyro.sample("x", decoder.likelihood(decoder.network(z)).to_event(1), obs=x)

    def plain_guide(x, *context):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(linear(x), scale_tril=linear.tril))

    def joint(z):
        with torch.no_grad():
            values = output(z.reshape(-1, 2))
        if z.shape[1] == 1:  # the same z for all data
            values = values if values.dim() == 3 else values.unsqueeze(1)
        else:
            values = values.reshape(*z.shape[:2], *values.shape[1:])
            values = values if values.dim() == 3 else values.diagonal(dim1=1, dim2=2).movedim(-1, 1)
        return td.Normal(0.0, 1.0).log_prob(z).sum(-1) + decoder.log_likelihood(values, x)

    return Program(
        model or plain_model,
        guide(linear) if guide else plain_guide,
        (x, *context) if context else x,
        plane(joint, (-6.5, -6.5), (6.5, 6.5)),
        lambda: hermite_plane(joint, linear(x), 1.5 * linear.covariance, n=40),
        **{"num_particles": 5000, "tolerance": 0.05, "again_tolerance": 1e-4} | known,
    )


def _in_evaluation(network: nn.Module) -> Callable[[Tensor], Tensor]:
    def output(z: Tensor) -> Tensor:
        modes = [(module, module.training) for module in network.modules()]
        network.eval()
        try:
            return network(z)
        finally:
            for module, mode in modes:
                module.training = mode

    return output


def _first(values: Tensor) -> Tensor:
    """The outputs averaged over data, where they differ by datum: good enough for a proposal."""
    return values.mean(1) if values.dim() == 3 else values
