"""`log_weights`: draws, shapes, precision, support, scales, masks and refusals. Its values per pair: test_laws.py."""

import math
from typing import Any

import pairs
import pyro
import pyro.distributions as dist
import pytest
import torch
import truths_inference as truths
from pyro import poutine
from scipy import stats

from ppvae.errors import DataError, OptionError, PairError
from ppvae.inference import importance_evidence, log_weights
from ppvae.models import VAE


def test_a_seed_fixes_the_draws_and_leaves_the_global_generator_alone():
    pair = pairs.build("linear_shifted")
    state = torch.get_rng_state()
    first = log_weights(pair.model, pair.guide, pair.x, 20, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    assert torch.equal(log_weights(pair.model, pair.guide, pair.x, 20, seed=3), first)
    assert not torch.equal(log_weights(pair.model, pair.guide, pair.x, 20, seed=4), first)


def test_without_a_seed_the_draws_come_from_the_global_generator():
    pair = pairs.build("linear_shifted")
    torch.manual_seed(8)
    first = log_weights(pair.model, pair.guide, pair.x, 20)
    second = log_weights(pair.model, pair.guide, pair.x, 20)
    assert not torch.equal(first, second)
    torch.manual_seed(8)
    assert torch.equal(log_weights(pair.model, pair.guide, pair.x, 20), first)


def test_copies_of_a_datum_and_particles_are_drawn_independently():
    pair = pairs.build("linear_shifted").replicated(200)
    log_w = log_weights(pair.model, pair.guide, pair.x, 200, seed=0)
    assert len(log_w.unique()) == log_w.numel()
    # Of 19 900 correlations of 200 draws each, with sd 1/√200, one beyond 6 sd: false alarm 4e-5.
    correlation = torch.corrcoef(log_w.T).fill_diagonal_(0)
    assert correlation.abs().max() < 6 / math.sqrt(200)


@pytest.mark.parametrize(
    ("name", "memory_mb"),
    [
        pytest.param("linear_shifted", 0.01, marks=pytest.mark.slow),
        pytest.param("plated", 0.03, marks=pytest.mark.slow),
        ("conditional", 0.03),
        pytest.param("parts", 0.1, marks=pytest.mark.slow),
        ("mixture_conditional_wide", 0.1),
    ],
)
def test_pieces_have_the_law_of_the_whole(name, memory_mb):
    """Two samples of 600 weights, Kolmogorov-Smirnov for each datum; false alarm 1e-5 a datum."""
    pair = pairs.build(name)
    whole = log_weights(pair.model, pair.guide, pair.data, 600, seed=1, memory_mb=512)
    pieces = log_weights(pair.model, pair.guide, pair.data, 600, seed=2, memory_mb=memory_mb)
    assert pieces.shape == whole.shape
    for datum in range(len(pair.x)):
        assert stats.ks_2samp(pieces[:, datum], whole[:, datum]).pvalue > 1e-5
        assert len(pieces[:, datum].unique()) == 600


@pytest.mark.parametrize("name", pairs.EXACT)
def test_pieces_keep_each_datum_in_its_place(name):
    pair = pairs.build(name)
    log_w = log_weights(pair.model, pair.guide, pair.data, 11, seed=1, memory_mb=0.005)
    torch.testing.assert_close(log_w, pair.truth.expand(11, -1), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["linear_exact", "mixture", "nested", "conditional_exact"])
def test_one_datum_and_one_particle(name):
    pair = pairs.build(name).rows(slice(1, 2))
    log_w = log_weights(pair.model, pair.guide, pair.data, 1, seed=0)
    assert log_w.shape == (1, 1)
    torch.testing.assert_close(log_w[0], pair.truth, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["linear_exact", "hierarchy_exact", "mixture", "nested", "mixture_conditional"])
def test_single_precision_pairs_give_double_precision_weights(name):
    truth = pairs.build(name).truth
    torch.set_default_dtype(torch.float32)
    pair = pairs.build(name)
    assert pair.x.dtype == torch.float32
    log_w = log_weights(pair.model, pair.guide, pair.data, 30, seed=0)
    assert log_w.dtype == torch.float64
    torch.testing.assert_close(log_w, truth.expand_as(log_w), rtol=0, atol=1e-4)


def test_a_draw_outside_the_support_has_no_weight():
    """Half of the first guide's draws leave the support; their share and the mean weight at |z| < 4.5."""
    pair = pairs.uniform(low=[-0.5, 0.0], high=[1.5, 1.0])
    log_w = log_weights(pair.model, pair.guide, pair.data, 20_000, seed=0)
    outside = torch.isneginf(log_w)
    assert not torch.isnan(log_w).any()
    assert not outside[:, 1].any()
    assert abs(outside[:, 0].double().mean().item() - 0.5) < truths.Z_LIMIT * 0.5 / math.sqrt(20_000)
    weight = log_w.exp()
    z = (weight.mean(0) - pair.truth.exp()) / (weight.std(0) / math.sqrt(20_000))
    assert z.abs().max() < truths.Z_LIMIT


@pytest.mark.parametrize("name", ["linear_exact", "mixture", "nested"])
def test_training_scales_are_left_out(name):
    pair = pairs.build(name)
    scaled = poutine.scale(pair.model, 0.1), poutine.scale(pair.guide, 0.1)
    log_w = log_weights(*scaled, pair.x, 3, seed=0)
    torch.testing.assert_close(log_w, pair.truth.expand(3, -1), rtol=0, atol=1e-10)
    (remark,) = importance_evidence(*scaled, pair.x, 10, seed=0).notes
    assert "poutine.scale weights its log density" in remark
    assert importance_evidence(pair.model, pair.guide, pair.x, 10, seed=0).notes == ()


def test_the_scale_of_a_subsampling_plate_is_left_out():
    def model(x):
        with pyro.plate("data", 1000, subsample=torch.arange(len(x))):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", 1000, subsample=torch.arange(len(x))):
            pyro.sample("z", dist.Normal(x / 2, math.sqrt(0.5)))

    pair = pairs.build("line")
    log_w = log_weights(model, guide, pair.x, 3, seed=0)
    torch.testing.assert_close(log_w, pair.truth.expand(3, -1), rtol=0, atol=1e-10)
    assert importance_evidence(model, guide, pair.x, 10, seed=0).notes == ()


def test_a_plate_without_a_size_weights_nothing():
    def model(x):
        with pyro.plate("data"):
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0)), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data"):
            pyro.sample("z", dist.Normal(x / 2, 0.8))

    assert importance_evidence(model, guide, torch.randn(4), 10, seed=0).notes == ()


