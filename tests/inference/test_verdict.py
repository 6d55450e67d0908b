"""The words: each limit from both sides, the order of faults, and modes along a line."""

import math

import numpy as np
import pytest
from scipy import stats

from ppvae.inference.posterior.faults import (
    CANNOT_TELL,
    CORRELATION,
    GOOD,
    MODE,
    NARROW,
    SHAPE,
    SHIFTED,
    WIDE,
    Measures,
    causes,
    missed_mass,
    verdict,
)

# One coordinate pair: 2 · 2 + 1 + 1 measures of a datum, at 1 % for all of them, from both sides.
Z = stats.norm.isf(0.005 / 6)


def measured(error=0.001, **found):
    """A guide on two coordinates that is right but for what is given."""
    two = np.zeros(2)
    measures = Measures(
        bias=two,
        bias_error=two + error,
        log_ratio=two,
        log_ratio_error=two + error,
        correlation=np.zeros(1),
        correlation_error=np.zeros(1) + error,
        total_variation=0.1,
        total_variation_error=error,
        missed_mass=0.0,
        causes=np.zeros(3),
    )
    return measures._replace(**found)


def test_nothing_found_is_good():
    assert verdict(measured()) == (GOOD,)


@pytest.mark.parametrize(
    ("name", "limit", "word"),
    [
        ("bias", 0.25, SHIFTED),
        ("bias", -0.25, SHIFTED),
        ("log_ratio", math.log(0.9), NARROW),
        ("log_ratio", -math.log(0.9), WIDE),
        ("correlation", 0.3, CORRELATION),
        ("total_variation", 0.25, SHAPE),
    ],
)
def test_each_limit_from_both_sides(name, limit, word):
    """Beyond the limit by more than z errors: the fault; short of it by more: good; between: cannot tell."""
    error, away = 0.01, math.copysign(Z * 0.01, limit)

    def at(value):
        if name == "total_variation":
            return verdict(measured(error, total_variation=value))
        values = getattr(measured(), name).copy()
        values[-1] = value
        return verdict(measured(error, **{name: values}))

    assert at(limit + 1.01 * away) == (word,)
    assert at(limit + 0.99 * away) == (CANNOT_TELL,)
    assert at(limit - 0.99 * away) == (CANNOT_TELL,)
    assert at(limit - 1.01 * away) == (GOOD,)


def test_a_certain_fault_is_stated_though_another_is_unclear():
    assert verdict(measured(bias=np.array([1.0, 0.25]))) == (SHIFTED,)
    assert verdict(measured(bias=np.array([1.0, 0.0]), total_variation=0.9)) == (SHIFTED,)


def test_the_primary_fault_is_first():
    faults = {"bias": np.array([0.5, 0.0]), "log_ratio": np.array([-0.5, 0.5]), "correlation": np.array([0.5])}
    assert verdict(measured(**faults, causes=np.array([1.0, 0.5, 2.0])))[:2] == (CORRELATION, SHIFTED)
    assert verdict(measured(**faults, causes=np.array([1.0, 3.0, 2.0])))[2:] == (CORRELATION, SHIFTED)
    assert verdict(measured(**faults, causes=np.zeros(3), missed_mass=0.3))[0] == MODE
    wider = np.array([-0.2, 0.5])
    assert verdict(measured(log_ratio=wider)) == (WIDE, NARROW)
    assert verdict(measured(log_ratio=-wider)) == (NARROW, WIDE)


def test_nothing_known_is_not_good():
    assert verdict(measured(error=math.nan)) == (CANNOT_TELL,)
    assert verdict(measured(error=1.0)) == (CANNOT_TELL,)


def gaussian_kl(shift, guide, posterior):
    precision = np.linalg.inv(posterior)
    logdet = np.linalg.slogdet(posterior)[1] - np.linalg.slogdet(guide)[1]
    return ((precision * guide).sum() + shift @ precision @ shift - len(shift) + logdet) / 2


