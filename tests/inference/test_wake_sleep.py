"""The sleep phase of the guide: E_{p(x,z)}[−log q(z|x)] in closed form on the linear-Gaussian pair."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI

from ppvae.errors import PairError
from ppvae.inference import WakeSleep, WakeWake, fit
from ppvae.models import MIWAE, VAE, Binomial, GaussianMixtureVAE, LinearGaussian

NUM_DATA, NUM_REPLICATES = 400, 40
COUNTS = torch.tensor([[0.0, 1, 4, 2], [3, 0, 1, 1], [2, 2, 4, 0], [1, 0, 0, 4]]).repeat(5, 1)
GAPS = torch.tensor([[0.3, torch.nan, 1.0], [torch.nan, 0.2, -0.4], [0.1, 0.5, 0.2]]).repeat(5, 1)


def pair_of(full_covariance=True):
    """A pair whose guide is another than the posterior."""
    torch.manual_seed(0)
    pair = LinearGaussian(3, 2, full_covariance=full_covariance)
    with torch.no_grad():
        pair.bias.copy_(torch.tensor([0.3, -0.5, 0.1]))
        pair.log_noise_scale.fill_(math.log(0.7))
        pair.guide_weight.normal_(0, 0.3)
        pair.guide_bias.copy_(torch.tensor([0.2, -0.1]))
        pair.guide_log_scale.copy_(torch.tensor([0.1, -0.3]))
    return pair


def sleep_loss(pair):
    """E_{p(x,z)}[−log q(z|x)] of a datum: ½ log |2π S| + ½ tr S⁻¹ E[r rᵀ] with r = z − V x − c, jointly Gaussian."""
    V, c, L = pair.guide_weight, pair.guide_bias, pair._guide_scale_tril()
    W, b, noise = pair.weight.detach(), pair.bias.detach(), (2 * pair.log_noise_scale.detach()).exp()
    mean = -V @ b - c
    A = torch.eye(2) - V @ W
    second = A @ A.T + noise * V @ V.T + torch.outer(mean, mean)
    inverse = torch.cholesky_inverse(L)
    return math.log(2 * math.pi) + L.diagonal().log().sum() + 0.5 * (inverse * second).sum()


def guide_parameters(pair):
    return {name: p for name, p in pair.named_parameters() if name.startswith("guide")}


def gradient(pair, objective, x, seed, model=None, guide=None):
    pair.zero_grad()
    pyro.set_rng_seed(seed)
    loss = objective.loss_and_grads(model or pair.model, guide or pair.guide, x)
    return loss, torch.cat([p.grad.reshape(-1) for p in guide_parameters(pair).values()])


def exact_gradient(pair):
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(sleep_loss(pair), guide_parameters(pair).values())])


def z_scores(found, wanted):
    return (found.mean(0) - wanted) / found.std(0) * len(found) ** 0.5


def test_the_sleep_gradient_is_that_of_the_closed_form_whatever_the_data():
    """|z| < 4.5 for 11 parameters: a false alarm in 13 000 runs. The data given do not matter to the guide."""
    pair, x = pair_of(), 5 + torch.randn(NUM_DATA, 3)
    objective = WakeSleep(2)
    found = torch.stack([gradient(pair, objective, x, seed)[1] / NUM_DATA for seed in range(NUM_REPLICATES)])
    assert (z_scores(found, exact_gradient(pair)).abs() < 4.5).all()


def test_a_mini_batch_scales_the_sum_and_each_datum_counts_once():
    """20 of 400 data, in a plate of 400: the gradient in expectation is 400 times that of a datum. As above."""
    pair, x = pair_of(), torch.randn(20, 3)

    def subsampled(program):
        def run(x):
            with pyro.plate("data", NUM_DATA, subsample=x):
                return program(x)

        return run

    @subsampled
    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        loc = z @ pair.weight.T + pair.bias
        pyro.sample("x", dist.Normal(loc, pair.log_noise_scale.exp()).to_event(1), obs=x)

    @subsampled
    def guide(x):
        pyro.module("pair", pair)
        loc = x @ pair.guide_weight.T + pair.guide_bias
        pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=pair._guide_scale_tril()))

    objective = WakeSleep(2)
    found = torch.stack([gradient(pair, objective, x, s, model, guide)[1] for s in range(NUM_REPLICATES)])
    assert (z_scores(found, NUM_DATA * exact_gradient(pair)).abs() < 4.5).all()


def test_value_and_model_are_those_of_the_wake_phase_and_both_phases_add_up():
    pair, x = pair_of(), torch.randn(6, 3)
    wake, asleep, both = (gradient(pair, kind, x, 3) for kind in (WakeWake(4), WakeSleep(4), WakeSleep(4, wake=True)))
    of_model = []
    for kind in (WakeWake(4), WakeSleep(4)):
        gradient(pair, kind, x, 3)
        of_model.append(pair.weight.grad.clone())
    assert wake[0] == asleep[0] == both[0]
    assert torch.equal(*of_model)
    assert torch.allclose(both[1], wake[1] + asleep[1], rtol=0, atol=1e-10)


@pytest.mark.slow
def test_asleep_the_guide_becomes_the_posterior():
    """On the model's own data the guide loses no more than the least loss, that of the posterior, and 0.02 nats."""
    pair, exact, x = pair_of(), pair_of().set_exact_guide(), torch.randn(300, 3)
    fixed = {name: p.detach() for name, p in pair.named_parameters()}

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = z @ fixed["weight"].T + fixed["bias"]
            pyro.sample("x", dist.Normal(loc, fixed["log_noise_scale"].exp()).to_event(1), obs=x)

    def guide(x):
        V, c, s, lower = (pyro.param(name, fixed[name].clone()) for name in guide_parameters(pair))
        L = torch.diag(s.exp()).index_put(pair._below(), lower)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(x @ V.T + c, scale_tril=L))

    options = {"epochs": 40, "learning_rate": 0.02, "batch_size": 50, "precision": "64-true", "progress": False}
    trained = fit(model, guide, x, loss=WakeSleep(2), seed=0, **options)
    before, least = sleep_loss(pair).item(), sleep_loss(exact).item()
    with torch.no_grad():
        for name, parameter in guide_parameters(pair).items():
            parameter.copy_(trained.parameters[name])
    assert before - least > 0.3
    assert least <= sleep_loss(pair).item() < least + 0.02
    assert torch.allclose(pair.guide_weight, exact.guide_weight, atol=0.1)