@pytest.mark.parametrize("by_handler", [False, True])
def test_masked_features_do_not_count(by_handler):
    """Missing entries, masked in the distribution or by `poutine.mask`: the evidence is that of the others."""
    weight, noise = torch.tensor([[1.0], [0.5], [-0.8]]), 0.25
    x = torch.tensor([[0.4, -1.0, 0.0], [0.0, 0.3, 1.1], [-0.5, 0.2, 0.9]])
    present = torch.tensor([[True, True, False], [False, True, True], [True, True, True]])

    def model(x, present, loc, std):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            if by_handler:
                with pyro.plate("features", 3, dim=-2), poutine.mask(mask=present.T):
                    pyro.sample("x", dist.Normal(weight * z[..., 0], math.sqrt(noise)), obs=x.T)
            else:
                likelihood = dist.Normal(z @ weight.T, math.sqrt(noise)).mask(present).to_event(1)
                pyro.sample("x", likelihood, obs=x)

    def guide(x, present, loc, std):
        with pyro.plate("data", len(x), dim=-1):
            # With a plate of features the particles stand further left, and z needs a place for that plate.
            z = dist.Normal(loc.unsqueeze(0) if by_handler else loc, std).to_event(1)
            pyro.sample("z", z)

    truth, locs, stds = [], [], []
    for row, here in zip(x, present, strict=True):
        seen = row[here].unsqueeze(0)
        numbers = (
            weight[here],
            torch.zeros(seen.shape[1]),
            noise * torch.eye(seen.shape[1]),
            torch.zeros(1),
            torch.eye(1),
        )
        loc, cov = truths.gaussian_posterior(seen, *numbers)
        truth.append(truths.gaussian_evidence(seen, *numbers))
        locs.append(loc)
        stds.append(cov.sqrt())
    data = (x, present, torch.cat(locs), torch.cat(stds))
    log_w = log_weights(model, guide, data, 5, seed=0)
    torch.testing.assert_close(log_w, torch.cat(truth).expand(5, -1), rtol=0, atol=1e-10)


