"""The estimator of scikit-learn: its conventions, and its numbers against the closed forms of the linear-Gaussian pair.

A statistic is held to 4.5 of its standard errors: one false alarm in 147 000 comparisons of one number.
"""

import math
import pickle
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import truths_inference as truths
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from ppvae.errors import OptionError
from ppvae.inference.scikit_learn import PairEstimator
from ppvae.models import VAE, LinearGaussian, Normal

LINEAR = partial(LinearGaussian.for_data, latent_dim=1)
ESTIMATED = "log p(x) is an estimate: it is the same to within its tolerance, whatever the other data are"


@pytest.mark.slow
@parametrize_with_checks(
    [PairEstimator(LINEAR, epochs=2)],
    expected_failed_checks=lambda _: {
        "check_methods_sample_order_invariance": ESTIMATED,
        "check_methods_subset_invariance": ESTIMATED,
    },
)
def test_the_conventions_of_scikit_learn_hold(estimator, check):
    check(estimator)


@pytest.fixture
def X():
    rng = np.random.default_rng(0)
    return rng.normal(size=(300, 1)) * [2.0, 1.0, -1.0] + 0.5 * rng.normal(size=(300, 3)) + [0.0, 5.0, -1.0]


@pytest.fixture
def fitted(X):
    return PairEstimator(LINEAR, epochs=30, learning_rate=0.02).fit(X)


def test_its_numbers_are_those_of_the_pair(fitted, X):
    pair, x = fitted.pair_, torch.from_numpy(X)
    exact = pair.log_evidence(x).detach().numpy()
    scores = fitted.score_samples(X)
    assert np.abs(scores - exact).max() < 0.1
    lower, upper = fitted.evidence_.interval(0.997)
    assert ((lower.numpy() <= exact) & (exact <= upper.numpy())).mean() > 0.99
    assert fitted.score(X) == pytest.approx(scores.mean())
    assert fitted.score_error_ == pytest.approx(exact.std() / math.sqrt(len(X)), rel=0.1)
    loc = x @ pair.guide_weight.detach().T + pair.guide_bias.detach()
    np.testing.assert_allclose(fitted.transform(X), loc.numpy(), atol=1e-10)
    decoded = loc @ pair.weight.detach().T + pair.bias.detach()
    np.testing.assert_allclose(fitted.inverse_transform(fitted.transform(X)), decoded.numpy(), atol=1e-10)
    drawn = torch.from_numpy(fitted.sample(5000))
    for j in range(3):
        assert abs(truths.z_score(drawn[:, j], float(pair.bias[j].detach()))) < truths.Z_LIMIT


def test_arrays_keep_their_type_and_torch_its_own(X):
    torch.set_default_dtype(torch.float32)  # what a user has; the fixture puts it back
    for dtype in (np.float32, np.float64):
        estimator = PairEstimator(Plain(), epochs=1).fit(X.astype(dtype))
        assert estimator.fit_.parameters["weight"].dtype == torch.float32
        assert estimator.transform(X.astype(dtype)).dtype == dtype
        assert estimator.inverse_transform(np.zeros((2, 1), dtype)).dtype == dtype
        assert estimator.score_samples(X[:3]).dtype == np.float64


def test_it_is_fitted_the_same_again(fitted, X):
    again = clone(fitted).fit(X)
    np.testing.assert_array_equal(again.transform(X), fitted.transform(X))
    np.testing.assert_array_equal(again.sample(4), fitted.sample(4))
    assert not np.array_equal(fitted.sample(4), fitted.sample(4, random_state=1))


def test_it_stands_in_a_pipeline(X):
    pipeline = make_pipeline(StandardScaler(), PairEstimator(LINEAR, epochs=20, learning_rate=0.02)).fit(X)
    assert pipeline.transform(X).shape == (300, 1)
    assert pipeline.score_samples(X[:5]).shape == (5,)
    assert np.abs(pipeline.inverse_transform(pipeline.transform(X)) - X).mean() < 0.6
    assert list(pipeline.get_feature_names_out()) == ["z[0]"]


@pytest.mark.slow
def test_it_is_cross_validated_and_searched(X):
    estimator = PairEstimator(LINEAR, epochs=10, learning_rate=0.02)
    scores = cross_val_score(estimator, X[:90], cv=3)
    assert scores.shape == (3,)
    assert np.isfinite(scores).all()
    search = GridSearchCV(estimator, {"epochs": [1, 30]}, cv=2).fit(X[:90])
    assert search.best_params_ == {"epochs": 30}


