"""The two sides by enumeration, Markov's inequality where it is tight, and the choice of groups."""

import itertools
import math

import pytest
import torch
import truths_inference as truths

from ppvae.inference.bounds.markov import Groups, above, below, best_groups, concatenate, margin, sandwich

# A weight that is `VALUES` with `CHANCES`; its mean is p. From an exact draw it has the chances CHANCES·VALUES/p.
VALUES = torch.tensor([0.1, 1.0, 7.0], dtype=torch.float64)
CHANCES = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
P = float(VALUES @ CHANCES)


def expectation(function, *chances):
    """E of a function of independent weights, by the sum over all their values."""
    total = 0.0
    for indices in itertools.product(range(3), repeat=len(chances)):
        chance = math.prod(float(c[i]) for c, i in zip(chances, indices, strict=True))
        total += chance * float(function(VALUES[list(indices)].log()))
    return total


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_two_sides_by_enumeration(count):
    """E exp(log p̂) = p and E exp(−log p̃) = 1/p exactly; E log p̂ ≤ log p ≤ E log p̃, and closer with more weights."""
    plain, tilted = [CHANCES] * count, CHANCES * VALUES / P

    def lower(log_w):
        return below(log_w[:, None], 1)

    def upper(log_w):
        return above(log_w[:-1, None], log_w[-1:])

    assert expectation(lambda w: lower(w).exp(), *plain) == pytest.approx(P, rel=1e-12)
    assert expectation(lambda w: (-upper(w)).exp(), *plain, tilted) == pytest.approx(1 / P, rel=1e-12)
    gaps = [
        math.log(P) - expectation(lower, *plain),
        expectation(upper, *plain, tilted) - math.log(P),
    ]
    assert min(gaps) > 0.05
    if count > 1:
        single = [math.log(P) - expectation(lower, CHANCES), expectation(upper, CHANCES, tilted) - math.log(P)]
        assert all(gap < other for gap, other in zip(gaps, single, strict=True))


def test_the_product_of_groups_by_enumeration():
    """E Π_r p̂_r = p^R, whence the margin of (1/R) log 1/α."""
    for num_groups in (1, 2, 3, 4):
        mean = expectation(lambda w, r=num_groups: (r * below(w[:, None], r)).exp(), *[CHANCES] * 4)
        assert mean == pytest.approx(P**num_groups, rel=1e-12)


def test_groups_by_hand():
    log_w = torch.tensor([1.0, 2.0, 4.0, 8.0, 3.0]).log()[:, None]
    assert below(log_w, 1).item() == pytest.approx(math.log(18 / 5))
    # Five weights in two groups: three and two.
    assert below(log_w, 2).item() == pytest.approx((math.log(7 / 3) + math.log(11 / 2)) / 2)
    assert below(log_w, 5).item() == pytest.approx(math.log(1 * 2 * 4 * 8 * 3) / 5)
    assert above(log_w, torch.tensor([12.0]).log()).item() == pytest.approx(math.log(30 / 6))


def test_the_margin_is_no_wider_than_it_must_be():
    """Weights that are p/α with probability α, else 0, attain Markov's bound: the interval then just touches."""
    for risk in (0.5, 0.25, 0.025):
        hit = torch.tensor([[1 / risk]]).log()
        assert (below(hit, 1) - margin(risk)).item() == pytest.approx(0, abs=1e-12)
        # The same from above, from the exact draw alone: p̃ = αp with probability α.
        alone = above(torch.empty(0, 1), torch.tensor([risk]).log())
        assert (alone + margin(risk)).item() == pytest.approx(0, abs=1e-12)
    assert margin(0.025, 100) == pytest.approx(math.log(40) / 100)


