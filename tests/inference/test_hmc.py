"""One transition of HMC: its trajectories against exact maps, and the distributions that it must leave as they are."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import truths_inference as truths
from scipy import integrate, stats
from torch import Tensor

from ppvae.inference.pair.unconstrained import Point, evaluate
from ppvae.inference.sampling.hmc import JITTER, Follow, Info, gradient, leapfrog, log_density, rotate, transition

# A Kolmogorov-Smirnov test fails by chance once in a million.
ALARM = 1e-6


def run(
    terms: Any,
    u: Tensor,
    step: float,
    num_steps: int,
    times: int = 1,
    scale: Tensor | None = None,
    follow: Follow = leapfrog,
) -> tuple[Point, Info]:
    """`times` transitions on the sum of the terms, one step size for all data."""
    point = evaluate(terms, u)
    ones, scale = torch.ones(len(point.values)), torch.ones(u.shape[1:]) if scale is None else scale
    for _ in range(times):
        point, info = transition(terms, point, ones, torch.full((u.shape[1],), step), scale, num_steps, follow)
    return point, info


# --- targets: terms, and exact draws (num_chains, 1, dim) ---------------------------------------------------------


def normal(u: Tensor) -> Tensor:
    return -u.square().sum(-1)[None] / 2


COVARIANCE = torch.tensor([[0.8 ** abs(i - j) * 1.5 ** ((i + j) / 4) for j in range(10)] for i in range(10)])


def correlated(u: Tensor) -> Tensor:
    precision = torch.linalg.inv(COVARIANCE.to(u))
    return -torch.einsum("...i,ij,...j->...", u, precision, u)[None] / 2


def log_gamma(u: Tensor) -> Tensor:
    """eᵘ ~ Gamma(1.7, 1)."""
    return (1.7 * u - u.exp()).sum(-1)[None]


def banana(u: Tensor) -> Tensor:
    """u₁ ~ N(0, 1), u₂ ~ N(u₁²/2, ½²), as two terms."""
    first, second = u[..., 0], u[..., 1]
    return torch.stack([-first.square() / 2, -2 * (second - first.square() / 2).square()])


def banana_draws(num_chains: int) -> Tensor:
    first = torch.randn(num_chains)
    return torch.stack([first, first.square() / 2 + torch.randn(num_chains) / 2], -1)[:, None]


def gamma_draws(num_chains: int) -> Tensor:
    return torch.distributions.Gamma(1.7, 1.0).sample((num_chains, 1, 1)).log()


def gaussian_draws(num_chains: int) -> Tensor:
    return (torch.randn(num_chains, 10) @ torch.linalg.cholesky(COVARIANCE).T.to(torch.get_default_dtype()))[:, None]


def is_gamma(u: Tensor) -> None:
    follows(u[:, 0, 0].exp(), stats.gamma(1.7))
    agrees(u, digamma := float(torch.digamma(torch.tensor(1.7))))
    agrees((u - digamma) ** 2, float(torch.polygamma(1, torch.tensor(1.7))))


def is_normal(u: Tensor) -> None:
    follows(u[:, 0, 0], stats.norm)
    agrees(u, 0.0)
    agrees(u**2, 1.0)
    agrees(u**4, 3.0)


def is_correlated(u: Tensor) -> None:
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(COVARIANCE), u[:, 0, :, None], upper=False)[..., 0]
    follows(white.square().sum(-1), stats.chi2(10))
    for i in range(10):
        follows(white[:, i], stats.norm)
        for j in range(i):
            agrees(white[:, i] * white[:, j], 0.0)


def is_banana(u: Tensor) -> None:
    first, second = u[:, 0].unbind(-1)
    rest = 2 * second - first**2
    follows(first, stats.norm)
    follows(rest, stats.norm)
    agrees(rest * first, 0.0)
    agrees(rest * first**2, 0.0)
    agrees(rest**2 * first**2, 1.0)


def follows(sample: Tensor, law: Any) -> None:
    assert stats.kstest(sample.numpy(), law.cdf).pvalue > ALARM


def agrees(sample: Tensor, mean: float) -> None:
    """Within 4.5 standard errors: false alarm 7e-6."""
    assert abs(truths.z_score(sample.flatten(), mean)) < truths.Z_LIMIT


# --- trajectories ------------------------------------------------------------------------------------------------


def oscillator_map(stiffness: Tensor, scale: Tensor, step: float, num_steps: int) -> Tensor:
    """(u, p) after L leapfrog steps under log π = −½ uᵀKu: powers of a 2d × 2d matrix."""
    d = len(stiffness)
    eye, zero = torch.eye(d), torch.zeros(d, d)
    kick = torch.cat([torch.cat([eye, zero], 1), torch.cat([-step / 2 * stiffness, eye], 1)])
    drift = torch.cat([torch.cat([eye, step * torch.diag(scale**2)], 1), torch.cat([zero, eye], 1)])
    return torch.linalg.matrix_power(kick @ drift @ kick, num_steps)


def rotation_map(stiffness: Tensor, scale: Tensor, angle: float, num_steps: int) -> Tensor:
    """(u, p) after L steps under log π = −½ uᵀKu: a kick by what K exceeds 1/s², a turn of N(0, s²), a kick."""
    d, square = len(stiffness), torch.diag(scale**2)
    eye, zero, size = torch.eye(d), torch.zeros(d, d), math.tan(angle / 2)
    kick = torch.cat([torch.cat([eye, zero], 1), torch.cat([size * (square.inverse() - stiffness), eye], 1)])
    turn = torch.cat(
        [
            torch.cat([math.cos(angle) * eye, math.sin(angle) * square], 1),
            torch.cat([-math.sin(angle) * square.inverse(), math.cos(angle) * eye], 1),
        ]
    )
    return torch.linalg.matrix_power(kick @ turn @ kick, num_steps)


@pytest.mark.parametrize(("follow", "exact_map"), [(leapfrog, oscillator_map), (rotate, rotation_map)])
@pytest.mark.parametrize("num_steps", [1, 2, 7])
@pytest.mark.parametrize("per_datum", [True, False])
def test_a_trajectory_of_an_oscillator_is_the_power_of_a_matrix(num_steps, per_datum, follow, exact_map):
    """Two terms with coefficients, a stiff coupled oscillator of three coordinates, each datum with its own ε and s."""
    K = torch.tensor([[[2.0, 0.5, 0.0], [0.5, 1.0, -0.3], [0.0, -0.3, 0.7]], [[0.4, 0, 0.1], [0, 3, 0], [0.1, 0, 1.0]]])

    def terms(u):
        return torch.stack([-torch.einsum("cni,ij,cnj->cn", u, k, u) / 2 for k in K])

    torch.manual_seed(0)
    u, p = torch.randn(4, 2, 3), torch.randn(4, 2, 3)
    coefficients = torch.tensor([[0.3, 0.9], [0.7, -0.1]]) if per_datum else torch.tensor([0.3, 0.7])
    step, scale = torch.tensor([0.3, 0.11]), torch.tensor([[1.0, 0.5, 2.0], [0.7, 1.2, 0.9]])
    end, momentum = follow(terms, evaluate(terms, u), p, coefficients, step, scale, num_steps)
    for n in range(2):
        c = coefficients[:, n] if per_datum else coefficients
        exact = exact_map(torch.einsum("j,jab->ab", c, K), scale[n], step[n].item(), num_steps)
        truth = torch.cat([u[:, n], p[:, n]], -1) @ exact.T
        torch.testing.assert_close(torch.cat([end.u[:, n], momentum[:, n]], -1), truth, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(end.values, terms(end.u), rtol=0, atol=0)
    torch.testing.assert_close(end.gradients[0], -end.u @ K[0], rtol=1e-12, atol=1e-12)


def test_leapfrog_follows_the_true_motion_to_second_order():
    """u(t) = u cos t + p sin t: at t = 2 the error falls fourfold when ε is halved."""
    torch.manual_seed(0)
    u, p = torch.randn(50, 1, 1), torch.randn(50, 1, 1)
    truth = u * math.cos(2.0) + p * math.sin(2.0)
    errors = []
    for num_steps in (20, 40, 80):
        step = torch.tensor([2.0 / num_steps])
        end, _ = leapfrog(normal, evaluate(normal, u), p, torch.ones(1), step, torch.ones(1, 1), num_steps)
        errors.append((end.u - truth).abs().mean())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.01)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.01)


def test_about_a_normal_of_the_right_width_a_rotation_is_exact():
    """N(m, diag(s²)) for any m, as two terms: a circle about m, at any angle, with no energy gained or lost."""
    torch.manual_seed(0)
    mean, scale = torch.tensor([[1.0, -0.5], [0.2, 3.0]]), torch.tensor([[0.5, 2.0], [1.0, 0.1]])

    def terms(u):
        white = (u / scale).square().sum(-1) / 2
        return torch.stack([-white, (u * mean / scale**2).sum(-1)])

    u, p, angle = 3 * torch.randn(20, 2, 2), torch.randn(20, 2, 2) / scale, torch.tensor([0.4, 1.5])
    point = evaluate(terms, u)
    end, momentum = rotate(terms, point, p, torch.ones(2), angle, scale, 3)
    cosine, sine = (3 * angle).cos()[:, None], (3 * angle).sin()[:, None]
    torch.testing.assert_close(end.u, mean + cosine * (u - mean) + sine * scale**2 * p, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(momentum, cosine * p - sine * (u - mean) / scale**2, rtol=1e-10, atol=1e-10)
    _, info = transition(terms, point, torch.ones(2), angle, scale, 3, rotate)
    torch.testing.assert_close(info.energy_error, torch.zeros(20, 2), rtol=0, atol=1e-8)


@pytest.mark.parametrize("follow", [leapfrog, rotate])
@pytest.mark.parametrize(("terms", "dim"), [(banana, 2), (log_gamma, 1)])
def test_the_energy_error_is_of_second_order(terms, dim, follow):
    torch.manual_seed(0)
    u, p = torch.randn(200, 1, dim), torch.randn(200, 1, dim)
    scale = torch.full((1, dim), 0.8)
    point, ones = evaluate(terms, u), torch.ones(len(terms(u)))

    def energy(point: Point, momentum: Tensor) -> Tensor:
        return (scale * momentum).square().sum(-1) / 2 - point.values.sum(0)

    errors = []
    for num_steps in (25, 50, 100):
        end = follow(terms, point, p, ones, torch.tensor([0.5 / num_steps]), scale, num_steps)
        errors.append((energy(*end) - energy(point, p)).abs().mean())
    assert errors[0] < 0.05
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.02)


@pytest.mark.parametrize("follow", [leapfrog, rotate])
@pytest.mark.parametrize(("terms", "dim"), [(banana, 2), (log_gamma, 1), (correlated, 10)])
def test_with_its_momentum_turned_round_a_trajectory_goes_back(terms, dim, follow):
    torch.manual_seed(0)
    u, p = torch.randn(30, 2, dim), torch.randn(30, 2, dim)
    ones, step, scale = torch.ones(len(terms(u))), torch.tensor([0.05, 0.2]), 0.5 + torch.rand(2, dim)
    end, momentum = follow(terms, evaluate(terms, u), p, ones, step, scale, 9)
    assert (end.u - u).abs().mean() > 0.1
    back, momentum = follow(terms, end, -momentum, ones, step, scale, 9)
    torch.testing.assert_close(back.u, u, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(momentum, -p, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("follow", [leapfrog, rotate])
def test_volume_is_kept(follow):
    """The Jacobian of (u, p) ↦ (u', p') on the banana, by central differences, has determinant 1."""
    torch.manual_seed(0)
    start, h = 0.7 * torch.randn(6, 4), 1e-5
    scale, ones = torch.tensor([[0.6, 1.3]]), torch.ones(2)

    def end(state: Tensor) -> Tensor:
        point = evaluate(banana, state[:, None, :2])
        end, momentum = follow(banana, point, state[:, None, 2:], ones, torch.tensor([0.15]), scale, 5)
        return torch.cat([end.u, momentum], -1)[:, 0]

    columns = [(end(start + h * e) - end(start - h * e)) / (2 * h) for e in torch.eye(4)]
    jacobian = torch.stack(columns, -1)
    assert (jacobian - torch.eye(4)).abs().amax((1, 2)).min() > 0.1
    torch.testing.assert_close(torch.linalg.det(jacobian), torch.ones(6), rtol=0, atol=1e-7)


def test_log_density_and_gradient_are_linear_in_the_terms():
    u = torch.tensor([[[0.5, -1.0], [2.0, 0.3]]])
    point = evaluate(banana, u)
    for c in (torch.tensor([0.3, 0.7]), torch.tensor([[0.3, 0.0], [0.7, 2.0]])):
        c_wide = c.reshape(2, 1, -1)
        torch.testing.assert_close(log_density(point, c), (c_wide * point.values).sum(0))
        torch.testing.assert_close(gradient(point, c), (c_wide[..., None] * point.gradients).sum(0))
    nowhere = Point(u, torch.tensor([[[-math.inf, -math.inf]], [[1.0, 2.0]]]), point.gradients)
    torch.testing.assert_close(log_density(nowhere, torch.tensor([0.0, 3.0])), torch.tensor([[3.0, 6.0]]))
    assert torch.isneginf(log_density(nowhere, torch.tensor([0.5, 3.0]))).all()


# --- acceptance --------------------------------------------------------------------------------------------------


def gaussian_acceptance(step: float, num_steps: int) -> float:
    """Mean acceptance on N(0, 1) from equilibrium.

    The map of a trajectory has determinant 1 and singular values λ and 1/λ, so that
    2 ΔH = (λ² − 1) a² − (1 − 1/λ²) b² with independent standard normals a, b. A reversible map that keeps volume has
    E min(1, exp(−ΔH)) = 2 P(ΔH < 0) = 2 P(|a/b| < 1/λ) = 4/π · arctan(1/λ); this is averaged over the jitter of ε.
    """

    def at(share: float) -> float:
        matrix = oscillator_map(torch.eye(1), torch.ones(1), share * step, num_steps)
        return 4 / math.pi * math.atan(1 / float(torch.linalg.svdvals(matrix)[0]))

    return integrate.quad(at, 1 - JITTER, 1 + JITTER)[0] / (2 * JITTER)


@pytest.mark.parametrize(("step", "num_steps"), [(0.9, 1), (1.5, 1), (1.4, 3), (1.6, 8)])
def test_the_acceptance_of_a_gaussian_is_the_one_of_the_closed_form(step, num_steps):
    """And E exp(−ΔH) = 1, since volume is kept; 60 000 trajectories, |z| < 4.5."""
    _, info = run(normal, torch.randn(60_000, 1, 1), step, num_steps)
    truth = gaussian_acceptance(step, num_steps)
    assert 0.3 < truth < 0.97
    agrees(info.acceptance, truth)
    agrees(info.accepted.double(), truth)
    agrees((-info.energy_error).exp(), 1.0)


def test_what_a_transition_reports():
    torch.manual_seed(2)
    u = banana_draws(400).expand(-1, 3, -1)
    point = evaluate(banana, u)
    new, info = transition(banana, point, torch.ones(2), torch.tensor([0.2, 0.5, 0.9]), torch.ones(3, 2), 3)
    assert info.acceptance.shape == info.accepted.shape == info.energy_error.shape == (400, 3)
    torch.testing.assert_close(info.acceptance, (-info.energy_error).exp().clamp(max=1))
    assert (info.acceptance.mean(0).diff() < 0).all()  # the larger ε, the worse
    moved = (new.u != u).any(-1)
    assert torch.equal(moved, info.accepted)
    fresh = evaluate(banana, new.u)
    for now, then in zip(new, fresh, strict=True):
        torch.testing.assert_close(now, then, rtol=1e-12, atol=1e-12)


# --- invariance --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize(
    ("terms", "draws", "judge", "step", "num_steps", "follow"),
    [
        (normal, lambda n: torch.randn(n, 1, 1), is_normal, 1.6, 1, leapfrog),
        (normal, lambda n: torch.randn(n, 1, 1), is_normal, 1.5, 5, leapfrog),
        (correlated, gaussian_draws, is_correlated, 0.75, 4, leapfrog),
        (log_gamma, gamma_draws, is_gamma, 1.3, 3, leapfrog),
        (banana, banana_draws, is_banana, 0.6, 4, leapfrog),
        (correlated, gaussian_draws, is_correlated, 0.75, 4, rotate),
        (log_gamma, gamma_draws, is_gamma, 1.1, 2, rotate),
        (banana, banana_draws, is_banana, 0.6, 4, rotate),
    ],
)
def test_exact_draws_stay_exact(terms, draws, judge, step, num_steps, follow, times):
    """With steps so coarse that a fifth or more of the trajectories are turned down, where H alone would be biased."""
    torch.manual_seed(times)
    u = draws(30_000)
    point, info = run(terms, u, step, num_steps, times, follow=follow)
    assert 0.25 < info.acceptance.mean() < 0.85
    assert (point.u - u).abs().mean() > 0.2
    judge(point.u)


@pytest.mark.parametrize(
    ("terms", "draws", "step"), [(log_gamma, gamma_draws, 1.3), (banana, banana_draws, 0.6)], ids=["gamma", "banana"]
)
def test_detailed_balance(terms, draws, step):
    """E f(u) g(u') = E g(u) f(u') from equilibrium, for pairs of functions; |z| < 4.5 each."""
    torch.manual_seed(0)
    u = draws(60_000)
    after = run(terms, u, step, 3)[0].u
    old, new = u[:, 0, -1], after[:, 0, -1]
    functions = [lambda v: v, lambda v: v**2, lambda v: torch.tanh(3 * v), lambda v: (v > 0.5).double()]
    for i, f in enumerate(functions):
        for g in functions[:i]:
            agrees(f(old) * g(new) - g(old) * f(new), 0.0)


@pytest.mark.parametrize(
    ("terms", "dim", "judge", "step", "num_steps", "times"),
    [(normal, 1, is_normal, 0.5, 3, 15), (log_gamma, 1, is_gamma, 0.4, 3, 25), (banana, 2, is_banana, 0.4, 6, 60)],
)
def test_from_a_wrong_start_chains_come_to_the_target(terms, dim, judge, step, num_steps, times):
    torch.manual_seed(0)
    judge(run(terms, torch.full((8000, 1, dim), 3.0), step, num_steps, times)[0].u)


def test_each_datum_has_its_own_target():
    """Coefficients per datum are temperatures: N(0, 1/β); an uneven scale does not change the target."""
    torch.manual_seed(0)
    beta = torch.tensor([[0.25, 1.0, 4.0]])
    u = torch.randn(20_000, 3, 2) / beta.T.sqrt()
    point = evaluate(normal, u)
    step, scale = torch.tensor([1.4, 1.2, 1.5]), torch.tensor([[2.0, 1.5], [1.0, 0.3], [0.5, 0.4]])
    for _ in range(2):
        point, info = transition(normal, point, beta, step, scale, 3)
    assert (info.acceptance.mean(0) < 0.95).all()
    for n in range(3):
        for i in range(2):
            follows(point.u[:, n, i] * beta[0, n].sqrt(), stats.norm)


def test_a_target_in_a_basis_of_its_own_scales_is_the_same_chain():
    """N(0, σ²) with s = σ is N(0, 1) with s = 1, stretched: draw for draw."""
    sigma = torch.tensor([[0.01, 3.0], [200.0, 1.0]])
    start = torch.randn(50, 2, 2)
    torch.manual_seed(7)
    plain, info = run(normal, start, 1.2, 4, times=5)
    torch.manual_seed(7)
    stretched, other = run(lambda u: normal(u / sigma), start * sigma, 1.2, 4, times=5, scale=sigma)
    torch.testing.assert_close(stretched.u, plain.u * sigma, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(other.energy_error, info.energy_error, rtol=1e-6, atol=1e-8)


def test_trajectories_are_jittered_apart():
    """From one place, at ε = 0.5 and L = 1, u' = u − ε²u/2 + ε p; at u = 100 the first part shows ε, within ±20 %."""
    torch.manual_seed(0)
    point = evaluate(normal, torch.full((4000, 2, 1), 1e6))
    new, info = transition(normal, point, torch.ones(1), torch.tensor([0.5, 0.1]), torch.ones(2, 1), 1)
    for n, epsilon in enumerate((0.5, 0.1)):
        drop = 1 - new.u[info.accepted[:, n], n, 0] / 1e6
        share = (2 * drop).sqrt() / epsilon
        assert len(share) == 4000  # downhill by a trajectory that dissipates nothing, but ends lower
        follows(share, stats.uniform(1 - JITTER, 2 * JITTER))


