"""The KL of q(z|x) from the posterior in closed form, or with log p(x) by quadrature: neither needs the ELBO.

For a linear-Gaussian pair it is the KL of two Gaussians. For a two-dimensional z the trapezoidal rule gives

    log p(x) = log Σ_g h² p(x, z_g),    KL = Σ_g h² q(z_g|x) [log q(z_g|x) − log p(x, z_g)] + log p(x)

For smooth integrands that vanish at the border the rule's error falls exponentially in 1/h, so that the shift from
spacing 2h to h is an upper bound of the error of h.
"The Exponentially Convergent Trapezoidal Rule" (Trefethen & Weideman, 2014), SIAM Review 56(3).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence
from torch.nn import functional as F

from ppvae.models import VAE, LinearGaussian

TOTAL_COUNT = 16  # of the digits' counts


def exact_gap(pair: LinearGaussian, x: Tensor) -> Tensor:
    """KL(q(z|x) ‖ p(z|x)) of two Gaussians, ``(num_data,)``; neither the ELBO nor log p(x) enters."""
    loc = x @ pair.guide_weight.T + pair.guide_bias
    guide = MultivariateNormal(loc, scale_tril=pair._guide_scale_tril())
    return kl_divergence(guide, pair.posterior(x))


def quadrature(pair: VAE, x: Tensor, half_width: float, num_nodes: int) -> tuple[Tensor, Tensor, float]:
    """log p(x) and KL(q(z|x) ‖ p(z|x)) over the square [−half_width, half_width]².

    Args:
        pair: with `latent_dim` 2 and the likelihood `Binomial`.
        x: ``(num_data, D)``.
        half_width: the square is [−half_width, half_width]².
        num_nodes: along each axis, odd.

    Returns:
        log p(x) and the KL, ``(num_data,)`` each, in nats; and the largest shift of either when every second node of
        each axis is left out.
    """
    axis = torch.linspace(-half_width, half_width, num_nodes).to(x)
    log_prior = Normal(0.0, 1.0).log_prob(axis)
    logits, normaliser = _decoded(pair, torch.cartesian_prod(axis, axis))
    # log p(x|z) is linear in x but for a term that does not depend on x: a matrix product replaces D sums.
    own = (log_prior[:, None] + log_prior).flatten() - normaliser
    location, scale = pair.encode(x)
    log_q = Normal(location[..., None], scale[..., None]).log_prob(axis)
    finer, coarser = [], []
    for rows in torch.arange(len(x)).split(4):
        log_joint = torch.addmm(own, x[rows], logits.T).add_(_constant(pair, x[rows])[:, None])
        log_joint = log_joint.reshape(len(rows), num_nodes, num_nodes)
        finer.append(_integrals(log_joint, log_q[rows], axis))
        coarser.append(_integrals(log_joint[:, ::2, ::2], log_q[rows][..., ::2], axis[::2]))
    fine, coarse = torch.cat(finer, 1), torch.cat(coarser, 1)
    return fine[0], fine[1], float((fine - coarse).abs().max())


def _decoded(pair: VAE, z: Tensor) -> tuple[Tensor, Tensor]:
    """Of every node, the logits η and Σ_d n log(1 + e^η_d)."""
    logits = pair.decoder(z)
    return logits, TOTAL_COUNT * F.softplus(logits).sum(-1)


def _constant(pair: VAE, x: Tensor) -> Tensor:
    """log p(x|z) − Σ_d [x_d η_d − n log(1 + e^η_d)], which depends on x alone, from z = 0: ``(num_data,)``."""
    origin = x.new_zeros(1, 2)
    logits, normaliser = _decoded(pair, origin)
    return pair.decode(origin).log_prob(x) - (x @ logits[0] - normaliser)


def _integrals(log_joint: Tensor, log_q: Tensor, axis: Tensor) -> Tensor:
    """log p(x) and the KL, ``(2, num_data)``, from log p(x, z) at the nodes and log q(z|x) along each axis.

    q is a product over the axes, and so is its weight at a node: no exponential over the whole plane is needed for it.
    """
    spacing = float(axis[1] - axis[0])
    log_evidence = log_joint.flatten(1).logsumexp(1) + 2 * math.log(spacing)
    q = log_q.exp() * spacing  # (num_data, 2, num_nodes)
    total, negentropy = q.sum(-1), (q * log_q).sum(-1)
    mean_log_joint = torch.einsum("ni,nij,nj->n", q[:, 0], log_joint, q[:, 1])
    kl = negentropy[:, 0] * total[:, 1] + negentropy[:, 1] * total[:, 0] - mean_log_joint + log_evidence
    return torch.stack([log_evidence, kl])
