"""Discrete sites that are summed out, as one-hot vectors and as indices, in the model and in the guide."""

import math

import pyro
import pyro.distributions as dist
import torch
import torch.distributions as td
from pyro import poutine
from pyro.infer import config_enumerate
from torch import Tensor, nn

from .program import Program
from .quadrature import hermite_line, line

PARALLEL = {"enumerate": "parallel"}


def _x() -> Tensor:
    return torch.tensor([[0.6, -0.2], [-1.0, 0.8], [0.1, 1.5]])


def _share() -> Tensor:
    return torch.tensor([0.5, 0.2, 0.3])


class _Decoder(nn.Module):
    """x = f([y, z]) of a one-hot y of three classes and one z."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(y.shape[:-1], z.shape[:-1])
        return self.net(torch.cat([y.expand(*shape, 3), z.expand(*shape, 1)], -1))


def _decoded(decoder: _Decoder, guide) -> Program:
    """y ~ Categorical, z ~ N(0, 1), x ~ N(decoder(y, z), 0.8²), y one-hot and enumerated."""
    x, share = _x(), _share()

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(share), infer=PARALLEL)
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(y, z), 0.8).to_event(1), obs=x)

    def joint(z):
        one_hot, terms = torch.eye(3), []
        for k in range(3):
            with torch.no_grad():
                loc = decoder(one_hot[k].reshape(1, 1, 3), z.unsqueeze(-1))
            terms.append(share[k].log() + td.Normal(loc, 0.8).log_prob(x).sum(-1))
        return td.Normal(0.0, 1.0).log_prob(z) + torch.logsumexp(torch.stack(terms), 0)

    return Program(
        model,
        guide,
        x,
        line(joint, -9, 9),
        lambda: hermite_line(joint, torch.zeros(3), 1.0),
        num_particles=10_000,
        tolerance=0.04,
        again_tolerance=1e-5,
    )


def one_hot_beside_z() -> Program:
    """The label stands beside z at the decoder's door; both programs enumerate it."""
    torch.manual_seed(61)

    def guide(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(logits=x @ x.new_ones(2, 3)), infer=PARALLEL)
            loc = 0.1 * (y * torch.tensor([-1.0, 0.0, 1.0])).sum(-1, keepdim=True)
            pyro.sample("z", dist.Normal(loc, 1.1).to_event(1))

    return _decoded(_Decoder(), guide)


def one_hot_in_the_model_alone() -> Program:
    """The guide knows nothing of the label."""
    torch.manual_seed(62)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.1).to_event(1))

    return _decoded(_Decoder(), guide)


def _clusters(x: Tensor) -> Tensor:
    return torch.tensor([[-1.0, 0.5], [1.0, 0.0], [0.0, 2.0]])


def _indexed(guide, model) -> Program:
    """c ~ Categorical, z ~ N(0, 1), x ~ N(m_c + 0.5 z, 0.6²) in each of two columns: closed form given c."""
    x, share, means = _x(), _share(), _clusters(_x())
    covariance = 0.25 * torch.ones(2, 2) + 0.36 * torch.eye(2)
    components = td.MultivariateNormal(means, covariance)
    truth = td.MixtureSameFamily(td.Categorical(share), components).log_prob(x)

    def joint(z):
        terms = [
            share[k].log() + td.Normal(means[k] + 0.5 * z.unsqueeze(-1), 0.6).log_prob(x).sum(-1) for k in range(3)
        ]
        return td.Normal(0.0, 1.0).log_prob(z) + torch.logsumexp(torch.stack(terms), 0)

    return Program(model, guide, x, truth, lambda: line(joint, -9, 9), tolerance=0.03)


def _index_model(x):
    means = _clusters(x)
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.Categorical(_share()), infer=PARALLEL)
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(means[c] + 0.5 * z.unsqueeze(-1), 0.6).to_event(1), obs=x)


def _given_cluster(x, means):
    """z given c and x: precision 1 + 2 · 0.25 / 0.36, and a tenth wider."""
    precision = 1 + 0.5 / 0.36
    return dist.Normal(0.5 * (x - means).sum(-1) / 0.36 / precision, 1.1 / math.sqrt(precision))


def index_in_both_programs() -> Program:
    """The index looks its mean up in a table, in model and guide."""

    def guide(x):
        means = _clusters(x)
        with pyro.plate("data", len(x)):
            logits = -((x.unsqueeze(-2) - means) ** 2).sum(-1)
            c = pyro.sample("c", dist.Categorical(logits=logits), infer=PARALLEL)
            pyro.sample("z", _given_cluster(x, means[c]))

    return _indexed(guide, _index_model)


def index_by_config_enumerate() -> Program:
    """Both programs under `config_enumerate`, the label after the continuous latent in the model."""

    @config_enumerate
    def model(x):
        means = _clusters(x)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            c = pyro.sample("c", dist.Categorical(_share()))
            pyro.sample("x", dist.Normal(means[c] + 0.5 * z.unsqueeze(-1), 0.6).to_event(1), obs=x)

    @config_enumerate
    def guide(x):
        means = _clusters(x)
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(torch.tensor([0.4, 0.3, 0.3])))
            pyro.sample("z", _given_cluster(x, means[c]))

    return _indexed(guide, model)


