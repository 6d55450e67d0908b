"""The VAE: sites and shapes under particles, its formulas, where it starts, and that it learns at all."""

import pydoc

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from torch import nn

from ppvae.errors import DataError, OptionError
from ppvae.models import (
    MLP,
    VAE,
    Autoencoder,
    Bernoulli,
    Binomial,
    Categorical,
    ConvDecoder,
    ConvEncoder,
    FeedForward,
    LinearGaussian,
    NegativeBinomial,
    Normal,
    NormalFeatureScale,
    NormalSharedScale,
    Poisson,
)
from ppvae.models.location_scale import committed

N, SIDE, D, d = 6, 4, 16, 3
LIKELIHOODS = [
    Bernoulli,
    lambda: Binomial(16),
    Normal,
    NormalSharedScale,
    lambda: NormalFeatureScale(D),
    lambda: Categorical(5),
    Poisson,
    NegativeBinomial,
]
IDS = ["bernoulli", "binomial", "normal", "shared", "feature", "categorical", "poisson", "negative-binomial"]


def small(likelihood, convolutional=False):
    """A pair and data for which p(x|z) is the likelihood."""
    x = likelihood(torch.randn(N, D * likelihood.outputs_per_feature)).sample()
    options = {"hidden": (8, 7)}
    if convolutional:
        options = {
            "encoder": ConvEncoder((SIDE, SIDE), 2 * d),
            "decoder": ConvDecoder(d, (SIDE, SIDE), likelihood.outputs_per_feature),
        }
    return VAE.for_data(x, likelihood, latent_dim=d, **options), x


@pytest.mark.parametrize("convolutional", [False, True], ids=["mlp", "conv"])
@pytest.mark.parametrize("make", LIKELIHOODS, ids=IDS)
class TestEveryLikelihood:
    def test_runs_under_particles(self, make, convolutional):
        vae, x = small(make(), convolutional)
        with pyro.plate("particles", 5, dim=-2):
            guide = poutine.trace(vae.guide).get_trace(x)
            model = poutine.trace(poutine.replay(vae.model, guide)).get_trace(x)
        for trace in (guide, model):
            trace.compute_log_prob()
            assert trace.nodes["z"]["value"].shape == (5, N, d)
            assert trace.nodes["z"]["log_prob"].shape == (5, N)
        assert model.nodes["x"]["log_prob"].shape == (5, N)
        # A particle is a run of its own.
        one = poutine.trace(poutine.condition(vae.model, data={"z": guide.nodes["z"]["value"][2]})).get_trace(x)
        one.compute_log_prob()
        torch.testing.assert_close(one.nodes["x"]["log_prob"], model.nodes["x"]["log_prob"][2])

    def test_gradient_reaches_every_parameter(self, make, convolutional):
        vae, x = small(make(), convolutional)
        Trace_ELBO().differentiable_loss(vae.model, vae.guide, x).backward()
        for name, parameter in vae.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name

    def test_origin_decodes_to_the_mean_of_the_data(self, make, convolutional):
        vae, x = small(make(), convolutional)
        bias = vae.likelihood.initial_bias(x)
        torch.testing.assert_close(vae.decoder(torch.zeros(d)), bias)

    def test_prior_predictive_is_in_the_support(self, make, convolutional):
        vae, x = small(make(), convolutional)
        drawn = poutine.uncondition(vae.model)(x)
        assert drawn.shape == x.shape
        vae.likelihood.check(drawn)
        assert not torch.equal(drawn, poutine.uncondition(vae.model)(x))


def test_joint_is_prior_times_likelihood():
    vae, x = small(Bernoulli())
    z = torch.randn(N, d)
    trace = poutine.trace(poutine.condition(vae.model, data={"z": z})).get_trace(x)
    log_prior = -0.5 * (z**2).sum(-1) - 0.5 * d * torch.log(torch.tensor(2 * torch.pi))
    logits = vae.decoder(z)
    log_likelihood = (x * logits - nn.functional.softplus(logits)).sum(-1)
    assert torch.as_tensor(trace.log_prob_sum()).item() == pytest.approx(
        (log_prior + log_likelihood).sum().item(), abs=1e-10
    )


