"""Likelihoods: log p(x | η) against scipy, total mass, biases that start at the mean, and data that are refused."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

from ppvae.errors import DataError, OptionError
from ppvae.models import (
    Bernoulli,
    Binomial,
    Categorical,
    NegativeBinomial,
    Normal,
    NormalFeatureScale,
    NormalSharedScale,
    Poisson,
)

D = 3
EPS = np.finfo(np.float64).eps


def feature_scale():
    likelihood = NormalFeatureScale(D)
    with torch.no_grad():
        likelihood.log_scale.copy_(torch.tensor([-1.0, 0.0, 2.0]))
    return likelihood


def log_softmax(x, eta):
    """η_x − log Σ_c e^{η_c}, feature by feature."""
    eta = eta.reshape(*eta.shape[:-1], D, 4)
    return np.take_along_axis(special.log_softmax(eta, -1), x[..., None].astype(int), -1)[..., 0]


# A likelihood, scipy's log probability of x given the outputs η, and the values it may take (None: the real line).
SCIPY: dict[str, Any] = {
    "bernoulli": (Bernoulli, lambda x, eta: stats.bernoulli(special.expit(eta)).logpmf(x), 2),
    "binomial": (lambda: Binomial(16), lambda x, eta: stats.binom(16, special.expit(eta)).logpmf(x), 17),
    "normal": (lambda: Normal(0.3), lambda x, eta: stats.norm(eta, 0.3).logpdf(x), None),
    "normal-shared": (lambda: NormalSharedScale(2.0), lambda x, eta: stats.norm(eta, 2.0 + EPS).logpdf(x), None),
    "normal-feature": (feature_scale, lambda x, eta: stats.norm(eta, np.exp([-1.0, 0.0, 2.0])).logpdf(x), None),
    "categorical": (lambda: Categorical(4), log_softmax, 4),
    "poisson": (Poisson, lambda x, eta: stats.poisson(np.exp(eta)).logpmf(x), 200),
    "negative-binomial": (
        lambda: NegativeBinomial(2.5),
        lambda x, eta: stats.nbinom(2.5, 2.5 / (2.5 + np.exp(eta))).logpmf(x),
        1000,
    ),
}
NAMES = list(SCIPY)


def draw(likelihood, *batch):
    """Outputs and data of the given batch shape."""
    output = torch.randn(*batch, D * likelihood.outputs_per_feature)
    return output, likelihood(output).sample()


@pytest.mark.parametrize("name", NAMES)
def test_log_prob_is_scipys(name):
    make, log_prob, _ = SCIPY[name]
    likelihood = make()
    output, x = draw(likelihood, 4, 50)
    distribution = likelihood(output)
    assert distribution.batch_shape == (4, 50)
    assert distribution.event_shape == (D,)
    expected = torch.as_tensor(log_prob(x.numpy(), output.numpy())).sum(-1)
    torch.testing.assert_close(distribution.log_prob(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_broadcasts_over_particles(name):
    likelihood = SCIPY[name][0]()
    output, _ = draw(likelihood, 4, 5)
    _, x = draw(likelihood, 5)
    log_prob = likelihood(output).log_prob(x)
    assert log_prob.shape == (4, 5)
    torch.testing.assert_close(log_prob, torch.stack([likelihood(particle).log_prob(x) for particle in output]))


@pytest.mark.parametrize("name", [name for name in NAMES if SCIPY[name][2] is not None])
def test_mass_of_a_feature_is_one(name):
    make, _, num_values = SCIPY[name]
    likelihood = make()
    output, _ = draw(likelihood)
    values = torch.arange(float(num_values))[:, None].expand(-1, D)
    log_mass = likelihood.features(output).log_prob(values).logsumexp(0)
    torch.testing.assert_close(log_mass, torch.zeros(D), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in NAMES if SCIPY[name][2] is None])
def test_density_of_a_feature_integrates_to_one(name):
    likelihood = SCIPY[name][0]()
    output, _ = draw(likelihood)
    for d in range(D):
        loc, scale = output[d].item(), likelihood.features(output).stddev[d].item()

        def density(value, d=d):
            return likelihood.features(output.detach()).log_prob(torch.full((D,), value))[d].exp().item()

        mass, _ = integrate.quad(density, loc - 12 * scale, loc + 12 * scale, epsabs=1e-10)
        assert mass == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_initial_bias_gives_the_mean_of_the_data(name):
    likelihood = SCIPY[name][0]()
    _, x = draw(likelihood, 2000)
    bias = likelihood.initial_bias(x)
    assert bias.shape == (D * likelihood.outputs_per_feature,)
    torch.testing.assert_close(likelihood.mean(bias), x.mean(0), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_initial_bias_is_finite_where_data_are_constant(name):
    likelihood = SCIPY[name][0]()
    x = torch.zeros(10, D)
    bias = likelihood.initial_bias(x)
    assert bias.isfinite().all()
    torch.testing.assert_close(likelihood.mean(bias), x.mean(0), rtol=0, atol=0.017)


def test_categorical_bias_gives_every_frequency():
    likelihood, x = Categorical(3), torch.tensor([[0.0, 2.0], [0.0, 1.0], [1.0, 1.0], [2.0, 0.0]])
    probs = likelihood.features(likelihood.initial_bias(x)).probs
    torch.testing.assert_close(probs, torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]]))


def test_mean_is_the_expectation():
    output = torch.tensor([0.3, -1.0, 2.0])
    torch.testing.assert_close(Binomial(16).mean(output), 16 * torch.sigmoid(output))
    torch.testing.assert_close(NegativeBinomial(0.7).mean(output), output.exp())
    # The categories 0, 1, 2 of one feature.
    probs = torch.softmax(output, -1)
    torch.testing.assert_close(Categorical(3).mean(output), (probs[1] + 2 * probs[2])[None])


@pytest.mark.parametrize(
    ("likelihood", "output", "x"),
    [
        pytest.param(Bernoulli(), [-200.0, 200.0], [1.0, 0.0], id="bernoulli"),
        pytest.param(Binomial(16), [-200.0, 200.0], [1.0, 0.0], id="binomial"),
        pytest.param(Poisson(), [-200.0, -200.0], [1.0, 0.0], id="poisson"),
        pytest.param(NegativeBinomial(), [-200.0, 80.0], [1.0, 0.0], id="negative-binomial"),
        pytest.param(Categorical(2), [-200.0, 200.0, 200.0, -200.0], [0.0, 1.0], id="categorical"),
    ],
)
def test_log_prob_stays_finite_in_float32(likelihood, output, x):
    likelihood = likelihood.float()
    output = torch.tensor(output, dtype=torch.float32, requires_grad=True)
    log_prob = likelihood(output).log_prob(torch.tensor(x, dtype=torch.float32))
    log_prob.backward()
    assert log_prob.isfinite()
    assert output.grad.isfinite().all()


@pytest.mark.parametrize("make", [NormalSharedScale, lambda: NormalFeatureScale(D)])
def test_learnt_scale_never_underflows(make):
    likelihood = make().float()
    with torch.no_grad():
        likelihood.log_scale.fill_(-200.0)
    log_prob = likelihood(torch.ones(D, dtype=torch.float32)).log_prob(torch.full((D,), 2.0, dtype=torch.float32))
    assert log_prob.isfinite()


@pytest.mark.parametrize(
    ("name", "learnt"),
    [
        ("normal", []),
        ("normal-shared", [(1,)]),
        ("normal-feature", [(D,)]),
        ("negative-binomial", [(1,)]),
        ("bernoulli", []),
    ],
)
def test_learnt_parameters_get_a_gradient(name, learnt):
    likelihood = SCIPY[name][0]()
    output, x = draw(likelihood, 10)
    likelihood(output.requires_grad_()).log_prob(x).sum().backward()
    assert [tuple(parameter.shape) for parameter in likelihood.parameters()] == learnt
    assert all((parameter.grad != 0).all() for parameter in likelihood.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_draws_pass_the_check(name):
    likelihood = SCIPY[name][0]()
    likelihood.check(draw(likelihood, 20)[1])


GREY = torch.tensor([[0.0, 1.0], [0.25, 0.5]])
COUNTS = torch.tensor([[0.0, 1.0], [20.0, 17.0]])
REAL = torch.tensor([[0.0, 1.0], [1.0, -1.5]])


@pytest.mark.parametrize(
    ("likelihood", "x", "message"),
    [
        (
            Bernoulli(),
            GREY,
            "2 of the 4 values of x lie outside the support of Bernoulli(): the first is 0.25 in row 1, feature 0; "
            "binarise grey values first, x = torch.bernoulli(x), or use NormalSharedScale().",
        ),
        (
            Bernoulli(),
            COUNTS,
            "2 of the 4 values of x lie outside the support of Bernoulli(): the first is 20 in row 1, feature 0; "
            "Binomial(total_count=20) or Poisson() fits counts.",
        ),
        (
            Binomial(16),
            COUNTS,
            "2 of the 4 values of x lie outside the support of Binomial(total_count=16): the first is 20 in row 1, "
            "feature 0; Binomial(total_count=20) or Poisson() fits counts.",
        ),
        (
            Poisson(),
            REAL,
            "1 of the 4 values of x lie outside the support of Poisson(): the first is -1.5 in row 1, feature 1; "
            "NormalSharedScale() fits real values.",
        ),
        (
            Categorical(3),
            COUNTS,
            "2 of the 4 values of x lie outside the support of Categorical(num_categories=3): the first is 20 in row "
            "1, feature 0; Binomial(total_count=20) or Poisson() fits counts.",
        ),
        (
            NegativeBinomial(),
            COUNTS + 0.5,
            "4 of the 4 values of x lie outside the support of NegativeBinomial(): the first is 0.5 in row 0, feature "
            "0; NormalSharedScale() fits real values.",
        ),
        (
            NormalFeatureScale(3),
            REAL,
            "x has 2 features but the likelihood was made for 3; use NormalFeatureScale(num_features=2).",
        ),
        (
            Normal(),
            torch.tensor([[0.0, float("nan")], [float("inf"), 1.0]]),
            "2 of the 4 values of x are not finite: the first is nan in row 0, feature 1; leave such rows out or fill "
            "them in.",
        ),
        (
            Bernoulli(),
            torch.zeros(3, 8, 8),
            "x has shape (3, 8, 8), not (num_data, num_features); lay each datum flat: x.flatten(1).",
        ),
        (
            Bernoulli(),
            torch.zeros(0, 8),
            "x has shape (0, 8) and so holds no values; give at least one row and one feature.",
        ),
        (
            Bernoulli(),
            torch.zeros(3, 8, dtype=torch.int64),
            "x holds torch.int64 values; networks compute with floating-point numbers: x.float().",
        ),
    ],
)
def test_data_outside_the_support_are_refused_in_one_sentence(likelihood, x, message):
    with pytest.raises(DataError) as error:
        likelihood.check(x)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Binomial(0), "total_count is 0; give a whole number of at least 1."),
        (lambda: Binomial(16.0), "total_count is 16.0; give a whole number of at least 1."),  # type: ignore[arg-type]
        (lambda: Categorical(1), "num_categories is 1; give a whole number of at least 2."),
        (lambda: Normal(0.0), "scale is 0.0; give a positive finite number."),
        (lambda: NormalSharedScale(float("nan")), "scale is nan; give a positive finite number."),
        (lambda: NormalFeatureScale(0), "num_features is 0; give a whole number of at least 1."),
        (lambda: NegativeBinomial(float("inf")), "dispersion is inf; give a positive finite number."),
    ],
)
def test_options_are_checked(make, message):
    with pytest.raises(OptionError) as error:
        make()
    assert str(error.value) == message