def test_it_is_pickled(fitted, X):
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.transform(X), fitted.transform(X))


def test_a_class_is_called_with_the_number_of_features():
    X = (np.random.default_rng(0).random((40, 6)) < 0.3).astype(float)
    estimator = PairEstimator(VAE, epochs=1).fit(X)
    assert estimator.transform(X).shape == (40, 20)
    assert set(np.unique(estimator.sample(3))) <= {0.0, 1.0}


def test_an_object_is_copied(X):
    pair = VAE(3, latent_dim=2, hidden=(4,), likelihood=Normal())
    before = {name: value.clone() for name, value in pair.state_dict().items()}
    estimator = PairEstimator(pair, epochs=2).fit(X)
    assert all(torch.equal(before[name], value) for name, value in pair.state_dict().items())
    assert estimator.transform(X).shape == (300, 2)


class Plain:
    """z ~ N(0, 1), x ~ N(w z, 1): two plain functions with parameters in Pyro's store."""

    def model(self, x):
        weight = pyro.param("weight", torch.ones(3))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[..., None] * weight, 1.0).to_event(1), obs=x)

    def guide(self, x):
        gain = pyro.param("gain", torch.zeros(3))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ gain, 0.5))


def test_plain_functions_do_and_two_estimators_keep_apart(X):
    first = PairEstimator(Plain(), epochs=3, learning_rate=0.05).fit(X)
    kept = first.transform(X)
    second = PairEstimator(Plain(), epochs=30, learning_rate=0.05).fit(X)
    np.testing.assert_array_equal(first.transform(X), kept)
    assert not np.allclose(second.transform(X), kept)


def test_what_makes_no_pair_is_refused(X):
    for pair in (3, lambda x: x, "VAE"):
        with pytest.raises(OptionError, match="pair must be a class"):
            PairEstimator(pair).fit(X)


class Shifted(torch.nn.Module):
    """x = c v + w z + noise, c the context: p(x | c) = N(c v, w wᵀ + I), and the guide is the posterior."""

    def __init__(self, num_features):
        super().__init__()
        self.v = torch.nn.Parameter(torch.zeros(num_features))
        self.w = torch.linspace(1.0, 2.0, num_features)

    def model(self, x, c):
        pyro.module("shifted", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            mean = c[:, None] * self.v + z[..., None] * self.w
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    def guide(self, x, c):
        precision = 1 + self.w.square().sum()
        with pyro.plate("data", len(x)):
            mean = ((x - c[:, None] * self.v) * self.w).sum(-1) / precision
            pyro.sample("z", dist.Normal(mean, precision**-0.5))


def test_y_is_the_context_of_a_pair_that_takes_one(X):
    c = np.random.default_rng(1).integers(0, 3, size=len(X))
    X = X + c[:, None]
    estimator = PairEstimator(Shifted, epochs=15, learning_rate=0.05, seed=1).fit(X, c)
    v, w = (value.detach().numpy() for value in (estimator.pair_.v, estimator.pair_.w))
    exact = dist.MultivariateNormal(
        torch.from_numpy(c[:, None] * v), torch.from_numpy(np.outer(w, w) + np.eye(3))
    ).log_prob(torch.from_numpy(X))
    np.testing.assert_allclose(estimator.score_samples(X, c), exact, atol=1e-6)
    posterior = ((X - c[:, None] * v) @ w / (1 + w @ w))[:, None]
    np.testing.assert_allclose(estimator.transform(X, c), posterior, atol=4.5 / math.sqrt(100 * (1 + w @ w)))
    drawn = estimator.sample(4000, y=np.full(4000, 2))
    assert (np.abs(drawn.mean(0) - 2 * v) < 4.5 * np.sqrt((1 + w**2) / 4000)).all()
    np.testing.assert_allclose(estimator.inverse_transform([[1.0]], [2]), [2 * v + w], atol=1e-6)
    scores = cross_val_score(PairEstimator(Shifted, epochs=1), X, c, cv=2)
    assert np.isfinite(scores).all()


def test_a_context_that_is_missing_or_of_words_is_refused(X):
    with pytest.raises(OptionError, match="y is missing: the pair takes a context"):
        PairEstimator(Shifted, epochs=1).fit(X)
    with pytest.raises(OptionError, match="y holds words"):
        PairEstimator(Shifted, epochs=1).fit(X, ["a"] * len(X))
