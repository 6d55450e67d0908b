"""The project's own pairs, small enough for their evidence to be known."""

import math
from collections.abc import Callable
from typing import Any

import torch
import truths_inference as truths
from torch import Tensor, nn

from ppvae.models import VAE, Autoencoder, Bernoulli, Binomial, Categorical, FeedForward, Likelihood, LinearGaussian

from .pair import Pair


def _seeded(build: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Random initial weights that are the same each time, without a trace on the global generator."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return build(*args, **options)


def linear_gaussian(diagonal: bool = False) -> Pair:
    """The project's linear-Gaussian pair: at its exact guide, or with the best diagonal covariance (factor analysis).

    The truth is computed here from the parameters and not from the pair's own `log_evidence`.
    """
    net: Any = _seeded(LinearGaussian, 4, 2, diagonal_noise=diagonal, full_covariance=not diagonal)
    with torch.no_grad():
        net.bias.copy_(torch.tensor([0.2, -0.1, 0.0, 0.4]))
        net.log_noise_scale.copy_(torch.tensor([-0.2, -0.5, 0.1, -0.3]) if diagonal else torch.tensor([-0.4]))
    net.set_best_guide()

    def log_evidence(x: Tensor) -> Tensor:
        noise = torch.diag((2 * net.log_noise_scale).exp().expand(4))
        return truths.gaussian_evidence(x, net.weight, net.bias, noise, torch.zeros(2), torch.eye(2))

    x = torch.tensor([[0.1, -1.2, 0.7, 0.3], [1.4, 0.2, -0.6, 0.0], [-0.9, 0.5, 0.5, -2.0]])
    return Pair(net.model, net.guide, x, log_evidence=log_evidence, exact=not diagonal, modules=(net,))


def _vae(likelihood: Likelihood, x: Tensor) -> Pair:
    net: Any = _seeded(VAE.for_data, x, likelihood, latent_dim=2, hidden=(6,), nonlinearity=nn.Tanh)
    with torch.no_grad():
        net.decoder.output_bias.add_(0.1)
        # σ(x) ≈ 1.1: wider than the posterior of so weak a decoder, so that the weights behave.
        net.encoder.output_bias[2:] = math.log(math.expm1(1.1))

    def log_evidence(x: Tensor) -> Tensor:
        return truths.grid_evidence(net.model, x, "z", half_width=9.0, points=150)

    return Pair(net.model, net.guide, x, log_evidence=log_evidence, modules=(net,))


def vae_bernoulli() -> Pair:
    """A VAE of binary data; its evidence is an integral over two dimensions."""
    return _vae(Bernoulli(), torch.tensor([[0.0, 1, 1, 0, 1], [1, 1, 0, 0, 1], [0, 0, 0, 1, 0]]))


def vae_binomial() -> Pair:
    """A VAE of counts up to 16, as the project's digits are."""
    return _vae(Binomial(16), torch.tensor([[0.0, 3, 8], [5, 9, 8], [2, 7, 12]]))


def feed_forward() -> Pair:
    """A classifier: nothing is hidden, so that the evidence is log p(y | x) itself."""
    x = torch.tensor([[0.1, -1.2], [1.4, 0.2], [-0.9, 0.5], [0.3, 2.0]])
    y = torch.tensor([[0.0], [2.0], [1.0], [2.0]])
    net: Any = _seeded(FeedForward.for_data, y, x, Categorical(3), hidden=(4,))

    def log_evidence(y: Tensor, x: Tensor) -> Tensor:
        W1, b1, W2, b2 = net.parameters()
        logits = torch.tanh((x - net.input_shift) / net.input_scale @ W1.T + b1) @ W2.T + b2
        return logits.log_softmax(-1).gather(-1, y.long())[:, 0]

    return Pair(
        net.model,
        net.guide,
        y,
        context=(x,),
        log_evidence=log_evidence,
        exact=True,
        latents=frozenset(),
        modules=(net,),
    )


def autoencoder() -> Pair:
    """An autoencoder has no evidence; log p(x | g(f(x))) stands in its place, the same for every particle."""
    x = torch.tensor([[0.0, 1, 1, 0, 1], [1, 1, 0, 0, 1], [0, 0, 0, 1, 0]])
    net: Any = _seeded(Autoencoder.for_data, x, 2, Bernoulli(), hidden=(4,))

    def log_copy(x: Tensor) -> Tensor:
        E1, e1, E2, e2 = net.encoder.parameters()
        G1, g1, G2, g2 = net.decoder.parameters()
        z = torch.tanh((x - net.input_shift) / net.input_scale @ E1.T + e1) @ E2.T + e2
        p = torch.sigmoid(torch.tanh(z @ G1.T + g1) @ G2.T + g2)
        return (x * p.log() + (1 - x) * (1 - p).log()).sum(-1)

    return Pair(net.model, net.guide, x, log_evidence=log_copy, exact=True, modules=(net,))
