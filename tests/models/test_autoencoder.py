"""The autoencoder: its loss by hand, a prior that does not count, and how far d < D can go."""

import math

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import nn

from ppvae.errors import DataError, OptionError, PairError
from ppvae.inference import check, fit, importance_evidence, log_weights
from ppvae.models import Autoencoder, Bernoulli, Binomial, Categorical, Normal

N, D, d = 10, 6, 2
SHAPES = pytest.mark.parametrize(
    ("latent_dim", "hidden"), [(2, ()), (9, ()), (2, (8, 7)), (9, (8,))], ids=["linear", "wide", "deep", "deep-wide"]
)


def by_hand(pair, x):
    """g(f(x)), f and g from their parameters alone."""
    h = (x - pair.input_shift) / pair.input_scale
    for network in (pair.encoder, pair.decoder):
        parameters = list(network.parameters())
        for i in range(0, len(parameters), 2):
            h = torch.einsum("ij,nj->ni", parameters[i], h) + parameters[i + 1]
            h = torch.tanh(h) if i + 2 < len(parameters) else h
    return h


def squared_error(x, output):
    return 0.5 * ((x - output) ** 2).sum(-1) + 0.5 * D * math.log(2 * math.pi)


def cross_entropy(x, output):
    p = 1 / (1 + torch.exp(-output))
    return -(x * torch.log(p) + (1 - x) * torch.log(1 - p)).sum(-1)


LOSSES = pytest.mark.parametrize(
    ("likelihood", "loss"), [(Normal(), squared_error), (Bernoulli(), cross_entropy)], ids=["squares", "bernoulli"]
)


def small(likelihood, latent_dim=d, hidden=()):
    x = likelihood(torch.randn(N, D)).sample()
    return Autoencoder.for_data(x, latent_dim, likelihood, hidden=hidden), x


@SHAPES
@LOSSES
class TestEveryShapeAndLoss:
    def test_trace_elbo_is_the_reconstruction_loss(self, likelihood, loss, latent_dim, hidden):
        pair, x = small(likelihood, latent_dim, hidden)
        ours = Trace_ELBO().differentiable_loss(pair.model, pair.guide, x) / N
        expected = loss(x, by_hand(pair, x)).mean()
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
        names, parameters = zip(*pair.named_parameters(), strict=True)
        gradients = torch.autograd.grad(ours, parameters)
        for name, one, hand in zip(names, gradients, torch.autograd.grad(expected, parameters), strict=True):
            torch.testing.assert_close(one, hand, rtol=0, atol=1e-12, msg=name)

    def test_the_density_of_each_datum_is_that_of_the_copy(self, likelihood, loss, latent_dim, hidden):
        """log p(x | g(f(x))) for every particle and datum."""
        pair, x = small(likelihood, latent_dim, hidden)
        with pyro.plate("particles", 3, dim=-2):
            guide = poutine.trace(pair.guide).get_trace(x)
            model = poutine.trace(poutine.replay(pair.model, guide)).get_trace(x)
        log_p = model.nodes["x"]["fn"].log_prob(x).expand(3, N)
        torch.testing.assert_close(log_p, -loss(x, by_hand(pair, x)).expand(3, N), rtol=0, atol=1e-12)

    def test_has_no_evidence_and_nothing_else_is_wrong(self, likelihood, loss, latent_dim, hidden):
        pair, x = small(likelihood, latent_dim, hidden)
        assert [(finding.code, finding.site) for finding in check(pair.model, pair.guide, x)] == [("point-mass", "z")]
        for estimate in (log_weights, importance_evidence):
            with pytest.raises(PairError, match="z: the guide puts it at a single point"):
                estimate(pair.model, pair.guide, x, 3)

    def test_gradient_reaches_every_parameter(self, likelihood, loss, latent_dim, hidden):
        pair, x = small(likelihood, latent_dim, hidden)
        with torch.no_grad():
            pair.decoder.output_bias.add_(0.1)  # affine maps start where their biases are best
        Trace_ELBO().differentiable_loss(pair.model, pair.guide, x).backward()
        assert [name for name, p in pair.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-12] == []


def test_the_guide_is_a_point_mass_at_the_code():
    pair, x = small(Normal(), hidden=(8,))
    with pyro.plate("particles", 5, dim=-2):
        guide = poutine.trace(pair.guide).get_trace(x)
        model = poutine.trace(poutine.replay(pair.model, guide)).get_trace(x)
    for trace in (guide, model):
        trace.compute_log_prob()
        assert trace.nodes["z"]["log_prob"].shape == (5, N)
        assert not trace.nodes["z"]["log_prob"].any()
    assert torch.equal(guide.nodes["z"]["value"], pair.encode(x).expand(5, N, d))
    assert model.nodes["x"]["log_prob"].shape == (5, N)


def test_the_prior_does_not_count_wherever_the_code_lies():
    pair, x = small(Normal())
    far = poutine.trace(poutine.condition(pair.model, {"z": 1e3 * torch.ones(N, d)})).get_trace(x)
    far.compute_log_prob()
    assert not far.nodes["z"]["log_prob"].any()