@pytest.mark.parametrize("risk", [0.5, 0.25, 0.025])
@pytest.mark.parametrize(("count", "num_groups"), [(1, 1), (4, 1), (4, 4), (16, 4)])
@pytest.mark.parametrize("sigma", [0.5, 1.5, 4.0])
def test_both_sides_cover(risk, count, num_groups, sigma):
    """Log-normal weights, p = 1, whose law from exact draws is log-normal too; 20 000 replicates.

    For σ = 4 they are as wild as in a failed importance sampler. False alarm 1e-3 for each of 144 if a side covers
    with exactly its confidence, which Markov's inequality does not let it: in truth far less.
    """
    torch.manual_seed(0)
    times = 20_000
    log_w = sigma * torch.randn(count, times) - sigma**2 / 2
    exact = sigma * torch.randn(times) + sigma**2 / 2
    lower, upper = below(log_w, num_groups) - margin(risk, num_groups), above(log_w, exact) + margin(risk)
    for covered in (lower <= 0, upper >= 0):
        assert truths.binomial_alarm(int(covered.sum()), times, 1 - risk) > 1e-3
    # And means over ten of them at a time.
    tens = (below(log_w, num_groups).reshape(-1, 10).mean(-1) - margin(risk, 10 * num_groups)) <= 0
    assert truths.binomial_alarm(int(tens.sum()), times // 10, 1 - risk) > 1e-3
    tens = (above(log_w, exact).reshape(-1, 10).mean(-1) + margin(risk, 10)) >= 0
    assert truths.binomial_alarm(int(tens.sum()), times // 10, 1 - risk) > 1e-3


def test_the_promise_bites():
    """With a tenth of the margin, 29.9 % of 20 000 log-normal weights miss at a risk of 25 %, on either side."""
    torch.manual_seed(0)
    log_w = 0.5 * torch.randn(1, 20_000) - 0.125
    exact = 0.5 * torch.randn(20_000) + 0.125
    for missed in (below(log_w, 1) - 0.1 * margin(0.25) > 0, above(log_w[:0], exact) + 0.1 * margin(0.25) < 0):
        assert missed.double().mean() > 0.28


def test_what_is_not_a_weight_widens_the_interval():
    log_w = torch.tensor([[0.0, 0.0, 0.0], [math.nan, -math.inf, math.inf]])
    exact = torch.zeros(3)
    torch.testing.assert_close(below(log_w, 1), torch.full((3,), math.log(0.5)))
    assert above(log_w, exact).tolist() == [math.inf, pytest.approx(math.log(2 / 3)), math.inf]
    assert above(torch.zeros(1, 1), torch.tensor([math.nan])).item() == math.inf
    nothing = sandwich(torch.full((4, 1), -math.inf), None, Groups(1, 1))
    assert nothing.estimate.item() == -math.inf
    assert math.isnan(nothing.standard_error.item())


def test_best_groups_weigh_the_margin_against_the_loss():
    """Equal weights: as many groups as there are. Wild ones: one group for one datum's large margin to pay for."""
    equal = torch.zeros(16, 5)
    assert best_groups(equal, 0.025, 100) == Groups(16, 16)
    torch.manual_seed(0)
    noisy = torch.randn(16, 500)
    groups = best_groups(noisy, 0.025, 500)
    assert groups.mean == 1
    assert groups.single in (4, 8, 16)
    assert best_groups(5 * noisy, 0.025, 500).single < groups.single
    # No other power of two gives more on these draws.
    heights = {r: below(noisy, r).mean() - margin(0.025, r) for r in (1, 2, 4, 8, 16)}
    assert max(heights, key=lambda r: float(heights[r])) == groups.single
    assert best_groups(torch.zeros(6, 5), 0.025, 100) == Groups(4, 4)


def test_the_record():
    torch.manual_seed(0)
    log_w, exact = 0.3 * torch.randn(8, 4), torch.zeros(4)
    whole = sandwich(log_w, exact, Groups(4, 2))
    torch.testing.assert_close(whole.below, below(log_w, 4))
    torch.testing.assert_close(whole.below_mean, below(log_w, 2))
    torch.testing.assert_close(whole.estimate, torch.logsumexp(log_w, 0) - math.log(8))
    torch.testing.assert_close(whole.shortfall, above(log_w, exact) - whole.estimate)
    w = log_w.exp()
    torch.testing.assert_close(whole.standard_error, w.std(0) / w.mean(0) / math.sqrt(8))
    halves = [sandwich(log_w[:, part], exact[part], Groups(4, 2)) for part in (slice(0, 1), slice(1, 4))]
    for ours, theirs in zip(concatenate(halves), whole, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert sandwich(log_w, None, Groups(1, 1)).above.isposinf().all()
    assert sandwich(log_w[:1], None, Groups(1, 1)).standard_error.isnan().all()