def test_guide_is_what_encode_says():
    vae, x = small(Binomial(16))
    loc, scale = vae.encode(x)
    output = vae.encoder((x - x.min()) / (x.max() - x.min()))
    torch.testing.assert_close(loc, output[:, :d])
    torch.testing.assert_close(scale, torch.log1p(output[:, d:].exp()))
    site = poutine.trace(vae.guide).get_trace(x).nodes["z"]["fn"]
    torch.testing.assert_close(site.base_dist.loc, loc)
    torch.testing.assert_close(site.base_dist.scale, scale)


def test_a_datum_does_not_depend_on_the_rest_of_the_batch():
    vae, x = small(Bernoulli(), convolutional=True)
    for together, alone in zip(vae.encode(x), vae.encode(x[2:3]), strict=True):
        torch.testing.assert_close(together[2:3], alone)


def test_scale_never_underflows_in_float32():
    vae = VAE(D, d, hidden=()).float()
    with torch.no_grad():
        vae.encoder.output_bias[d:] = -200.0
    x = torch.zeros(N, D, dtype=torch.float32)
    trace = poutine.trace(vae.guide).get_trace(x)
    assert torch.as_tensor(trace.log_prob_sum()).isfinite()


def test_analytic_kl_agrees_with_the_encoder():
    # KL(N(μ, σ²) ‖ N(0, 1)) = ½ Σ (μ² + σ² − 1 − log σ²), Kingma & Welling (2014), appendix B.
    vae, x = small(Bernoulli())
    loc, scale = vae.encode(x)
    by_hand = 0.5 * (loc**2 + scale**2 - 1 - 2 * scale.log()).sum(-1)
    site = poutine.trace(vae.guide).get_trace(x).nodes["z"]["fn"]
    prior = dist.Normal(torch.zeros(d), 1.0).to_event(1)
    torch.testing.assert_close(dist.kl.kl_divergence(site, prior.expand([N])), by_hand)


def test_learning_raises_the_elbo():
    # Two kinds of pictures, one the other's negative. Without z the best log-likelihood is −log 2 a pixel, and with it
    # that of one fair coin a picture: log p(x) = −log 2. Half way between the two is out of reach by chance.
    x = torch.cat([torch.eye(SIDE).flatten().expand(20, -1), 1 - torch.eye(SIDE).flatten().expand(20, -1)])
    vae = VAE.for_data(x, Bernoulli(), latent_dim=1, hidden=(16,))
    svi = SVI(vae.model, vae.guide, pyro.optim.PyroOptim(torch.optim.Adam, {"lr": 0.02}), Trace_ELBO())
    before = -svi.evaluate_loss(x) / len(x)
    for _ in range(300):
        svi.step(x)
    after = -svi.evaluate_loss(x) / len(x)
    without_z = -D * torch.log(torch.tensor(2.0)).item()
    assert before < without_z + 1
    assert after > without_z / 2


class TestForData:
    def test_encoder_sees_the_unit_interval(self):
        x = torch.randint(3, 17, (50, D)).double()
        x[0, :2] = torch.tensor([3.0, 16.0], dtype=x.dtype)
        vae = VAE.for_data(x, Binomial(16), latent_dim=d)
        seen = (x - vae.input_shift) / vae.input_scale
        assert (seen.min().item(), seen.max().item()) == (0, 1)

    def test_binary_data_are_left_as_they_are(self):
        vae, _ = small(Bernoulli())
        assert (vae.input_shift.item(), vae.input_scale.item()) == (0, 1)

    def test_constant_data_divide_by_one(self):
        vae = VAE.for_data(torch.full((4, D), 2.0), Poisson(), latent_dim=d)
        assert all(value.isfinite().all() for value in vae.encode(torch.full((4, D), 2.0)))

    def test_takes_the_type_of_the_data(self):
        vae = VAE.for_data(torch.zeros(4, D, dtype=torch.float32), NormalSharedScale(), latent_dim=d)
        assert {value.dtype for value in vae.state_dict().values()} == {torch.float32}

    def test_state_holds_the_scaling(self):
        vae, x = small(Binomial(16))
        other = VAE(D, d, hidden=(8, 7), likelihood=Binomial(16))
        other.load_state_dict(vae.state_dict())
        torch.testing.assert_close(other.encode(x), vae.encode(x))

    def test_decoder_without_output_bias_is_left_alone(self):
        decoder = nn.Linear(d, D)
        before = decoder.bias.detach().clone()
        VAE.for_data(torch.ones(4, D), Bernoulli(), latent_dim=d, decoder=decoder)
        torch.testing.assert_close(decoder.bias.detach(), before)

    def test_refuses_grey_values(self):
        with pytest.raises(DataError, match="binarise grey values first"):
            VAE.for_data(torch.full((4, D), 0.5), Bernoulli())


