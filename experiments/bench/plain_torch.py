"""What a VAE needs, written by hand in torch: log weights, densities, steps of Adam, annealed chains.

These are the least that an expert would write for this one model, against which ppvae's functions for any pair are
timed. Constants of Gaussians are left out where they cancel.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from ppvae.models import VAE

from .side_by_side import OwnSeconds


def torch_log_w(pair: VAE, x: Tensor, num_particles: int) -> Tensor:
    """log w by hand, up to the constants of the Gaussians, which cancel."""
    loc, scale = pair.encode(x)
    noise = torch.randn(num_particles, *loc.shape)
    z = loc + scale * noise
    logits = pair.decoder(z)
    log_likelihood = (x * logits - torch.nn.functional.softplus(logits)).sum(-1)
    return log_likelihood + (0.5 * noise.square() - 0.5 * z.square() + scale.log()).sum(-1)


def torch_weights(pair: VAE, x: Tensor, num_particles: int) -> None:
    """log p̂(x) of each datum, one after the other."""
    with torch.no_grad():
        for datum in x.split(1):
            torch_log_w(pair, datum, num_particles).logsumexp(0)


def torch_loss(pair: VAE, x: Tensor) -> Tensor:
    """The negative ELBO of one draw, mean over the data."""
    return -torch_log_w(pair, x, 1).mean()


def torch_steps(loss: Callable[[Tensor], Tensor], optimizer: torch.optim.Optimizer, x: Tensor, size: int) -> OwnSeconds:
    """A step for every batch of this size; its seconds."""
    started = time.perf_counter()
    for batch in x.split(size):
        optimizer.zero_grad()
        loss(batch).backward()
        optimizer.step()
    return OwnSeconds(time.perf_counter() - started)


def torch_densities(pair: VAE, x: Tensor, z: Tensor) -> Tensor:
    """log p(x, z) − log q(z|x) of given z."""
    with torch.no_grad():
        loc, scale = pair.encode(x)
        logits = pair.decoder(z)
        log_joint = (x * logits - torch.nn.functional.softplus(logits)).sum(-1) - z.square().sum(-1) / 2
        return log_joint + ((z - loc) / scale).square().sum(-1) / 2 + scale.log().sum(-1)


def decoder_weights(pair: VAE) -> list[Tensor]:
    """The matrices of the decoder, from z on."""
    return [layer.weight.detach() for layer in pair.decoder.modules() if isinstance(layer, torch.nn.Linear)]


def decoder_flops(pair: VAE) -> int:
    """Operations of the decoder's matrix products for one z: a multiplication and an addition for each weight."""
    return 2 * sum(weight.numel() for weight in decoder_weights(pair))


def decoder_products(pair: VAE, rows: int, times: int = 1, backward: bool = False) -> None:
    """The decoder's matrix products alone, with those of a gradient in z if ``backward``."""
    weights = decoder_weights(pair)
    z = torch.randn(rows, weights[0].shape[1])
    for _ in range(times):
        h = z
        for weight in weights:
            h = h @ weight.T
        for weight in reversed(weights) if backward else ():
            h = h @ weight


def torch_anneal(pair: VAE, x: Tensor, chains: int, num_distributions: int, steps: int, epsilon: float = 0.1) -> Tensor:
    """Annealing as published, for one VAE by hand: one step size, and a new gradient at each temperature."""
    with torch.no_grad():
        loc, scale = pair.encode(x)

    def ends(z: Tensor) -> tuple[Tensor, Tensor]:
        logits = pair.decoder(z)
        joint = (x * logits - torch.nn.functional.softplus(logits)).sum(-1) - z.square().sum(-1) / 2
        return -((z - loc) / scale).square().sum(-1) / 2 - scale.log().sum(-1), joint

    def slope(z: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        z = z.detach().requires_grad_()
        start, joint = ends(z)
        target = (1 - beta) * start + beta * joint
        return target.detach(), torch.autograd.grad(target.sum(), z)[0]

    z = loc + scale * torch.randn(chains, *loc.shape)
    log_w, betas = torch.zeros(chains, len(x)), torch.linspace(0, 1, num_distributions + 1).tolist()
    for before, beta in pairwise(betas):
        with torch.no_grad():
            start, joint = ends(z)
        log_w += (beta - before) * (joint - start)
        if beta == 1:
            break
        momentum, end = torch.randn_like(z), z
        target, gradient = slope(z, beta)
        energy = momentum.square().sum(-1) / 2 - target
        for _ in range(steps):
            momentum = momentum + epsilon / 2 * gradient
            end = end + epsilon * momentum
            target, gradient = slope(end, beta)
            momentum = momentum + epsilon / 2 * gradient
        accepted = torch.rand(log_w.shape).log() < energy - momentum.square().sum(-1) / 2 + target
        z = torch.where(accepted[..., None], end, z)
    return log_w
