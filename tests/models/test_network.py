"""The feed-forward network: the notes' formula, empirical risk and gradient by hand, descent, and what it refuses."""

import math
from functools import partial

import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import PyroOptim
from torch import nn

from ppvae.errors import DataError, OptionError
from ppvae.inference import check, fit, importance_evidence
from ppvae.models import Bernoulli, Categorical, FeedForward, Normal, NormalSharedScale, Poisson

N, D, T, C = 12, 4, 3, 5


def regression():
    x = torch.randn(N, D)
    y = torch.randn(N, T)
    return FeedForward(D, T, hidden=(6, 7)), (y, x)


def classification():
    x = torch.randn(N, D)
    y = torch.randint(0, C, (N, 1)).double()
    return FeedForward(D, hidden=(6,), likelihood=Categorical(C), nonlinearity=nn.Sigmoid), (y, x)


def by_hand(net, x, nonlinearity):
    """h¹ = φ(W¹ x + b¹), …, W^L h^{L−1} + b^L from the parameters alone, in the order in which they stand."""
    parameters = list(net.network.parameters())
    h = x
    for W, b in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
        h = nonlinearity(torch.einsum("ij,nj->ni", W, h) + b)
    return torch.einsum("ij,nj->ni", parameters[-2], h) + parameters[-1]


def squared_error(net, y, x):
    return (0.5 * (y - by_hand(net, x, torch.tanh)) ** 2).sum(-1).mean() + T * 0.5 * math.log(2 * math.pi)


def cross_entropy(net, y, x):
    probabilities = torch.exp(by_hand(net, x, torch.sigmoid))
    probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return -torch.log(probabilities[torch.arange(N), y[:, 0].long()]).mean()


CASES = pytest.mark.parametrize(
    ("build", "risk"), [(regression, squared_error), (classification, cross_entropy)], ids=["regression", "classes"]
)


