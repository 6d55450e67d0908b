"""Pairs whose unused latent units have a cause that was planted, and a pair without any."""

import pyro
import pyro.distributions as dist
import torch

from ppvae.inference import Beta, fit

FACTORS = torch.tensor([[2.0, 0.0, 1.0, -1.0], [0.3, 0.9, 0.2, 0.8]])


def factors(num_data=400, num_factors=2, noise=0.3, seed=0):
    """x = z F + noise, with one or two factors."""
    generator = torch.Generator().manual_seed(seed)
    loadings = FACTORS[:num_factors].to(torch.get_default_dtype())
    z = torch.randn(num_data, num_factors, generator=generator)
    return z @ loadings + noise * torch.randn(num_data, 4, generator=generator)


class Linear(torch.nn.Module):
    """z ~ N(0, I), x ~ N(W diag(gate) z, σ²) and a linear guide; σ is fixed."""

    def __init__(self, dim=2, features=4, noise=0.3, start=0.1, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.W = torch.nn.Parameter(start * torch.randn(features, dim, generator=generator))
        self.gate = torch.nn.Parameter(torch.ones(dim))
        self.A = torch.nn.Parameter(start * torch.randn(dim, features, generator=generator))
        self.log_scale = torch.nn.Parameter(torch.zeros(dim))
        self.noise = noise

    def mean(self, z, x):
        return (z * self.gate) @ self.W.T

    def model(self, x):
        pyro.module("pair", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(self.gate)), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.mean(z, x), self.noise).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("pair", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ self.A.T, self.log_scale.exp()).to_event(1))


def trained(pair, x, epochs=100, learning_rate=0.03, **options):
    options = {"epochs": epochs, "learning_rate": learning_rate, "progress": False, "compile": False} | options
    fit(pair.model, pair.guide, x, **options)
    return pair


def healthy():
    """Two factors, two units, the noise that there is."""
    x = factors()
    return trained(Linear(), x), x, {}


def wide_noise():
    """The second factor varies less than the noise, which is fixed five times too wide."""
    x = factors()
    return trained(Linear(noise=1.5), x), x, {}


def too_short():
    """Training has hardly begun."""
    x = factors()
    return trained(Linear(start=0.01), x, epochs=1, learning_rate=1e-3), x, {}


def dead_unit():
    """The second unit's column, gate and guide are zero, where all of their gradients are."""
    x = factors()
    pair = Linear()
    with torch.no_grad():
        for values in (pair.W[:, 1], pair.gate[1:], pair.A[1]):
            values.zero_()
    return trained(pair, x), x, {}


def heavy_kl():
    """Trained with a weight of the KL term under which the second factor is not worth its KL."""
    x = factors()
    return trained(Linear(noise=0.6), x, loss=Beta(6.0)), x, {"kl_weight": 6.0}


class Squared(Linear):
    """x ~ N(w (z² − 1), σ²): a unit near its prior is of no use, and one that is far from it is."""

    def __init__(self):
        super().__init__(dim=1, noise=1.0, start=0.02)
        self.bias = torch.nn.Parameter(torch.zeros(1))

    def mean(self, z, x):
        return (z**2 - 1) @ self.W.T

    def guide(self, x):
        pyro.module("pair", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ self.A.T + self.bias, self.log_scale.exp()).to_event(1))


def weight_one_too_early(seed=0):
    """Two clusters, which a unit tells apart only from far off its prior: the KL term of weight 1 holds it there."""
    generator = torch.Generator().manual_seed(seed)
    sign = (torch.rand(400, 1, generator=generator) < 0.5).to(torch.get_default_dtype()) * 2 - 1
    x = 1.2 * sign + torch.randn(400, 4, generator=generator)
    pair = Squared()
    with torch.no_grad():
        pair.A.zero_()
    return trained(pair, x, epochs=30, learning_rate=0.005), x, {}


class Autoregressive(Linear):
    """x_t ~ N(Σ_{s<t} L_ts x_s + W z, σ_t²): the decoder reads what comes before."""

    def __init__(self):
        super().__init__(dim=1, start=0.01)
        self.L = torch.nn.Parameter(torch.zeros(4, 4))
        self.log_noise = torch.nn.Parameter(torch.zeros(4))

    def mean(self, z, x):
        return super().mean(z, x) + x @ torch.tril(self.L, -1).T

    def model(self, x):
        pyro.module("pair", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.mean(z, x), self.log_noise.exp()).to_event(1), obs=x)


def strong_decoder():
    """One factor, which x itself tells from its second number on."""
    x = factors(num_factors=1)
    pair = Autoregressive()
    with torch.no_grad():  # the regressions, at which nothing is left to say
        for t in range(4):
            if t:
                pair.L[t, :t] = torch.linalg.lstsq(x[:, :t], x[:, t]).solution
            pair.log_noise[t] = (x[:, t] - x @ torch.tril(pair.L, -1)[t]).std().log()
        pair.W.zero_()
        pair.A.zero_()
    return trained(pair, x, epochs=20), x, {}


def surplus_unit():
    """One factor and two units."""
    x = factors(num_factors=1)
    return trained(Linear(), x), x, {}


def copied_unit():
    """One factor, which both units are used to say, to the same part: each is active, and neither is needed."""
    x = factors(num_factors=1)
    pair = Linear()
    with torch.no_grad():
        pair.W.copy_(FACTORS[:1].T.to(pair.W) @ pair.W.new_full((1, 2), 0.5**0.5))
        precision = torch.eye(2).to(pair.W) + pair.W.T @ pair.W / pair.noise**2
        pair.A.copy_(torch.linalg.solve(precision, pair.W.T / pair.noise**2))
        pair.log_scale.copy_(-precision.diag().log() / 2)
    return pair, x, {}