def inflated_zeros() -> Program:
    """An enumerated gate and a rate ~ Gamma(3, 1): x is nought with probability 0.3, else Poisson(rate)."""
    x = torch.tensor([0.0, 2.0, 5.0])

    def model(x):
        with pyro.plate("data", len(x)):
            gate = pyro.sample("gate", dist.Bernoulli(0.3), infer=PARALLEL)
            rate = pyro.sample("rate", dist.Gamma(3.0, 1.0))
            pyro.sample("x", dist.Poisson(rate * (1 - gate) + 1e-12 * gate), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            shape = torch.where(x == 0, 3.0, 3.0 + x)
            pyro.sample("rate", dist.Gamma(shape, torch.where(x == 0, 1.2, 2.0)))

    counts = td.NegativeBinomial(3.0, probs=torch.tensor(0.5)).log_prob(x)
    truth = torch.where(x == 0, torch.log(0.3 + 0.7 * counts.exp()), math.log(0.7) + counts)

    def joint(u):
        open_ = math.log(0.7) + td.Poisson(u.exp()).log_prob(x.expand(len(u), -1))
        shut = torch.where(x == 0, math.log(0.3), -math.inf).expand(len(u), -1)
        return td.Gamma(3.0, 1.0).log_prob(u.exp()) + u + torch.logaddexp(open_, shut)

    return Program(model, guide, x, truth, lambda: line(joint, -14, 5), num_particles=4000, tolerance=0.05)


def two_labels() -> Program:
    """Two enumerated sites, one given the other, both in the model alone and no other latent: each weight is p(x)."""
    x, share = _x(), _share()
    second = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])

    def loc(a, b):
        return a - 1.0 + 0.7 * b

    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Categorical(share), infer=PARALLEL)
            b = pyro.sample("b", dist.Categorical(second[a]), infer=PARALLEL)
            pyro.sample("x", dist.Normal(loc(a, b).unsqueeze(-1).to(x), 0.7).to_event(1), obs=x)

    def guide(x):
        pass

    weights = (share.unsqueeze(-1) * second).reshape(-1)
    locs = torch.tensor([loc(a, b) for a in range(3) for b in range(2)])
    normals = td.Independent(td.Normal(locs.unsqueeze(-1).expand(6, 2), 0.7), 1)
    truth = td.MixtureSameFamily(td.Categorical(weights), normals).log_prob(x)

    def again():
        total = torch.zeros(3)
        for a in range(3):
            for b in range(2):
                total += share[a] * second[a, b] * td.Normal(loc(a, b), 0.7).log_prob(x).sum(-1).exp()
        return total.log()

    return Program(model, guide, x, truth, again, num_particles=10, tolerance=1e-6)


def mixture_masked_for_some_rows() -> Program:
    """A class of two for the rows that are seen, enumerated in the guide; the others have neither class nor reading."""
    x, seen = torch.tensor([0.4, -1.1, 0.9, 2.0]), torch.tensor([True, False, True, False])

    def model(x, seen):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with poutine.mask(mask=seen):
                k = pyro.sample("k", dist.Bernoulli(0.3))
                pyro.sample("x", dist.Normal(z + 2 * k, 0.5), obs=x)

    def guide(x, seen):
        with pyro.plate("data", len(x)):
            with poutine.mask(mask=seen):
                k = pyro.sample("k", dist.Bernoulli(torch.sigmoid(x)), infer={"enumerate": "parallel"})
            pyro.sample("z", dist.Normal(torch.where(seen, 0.8 * (x - 2 * k), 0.0), torch.where(seen, 0.5, 1.0)))

    def of_class(k):
        return td.Normal(2.0 * k, math.sqrt(1.25)).log_prob(x) + math.log(0.3 if k else 0.7)

    truth = torch.where(seen, torch.logaddexp(of_class(0), of_class(1)), 0.0)

    def joint(z):
        both = [math.log(0.3 if k else 0.7) + td.Normal(z + 2.0 * k, 0.5).log_prob(x) for k in (0, 1)]
        return td.Normal(0.0, 1.0).log_prob(z) + torch.where(seen, torch.logaddexp(*both), 0.0)

    return Program(model, guide, (x, seen), truth, lambda: line(joint, -8, 8), tolerance=0.05)


def classes_next_to_the_data() -> Program:
    """A program that wants the dim of its classes next to the data and expanded, as Pyro's trainers give it."""
    x = torch.tensor([0.6, -1.0, 2.1])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            k = pyro.sample("k", dist.Bernoulli(0.3))
            classes, rows = k.shape if k.dim() > 1 else (1, len(k))
            loc = (z.repeat(classes) + 2 * k.reshape(classes * rows)).reshape(k.shape)
            pyro.sample("x", dist.Normal(loc, 0.5), obs=x)

    @config_enumerate(default="parallel", expand=True)
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Bernoulli(torch.sigmoid(x)))
            pyro.sample("z", dist.Normal(0.3 * x, 0.9))

    def of_class(k):
        return td.Normal(2.0 * k, math.sqrt(1.25)).log_prob(x) + math.log(0.3 if k else 0.7)

    def joint(z):
        both = [math.log(0.3 if k else 0.7) + td.Normal(z + 2.0 * k, 0.5).log_prob(x) for k in (0, 1)]
        return td.Normal(0.0, 1.0).log_prob(z) + torch.logaddexp(*both)

    truth = torch.logaddexp(of_class(0), of_class(1))
    return Program(model, guide, x, truth, lambda: line(joint, -8, 8), num_particles=20_000, tolerance=0.05)


PROGRAMS = (
    classes_next_to_the_data,
    mixture_masked_for_some_rows,
    one_hot_beside_z,
    one_hot_in_the_model_alone,
    index_in_both_programs,
    index_by_config_enumerate,
    inflated_zeros,
    two_labels,
)
