"""The pairs of models/ beyond the VAE, small or linear enough for their evidence to be known by other means."""

import itertools
import math
from typing import Any

import numpy as np
import torch
import truths_inference as truths
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from ppvae.models import (
    HIVAE,
    MIWAE,
    Bernoulli,
    BoundedLatentVAE,
    ConditionalVAE,
    ConvolutionalVAE,
    CountVAE,
    DeepMarkovModel,
    DiscreteVAE,
    FactorAnalysis,
    FlowVAE,
    GaussianMixtureVAE,
    HierarchicalVAE,
    ItemResponse,
    MixturePriorVAE,
    Normal,
    NotMIWAE,
    ProdLDA,
    RelaxedVAE,
    SemiSupervisedVAE,
    VampPriorVAE,
)

from .pair import Pair
from .project import _seeded

REAL = [[0.1, -1.2, 0.7], [1.4, 0.2, -0.6], [-0.9, 0.5, 0.5]]
NOISE = 0.9


def widen(network: Any, latent_dim: int, scale: float = 1.1) -> None:
    """Set the last `latent_dim` outputs of a guide's network to one scale, wider than the posterior."""
    with torch.no_grad():
        network.output_bias[-latent_dim:] = math.log(math.expm1(scale))
        network[-1].weight[-latent_dim:] *= 0.1


def factor_analysis() -> Pair:
    """At its exact guide; the truth is the D × D Gaussian."""
    net: Any = _seeded(FactorAnalysis, 4, 2)
    with torch.no_grad():
        net.bias.copy_(torch.tensor([0.2, -0.1, 0.0, 0.4]))
        net.log_noise_scale.copy_(torch.tensor([-0.2, -0.5, 0.1, -0.3]))
    net.set_exact_guide()

    def log_evidence(x: Tensor) -> Tensor:
        covariance = net.weight @ net.weight.T + torch.diag((2 * net.log_noise_scale).exp())
        return MultivariateNormal(net.bias, covariance).log_prob(x)

    x = torch.tensor([[0.1, -1.2, 0.7, 0.3], [1.4, 0.2, -0.6, 0.0], [-0.9, 0.5, 0.5, -2.0]])
    return Pair(net.model, net.guide, x, log_evidence=log_evidence, exact=True, modules=(net,))


def item_response() -> Pair:
    """Five items, an answer missing; the truth is a fine trapezoidal rule."""
    net: Any = _seeded(ItemResponse, 5, hidden=(4,))
    with torch.no_grad():
        net.slope.copy_(torch.tensor([0.8, 0.7, -0.9, 1.2, 0.6]))
        net.intercept.copy_(torch.tensor([1.0, 0.3, 0.2, -0.5, 2.0]))
    widen(net.encoder, 1)

    def log_evidence(x: Tensor) -> Tensor:
        theta = torch.linspace(-9.0, 9.0, 2001)
        p = torch.sigmoid(theta[:, None] * net.slope + net.intercept)
        terms = torch.where(x[:, None] == 1, p.log(), (1 - p).log()).masked_fill(x[:, None].isnan(), 0.0)
        log_prior = -0.5 * theta**2 - 0.5 * math.log(2 * math.pi)
        return torch.logsumexp(terms.sum(-1) + log_prior, -1) + math.log(18.0 / 2000)

    x = torch.tensor([[0.0, 1, 1, 0, 1], [1, 1, 0, math.nan, 1], [0, 0, 0, 1, 0]])
    latents = frozenset({"ability"})
    return Pair(net.model, net.guide, x, log_evidence=log_evidence, latents=latents, modules=(net,))


