"""What `density_of` refuses: each in one sentence that names the site and a way out."""

from collections.abc import Callable
from typing import Any

import pairs
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

from ppvae.errors import PairError
from ppvae.inference.pair import Pair

PARALLEL: Any = {"enumerate": "parallel"}
STARTS: list[Any] = ["guide", "prior"]
X = torch.tensor([0.3, -0.4, 1.0])


def refusal(model: Any, guide: Any, start: Any, *batch: Tensor) -> str:
    with pytest.raises(PairError) as caught, Pair.on(model, guide, batch or (X,), start=start) as density:
        density.draw(start, 50)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert message.count(": ") >= 1  # the way out
    return message


def pair_of(prior: Callable[[], Any], proposal: Callable[[], Any] | None = None, **infer: Any) -> tuple[Any, Any]:
    """A model with one latent "hidden" of this prior, observed through its first number; a guide that proposes it."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("hidden", prior(), **infer)
            extra = prior().event_dim
            first = z.reshape(*z.shape[: z.dim() - extra], -1)[..., 0] if extra else z
            pyro.sample("x", dist.Normal(first.to(x), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("hidden", (proposal or prior)(), **infer)

    return model, guide


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(
    "prior", [lambda: dist.Bernoulli(0.3), lambda: dist.Poisson(2.0), lambda: dist.OneHotCategorical(torch.ones(3))]
)
@pytest.mark.parametrize("infer", [{}, {"infer": {"enumerate": "sequential"}}])
def test_a_discrete_latent_that_is_not_summed_out(prior, infer, start):
    message = refusal(*pair_of(prior, **infer), start)
    assert "'hidden' is discrete" in message
    assert "'enumerate': 'parallel'" in message


@pytest.mark.parametrize("start", STARTS)
def test_a_discrete_latent_that_the_model_enumerates_and_the_guide_draws(start):
    """Pyro lets the guide's word count."""
    model, _ = pair_of(lambda: dist.Bernoulli(0.3), infer=PARALLEL)
    _, guide = pair_of(lambda: dist.Bernoulli(0.5))
    message = refusal(model, guide, start)
    assert "'hidden' is discrete" in message
    assert "in both programs" in message


@pytest.mark.parametrize("start", STARTS)
def test_a_discrete_latent_that_the_guide_sets(start):
    model, guide = pair_of(lambda: dist.Bernoulli(0.3), lambda: dist.Delta(torch.tensor(1.0)))
    assert "hidden: the guide puts it at a single point" in refusal(model, guide, start)


@pytest.mark.parametrize("start", STARTS)
def test_a_point_mass(start):
    def point():
        return dist.Delta(torch.tensor([0.5, 0.1]), event_dim=1)

    def normal():
        return dist.Normal(torch.zeros(2), 1.0).to_event(1)

    assert "hidden: the guide puts it at a single point" in refusal(*pair_of(normal, point), start)
    assert "'hidden' is a point mass" in refusal(*pair_of(point, normal), start)


@pytest.mark.parametrize("start", STARTS)
def test_the_autoencoder(start):
    pair = pairs.build("autoencoder")
    assert "z: the guide puts it at a single point" in refusal(pair.model, pair.guide, start, *pair.args)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(
    "circular",
    [
        lambda: dist.VonMises(0.0, 1.0),
        lambda: dist.VonMises(torch.zeros(2), 1.0).to_event(1),
        lambda: dist.SineBivariateVonMises(0.0, 0.0, 1.0, 1.0, correlation=0.1),
    ],
)
def test_a_latent_on_a_circle(circular, start):
    """Its density is periodic on ℝ and has no integral there."""
    assert "'hidden' lives on a circle" in refusal(*pair_of(circular), start)


@pytest.mark.parametrize("start", STARTS)
def test_a_latent_on_a_sphere(start):
    message = refusal(*pair_of(lambda: dist.ProjectedNormal(torch.ones(3))), start)
    assert "no bijection" in message
    assert "'hidden'" in message


def test_an_auxiliary_site():
    """Chains that start from the prior ask nothing of log q(z|x): see `test_ais.py`."""
    pair = pairs.build("line")

    def guide(x):
        with pyro.plate("data", len(x)):
            extra = pyro.sample("hidden", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Normal(x / 2 + extra, 0.5))

    assert "'hidden' is auxiliary" in refusal(pair.model, guide, "guide")


@pytest.mark.parametrize("by_handler", [True, False])
def test_a_masked_prior_cannot_be_started_from(by_handler):
    """It is drawn from all the same, but counts as 1. The guide can be started from, and so can a mask of all ones."""

    def masked(mask: Any):
        def prior():
            normal = dist.Normal(torch.zeros(2), 1.0)
            return normal.to_event(1) if by_handler else normal.mask(mask).to_event(1)

        model, guide = pair_of(prior, lambda: dist.Normal(torch.zeros(2), 1.0).to_event(1))
        return (poutine.mask(model, mask=mask.all(-1)) if by_handler else model), guide

    model, guide = masked(torch.tensor([True, False]))
    assert "the prior of 'hidden' is masked" in refusal(model, guide, "prior")
    for programs, start in (
        (masked(torch.tensor([True, False])), "guide"),
        (masked(torch.tensor([True, True])), "prior"),
    ):
        begin: Any = start
        with Pair.on(*programs, (X,), start=begin) as density:
            assert density.draw(begin, 3).isfinite().all()


@pytest.mark.parametrize("start", STARTS)
def test_a_support_that_depends_on_what_is_summed_out(start):
    """Then z = T(u) would take another value for each class."""
    high = torch.tensor([1.0, 2.0])

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.5), infer=PARALLEL)
            z = pyro.sample("hidden", dist.Uniform(0.0, high[c.long()], validate_args=False))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("hidden", dist.Uniform(torch.zeros(len(x)), 1.0))

    message = refusal(model, guide, start)
    assert "the support of 'hidden'" in message
    assert "summed out" in message


def test_a_support_of_its_own_beside_what_is_summed_out():
    """Not refused: a composition whose parameters, not its support, follow the class."""
    alpha = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 0.5]])

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.5), infer=PARALLEL)
            z = pyro.sample("hidden", dist.Dirichlet(alpha[c.long()]))
            pyro.sample("x", dist.Normal(z @ torch.tensor([0.0, 1.0, 2.0]), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("hidden", dist.Dirichlet(torch.ones(3)))

    for start in STARTS:
        with Pair.on(model, guide, (X,), start=start) as density:
            assert torch.stack(density.path(start)(density.draw(start, 4))).isfinite().all()


def test_a_guide_that_draws_outside_the_support_of_the_model():
    pair = pairs.uniform(low=[0.0, -0.5], high=[1.0, 1.5])
    message = refusal(pair.model, pair.guide, "guide", *pair.args)
    assert "'z' outside the support" in message
    assert "start='prior'" in message
    with Pair.on(pair.model, pair.guide, pair.args, start="prior") as density:
        z = density.constrained(density.draw("prior", 500))["z"]
        assert ((z >= 0) & (z <= 1)).all()
    pair = pairs.uniform(low=[0.0, 0.2], high=[1.0, 0.9])
    with Pair.on(pair.model, pair.guide, pair.args, start="guide") as density:
        assert density.draw("guide", 500).isfinite().all()


def test_what_weights_refuse_is_refused_here_too():
    pair = pairs.build("line")
    with pytest.raises(PairError, match="z"), Pair.on(pair.model, lambda x: None, (X,), start="guide"):
        pass
