"""Discrete latents that the guide draws, one way or another."""

import pyro
import pyro.distributions as dist
import torch
import torch.distributions as td
from torch import Tensor

from .program import REFUSED, Program

LEVELS = torch.tensor([0, 1, 2])


def _x() -> Tensor:
    return torch.tensor([0.3, -1.2, 0.8, 1.9])


def _model(x):
    """k ~ Categorical(0.5, 0.3, 0.2), x ~ N(k, 1)."""
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.5, 0.3, 0.2])))
        pyro.sample("x", dist.Normal(k.to(x), 1.0), obs=x)


def _one_hot_model(x):
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.OneHotCategorical(torch.tensor([0.5, 0.3, 0.2]).expand(len(x), 3)))
        pyro.sample("x", dist.Normal(k @ LEVELS.to(x), 1.0), obs=x)


def _case(infer: dict[str, object]) -> Program:
    x = _x()
    log_prior = torch.tensor([0.5, 0.3, 0.2]).log().unsqueeze(-1)
    levels = LEVELS.to(x).unsqueeze(-1)

    def guide(x):
        with pyro.plate("data", len(x)):
            logits = -0.4 * (x.unsqueeze(-1) - LEVELS.to(x)) ** 2
            pyro.sample("k", dist.Categorical(logits=logits), infer=infer)

    truth = torch.logsumexp(log_prior + td.Normal(levels, 1.0).log_prob(x), 0)

    def again() -> Tensor:
        """The density of the mixture."""
        parts = td.Normal(levels[:, 0], torch.ones(3))
        return td.MixtureSameFamily(td.Categorical(probs=torch.tensor([0.5, 0.3, 0.2])), parts).log_prob(x)

    return Program(_model, guide, x, truth, again, num_particles=4000, tolerance=0.05)


def category_drawn_by_the_guide() -> Program:
    """Nothing is enumerated."""
    return _case({})


def category_enumerated_in_sequence() -> Program:
    """`Trace_ELBO` would run the guide once for each value; a measurement draws it."""
    return _case({"enumerate": "sequential"})


def category_drawn_ten_at_once() -> Program:
    """`num_samples` has Pyro draw the site ten times at once, and not sum over its values."""
    return _case({"enumerate": "parallel", "num_samples": 10})


def relaxed_guide_of_a_category() -> Program:
    """A straight-through guide has a density on the simplex, and the model's category a probability."""

    def guide(x):
        slope = pyro.param("slope", torch.tensor(-0.4))
        with pyro.plate("data", len(x)):
            logits = slope * (x.unsqueeze(-1) - LEVELS.to(x)) ** 2
            temperature = torch.tensor(0.7)
            pyro.sample("k", dist.RelaxedOneHotCategoricalStraightThrough(temperature, logits=logits))

    return Program(_one_hot_model, guide, _x(), REFUSED, train=5)


PROGRAMS = (
    category_drawn_by_the_guide,
    category_enumerated_in_sequence,
    category_drawn_ten_at_once,
    relaxed_guide_of_a_category,
)