def test_no_gradient_is_kept():
    pair = pairs.build("methods")
    log_w = log_weights(pair.model, pair.guide, pair.x, 3, seed=0)
    assert log_w.grad_fn is None
    assert all(parameter.grad is None for parameter in pair.modules[0].parameters())
    assert torch.is_grad_enabled()


def test_refusals():
    pair = pairs.build("line")
    counts: list[Any] = [0, -3, 2.5]
    no_data: Any = {0.0, 1.0}
    for count in counts:
        with pytest.raises(OptionError, match="num_particles"):
            log_weights(pair.model, pair.guide, pair.x, count)
    with pytest.raises(OptionError, match="memory_mb"):
        log_weights(pair.model, pair.guide, pair.x, 2, memory_mb=0.0)
    with pytest.raises(DataError):
        log_weights(pair.model, pair.guide, pair.x[:0], 2)
    with pytest.raises(DataError):
        log_weights(pair.model, pair.guide, no_data, 2)


def test_a_pair_without_a_data_plate_has_one_weight_for_all_data():
    """One z for both data, x ~ N(0, I + 11ᵀ); the guide is the posterior."""

    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0).expand([len(x)]).to_event(1), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(x.sum() / 3, math.sqrt(1 / 3)))

    x = torch.tensor([0.0, 1.0])
    truth = dist.MultivariateNormal(torch.zeros(2), torch.eye(2) + 1).log_prob(x)
    torch.testing.assert_close(log_weights(model, guide, x, 2, seed=0), truth.expand(2, 1), rtol=0, atol=1e-10)


def test_a_latent_outside_the_data_plate_makes_the_data_set_the_unit():
    """shared ~ N(0, 1), z_n ~ N(shared, 1), x_n ~ N(z_n, 1): x ~ N(0, 2 I + 11ᵀ); the guide is the posterior."""
    x = torch.tensor([0.0, 1.0, 2.0])

    def model(x):
        shared = pyro.sample("shared", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(shared, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        shared = pyro.sample("shared", dist.Normal(x.sum() / 5, math.sqrt(0.4)))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x + shared) / 2, math.sqrt(0.5)))

    truth = dist.MultivariateNormal(torch.zeros(3), 2 * torch.eye(3) + 1).log_prob(x)
    log_w = log_weights(model, guide, x, 4, seed=0)
    torch.testing.assert_close(log_w, truth.expand(4, 1), rtol=0, atol=1e-10)


def test_a_latent_that_the_guide_forgets_is_refused():
    """Drawn from its own prior, its density would count once too often, and nothing would show it."""
    pair = pairs.build("line")

    def guide(x):
        pass

    with pytest.raises(PairError, match="z"):
        log_weights(pair.model, guide, pair.x, 2, seed=0)


def test_a_latent_that_the_model_does_not_know_is_refused():
    """Its −log q alone would change the evidence: E[p(x, z) / (q(z) q(extra))] is not p(x)."""
    pair = pairs.build("line")

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("extra", dist.Normal(0.0, 7.0))
            pyro.sample("z", dist.Normal(x / 2, math.sqrt(0.5)))

    with pytest.raises(PairError, match="extra"):
        log_weights(pair.model, guide, pair.x, 2, seed=0)


