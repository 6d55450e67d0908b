"""Small renditions of published models: semi-supervised and conditional VAEs, the causal-effect VAE."""

import math

import pyro
import pyro.distributions as dist
import torch
import torch.distributions as td
from pyro.infer import config_enumerate
from torch import Tensor, nn

from .program import Program
from .quadrature import hermite_line, line


def _x() -> Tensor:
    return torch.tensor([[0.5, -0.3, 0.9], [-0.8, 0.2, 0.1], [0.0, 1.1, -0.6], [0.4, 0.4, 0.2]])


class _LabelDecoder(nn.Module):
    """p(x | y, z) of a one-hot label and one latent: concatenation as the published code has it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Softplus(), nn.Linear(8, 3))

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(y.shape[:-1], z.shape[:-1])
        return 0.7 * self.net(torch.cat([y.expand(*shape, 3), z.expand(*shape, 1)], -1))


class _SemiSupervised:
    """Kingma et al. (2014), Semi-supervised Learning with Deep Generative Models, arXiv:1406.5298: M2.

    y ~ Categorical(1/3), z ~ N(0, 1), x ~ N(decoder(y, z), 0.8²), in a plate without a size.
    """

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.decoder, self.classifier, self.encoder = _LabelDecoder(), nn.Linear(3, 3), nn.Linear(6, 1)
        nn.init.normal_(self.encoder.weight, std=0.03)

    def model(self, x, y=None):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data"):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.size(0), 1), x.new_ones(x.size(0), 1)).to_event(1))
            y = pyro.sample("y", dist.OneHotCategorical(x.new_ones(x.size(0), 3) / 3), obs=y)
            pyro.sample("x", dist.Normal(self.decoder(y, z), 0.8).to_event(1), obs=x)

    def guide(self, x, y=None):
        pyro.module("classifier", self.classifier)
        pyro.module("encoder", self.encoder)
        with pyro.plate("data"):
            if y is None:
                y = pyro.sample("y", dist.OneHotCategorical(logits=self.classifier(x)))
            rows, y = torch.broadcast_tensors(x, y)
            pyro.sample("z", dist.Normal(self.encoder(torch.cat([rows, y], -1)), 1.0).to_event(1))

    def log_joint(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """log p(x, y, z), shape (n, num_data)."""
        with torch.no_grad():
            loc = self.decoder(y, z.unsqueeze(-1))
        return td.Normal(0.0, 1.0).log_prob(z) - math.log(3) + td.Normal(loc, 0.8).log_prob(x).sum(-1)


def semi_supervised_without_labels() -> Program:
    """M2 of unlabelled data: the label enumerated in both programs by `config_enumerate`."""
    x, pair = _x(), _SemiSupervised(81)

    def joint(z):
        return torch.logsumexp(torch.stack([pair.log_joint(x, y, z) for y in torch.eye(3)]), 0)

    return Program(
        config_enumerate(pair.model),
        config_enumerate(pair.guide),
        x,
        line(joint, -9, 9, 4001),
        lambda: hermite_line(joint, torch.zeros(4), 1.0),
        num_particles=5000,
        tolerance=0.05,
        again_tolerance=1e-4,
    )


def semi_supervised_with_labels() -> Program:
    """M2 of labelled data: the label is context, observed in the model, and the number is log p(x, y)."""
    x, y, pair = _x(), torch.eye(3)[[0, 2, 1, 0]], _SemiSupervised(82)

    def joint(z):
        return pair.log_joint(x, y, z)

    return Program(
        pair.model,
        pair.guide,
        (x, y),
        line(joint, -9, 9, 4001),
        lambda: hermite_line(joint, torch.zeros(4), 1.0),
        num_particles=5000,
        tolerance=0.05,
        again_tolerance=1e-4,
    )


def conditional_vae() -> Program:
    """Sohn et al. (2015), Learning Structured Output Representation: p(z | c) p(y | c, z) with a prior network."""
    torch.manual_seed(83)
    prior, decoder, y = nn.Linear(2, 2), nn.Linear(3, 3), _x()
    c = torch.tensor([[1.0, 0.0], [0.2, -0.5], [-1.0, 0.4], [0.3, 0.8]])

    def model(y, c):
        pyro.module("prior", prior)
        pyro.module("decoder", decoder)
        with pyro.plate("data"):
            loc, log_scale = prior(c).chunk(2, dim=1)
            z = pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))
            out = decoder(torch.cat([z, c], dim=1))
            pyro.sample("y", dist.Normal(out, 0.8).to_event(1), obs=y)

    def posterior(y, c):
        """z is Gaussian given y and c, for the decoder is affine."""
        loc, log_scale = prior(c).chunk(2, dim=1)
        slope = decoder.weight[:, 0]
        rest = y - c @ decoder.weight[:, 1:].T - decoder.bias
        precision = (-2 * log_scale).exp() + (slope**2).sum() / 0.64
        return (loc * (-2 * log_scale).exp() + (rest @ slope).unsqueeze(-1) / 0.64) / precision, precision.rsqrt()

    def guide(y, c):
        with pyro.plate("data"):
            loc, scale = posterior(y, c)
            pyro.sample("z", dist.Normal(loc, 1.1 * scale).to_event(1))

    with torch.no_grad():
        loc, log_scale = prior(c).chunk(2, dim=1)
        slope, mean = decoder.weight[:, 0], decoder(torch.cat([loc, c], 1))
        spread = (2 * log_scale).exp().unsqueeze(-1) * torch.outer(slope, slope) + 0.64 * torch.eye(3)
        truth = td.MultivariateNormal(mean, spread).log_prob(y)

    def joint(z):
        with torch.no_grad():
            out = decoder(torch.cat([z.unsqueeze(-1).expand(len(z), 4, 1), c.expand(len(z), 4, 2)], -1))
        return td.Normal(loc[:, 0], log_scale.exp()[:, 0]).log_prob(z) + td.Normal(out, 0.8).log_prob(y).sum(-1)

    return Program(model, guide, (y, c), truth, lambda: line(joint, -15, 15))


def _causal(guide_latent) -> Program:
    """Louizos et al. (2017), Causal Effect Inference with Deep Latent-Variable Models, arXiv:1705.08821.

    z ~ N(0, 1), x ~ N(w z, 0.7²), t ~ Bernoulli(1.2 z), y ~ N(z + 0.8 t, 0.6²). The guide predicts t from x and y from
    x and t on its way to z; those are observed sites, for use on new x, and no part of q(z | x, t, y).
    """
    x, w = _x()[:, :2], torch.tensor([1.0, -0.5])
    t, y = torch.tensor([1.0, 0.0, 0.0, 1.0]), torch.tensor([1.4, -0.6, 0.3, 1.0])
    precision = 1 + (w**2).sum() / 0.49 + 1 / 0.36

    def posterior_loc(x, t, y):
        """Without the treatment's likelihood, whose slope at the centre is added."""
        loc = (x @ w / 0.49 + (y - 0.8 * t) / 0.36) / precision
        return loc + 1.2 * (t - torch.sigmoid(1.2 * loc)) / (precision + 0.36)

    def model(x, t, y):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1) * w, 0.7).to_event(1), obs=x)
            t = pyro.sample("t", dist.Bernoulli(logits=1.2 * z), obs=t)
            pyro.sample("y", dist.Normal(z + 0.8 * t, 0.6), obs=y)

    def guide(x, t, y):
        with pyro.plate("data", len(x)):
            t = pyro.sample("t", dist.Bernoulli(logits=x.sum(-1)), obs=t)
            y = pyro.sample("y", dist.Normal(0.3 * x.sum(-1) + t, 0.5), obs=y)
            guide_latent(posterior_loc(x, t, y), 1 / precision.sqrt())

    def joint(z):
        return (
            td.Normal(0.0, 1.0).log_prob(z)
            + td.Normal(z.unsqueeze(-1) * w, 0.7).log_prob(x).sum(-1)
            + td.Bernoulli(logits=1.2 * z).log_prob(t.expand(len(z), -1))
            + td.Normal(z + 0.8 * t, 0.6).log_prob(y)
        )

    return Program(
        model,
        guide,
        (x, t, y),
        line(joint, -9, 9),
        lambda: hermite_line(joint, posterior_loc(x, t, y), 0.6),
        tolerance=0.03,
    )


def causal_effect_vae() -> Program:
    """The guide scores treatment and outcome before it proposes z."""
    return _causal(lambda loc, scale: pyro.sample("z", dist.Normal(loc, 1.05 * scale)))


def causal_effect_vae_with_auxiliary_noise() -> Program:
    """The same, with auxiliary noise between the outcome and z."""

    def latent(loc, scale):
        a = pyro.sample("a", dist.Normal(0.0, 0.1).expand(loc.shape), infer={"is_auxiliary": True})
        pyro.sample("z", dist.Normal(loc + a * scale, 1.05 * scale))

    return _causal(latent)


PROGRAMS = (
    semi_supervised_without_labels,
    semi_supervised_with_labels,
    conditional_vae,
    causal_effect_vae,
    causal_effect_vae_with_auxiliary_noise,
)