def linear_mixture_evidence(net: Any, x: Tensor, share: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """log Σ_k π_k N(x; W m_k + b, W S_k Wᵀ + σ² I), for an affine decoder."""
    W, b = net.decoder.parameters()
    terms = []
    for k in range(len(share)):
        covariance = W @ torch.diag(scale[k] ** 2) @ W.T + NOISE**2 * torch.eye(len(b))
        terms.append(share[k].log() + MultivariateNormal(W @ loc[k] + b, covariance).log_prob(x))
    return torch.logsumexp(torch.stack(terms), 0)


def gaussian_mixture(component_guide: bool = False) -> Pair:
    """An affine decoder makes it a mixture of factor analysers."""
    x = torch.tensor(REAL)
    options: Any = {"latent_dim": 2, "hidden": (), "num_components": 3, "component_guide": component_guide}
    net: Any = _seeded(GaussianMixtureVAE.for_data, x, Normal(NOISE), **options)
    _spread(net)
    widen(net.encoder, 2, 1.3)

    def log_evidence(x: Tensor) -> Tensor:
        share, scale = net.component_logits.softmax(-1), net.component_log_scale.exp()
        return linear_mixture_evidence(net, x, share, net.component_loc, scale)

    summed = frozenset({"component"})
    return Pair(net.model, net.guide, x, log_evidence=log_evidence, summed=summed, modules=(net,))


def mixture_prior() -> Pair:
    """The same mixture as one density of z."""
    x = torch.tensor(REAL)
    options: Any = {"latent_dim": 2, "hidden": (), "num_components": 3}
    net: Any = _seeded(MixturePriorVAE.for_data, x, Normal(NOISE), **options)
    _spread(net)
    widen(net.encoder, 2, 1.3)

    def log_evidence(x: Tensor) -> Tensor:
        share, scale = net.component_logits.softmax(-1), net.component_log_scale.exp()
        return linear_mixture_evidence(net, x, share, net.component_loc, scale)

    return Pair(net.model, net.guide, x, log_evidence=log_evidence, modules=(net,))


def _spread(net: Any) -> None:
    with torch.no_grad():
        net.component_logits.copy_(torch.tensor([0.2, -0.3, 0.5]))
        net.component_loc.mul_(0.6)
        net.component_log_scale.copy_(torch.tensor([[-0.1, 0.1], [0.0, -0.2], [0.1, 0.0]]))


def vamp_prior() -> Pair:
    """Three pseudo-inputs, the encoder affine: the mixture's components are what the encoder says of them."""
    x = torch.tensor(REAL)
    options: Any = {"latent_dim": 2, "hidden": (), "num_pseudo_inputs": 3}
    net: Any = _seeded(VampPriorVAE.for_data, x, Normal(NOISE), **options)
    widen(net.encoder, 2)

    def log_evidence(x: Tensor) -> Tensor:
        V, c = net.encoder.parameters()
        loc, raw = (net.pseudo_inputs @ V.T + c).chunk(2, -1)
        return linear_mixture_evidence(net, x, torch.full((3,), 1 / 3), loc, raw.exp().log1p())

    return Pair(net.model, net.guide, x, log_evidence=log_evidence, modules=(net,))


def hierarchical(guide_kind: str) -> Pair:
    """Three affine layers whose scales do not depend on the layer above: x is Gaussian."""
    x = torch.tensor(REAL)
    options: Any = {"latent_dims": (3, 2, 1), "hidden": 0, "guide_kind": guide_kind}
    net: Any = _seeded(HierarchicalVAE.for_data, x, Normal(NOISE), **options)
    with torch.no_grad():
        for network, d in zip(net.downward, (3, 2), strict=True):
            network[-1].weight[d:] = 0.0
            network.output_bias[d:] = math.log(math.expm1(1.0))
        for encoder in net.encoder:
            encoder[-1].weight.mul_(0.3)
    for encoder, d in zip(net.encoder, (3, 2, 1), strict=True):
        widen(encoder, d, 1.2)

    def log_evidence(x: Tensor) -> Tensor:
        loc, cov = torch.zeros(1), torch.eye(1)
        for network, d in zip(reversed(net.downward), (2, 3), strict=True):
            W, b = network.parameters()
            scale = torch.diag(b[d:].exp().log1p())
            loc, cov = W[:d] @ loc + b[:d], W[:d] @ cov @ W[:d].T + scale**2
        W, b = net.decoder.parameters()
        return truths.gaussian_evidence(x, W, b, NOISE**2 * torch.eye(3), loc, cov)

    latents = frozenset({"z1", "z2", "z3"})
    return Pair(net.model, net.guide, x, log_evidence=log_evidence, latents=latents, modules=(net,))


def conditional_vae() -> Pair:
    """Binary data with a label of three; the truth is an integral over two dimensions, datum by datum."""
    x = torch.tensor([[0.0, 1, 1, 0, 1], [1, 1, 0, 0, 1], [0, 0, 0, 1, 0]])
    labels = torch.tensor([2, 0, 1])
    options: Any = {"latent_dim": 2, "hidden": (6,), "num_labels": 3, "nonlinearity": nn.Tanh}
    net: Any = _seeded(ConditionalVAE.for_data, x, Bernoulli(), **options)
    with torch.no_grad():
        net.decoder.output_bias.add_(0.1)
    widen(net.encoder, 2)

    def log_evidence(x: Tensor, labels: Tensor) -> Tensor:
        W1, b1, W2, b2 = net.decoder.parameters()
        axis = torch.linspace(-9.0, 9.0, 150)
        z = torch.cartesian_prod(axis, axis)
        log_prior = -0.5 * z.square().sum(-1) - math.log(2 * math.pi) + 2 * torch.log(axis[1] - axis[0])
        rows = []
        for one, label in zip(x, labels, strict=True):
            h = torch.tanh(z @ W1[:, :2].T + W1[:, 2 + label] + b1)
            p = torch.sigmoid(h @ W2.T + b2)
            rows.append(torch.logsumexp(log_prior + torch.where(one == 1, p, 1 - p).log().sum(-1), 0))
        return torch.stack(rows)

    return Pair(net.model, net.guide, x, context=(labels,), log_evidence=log_evidence, modules=(net,))


def semi_supervised() -> Pair:
    """An affine decoder, labels for two of four data; the truth sums the classes, each of them Gaussian."""
    x, labels = torch.tensor([*REAL, [0.3, 0.9, -0.4]]), torch.tensor([2, -1, 0, -1])
    options: Any = {"latent_dim": 2, "hidden": (), "num_labels": 3}
    net: Any = _seeded(SemiSupervisedVAE.for_data, x, Normal(NOISE), **options)
    with torch.no_grad():
        net.class_logits.copy_(torch.tensor([0.2, -0.3, 0.5]))
    widen(net.encoder, 2, 1.2)

    def log_evidence(x: Tensor, labels: Tensor) -> Tensor:
        W, b = net.decoder.parameters()
        covariance = W[:, :2] @ W[:, :2].T + NOISE**2 * torch.eye(3)
        rows = []
        for one, label in zip(x, labels.tolist(), strict=True):
            classes = range(3) if label < 0 else [label]
            log_p = [MultivariateNormal(W[:, 2 + c] + b, covariance).log_prob(one) for c in classes]
            log_p = [term + net.class_logits.log_softmax(-1)[c] for c, term in zip(classes, log_p, strict=True)]
            rows.append(torch.logsumexp(torch.stack(log_p), 0))
        return torch.stack(rows)

    summed = frozenset({"y"})
    return Pair(net.model, net.guide, x, context=(labels,), log_evidence=log_evidence, summed=summed, modules=(net,))


def miwae() -> Pair:
    """An affine decoder, values missing: the truth is the Gaussian of those that are there."""
    x = torch.tensor([[0.1, math.nan, 0.7], [1.4, 0.2, -0.6], [math.nan, 0.5, math.nan]])
    net: Any = _seeded(MIWAE.for_data, x, Normal(NOISE), latent_dim=2, hidden=())
    widen(net.encoder, 2)

    def log_evidence(x: Tensor) -> Tensor:
        W, b = net.decoder.parameters()
        covariance = W @ W.T + NOISE**2 * torch.eye(3)
        rows = []
        for one in x:
            seen = ~one.isnan()
            rows.append(MultivariateNormal(b[seen], covariance[seen][:, seen]).log_prob(one[seen]))
        return torch.stack(rows)

    return Pair(net.model, net.guide, x, log_evidence=log_evidence, modules=(net,))


def not_miwae() -> Pair:
    """An affine decoder, one value missing at most: the truth integrates that one, by the trapezoidal rule."""
    x = torch.tensor([[0.1, math.nan, 0.7], [1.4, 0.2, -0.6], [math.nan, 0.5, 0.5]])
    net: Any = _seeded(NotMIWAE.for_data, x, Normal(NOISE), latent_dim=2, hidden=())
    widen(net.encoder, 2)
    with torch.no_grad():
        net.missing_slope.copy_(torch.tensor([1.0, -0.8, 0.5]))
        net.missing_intercept.copy_(torch.tensor([-0.3, 0.2, -1.0]))

    def log_evidence(x: Tensor) -> Tensor:
        W, b = net.decoder.parameters()
        joint = MultivariateNormal(b, W @ W.T + NOISE**2 * torch.eye(3))
        axis = torch.linspace(-12.0, 12.0, 2001)
        rows = []
        for one in x:
            s = one.isnan().to(one.dtype)
            full = torch.where(one.isnan(), axis[:, None], one) if s.any() else one[None]
            p = torch.sigmoid(net.missing_slope * full + net.missing_intercept)
            terms = joint.log_prob(full) + torch.where(s == 1, p, 1 - p).log().sum(-1)
            rows.append(torch.logsumexp(terms, 0) + (math.log(24.0 / 2000) if s.any() else 0.0))
        return torch.stack(rows)

    latents = frozenset({"z", "full"})
    return Pair(net.model, net.guide, x, log_evidence=log_evidence, latents=latents, modules=(net,))


def hi_vae() -> Pair:
    """A column of each kind and a second ordinal one, values missing: the truth integrates z for each component."""
    nan = math.nan
    x = torch.tensor([[0.4, 1.5, 3, 2, 1, 0], [nan, 0.6, nan, 0, 2, 1], [-0.8, nan, 1, nan, nan, 1]])
    kinds = ("real", "positive", "count", "categorical", "ordinal", "ordinal")
    net: Any = _seeded(HIVAE.for_data, x, kinds, latent_dim=1, num_components=2, hidden=())
    widen(net.encoder, 1, 1.2)
    with torch.no_grad():
        net.component_logits.copy_(torch.tensor([0.3, -0.2]))
        net.log_scale["real"].copy_(torch.tensor([[0.1], [-0.2]]))

    def log_evidence(x: Tensor) -> Tensor:
        z = torch.linspace(-11.0, 11.0, 2001)
        terms = []
        for s in range(2):
            W, b = net.decoder.parameters()
            h = z[:, None] * W[:, 0] + W[:, 1 + s] + b
            at = net.shift + net.scale * torch.cat([h[:, :3], torch.zeros(len(z), 3)], -1)
            sd = [net.scale[j] * net.log_scale[kind][s, 0].exp() for j, kind in enumerate(kinds[:2])]
            first, (second, raw) = net.cuts[1], net.cuts[0]
            p = h[:, 3:6].exp() / h[:, 3:6].exp().sum(-1, keepdim=True)
            low, high = torch.sigmoid(second - h[:, 6]), torch.sigmoid(second + (1 + raw.exp()).log() - h[:, 6])
            levels = torch.stack([low, high - low, 1 - high], -1)
            two = torch.sigmoid(first - h[:, 7])
            prior = torch.distributions.Normal(net.component_loc[s, 0], 1.0).log_prob(z)
            log_p = [prior + net.component_logits.log_softmax(-1)[s] for _ in x]
            for i, (real, positive, count, category, level, other) in enumerate(x):
                if not real.isnan():
                    log_p[i] = log_p[i] - ((real - at[:, 0]) / sd[0]) ** 2 / 2 - (sd[0] * math.sqrt(2 * math.pi)).log()
                if not positive.isnan():
                    scaled = (positive.log() - at[:, 1]) / sd[1]
                    log_p[i] = log_p[i] - scaled**2 / 2 - (sd[1] * positive * math.sqrt(2 * math.pi)).log()
                if not count.isnan():
                    log_p[i] = log_p[i] + count * at[:, 2] - at[:, 2].exp() - torch.lgamma(count + 1)
                if not category.isnan():
                    log_p[i] = log_p[i] + p[:, int(category)].log()
                if not level.isnan():
                    log_p[i] = log_p[i] + levels[:, int(level)].log()
                log_p[i] = log_p[i] + (two if other == 0 else 1 - two).log()
            terms.append(torch.stack(log_p))
        return torch.logsumexp(torch.cat(terms, -1), -1) + math.log(22.0 / 2000)

    summed = frozenset({"component"})
    return Pair(net.model, net.guide, x, log_evidence=log_evidence, summed=summed, modules=(net,))


def counts(zero_inflated: bool = False) -> Pair:
    """One latent and the library size; the truth is an integral over the two, its integrand written out."""
    x = torch.tensor([[3.0, 0, 5], [0, 1, 2], [4, 2, 0]])
    net: Any = _seeded(CountVAE.for_data, x, latent_dim=1, hidden=(), zero_inflated=zero_inflated)
    with torch.no_grad():
        net.log_dispersion.copy_(torch.tensor([0.5, 1.0, 0.2]))
        net.encoder[-1].weight.mul_(0.1)
        net.encoder.output_bias.copy_(torch.tensor([0.0, math.log(math.expm1(1.1)), 0.0, math.log(math.expm1(0.6))]))

    def log_evidence(x: Tensor) -> Tensor:
        axis = torch.linspace(-8.0, 8.0, 300)
        z, u = torch.cartesian_prod(axis, axis).unbind(-1)
        log_prior = -0.5 * (z**2 + u**2) - math.log(2 * math.pi) + 2 * torch.log(axis[1] - axis[0])
        library = (net.library_loc + net.library_scale * u).exp()
        W, b = net.decoder.parameters()
        mean, r = library[:, None] * (z[:, None] @ W.T + b).softmax(-1), net.log_dispersion.exp()
        rows = []
        for one in x:
            log_nb = torch.lgamma(one + r) - torch.lgamma(r) - torch.lgamma(one + 1)
            p = (log_nb + r * (r / (r + mean)).log() + one * (mean / (r + mean)).log()).exp()
            if zero_inflated:
                G, g = net.gate.parameters()
                gate = torch.sigmoid(z[:, None] @ G.T + g)
                p = gate * (one == 0) + (1 - gate) * p
            rows.append(torch.logsumexp(log_prior + p.log().sum(-1), 0))
        return torch.stack(rows)

    latents = frozenset({"z", "library"})
    return Pair(net.model, net.guide, x, log_evidence=log_evidence, latents=latents, modules=(net,))


def convolutional() -> Pair:
    """Pictures of 4 × 4 binary pixels; the truth is an integral over two dimensions."""
    x = torch.stack([torch.eye(4).flatten(), 1 - torch.eye(4).flatten()])
    options: Any = {"latent_dim": 2, "channels": (2, 3)}
    net: Any = _seeded(ConvolutionalVAE.for_data, x, Bernoulli(), **options)
    with torch.no_grad():
        net.encoder.output_bias[2:] = math.log(math.expm1(1.1))
        net.encoder.affine.weight[2:] *= 0.1
        net.decoder.output_bias.add_(0.1)

    def log_evidence(x: Tensor) -> Tensor:
        return truths.grid_evidence(net.model, x, "z", half_width=9.0, points=150)

    return Pair(net.model, net.guide, x, log_evidence=log_evidence, modules=(net,))


def flow_vae() -> Pair:
    """A flow as prior, another as guide, in two dimensions: the truth integrates the prior's known density."""
    x = torch.tensor([[0.0, 1, 1, 0, 1], [1, 1, 0, 0, 1], [0, 0, 0, 1, 0]])
    net: Any = _seeded(FlowVAE.for_data, x, Bernoulli(), latent_dim=2, hidden=(6,))
    with torch.no_grad():
        for parameter in net.prior_flow.parameters():
            parameter.mul_(0.7)
        for parameter in net.guide_flow.parameters():  # nearer to N(0, I), which is wider than the posterior
            parameter.mul_(0.4)
        net.decoder.output_bias.add_(0.1)

    def log_evidence(x: Tensor) -> Tensor:
        return truths.grid_evidence(net.model, x, "z", half_width=14.0, points=300)

    return Pair(net.model, net.guide, x, log_evidence=log_evidence, modules=(net,))


def prod_lda() -> Pair:
    """Two topics of four words; the truth writes the multinomial out and integrates over a plane."""
    x = torch.tensor([[3.0, 0, 5, 1], [0, 1, 2, 0], [4, 2, 0, 2]])
    net: Any = _seeded(ProdLDA.for_data, x, num_topics=2, hidden=())
    widen(net.encoder, 2)

    def log_evidence(x: Tensor) -> Tensor:
        axis = torch.linspace(-9.0, 9.0, 250)
        z = torch.cartesian_prod(axis, axis)
        log_prior = -0.5 * z.square().sum(-1) - math.log(2 * math.pi) + 2 * torch.log(axis[1] - axis[0])
        share = z.exp() / z.exp().sum(-1, keepdim=True)
        p = (share @ net.topic_logits + net.word_logits).exp()
        p = p / p.sum(-1, keepdim=True)
        rows = []
        for one in x:
            orders = math.factorial(int(one.sum())) / math.prod(math.factorial(int(n)) for n in one)
            rows.append(torch.logsumexp(log_prior + math.log(orders) + (one * p.log()).sum(-1), 0))
        return torch.stack(rows)

    return Pair(net.model, net.guide, x, log_evidence=log_evidence, modules=(net,))


def bounded_latent(family: str) -> Pair:
    """Two parts under a flat or an exponential prior; the truth is Gauss-Legendre quadrature over their quantiles."""
    x = torch.tensor([[0.0, 1, 1, 0, 1], [1, 1, 0, 0, 1], [0, 0, 0, 1, 0]])
    options: Any = {"latent_dim": 2, "hidden": (), "family": family}
    net: Any = _seeded(BoundedLatentVAE.for_data, x, Bernoulli(), **options)
    with torch.no_grad():
        net.encoder[-1].weight.mul_(0.1)
        net.encoder.output_bias.fill_(-3.0)  # near Beta(1, 1), or the exponential
        net.decoder.output_bias.add_(0.1)

    def log_evidence(x: Tensor) -> Tensor:
        nodes, mass = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(200))
        u = torch.cartesian_prod(nodes, nodes) / 2 + 0.5
        log_mass = torch.cartesian_prod(mass, mass).prod(-1).log() - 2 * math.log(2)
        W, b = net.decoder.parameters()
        p = torch.sigmoid((u if family == "beta" else -torch.log1p(-u)) @ W.T + b)
        terms = torch.where(x[:, None] == 1, p, 1 - p).log().sum(-1)
        return torch.logsumexp(terms + log_mass, -1)

    return Pair(net.model, net.guide, x, log_evidence=log_evidence, modules=(net,))


