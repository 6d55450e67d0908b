"""Hidden Markov models with a random effect, the states enumerated."""

import itertools
import math

import pyro
import pyro.distributions as dist
import torch
import torch.distributions as td
from pyro import poutine
from torch import Tensor

from .program import Program
from .quadrature import hermite_line, line

PARALLEL = {"enumerate": "parallel"}


def _movement(x: Tensor, logit: Tensor) -> Tensor:
    """log p of rows under a chain of two states that stays with probability σ(logit); x_t ~ N(±1, 0.8²)."""
    total = torch.full(logit.shape, -math.inf)
    for path in itertools.product([0, 1], repeat=x.shape[-1]):
        log_p = torch.full(logit.shape, math.log(0.5))
        for t, state in enumerate(path):
            if t:
                stays = state == path[t - 1]
                log_p = log_p + torch.nn.functional.logsigmoid(logit if stays else -logit)
            log_p = log_p + td.Normal(2.0 * state - 1, 0.8).log_prob(x[..., t])
        total = torch.logaddexp(total, log_p)
    return total


def _walks() -> Tensor:
    return torch.tensor([[0.8, 1.3, -0.9], [-1.2, -0.7, -1.0], [0.3, -0.2, 0.6], [-1.0, 1.1, -1.4]])


def _chain(x, logit):
    state: Tensor | None = None
    for t in pyro.markov(range(x.shape[1])):
        stay = torch.sigmoid(logit)
        up = torch.full_like(stay, 0.5) if state is None else torch.where(state == 1, stay, 1 - stay)
        state = pyro.sample(f"state_{t}", dist.Bernoulli(up), infer=PARALLEL)
        pyro.sample(f"x_{t}", dist.Normal(2 * state - 1, 0.8), obs=x[:, t])


def mixed_effect_hidden_markov_model() -> Program:
    """A normal random effect of each animal on its chain, the states enumerated."""
    x = _walks()

    def model(x):
        with pyro.plate("animals", len(x)):
            effect = pyro.sample("effect", dist.Normal(0.5, 1.0))
            _chain(x, effect)

    def guide(x):
        flips = (x[:, 1:] * x[:, :-1]).clamp(-1, 1).sum(-1)
        with pyro.plate("animals", len(x)):
            pyro.sample("effect", dist.Normal(0.5 + 0.35 * flips, 1.0))

    def joint(z):
        return td.Normal(0.5, 1.0).log_prob(z) + _movement(x, z.expand(len(z), len(x)))

    return Program(
        model,
        guide,
        x,
        line(joint, -9, 10, 2000),
        lambda: hermite_line(joint, torch.full((4,), 0.5), 1.0),
        num_particles=4000,
        tolerance=0.04,
    )


def discrete_random_effect_of_a_hidden_markov_model() -> Program:
    """A random effect of two kinds, enumerated with the states: each weight is log p(x)."""
    x, share, logits = _walks(), torch.tensor([0.3, 0.7]), torch.tensor([-0.8, 1.5])

    def model(x):
        with pyro.plate("animals", len(x)):
            kind = pyro.sample("kind", dist.Categorical(share), infer=PARALLEL)
            _chain(x, logits[kind])

    def guide(x):
        pass

    truth = torch.logsumexp(torch.stack([share[k].log() + _movement(x, logits[k].expand(4)) for k in range(2)]), 0)

    def again():
        """The forward algorithm in place of the paths."""
        total = torch.zeros(4)
        for k in range(2):
            stay = torch.sigmoid(logits[k])
            step = torch.stack([torch.stack([stay, 1 - stay]), torch.stack([1 - stay, stay])])
            alpha = torch.full((4, 2), 0.5)
            for t in range(x.shape[1]):
                alpha = (alpha @ step if t else alpha) * td.Normal(torch.tensor([-1.0, 1.0]), 0.8).log_prob(
                    x[:, t : t + 1]
                ).exp()
            total = total + share[k] * alpha.sum(-1)
        return total.log()

    return Program(model, guide, x, truth, again, num_particles=10, tolerance=1e-6)


def hidden_markov_model_of_several_lengths() -> Program:
    """Rows of several lengths: states and readings after the end are masked, and count for nothing."""
    x, lengths = _walks(), torch.tensor([3, 1, 2, 3])
    step, levels = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.2, 0.2, 0.6]]), torch.tensor([-1.0, 0.0, 1.0])

    def model(x, lengths):
        with pyro.plate("animals", len(x)):
            state: Tensor | int = 0
            for t in pyro.markov(range(x.shape[1])):
                with poutine.mask(mask=t < lengths):
                    state = pyro.sample(f"state_{t}", dist.Categorical(step[state]), infer=PARALLEL)
                    pyro.sample(f"x_{t}", dist.Normal(levels[state], 0.8), obs=x[:, t])

    def guide(x, lengths):
        pass

    def paths(row, length):
        terms = []
        for path in itertools.product(range(3), repeat=length):
            log_p = torch.zeros(())
            for t, state in enumerate(path):
                log_p = log_p + step[path[t - 1] if t else 0, state].log()
                log_p = log_p + td.Normal(levels[state], 0.8).log_prob(row[t])
            terms.append(log_p)
        return torch.stack(terms).logsumexp(0)

    def forward(row, length):
        alpha = step[0]
        for t in range(length):
            alpha = (alpha @ step if t else alpha) * td.Normal(levels, 0.8).log_prob(row[t]).exp()
        return alpha.sum().log()

    truth = torch.stack([paths(row, int(length)) for row, length in zip(x, lengths, strict=True)])

    def again():
        return torch.stack([forward(row, int(length)) for row, length in zip(x, lengths, strict=True)])

    return Program(model, guide, (x, lengths), truth, again, num_particles=10, tolerance=1e-6)


PROGRAMS = (
    hidden_markov_model_of_several_lengths,
    mixed_effect_hidden_markov_model,
    discrete_random_effect_of_a_hidden_markov_model,
)