def test_defaults_are_the_papers_of_the_field():
    vae = VAE(784)
    assert isinstance(vae.likelihood, Bernoulli)
    assert [tuple(parameter.shape) for parameter in vae.decoder.parameters()][::2] == [
        (200, 20),
        (200, 200),
        (784, 200),
    ]
    assert vae.encoder.output_bias.shape == (40,)


def test_own_networks_take_the_places():
    encoder, decoder = MLP(D, (), 2 * d), MLP(d, (), D)
    vae = VAE(D, d, encoder=encoder, decoder=decoder)
    assert vae.encoder is encoder
    assert vae.decoder is decoder


def test_sizes_are_checked():
    with pytest.raises(OptionError, match="latent_dim is 0; give a whole number"):
        VAE(D, 0)
    with pytest.raises(OptionError, match="in_features is 0; give a whole number"):
        VAE(0, d)


def test_decoder_mirrors_the_encoder():
    vae = VAE(D, d, hidden=(8, 7))
    widths = [[tuple(p.shape) for p in network.parameters()][::2] for network in (vae.encoder, vae.decoder)]
    assert widths == [[(8, D), (7, 8), (2 * d, 7)], [(7, d), (8, 7), (D, 8)]]


@pytest.mark.parametrize("kind", [VAE, LinearGaussian, Autoencoder, FeedForward])
def test_help_begins_with_the_pair_and_not_with_torch(kind):
    """What torch's modules bring along comes after all that is the pair's own."""
    own = pydoc.plain(pydoc.render_doc(kind)).partition("Methods inherited from torch")[0]
    assert " |  model(self, " in own
    assert " |  guide(self, " in own
    assert "ScriptModule" not in own
    assert "Make the pair" in own


# --- a committed rate -------------------------------------------------------------------------------------------------


def unit_kl(loc, scale):
    return torch.distributions.kl_divergence(dist.Normal(loc, scale), dist.Normal(0.0, 1.0))


@pytest.mark.parametrize("rate", [1e-3, 0.1, 2.0])
def test_no_unit_falls_below_the_committed_rate(rate):
    """On a grid that holds the prior, the signs of zero, and the ends of what softplus gives."""
    loc = torch.cat([torch.linspace(-4, 4, 161), torch.tensor([-0.0, 1e-12])])[:, None]
    scale = torch.cat([torch.logspace(-6, 2, 81), torch.ones(1)])
    kl = unit_kl(committed(loc, scale, rate), scale.expand(163, -1))
    assert kl.min() >= rate * (1 - 1e-9)
    free = unit_kl(torch.zeros(()), scale) < rate
    assert torch.allclose(kl[:, free], rate + loc.square().expand(-1, 82)[:, free] / 2)
    assert torch.equal(committed(loc, scale, rate)[:, ~free], loc.expand(-1, 82)[:, ~free])


def test_without_a_rate_the_guide_is_the_free_one():
    loc, scale = torch.randn(50), torch.rand(50) + 0.5
    assert torch.equal(committed(loc, scale, 0.0), loc)
    assert torch.allclose(committed(loc, scale, 1e-12), loc, atol=1e-5)
    loc.requires_grad_()
    for rate in (0.0, 0.5):
        (gradient,) = torch.autograd.grad(committed(loc * 0, torch.ones(50), rate).sum(), loc)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_every_datum_and_unit_keeps_its_rate_while_training(rate):
    """On data that one unit would do for: the ELBO without a rate lets the others collapse."""
    torch.manual_seed(0)
    x = torch.bernoulli(torch.rand(200, 1).expand(-1, 8))
    vae = VAE.for_data(x, Bernoulli(), latent_dim=6, hidden=(16,), committed_rate=rate)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    for _ in range(150):
        svi.step(x)
    kl = unit_kl(*vae.encode(x))
    if rate:
        assert kl.min() >= rate * (1 - 1e-9)
    else:
        assert kl.mean(0).min() < 0.05


def test_a_rate_is_not_negative():
    for rate in (-0.1, float("nan"), float("inf")):
        with pytest.raises(OptionError, match="committed_rate"):
            VAE(4, latent_dim=1, hidden=(2,), committed_rate=rate)