@CASES
def test_loss_and_gradient_of_svi_are_those_of_the_empirical_risk(build, risk):
    net, data = build()
    loss = Trace_ELBO().differentiable_loss(net.model, net.guide, *data) / N
    expected = risk(net, *data)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-12)

    names, parameters = zip(*net.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, parameters)
    for name, ours, hand in zip(names, gradients, torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(ours, hand, rtol=0, atol=1e-12, msg=name)
        assert hand.abs().max() > 1e-4, name


@CASES
def test_pyro_s_own_svi_reports_the_risk(build, risk):
    net, data = build()
    svi = SVI(net.model, net.guide, PyroOptim(torch.optim.SGD, {"lr": 0.0}), Trace_ELBO())
    assert svi.step(*data) / N == pytest.approx(risk(net, *data).item(), abs=1e-12)


@CASES
def test_fit_with_sgd_is_gradient_descent(build, risk):
    """θ ← θ − η ∇L, three times, with gradients of the risk that is written out above."""
    net, data = build()
    start = [parameter.detach().clone() for parameter in net.parameters()]
    trained = fit(net.model, net.guide, data, epochs=3, batch_size=N, optimizer=torch.optim.SGD, learning_rate=0.1,
                  progress=False)  # fmt: skip
    ended = [parameter.detach().clone() for parameter in net.parameters()]
    with torch.no_grad():
        for parameter, value in zip(net.parameters(), start, strict=True):
            parameter.copy_(value)
    for row in trained.history:
        loss = risk(net, *data)
        assert row["elbo"] == pytest.approx(-loss.item(), abs=1e-12)
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient
    for ours, hand, before in zip(ended, net.parameters(), start, strict=True):
        torch.testing.assert_close(ours, hand.detach(), rtol=0, atol=1e-12)
        assert not torch.equal(ours, before)


@CASES
def test_evidence_has_no_error(build, risk):
    net, data = build()
    evidence = importance_evidence(net.model, net.guide, data, 30)
    assert evidence.log_evidence.mean().item() == pytest.approx(-risk(net, *data).item(), abs=1e-12)
    torch.testing.assert_close(evidence.log_evidence, net.predict(data[1]).log_prob(data[0]).detach())
    torch.testing.assert_close(evidence.gap, torch.zeros(N), rtol=0, atol=1e-12)
    assert evidence.standard_error.max() < 1e-7


@pytest.mark.parametrize(
    "likelihood", [Normal(0.5), NormalSharedScale(), Bernoulli(), Categorical(C), Poisson()], ids=lambda one: str(one)
)
def test_keeps_the_contract(likelihood):
    x = torch.randn(N, D)
    y = likelihood(torch.randn(N, T * likelihood.outputs_per_feature)).sample()
    net = FeedForward.for_data(y, x, likelihood, hidden=(6,))
    assert check(net.model, net.guide, (y, x)) == []


def test_draws_targets_for_the_inputs():
    net, (y, x) = regression()
    blank = y.new_zeros(4000, T)
    drawn = poutine.uncondition(net.model)(blank, x[:1].expand(4000, D))
    # Means of 4000 draws of variance 1, three of them: |z| < 4.5 fails by chance once in 5e4.
    z = (drawn.mean(0) - by_hand(net, x[:1], torch.tanh)[0]) * math.sqrt(4000)
    assert z.abs().max() < 4.5


class TestForData:
    def test_first_guess_is_the_mean_of_the_targets(self):
        x, y = torch.randn(N, D) + 5, torch.randn(N, T) + 7
        net = FeedForward.for_data(y, x, hidden=(6,))
        torch.testing.assert_close(net.predict(x.mean(0)).mean, y.mean(0))

    def test_first_guess_is_the_frequency_of_the_classes(self):
        x, y = torch.randn(N, D), torch.tensor([0.0] * 6 + [1.0] * 3 + [2.0] * 3)[:, None]
        net = FeedForward.for_data(y, x, Categorical(3), hidden=(6,))
        probabilities = net.predict(x.mean(0)).base_dist.probs
        torch.testing.assert_close(probabilities, torch.tensor([[0.5, 0.25, 0.25]]))

    def test_network_sees_inputs_about_zero(self):
        x = torch.tensor([[0.0, 10.0], [4.0, 10.0], [8.0, 16.0]])
        net = FeedForward.for_data(torch.zeros(3, 1), x)
        seen = (x - net.input_shift) / net.input_scale
        torch.testing.assert_close(seen.mean(0), torch.zeros(2))
        assert seen.abs().max() == 1

    def test_network_computes_with_what_it_sees(self):
        x, y = 3 * torch.randn(N, D) + 5, torch.randn(N, T)
        net = FeedForward.for_data(y, x, hidden=(6,))
        seen = (x - x.mean(0)) / (x - x.mean(0)).abs().max()
        torch.testing.assert_close(net.predict(x).mean, by_hand(net, seen, torch.tanh), rtol=0, atol=1e-12)

    def test_inputs_that_do_not_vary_divide_by_one(self):
        x = torch.full((4, D), 2.0)
        assert FeedForward.for_data(torch.zeros(4, 1), x).predict(x).mean.isfinite().all()

    def test_takes_the_type_of_the_inputs(self):
        net = FeedForward.for_data(torch.zeros(4, 1, dtype=torch.float32), torch.randn(4, D, dtype=torch.float32))
        assert {value.dtype for value in net.state_dict().values()} == {torch.float32}

    @pytest.mark.parametrize(
        ("y", "message"),
        [
            (torch.zeros(N), r"give one target a datum as y\[:, None\]"),
            (torch.zeros(N - 1, 1), "y has 11 rows but x has 12"),
            (torch.full((N, 1), 0.5), "y does not fit the likelihood, which calls it x: 12 of the 12 values"),
            (torch.zeros(N, 1, dtype=torch.int64), "floating-point numbers"),
        ],
    )
    def test_refuses_targets_that_do_not_fit(self, y, message):
        with pytest.raises(DataError, match=message):
            FeedForward.for_data(y, torch.randn(N, D), Categorical(C))

    def test_refuses_inputs_that_are_not_finite(self):
        with pytest.raises(DataError, match="not finite"):
            FeedForward.for_data(torch.zeros(2, 1), torch.tensor([[0.0], [math.nan]]))


def test_sizes_are_checked():
    with pytest.raises(OptionError, match="num_targets is 0"):
        FeedForward(D, 0)
    with pytest.raises(OptionError, match="hidden width is 0"):
        FeedForward(D, hidden=(0,))


def test_a_class_boundary_that_no_affine_neuron_has_is_learnt():
    """Exclusive or: an affine map says ½ everywhere, at log 2 = 0.69 nats; one hidden layer gets all four right."""
    x = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    y = torch.tensor([[0.0], [1.0], [1.0], [0.0]])
    train = partial(fit, data=(y, x), epochs=500, batch_size=4, learning_rate=0.05, progress=False)
    affine, deep = (FeedForward.for_data(y, x, Bernoulli(), hidden=hidden) for hidden in ((), (8,)))
    assert train(affine.model, affine.guide).elbo == pytest.approx(-math.log(2), abs=1e-3)
    assert train(deep.model, deep.guide).elbo > -0.05