def test_a_code_that_differs_by_rounding_weighs_as_much():
    """f(x) of half a batch need not have the last bits of f(x) of the whole."""
    pair, x = small(Normal(), hidden=(8,))
    nearly = pair.encode(x).detach() * (1 + 1e-15)
    guide = poutine.trace(poutine.condition(pair.guide, {"z": nearly})).get_trace(x)
    guide.compute_log_prob()
    assert not torch.equal(nearly, pair.encode(x))
    assert not guide.nodes["z"]["log_prob"].any()


def test_the_model_runs_by_itself():
    """What the decoder makes of codes from N(0, I); 4000 draws of a code have mean 0 and variance 1, |z| < 4.5."""
    pair, x = small(Normal(), hidden=(8,))
    trace = poutine.trace(poutine.uncondition(pair.model)).get_trace(x[:1].expand(4000, D))
    z = trace.nodes["z"]["value"]
    assert (z.mean(0).abs() * math.sqrt(4000) < 4.5).all()
    assert ((z.var(0) - 1).abs() * math.sqrt(4000 / 2) < 4.5).all()
    noise = trace.nodes["x"]["value"] - pair.decode(z).mean
    assert abs(noise.mean().item()) * math.sqrt(4000 * D) < 4.5


@pytest.mark.parametrize("latent_dim", [1, 3])
@pytest.mark.slow
def test_undercomplete_linear_reaches_the_eckart_young_optimum_and_no_further(latent_dim):
    x = torch.randn(50, D) * torch.arange(1, D + 1)
    pair = Autoencoder.for_data(x, latent_dim)
    fit(pair.model, pair.guide, x, epochs=1500, batch_size=50, learning_rate=0.02, progress=False)
    error = (x - pair.reconstruct(x)).square().sum(-1).mean().item()
    left_out = torch.linalg.svdvals(x - x.mean(0))[latent_dim:].square().sum().item() / 50
    assert left_out - 1e-9 < error < 1.001 * left_out


@pytest.mark.slow
def test_overcomplete_linear_learns_the_identity():
    x = torch.randn(50, D) * torch.arange(1, D + 1)
    pair = Autoencoder.for_data(x, D + 2)
    fit(pair.model, pair.guide, x, epochs=1000, batch_size=50, learning_rate=0.02, progress=False)
    elsewhere = x.flip(0) * 0.5 + 1  # not only the data, but all of the space
    assert (elsewhere - pair.reconstruct(elsewhere)).abs().max() < 0.02


def test_reconstruct_is_the_mean_of_what_decode_says():
    pair, x = small(Bernoulli(), hidden=(8,))
    torch.testing.assert_close(pair.reconstruct(x), torch.sigmoid(by_hand(pair, x)))
    torch.testing.assert_close(pair.decode(pair.encode(x)).base_dist.probs, pair.reconstruct(x))
    assert pair.reconstruct(x.expand(3, N, D)).shape == (3, N, D)


def test_several_outputs_a_feature():
    x = torch.randint(0, 4, (N, D)).double()
    pair = Autoencoder.for_data(x, d, Categorical(4), hidden=(8,))
    assert pair.reconstruct(x).shape == x.shape
    assert [finding.code for finding in check(pair.model, pair.guide, x)] == ["point-mass"]


class TestForData:
    def test_the_mean_of_the_data_is_copied_as_it_is(self):
        x = torch.randint(0, 17, (N, D)).double()
        x[:, 0] = 8.0
        pair = Autoencoder.for_data(x, d, Binomial(16), hidden=(8,))
        torch.testing.assert_close(pair.reconstruct(x.mean(0)), x.mean(0))

    def test_encoder_sees_data_about_zero(self):
        x = torch.tensor([[0.0, 10.0], [4.0, 10.0], [8.0, 16.0]])
        pair = Autoencoder.for_data(x, 1)
        seen = (x - pair.input_shift) / pair.input_scale
        torch.testing.assert_close(seen.mean(0), torch.zeros(2))
        assert seen.abs().max() == 1

    def test_takes_the_type_of_the_data(self):
        pair = Autoencoder.for_data(torch.randn(4, D, dtype=torch.float32), d)
        assert {value.dtype for value in pair.state_dict().values()} == {torch.float32}

    def test_refuses_grey_values(self):
        with pytest.raises(DataError, match="binarise grey values first"):
            Autoencoder.for_data(torch.full((4, D), 0.5), d, Bernoulli())


def test_decoder_mirrors_the_encoder():
    pair = Autoencoder(D, d, hidden=(8, 7), nonlinearity=nn.Sigmoid)
    widths = [[tuple(p.shape) for p in network.parameters()][::2] for network in (pair.encoder, pair.decoder)]
    assert widths == [[(8, D), (7, 8), (d, 7)], [(7, d), (8, 7), (D, 8)]]
    assert any(isinstance(module, nn.Sigmoid) for module in pair.encoder.modules())


def test_sizes_are_checked():
    with pytest.raises(OptionError, match="latent_dim is 0; give a whole number"):
        Autoencoder(D, 0)