# --- places of no density ----------------------------------------------------------------------------------------


def test_a_datum_with_a_step_too_large_leaves_the_others_alone():
    start = banana_draws(40).expand(-1, 3, -1)
    results = []
    for middle in (0.3, 1e6, 1e300, math.inf):
        torch.manual_seed(5)
        point = evaluate(banana, start)
        for _ in range(3):
            step = torch.tensor([0.3, middle, 0.1])
            point, info = transition(banana, point, torch.ones(2), step, torch.ones(3, 2), 4)
        results.append((point, info))
    for point, info in results[1:]:
        assert not info.accepted[:, 1].any()
        assert (info.acceptance[:, 1] == 0).all()
        assert torch.equal(point.u[:, 1], start[:, 1])
        for now, then in zip((*point, *info), (*results[0][0], *results[0][1]), strict=True):
            axis = now.dim() - (2 if now.shape[-1] == 2 else 1)
            for n in (0, 2):
                assert torch.equal(now.select(axis, n), then.select(axis, n))
    assert results[0][1].accepted[:, 1].any()


@pytest.mark.parametrize("outside", [-math.inf, math.nan, math.inf])
def test_no_chain_goes_where_there_is_no_density(outside):
    """Exponential(1) on u > 0, and beyond it zero, not a number, or an underflow's infinity: all are refused."""

    def terms(u):
        u = u[..., 0]
        return torch.where(u > 0, -u, outside)[None]

    torch.manual_seed(0)
    u = torch.distributions.Exponential(1.0).sample((20_000, 1, 1))
    point = evaluate(terms, u)
    for _ in range(4):
        point, info = transition(terms, point, torch.ones(1), torch.tensor([0.9]), torch.ones(1, 1), 2)
        assert (point.u > 0).all()
        assert point.values.isfinite().all()
        assert info.acceptance.isfinite().all()
    assert info.accepted.double().mean() < 0.9
    follows(point.u[:, 0, 0], stats.expon)