def discrete_vae() -> Pair:
    """Two codes of three values: the truth is a loop over the nine."""
    x = torch.tensor([[0.0, 1, 1, 0, 1], [1, 1, 0, 0, 1], [0, 0, 0, 1, 0]])
    options: Any = {"num_groups": 2, "num_codes": 3, "hidden": (4,)}
    net: Any = _seeded(DiscreteVAE.for_data, x, Bernoulli(), **options)
    with torch.no_grad():
        net.code_logits.copy_(torch.tensor([[0.1, -0.2, 0.3], [0.5, 0.0, -0.4]]))

    def log_evidence(x: Tensor) -> Tensor:
        W1, b1, W2, b2 = net.decoder.parameters()
        terms = []
        for i, j in itertools.product(range(3), repeat=2):
            p = torch.sigmoid(torch.tanh(W1[:, i] + W1[:, 3 + j] + b1) @ W2.T + b2)
            log_prior = net.code_logits[0].log_softmax(-1)[i] + net.code_logits[1].log_softmax(-1)[j]
            terms.append(torch.where(x == 1, p, 1 - p).log().sum(-1) + log_prior)
        return torch.logsumexp(torch.stack(terms), 0)

    none, summed = frozenset[str](), frozenset({"c1", "c2"})
    options = {"exact": True, "latents": none, "summed": summed, "modules": (net,)}
    return Pair(net.model, net.guide, x, log_evidence=log_evidence, **options)


