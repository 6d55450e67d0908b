"""The best trial: announced only where its difference is larger than its error."""

import numpy as np
import pytest

from ppvae.experiments.sweep import MeasuredTrial, ranked


def trials(rng, means, num_data=40):
    """Trials on the same data, whose spread of 10 nats they share; 1 nat is each one's own."""
    shared = 10 * rng.normal(size=num_data)
    return [MeasuredTrial(i, m + shared + rng.normal(size=num_data), default=i == 0) for i, m in enumerate(means)]


def test_equal_trials_have_a_winner_in_one_of_twenty_sweeps_at_most():
    """Twelve equal trials, 400 sweeps: with the rate at its nominal 5 %, more than 35 come with a chance of 0.1 %."""
    rng = np.random.default_rng(0)
    announced = sum(any(one.told_apart for one in ranked(trials(rng, [0.0] * 12)).differences) for _ in range(400))
    assert announced <= 35


def test_intervals_of_the_best_hold_the_true_differences():
    """Of chosen bests too: 300 sweeps of trials that differ; the same bound of 0.1 % at 5 %."""
    rng, means = np.random.default_rng(1), np.linspace(0, 1, 8)
    missed = 0
    for _ in range(300):
        found = ranked(trials(rng, means))
        true = {i: means[found.best] - m for i, m in enumerate(means)}
        missed += any(not one.low <= true[one.other] <= one.high for one in found.differences)
    assert missed <= 28


def test_a_better_trial_is_announced_against_the_default():
    found = ranked(trials(np.random.default_rng(2), [0.0, 3.0, 1.0]))
    assert (found.best, found.tied, found.num_pairs) == (1, [], 3)
    assert found.against_default.mean == pytest.approx(3, abs=0.8)
    assert found.conclusion().startswith("Trial 1 is better than every other trial. It is better than the default by")


def test_a_tie_is_said():
    found = ranked(trials(np.random.default_rng(3), [0.0, 3.0, 3.0]))
    assert len(found.tied) == 1
    assert found.conclusion().startswith(f"No winner: trial {found.best} has the highest log p(x)")


def test_the_default_as_best():
    found = ranked(trials(np.random.default_rng(4), [9.0, 3.0]))
    assert (found.best, found.against_default) == (0, None)
    assert "default" not in found.conclusion()


def test_one_trial_is_compared_with_nothing():
    assert "nothing to compare" in ranked(trials(np.random.default_rng(5), [0.0])).conclusion()