@pytest.mark.parametrize("outside", [-math.inf, math.nan, math.inf])
def test_a_chain_that_starts_where_there_is_no_density_can_leave(outside):
    def terms(u):
        u = u[..., 0]
        return torch.where(u.abs() < 4, -u.square() / 2, outside)[None]

    torch.manual_seed(0)
    point = evaluate(terms, torch.full((4000, 1, 1), 6.0))
    point, info = transition(terms, point, torch.ones(1), torch.tensor([0.8]), torch.ones(1, 1), 3)
    inside = (point.u.abs() < 4)[..., 0]
    assert 0 < inside.double().mean() < 1
    assert torch.equal(info.accepted, inside)
    assert torch.equal(info.acceptance, inside.double())
    assert (point.u[~inside] == 6).all()
    for _ in range(80):
        point, _ = transition(terms, point, torch.ones(1), torch.tensor([0.8]), torch.ones(1, 1), 3)
    assert point.values.isfinite().all()
    mass = stats.norm.cdf(4) - stats.norm.cdf(-4)
    cdf = np.vectorize(lambda v: (stats.norm.cdf(v) - stats.norm.cdf(-4)) / mass)
    assert stats.kstest(point.u[:, 0, 0].numpy(), cdf).pvalue > ALARM


def test_a_term_that_does_not_count_may_be_minus_infinity():
    """At β = 1 the start of a path has coefficient 0, and its support does not matter."""

    def terms(u):
        return torch.stack([torch.full(u.shape[:2], -math.inf), normal(u)[0]])

    torch.manual_seed(0)
    point = evaluate(terms, torch.randn(20_000, 1, 1))
    point, info = transition(terms, point, torch.tensor([0.0, 1.0]), torch.tensor([1.6]), torch.ones(1, 1), 1)
    is_normal(point.u)
    assert info.energy_error.isfinite().all()


