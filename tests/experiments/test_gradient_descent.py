"""Gradient descent: its gradients beside independent ones, its limit, its curves, its pictures."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression

from ppvae.experiments import gradient_check
from ppvae.experiments import gradient_descent as experiment
from ppvae.inference.pair.randomness import seeded
from ppvae.models import FeedForward


@cache
def small():
    return experiment.run(experiment.SMALL)


@pytest.fixture
def result():
    return small()  # once, and inside a test: in its floating-point type


def measured(result, start):
    (value,) = [row["measured"] for row in result.rows if row["what"].startswith(start)]
    return value


def test_three_gradients_agree(result):
    assert measured(result, "backpropagation − chain rule") < 1e-14
    # The best that central differences can do in float64 is about ε^(2/3) = 4e-11.
    assert measured(result, "backpropagation − central") < 1e-9
    assert measured(result, "order of") == pytest.approx(2, abs=0.02)


def test_gradients_are_of_a_network_that_has_some():
    gradients = gradient_check.check_gradients()
    assert set(gradients.backpropagated) == set(gradients.by_hand)
    assert len(gradients.by_hand) == 4
    assert all(gradient.abs().max() > 1e-3 for gradient in gradients.by_hand.values())


def test_the_chain_rule_by_hand_is_that_of_the_squared_error():
    """One datum, one hidden neuron, numbers that can be followed with a pencil."""
    net = FeedForward(1, hidden=(1,))
    with torch.no_grad():
        for parameter, value in zip(net.parameters(), (1.0, 0.0, 2.0, 0.5), strict=True):
            parameter.fill_(value)
    h = np.tanh(1.0)
    delta = 2 * h + 0.5 - 3.0
    expected = (delta * 2 * (1 - h**2), delta * 2 * (1 - h**2), delta * h, delta)
    found = gradient_check.chain_rule(net, torch.tensor([[3.0]]), torch.tensor([[1.0]]))
    assert [gradient.item() for gradient in found] == pytest.approx(expected, abs=1e-14)


def test_descent_ends_at_scikit_learn_s_least_squares():
    descent = experiment.descend(experiment.SMALL)
    assert descent.distance < 1e-10
    x, y = load_diabetes(return_X_y=True)
    x, y = x[:, :4], (y - y.mean()) / y.std()
    residual = y - LinearRegression().fit(x, y).predict(x)
    x, targets = gradient_check.diabetes()
    inputs = torch.cat([x[:, :4], torch.ones(len(x), 1)], dim=1)
    solution = torch.linalg.lstsq(inputs, targets).solution
    assert float((targets - inputs @ solution).square().mean()) == pytest.approx(np.mean(residual**2), abs=1e-12)
    assert abs(descent.excess[-1]) < 1e-14


def test_descent_is_the_one_that_theory_predicts():
    descent = experiment.descend(replace(experiment.SMALL, num_features=10, steps=40))
    assert descent.predicted[0] > 0.3
    np.testing.assert_allclose(descent.excess, descent.predicted, rtol=0, atol=1e-12)
    assert descent.distance == pytest.approx(descent.theory, rel=1e-9)
    # The condition number of the ten standardised features, from their correlations alone.
    correlations = np.corrcoef(load_diabetes(return_X_y=True)[0].T)
    assert descent.condition == pytest.approx(np.linalg.cond(correlations), rel=1e-6)


def test_networks_learn(result):
    assert measured(result, "diabetes, one affine") == pytest.approx(0.589, abs=0.06)
    # 250 digits at chance 0.1: a share of 0.8 lies 37 standard errors above.
    assert measured(result, "digits, ten affine") > 0.8
    assert measured(result, "digits, 50 hidden") > 0.8


@pytest.mark.slow
def test_a_seed_gives_the_same_numbers_and_leaves_the_generator(result):
    before = torch.get_rng_state()
    again = experiment.run(experiment.SMALL)
    # The sum of a matrix product depends on where in memory the matrix lies, in the last bit.
    for one, other in zip(again.rows, result.rows, strict=True):
        assert one["measured"] == pytest.approx(other["measured"], rel=1e-6, abs=1e-9)
    assert torch.equal(torch.get_rng_state(), before)


def test_pictures_say_what_they_show(result, tmp_path):
    assert set(result.figures) == {"gradient_check", "descent", "learning_curves"}
    for figure in result.figures.values():
        assert all(axes.get_xlabel() and axes.get_ylabel() and axes.get_legend() for axes in figure.axes)
        figure.canvas.draw()
    result.write(tmp_path, experiment.SMALL)
    assert {file.name for file in tmp_path.iterdir()} >= {"table.csv", "summary.json", "descent.png"}


def test_the_measured_curve_is_drawn(result):
    (axes,) = result.figures["descent"].axes
    drawn = np.asarray(axes.get_lines()[1].get_ydata())
    known = np.isfinite(drawn)
    with seeded(experiment.SMALL.seed):
        descent = experiment.descend(experiment.SMALL)
    np.testing.assert_array_equal(drawn[known], descent.excess[known])
    assert known[:20].all()
