"""defensive_weights: the mixture's weights by hand, bounded, unbiased; and exact where guide and prior agree."""

import math
from typing import Any

import pairs
import pyro.distributions as dist
import pytest
import torch
import truths_inference as truths
from torch import Tensor

from ppvae.inference.pair import Pair
from ppvae.inference.sampling.defensive import Strata, defensive_weights

MEMORY_MB = 64.0


def weights(pair: pairs.Pair, num_draws: int, memory_mb: float = MEMORY_MB, **options: Any) -> Strata:
    with Pair.on(pair.model, pair.guide, pair.args, start="prior") as density:
        return defensive_weights(density, num_draws, memory_mb, **options)


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_the_weights_are_those_of_the_mixture(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """z ~ N(0, 1), x ~ N(z, 1), q = N(x/2, s²/2): each weight by hand from the draw it belongs to."""
    pair = pairs.line(1.5)
    with Pair.on(pair.model, pair.guide, pair.args, start="prior") as density:
        drawn: list[Tensor] = []
        draw = type(density).draw

        def kept(*args: Any) -> Tensor:
            drawn.append(draw(*args))
            return drawn[-1]

        monkeypatch.setattr(type(density), "draw", kept)
        monkeypatch.setattr(torch, "randperm", torch.arange)
        torch.manual_seed(0)
        log_w, own, *_ = defensive_weights(density, 50, MEMORY_MB, share)
    z = torch.cat(drawn)[..., 0]
    prior, guide = dist.Normal(0.0, 1.0), dist.Normal(pair.x / 2, 1.5 * math.sqrt(0.5))
    joint = prior.log_prob(z) + dist.Normal(z, 1.0).log_prob(pair.x)
    mixture = (1 - share) * guide.log_prob(z).exp() + share * prior.log_prob(z).exp()
    assert log_w.shape == (50, len(pair.x))
    assert torch.allclose(log_w, joint - mixture.log(), atol=1e-10)
    num_guide = round((1 - share) * 50)
    assert torch.allclose(own, (joint - guide.log_prob(z))[:num_guide], atol=1e-10)
    assert (log_w <= dist.Normal(z, 1.0).log_prob(pair.x) - math.log(share) + 1e-10).all()


@pytest.mark.parametrize(
    "name", ["linear_narrow", "gamma_poisson", "beta_binomial", "mixture_in_model", "mixture_in_guide"]
)
def test_unbiased(name: str) -> None:
    """|z| < 4.5: a false alarm in 1 of 7000 runs over all data and pairs."""
    pair = pairs.build(name)
    torch.manual_seed(1)
    log_w, own, *_ = weights(pair, 4000)
    for part in (log_w, own):
        relative = (part - pair.truth).exp()
        for n in range(len(pair.x)):
            assert abs(truths.z_score(relative[:, n], 1.0)) < truths.Z_LIMIT


def test_pieces_have_the_law_of_the_whole() -> None:
    pair = pairs.build("linear_narrow")
    torch.manual_seed(2)
    log_w, own, *_ = weights(pair, 2000, memory_mb=0.2)
    assert log_w.shape == (2000, len(pair.x))
    assert own.shape == (1600, len(pair.x))
    assert abs(truths.z_score((log_w[:, 0] - pair.truth[0]).exp(), 1.0)) < truths.Z_LIMIT


def test_the_rows_are_in_random_order() -> None:
    """The prior's draws, which weigh little, do not stand together at the end."""
    pair = pairs.linear(scale=0.8)
    torch.manual_seed(3)
    log_w, *_ = weights(pair, 1000)
    low = (log_w[:, 0] < log_w[:, 0].median() - 3).double()
    assert low.sum() > 50
    assert abs(float(low[:500].sum() - low[500:].sum())) < 4.5 * float(low.sum().sqrt())


def test_a_draw_at_infinity_weighs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A draw that was rounded onto the boundary of its support harms no other: the rest is weighed as ever."""
    pair = pairs.build("gamma_poisson")
    with Pair.on(pair.model, pair.guide, pair.args, start="prior") as density:
        draw = type(density).draw

        def with_one_at_infinity(*args: Any) -> Tensor:
            u = draw(*args)
            u[0] = 1e18
            return u

        monkeypatch.setattr(type(density), "draw", with_one_at_infinity)
        log_w, own, *_ = defensive_weights(density, 1000, MEMORY_MB)
    assert (log_w.isneginf().sum(0) == 2).all()
    assert own[0].isneginf().all()
    assert torch.isfinite(own[1:]).all()