# --- forms -------------------------------------------------------------------------------------------------------


def test_single_precision_states_have_double_precision_energies():
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    u = banana_draws(20_000)
    assert u.dtype == torch.float32
    point = evaluate(lambda u: banana(u).double(), u)
    step, scale = torch.tensor([0.6], dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    for _ in range(2):
        coefficients = torch.ones(2, dtype=torch.float64)
        point, info = transition(lambda u: banana(u).double(), point, coefficients, step, scale, 4)
    assert (point.u.dtype, point.gradients.dtype) == (torch.float32, torch.float32)
    assert (point.values.dtype, info.acceptance.dtype, info.energy_error.dtype) == (torch.float64,) * 3
    is_banana(point.u.double())


def test_energies_of_many_latents_are_summed_in_double_precision():
    """20 000 latents in float32: H ≈ 2·10⁴, and a step of 10⁻³ changes it by less than 10⁻⁴."""
    torch.set_default_dtype(torch.float32)

    def terms(u):
        return -u.double().square().sum(-1)[None] / 2

    point = evaluate(terms, torch.randn(20, 1, 20_000))
    _, info = transition(terms, point, torch.ones(1), torch.tensor([1e-3]), torch.ones(1, 20_000), 1)
    assert info.energy_error.abs().max() < 1e-4


def test_no_latents_at_all():
    def terms(u):
        return torch.zeros(2, *u.shape[:2])

    point, info = run(terms, torch.zeros(5, 3, 0), 0.5, 4)
    assert point.u.shape == (5, 3, 0)
    assert info.accepted.all()
    assert (info.energy_error == 0).all()