@pytest.mark.parametrize("infer", [{}, {"enumerate": "sequential"}])
def test_a_discrete_latent_that_is_neither_guided_nor_enumerated_in_parallel_is_refused(infer):
    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.3), infer=infer)
            pyro.sample("x", dist.Normal(c, 1.0), obs=x)

    def guide(x):
        pass

    with pytest.raises(PairError, match="c"):
        log_weights(model, guide, torch.tensor([0.0, 1.0]), 2, seed=0)


def test_a_plate_that_only_happens_to_be_as_long_as_the_data_is_not_taken_for_theirs():
    """Three data of three features, with the features at dim −1 and the data at dim −2; the guide is the posterior."""

    def model(x):
        with pyro.plate("data", len(x), dim=-2), pyro.plate("features", 3, dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-2), pyro.plate("features", 3, dim=-1):
            pyro.sample("z", dist.Normal(x / 2, math.sqrt(0.5)))

    x = torch.arange(9.0).reshape(3, 3)
    truth = dist.Normal(0.0, math.sqrt(2)).log_prob(x).sum(-1)
    torch.testing.assert_close(log_weights(model, guide, x, 2, seed=0), truth.expand(2, 3), rtol=0, atol=1e-10)


def test_deterministic_sites_and_factors():
    """A factor of e^0.3x tilts the joint density; a deterministic site has none."""
    pair = pairs.build("line")

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.deterministic("twice", 2 * z)
            pyro.factor("tilt", 0.3 * x)
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    log_w = log_weights(model, pairs.line(1.0).guide, pair.x, 3, seed=0)
    torch.testing.assert_close(log_w, (pair.truth + 0.3 * pair.x).expand(3, -1), rtol=0, atol=1e-10)


def test_pictures_and_features_in_a_sequential_plate():
    """x of shape (num_data, 3, 2): a row per part of a sequential plate, two independent columns in each."""
    weight, sigma = torch.tensor([0.5, -0.3, 0.8]), 0.7
    numbers = (weight.unsqueeze(-1), torch.zeros(3), sigma**2 * torch.eye(3), torch.zeros(1), torch.eye(1))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            rows: Any = pyro.plate("rows", 3)
            for row in rows:
                pyro.sample(f"x{row}", dist.Normal(weight[row] * z, sigma).to_event(1), obs=x[:, row])

    def guide(x):
        loc, cov = truths.gaussian_posterior(x.mT, *numbers)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc[..., 0], cov.sqrt()[0]).to_event(1))

    x = torch.linspace(-2, 2, 24).reshape(4, 3, 2)
    truth = truths.gaussian_evidence(x.mT, *numbers).sum(-1)
    log_w = log_weights(model, guide, x, 3, seed=0)
    torch.testing.assert_close(log_w, truth.expand(3, -1), rtol=0, atol=1e-10)


def test_a_decoder_with_one_batch_dimension():
    """z ~ N(0, I) in two dimensions, x ~ N(z₁ + z₂, 1): x ~ N(0, 3); the decoder is an einsum over rows."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(torch.einsum("ni->n", z), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            covariance = torch.eye(2) - torch.full((2, 2), 1 / 3)
            pyro.sample("z", dist.MultivariateNormal((x / 3)[..., None].expand(*x.shape, 2), covariance))

    x = torch.tensor([0.0, 1.0, -2.0])
    truth = dist.Normal(0.0, math.sqrt(3)).log_prob(x)
    torch.testing.assert_close(log_weights(model, guide, x, 5, seed=0), truth.expand(5, 3), rtol=0, atol=1e-10)


def test_data_of_the_wrong_width_are_refused():
    pair = VAE(num_features=4, latent_dim=2, hidden=(3,))
    with pytest.raises(PairError, match="cannot be run on the data"):
        log_weights(pair.model, pair.guide, torch.ones(3, 5), 2)