@pytest.mark.slow
def test_any_pair_that_draws_its_own_data():
    """Counts, data with gaps, and a class that the model sums out; by fit and by Pyro's SVI."""
    pairs = [
        (VAE.for_data(COUNTS, Binomial(4), latent_dim=2, hidden=(8,)), COUNTS),
        (MIWAE.for_data(GAPS.nan_to_num(), latent_dim=1, hidden=(4,)), GAPS),
        (GaussianMixtureVAE.for_data(COUNTS, Binomial(4), latent_dim=2, hidden=(8,), num_components=3), COUNTS),
    ]
    for pair, x in pairs:
        result = fit(pair.model, pair.guide, x, loss=WakeSleep(3), epochs=2, batch_size=10, progress=False)
        assert math.isfinite(result.history[-1]["elbo"])
        assert math.isfinite(SVI(pair.model, pair.guide, pyro.optim.Adam({}), loss=WakeSleep(3, wake=True)).step(x))


def test_pairs_without_a_sleep_phase_are_refused():
    net = torch.nn.Linear(1, 1)

    def reads_x(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(net(x).squeeze(-1) + z, 1.0).expand([len(x)]), obs=x.squeeze(-1))

    def plain(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x.squeeze(-1))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("a", torch.tensor(0.2)) * x.squeeze(-1), 1.0))

    def auxiliary(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Normal(a, 1.0))

    x = torch.randn(5, 1)
    assert math.isfinite(WakeSleep(2).loss(plain, guide, x))
    with pytest.raises(PairError, match="no sleep phase"):
        WakeSleep(2).loss(reads_x, guide, x)
    with pytest.raises(PairError, match="beside the latents"):
        WakeSleep(2).loss(plain, auxiliary, x)
