"""The heaviest draws of a stream are those of all its draws, and say of how many."""

from __future__ import annotations

import math

import torch

from ppvae.inference.sampling import HeavyDraws, Standardised
from ppvae.inference.sampling.heavy_draws import KEPT, num_kept


def test_of_portions_they_are_those_of_the_whole() -> None:
    torch.manual_seed(0)
    u, log_w = torch.randn(900, 3, 2), torch.randn(900, 3, dtype=torch.float64)
    whole = HeavyDraws.of(u, log_w)
    parts = HeavyDraws.of(u[:10], log_w[:10]).among(u[10:200], log_w[10:200]).among(u[200:], log_w[200:])
    for one, other in zip(whole, parts, strict=True):
        assert torch.equal(one, other)
    assert whole.num_draws.tolist() == [900] * 3
    for n in range(3):
        best = log_w[:, n].argsort(descending=True)[:KEPT]
        assert torch.equal(whole.log_w[:, n], log_w[best, n])
        assert torch.equal(whole.u[:, n], u[best, n])


def test_few_draws_are_all_kept_and_the_rest_weighs_nothing() -> None:
    u, log_w = torch.ones(3, 2, 1), torch.tensor([[0.0, math.nan], [1.0, 2.0], [-1.0, math.inf]])
    heavy = HeavyDraws.of(u, log_w.double())
    assert heavy.log_w.shape == (KEPT, 2)
    assert heavy.log_w[:3].T.tolist() == [[1.0, 0.0, -1.0], [math.inf, 2.0, -math.inf]]
    assert heavy.log_w[3:].isneginf().all()


def test_those_of_some_data_take_the_place_of_earlier_ones() -> None:
    u, log_w = torch.randn(100, 2, 3), torch.randn(100, 2, dtype=torch.float64)
    found, index = HeavyDraws.of(u, log_w), torch.tensor([3, 1])
    kept = HeavyDraws.none(4, u).put(index, found)
    for one, other in zip(kept.rows(index), found, strict=True):
        assert torch.equal(one, other)
    assert kept.log_w[:, [0, 2]].isneginf().all()


def test_coordinates_of_a_view_undo_its_places() -> None:
    torch.manual_seed(1)
    factor = torch.randn(5, 3, 3, dtype=torch.float64).tril() + 3 * torch.eye(3)
    view = Standardised(None, torch.randn(5, 3, dtype=torch.float64), factor)  # type: ignore[arg-type]
    v = torch.randn(7, 5, 3, dtype=torch.float64)
    assert torch.allclose(view.coordinates(view.place(v)), v, atol=1e-12)


def test_of_long_draws_fewer_are_kept() -> None:
    assert [num_kept(dim) for dim in (0, 50, 1000, 100_000)] == [256, 256, 40, 32]
    heavy = HeavyDraws.of(torch.zeros(50, 1, 1000), torch.arange(50.0)[:, None])
    assert heavy.log_w[:, 0].tolist() == list(range(49, 9, -1))