def test_causes_add_up_to_the_divergence_of_the_gaussians():
    rng = np.random.default_rng(0)
    for dim in (1, 2, 5, 50):
        guide, posterior = (a @ a.T / dim + 0.1 * np.eye(dim) for a in rng.normal(size=(2, dim, 2 * dim)))
        shift = rng.normal(size=dim)
        found = causes(shift, guide, posterior)
        assert found.sum() == pytest.approx(gaussian_kl(shift, guide, posterior), rel=1e-9)
        assert (found > -1e-12).all()


def test_each_cause_alone():
    posterior = np.array([[1.0, 0.8, 0.1], [0.8, 2.0, 0.3], [0.1, 0.3, 0.5]])
    scales = np.diag([0.6, 1.3, 0.9])
    assert causes(np.zeros(3), posterior, posterior) == pytest.approx([0, 0, 0], abs=1e-12)
    assert causes(np.zeros(3), scales @ posterior @ scales, posterior)[[0, 2]] == pytest.approx([0, 0], abs=1e-12)
    best = np.diag(1 / np.diag(np.linalg.inv(posterior)))
    shift, scale, correlation = causes(np.zeros(3), best, posterior)
    assert (shift, scale) == pytest.approx((0, 0), abs=1e-12)
    assert correlation == pytest.approx(gaussian_kl(np.zeros(3), best, posterior))
    # A worse mean field costs more, and the difference is the scales'.
    assert causes(np.zeros(3), 2 * best, posterior)[2] == pytest.approx(correlation)


def two_modes(rng, n, share, away, dim):
    """A share of the draws `away` standard deviations from the others, along a slanting direction."""
    u = rng.normal(size=(n, dim))
    u += away * (rng.random((n, 1)) < share) * np.ones(dim) / math.sqrt(dim)
    return u


@pytest.mark.parametrize("dim", [1, 2, 20])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_missed_mode_is_seen_with_its_share(dim, share):
    rng = np.random.default_rng(1)
    posterior, guide = two_modes(rng, 4000, share, 6.0, dim), rng.normal(size=(4000, dim))
    assert missed_mass(guide, posterior) == pytest.approx(share, abs=0.03)


def test_what_is_covered_or_small_or_near_is_not_missed():
    rng = np.random.default_rng(2)
    posterior = two_modes(rng, 4000, 0.5, 6.0, 2)
    assert missed_mass(two_modes(rng, 4000, 0.2, 6.0, 2), posterior) == 0  # covered by a fifth
    assert missed_mass(posterior, posterior) == 0
    one = rng.normal(size=(4000, 2))
    assert missed_mass(one, two_modes(rng, 4000, 0.03, 6.0, 2)) == 0  # 3 %
    assert missed_mass(one, two_modes(rng, 4000, 0.5, 2.0, 2)) == 0  # no valley
    assert missed_mass(one + 10, one) == 0  # shifted altogether
    assert missed_mass(0.1 * one, one) == 0  # narrow


def test_no_mode_is_missed_where_there_is_one_only():
    """60 pairs of samples each of a Gaussian, a heavy-tailed and a skewed density, as few as a reference has."""
    rng = np.random.default_rng(3)
    for draw in (rng.standard_normal, lambda size: rng.standard_t(3, size), lambda size: rng.exponential(size=size)):
        for _ in range(60):
            assert missed_mass(0.7 * draw((400, 3)) + 0.3, draw((400, 3))) == 0


def test_draws_that_repeat_count_once():
    """Ten copies of 40 draws of one mode show valleys; that they are worth 40 says that these are nothing."""
    rng = np.random.default_rng(0)
    found = [0.0, 0.0]
    for _ in range(100):
        few, guide = rng.normal(size=(40, 1)), 0.05 * rng.normal(size=(400, 1)) - 1
        copies = np.repeat(few, 10, 0)
        found[0] = max(found[0], missed_mass(guide, copies))
        found[1] = max(found[1], missed_mass(guide, copies, worth=40))
    assert found[0] > 0
    assert found[1] == 0
