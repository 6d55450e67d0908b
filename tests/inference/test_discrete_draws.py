"""Enumerated sites are drawn from p(d|z, x), as a number or as a one-hot vector."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from ppvae.inference import to_datatree
from ppvae.inference.pair import Pair

PARALLEL: Any = {"enumerate": "parallel"}
MEANS = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
SHARES = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
X = torch.tensor([[0.3], [-1.2], [2.0]], dtype=torch.float64)
DRAWS = 4000


def index_model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        d = pyro.sample("d", dist.Categorical(SHARES), infer=PARALLEL)
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(MEANS[d].unsqueeze(-1) + z, 0.5).to_event(1), obs=x)


def vector_model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        d = pyro.sample("d", dist.OneHotCategorical(SHARES), infer=PARALLEL)
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))
        pyro.sample("x", dist.Normal((d * MEANS).sum(-1, keepdim=True) + z, 0.5).to_event(1), obs=x)


def guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 1.0).to_event(1))


@pytest.mark.parametrize("model", [index_model, vector_model])
def test_draws_are_of_the_posterior_given_z(model):
    """E[x̃|z] is the mean of the class that was drawn plus z: each share within 4.5 standard errors of p(d|z, x)."""
    z = torch.linspace(-1.0, 1.0, 3).reshape(1, 3, 1).expand(DRAWS, 3, 1)
    torch.manual_seed(0)
    with Pair.on(model, guide, (X,)) as pair:
        means = pair.expectations({"z": z})["x"] - z
        tree_draws = pair.predictions({"z": z[:2]}, 2)["x"]
    drawn = (means - MEANS).abs() < 1e-4  # (draws, data, classes)
    assert drawn.sum(-1).eq(1).all()
    truth = (SHARES.log() + dist.Normal(MEANS + z[0], 0.5).log_prob(X)).softmax(-1)
    error = (truth * (1 - truth) / DRAWS).sqrt()
    assert ((drawn.double().mean(0) - truth).abs() < 4.5 * error + 1e-3 / math.sqrt(DRAWS)).all()
    assert tree_draws.shape == (2, 3, 1)


@pytest.mark.parametrize("model", [index_model, vector_model])
def test_predictions_reach_arviz(model):
    tree = to_datatree(model, guide, X, seed=0)
    assert tree["posterior_predictive"]["x"].sizes["datum"] == 3
    assert tree["log_likelihood"]["x"].notnull().all()