def relaxed() -> Pair:
    """Two relaxed codes of two values: each is σ((log-odds + noise) / τ), and the truth integrates that."""
    x = torch.tensor([[0.0, 1, 1, 0, 1], [1, 1, 0, 0, 1], [0, 0, 0, 1, 0]])
    options: Any = {"num_groups": 2, "num_codes": 2, "hidden": (), "temperature": 0.8, "guide_temperature": 0.9}
    net: Any = _seeded(RelaxedVAE.for_data, x, Bernoulli(), **options)
    with torch.no_grad():
        net.code_logits.copy_(torch.tensor([[0.2, -0.2], [0.5, 0.0]]))
        net.encoder.output_bias.copy_(net.code_logits.flatten())
        net.encoder[-1].weight.mul_(0.2)
        net.decoder.output_bias.add_(0.1)

    def log_evidence(x: Tensor) -> Tensor:
        return relaxed_evidence(net, x)

    latents = frozenset({"v1", "v2"})
    return Pair(net.model, net.guide, x, log_evidence=log_evidence, latents=latents, modules=(net,))


def relaxed_evidence(net: Any, x: Tensor, num_points: int = 120) -> Tensor:
    """log p(x) of a :class:`RelaxedVAE` with codes of two values and an affine decoder, by Gauss-Legendre quadrature.

    The logistic noise of a code has the quantiles log (u / (1 − u)).
    """
    nodes, mass = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(num_points))
    u = (torch.cartesian_prod(nodes, nodes) + 1) / 2
    log_mass = torch.cartesian_prod(mass, mass).prod(-1).log() - 2 * math.log(2)
    odds = net.code_logits[:, 0] - net.code_logits[:, 1]
    first = torch.sigmoid((odds + u.logit()) / net.temperature)
    W, b = net.decoder.parameters()
    p = torch.sigmoid(torch.stack([first, 1 - first], -1).flatten(1) @ W.T + b)
    return torch.logsumexp(torch.where(x[:, None] == 1, p, 1 - p).log().sum(-1) + log_mass, -1)


