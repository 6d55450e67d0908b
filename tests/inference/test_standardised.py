"""The nearest normal is the posterior where that is normal, and the standardised pair is the same pair."""

from typing import Any

import pairs
import pytest
import torch
import truths_inference as truths
from torch.distributions import MultivariateNormal

from ppvae.inference.pair import Pair
from ppvae.inference.pair.unconstrained import evaluate
from ppvae.inference.sampling.preconditioning import DIAGONAL_DRAWS, nearest_normal, standardised


def draws_of(dim: int, num_draws: int) -> tuple[torch.Tensor, ...]:
    """Places that are not drawn from N(m, S), gradients of its log density there, m and S; two data."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(2, dim, dim, generator=generator) / 2 + 2 * torch.eye(dim)
    cov, loc = root @ root.mT, torch.randn(2, dim, generator=generator)
    u = 3 * torch.randn(num_draws, 2, dim, generator=generator)
    gradients = -torch.einsum("nij,knj->kni", torch.linalg.inv(cov), u - loc)
    return u, gradients, loc, cov


def test_a_normal_is_found_exactly_but_for_the_shrinkage(monkeypatch: pytest.MonkeyPatch) -> None:
    u, gradients, loc, cov = draws_of(4, 12)
    monkeypatch.setattr("ppvae.inference.sampling.preconditioning.DIAGONAL_DRAWS", 0)
    found, scale_tril = nearest_normal(u, gradients)
    assert torch.allclose(found, loc, atol=1e-5)
    assert torch.allclose(scale_tril @ scale_tril.mT, cov, rtol=1e-5, atol=1e-5)


def test_shrinkage_fades_as_draws_come() -> None:
    errors = []
    for num_draws in (50, 500, 5000):
        u, gradients, _, cov = draws_of(4, num_draws)
        _, scale_tril = nearest_normal(u, gradients)
        errors.append(float((scale_tril @ scale_tril.mT - cov).norm() / cov.norm()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.03
    assert DIAGONAL_DRAWS > 0


def test_draws_that_have_run_away_do_not_break_the_arithmetic() -> None:
    u, gradients, loc, _ = draws_of(3, 40)
    u[0, 1], gradients[0, 1] = 1e200, -1e200
    found, scale_tril = nearest_normal(u, gradients)
    assert torch.isfinite(scale_tril).all()
    assert (found[0] - loc[0]).abs().max() < 1.0


def test_directions_of_any_scale_are_kept() -> None:
    scale = torch.tensor([1e-6, 1.0, 1e6])
    u = scale * torch.randn(400, 1, 3, generator=torch.Generator().manual_seed(1))
    _, scale_tril = nearest_normal(u, -u / scale**2)
    assert torch.allclose(scale_tril[0].diagonal() / scale, torch.ones(3), atol=1e-2)


def test_the_standardised_pair_is_the_same_pair() -> None:
    """log p(x, v) = log p(x, u) + log |L|; with the posterior's own m and S each log weight is log p(x), twice over."""
    pair = pairs.linear(shift=2.0)
    torch.manual_seed(0)
    with Pair.on(pair.model, pair.guide, pair.args, start="guide") as density:
        view: Any = density
        for _ in range(2):  # the second time in the coordinates of the first
            point = evaluate(view.joint, torch.randn(400_000 // len(pair.x), len(pair.x), 2))
            view = standardised(view, point.u, point.gradients[0])
            v = view.draw("guide", 20)
            log_start, log_joint = view.path("guide")(v)
            by_hand = density.joint(view.place(v))[0] + torch.linalg.slogdet(view.scale_tril).logabsdet
            assert torch.allclose(log_joint, by_hand)
            assert torch.allclose(log_start, MultivariateNormal(torch.zeros(2), torch.eye(2)).log_prob(v))
            assert torch.allclose(log_joint - log_start, pair.truth.expand(20, -1), atol=1e-2)
        some = view.rows(torch.tensor([3, 1]))
        assert torch.allclose(some.joint(v[:, [3, 1]]), view.joint(v)[..., [3, 1]])
        assert abs(truths.z_score(v[..., 0].flatten(), 0.0)) < truths.Z_LIMIT