def markov() -> Pair:
    """Affine maps and constant scales make it a linear-Gaussian chain; sequences of three, two and one steps.

    The truth is the Gaussian of all that is there, from the covariances of the chain.
    """
    x, lengths = torch.tensor([[0.1, -1.2, 0.7], [1.4, 0.2, -0.6], [-0.9, 0.5, 0.5]]), torch.tensor([3, 2, 1])
    options: Any = {"num_steps": 3, "latent_dim": 1, "hidden": 0}
    net: Any = _seeded(DeepMarkovModel.for_data, x, Normal(NOISE), **options)
    with torch.no_grad():
        net.transition[-1].weight[1:] = 0.0
        net.transition.output_bias.copy_(torch.tensor([0.2, math.log(math.expm1(0.8))]))
    widen(net.combiner, 1)

    def log_evidence(x: Tensor, lengths: Tensor) -> Tensor:
        A, a = net.transition.parameters()
        W, b = net.emission.parameters()
        step, loc, cov = A[0, 0], [net.start[0]], torch.zeros(3, 3)
        cov[0, 0] = net.start[1].exp().log1p() ** 2
        for t in (1, 2):
            loc.append(step * loc[-1] + a[0])
            cov[t, :t] = cov[:t, t] = step * cov[t - 1, :t]
            cov[t, t] = step**2 * cov[t - 1, t - 1] + a[1].exp().log1p() ** 2
        mean, joint = torch.stack(loc) * W[0, 0] + b, cov * W[0, 0] ** 2 + NOISE**2 * torch.eye(3)
        return torch.stack(
            [MultivariateNormal(mean[:n], joint[:n, :n]).log_prob(one[:n]) for one, n in zip(x, lengths, strict=True)]
        )

    latents = frozenset({"z1", "z2", "z3"})
    options = {"log_evidence": log_evidence, "latents": latents, "modules": (net,)}
    return Pair(net.model, net.guide, x, context=(lengths,), **options)
