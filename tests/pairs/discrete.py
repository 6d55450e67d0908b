"""Pairs with discrete latents that are enumerated: the truth is a brute-force sum over every assignment."""

import itertools
import math
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import truths_inference as truths
from torch import Tensor

from .pair import Pair

PARALLEL: Any = {"enumerate": "parallel"}


def _log_sum(terms: list[Tensor]) -> Tensor:
    return torch.logsumexp(torch.stack(terms), 0)


def mixture() -> Pair:
    """c ~ Categorical(π), x ~ N(μ_c, σ_c² I₂), and nothing else: the guide is empty, each weight is log p(x)."""
    share = torch.tensor([0.5, 0.3, 0.2])
    mean = torch.tensor([[0.0, 0.0], [1.5, -1.0], [-2.0, 0.5]])
    std = torch.tensor([1.0, 0.5, 0.8])

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(share), infer=PARALLEL)
            pyro.sample("x", dist.Normal(mean[c], std[c].unsqueeze(-1)).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pass

    def log_evidence(x: Tensor) -> Tensor:
        return _log_sum(
            [share[c].log() + dist.Normal(mean[c], std[c]).to_event(1).log_prob(x) for c in range(len(share))]
        )

    x = torch.tensor([[0.3, -0.2], [1.4, -1.1], [-2.5, 1.0], [5.0, 5.0], [0.0, 0.0]])
    return Pair(model, guide, x, log_evidence=log_evidence, exact=True, latents=frozenset(), summed=frozenset({"c"}))


class _Factors:
    """c ~ Categorical(π), z ~ N(0, 1), x ~ N(a_c z + b_c, σ²I₂): given c all is Gaussian."""

    def __init__(self) -> None:
        self.share = torch.tensor([0.2, 0.5, 0.3])
        self.slope = torch.tensor([[1.0, 0.0], [0.5, -0.8], [-0.3, 0.9]])
        self.offset = torch.tensor([[0.0, 1.0], [0.5, -0.5], [-1.0, 0.0]])
        self.sigma = 0.6

    def numbers(self, c: int) -> tuple[Tensor, ...]:
        noise = self.sigma**2 * torch.eye(2)
        return self.slope[c].unsqueeze(-1), self.offset[c], noise, torch.zeros(1), torch.eye(1)

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, c), shape (num_data, 3)."""
        terms = [truths.gaussian_evidence(x, *self.numbers(c)) + self.share[c].log() for c in range(3)]
        return torch.stack(terms, -1)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """p(c | x), and the mean and standard deviation of p(z | c, x), each (num_data, 3)."""
        moments = [truths.gaussian_posterior(x, *self.numbers(c)) for c in range(3)]
        loc = torch.cat([loc for loc, _ in moments], -1)
        std = torch.cat([cov.sqrt()[0] for _, cov in moments]).expand_as(loc)
        return self.log_joint(x).softmax(-1), loc, std

    def matched(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of p(z | x)."""
        share, loc, std = self.posterior(x)
        mean = (share * loc).sum(-1)
        return mean, ((share * (std**2 + loc**2)).sum(-1) - mean**2).sqrt()

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(self.share), infer=PARALLEL)
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            loc = self.slope[c] * z.unsqueeze(-1) + self.offset[c]
            pyro.sample("x", dist.Normal(loc, self.sigma).to_event(1), obs=x)

    def pair(self, guide: Any, **known: Any) -> Pair:
        x = torch.tensor([[0.2, 0.9], [0.9, -1.2], [-1.5, 0.6], [0.0, 0.0]])
        return Pair(
            self.model,
            guide,
            x,
            log_evidence=lambda x: torch.logsumexp(self.log_joint(x), -1),
            summed=frozenset({"c"}),
            **known,
        )


def mixture_in_model(widen: float = 1.2) -> Pair:
    """A mixture of factor analysers; the guide knows z alone, moment matched and made wider."""
    factors = _Factors()

    def guide(x: Tensor) -> None:
        loc, std = factors.matched(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, widen * std))

    return factors.pair(guide)


def mixture_in_guide(widen: float = 1.2) -> Pair:
    """The same model; the guide enumerates c with wrong odds, and z does not heed it. The odds cancel."""
    factors = _Factors()

    def guide(x: Tensor) -> None:
        loc, std = factors.matched(x)
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Categorical(torch.tensor([0.6, 0.3, 0.1])), infer=PARALLEL)
            pyro.sample("z", dist.Normal(loc, widen * std))

    return factors.pair(guide)


def mixture_conditional(scale: float = 1.0) -> Pair:
    """The same model; z follows p(z | c, x) with its standard deviation times `scale`, for each c of the guide.

    The weight is Σ_c p(x, c, z_c) / q(z_c | c, x): with the exact conditional it equals p(x), whatever the odds q(c).
    """
    factors = _Factors()

    def guide(x: Tensor) -> None:
        _, loc, std = factors.posterior(x)
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(torch.tensor([0.6, 0.3, 0.1])), infer=PARALLEL)
            row = torch.arange(len(x))
            pyro.sample("z", dist.Normal(loc[row, c], scale * std[row, c]))

    return factors.pair(guide, exact=scale == 1.0)


def parts(widen: float = 1.15) -> Pair:
    """Four assignments per datum in a plate at dim −2, and one z: x_j ~ N(μ[c_j] + z, σ²).

    Within the plate the sum over c_j comes before the product over j. The truth sums all 3⁴ assignments, each of them
    Gaussian in z.
    """
    share, mean, sigma = torch.tensor([0.3, 0.6, 0.1]), torch.tensor([-1.0, 0.5, 2.0]), 0.7
    assignments = torch.tensor(list(itertools.product(range(3), repeat=4)))
    # One Gaussian for each of the 81 assignments, as a batch to the left of the data.
    numbers = (torch.ones(4, 1), mean[assignments].unsqueeze(1), sigma**2 * torch.eye(4), torch.zeros(1), torch.eye(1))
    log_prior = share.log()[assignments].sum(-1, keepdim=True)

    def log_joint(x: Tensor) -> Tensor:
        """log p(x, c), shape (81, num_data)."""
        return log_prior + truths.gaussian_evidence(x, *numbers)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("parts", 4, dim=-2):
                c = pyro.sample("c", dist.Categorical(share), infer=PARALLEL)
                pyro.sample("x", dist.Normal(mean[c] + z, sigma), obs=x.T)

    def guide(x: Tensor) -> None:
        odds = log_joint(x).softmax(0)
        locs, cov = truths.gaussian_posterior(x, *numbers)
        loc = locs[..., 0]
        centre = (odds * loc).sum(0)
        variance = cov[0, 0] + (odds * loc**2).sum(0) - centre**2
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(centre, widen * variance.sqrt()))

    def log_evidence(x: Tensor) -> Tensor:
        return torch.logsumexp(log_joint(x), 0)

    x = torch.tensor([[0.1, -0.8, 1.9, 0.4], [1.0, 1.2, 0.8, -0.5], [-2.0, -1.1, 0.0, 0.3]])
    return Pair(model, guide, x, log_evidence=log_evidence, summed=frozenset({"c"}))


def nested() -> Pair:
    """A class per datum and three assignments below it, all discrete: Σ_c p(c) Π_j Σ_{d_j} p(d_j | c) p(x_j | d_j)."""
    share = torch.tensor([0.7, 0.3])
    below = torch.tensor([[0.1, 0.8, 0.1], [0.5, 0.1, 0.4]])
    mean, sigma = torch.tensor([-1.0, 0.5, 2.0]), 0.7

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            c = pyro.sample("c", dist.Categorical(share), infer=PARALLEL)
            with pyro.plate("parts", 3, dim=-2):
                d = pyro.sample("d", dist.Categorical(below[c]), infer=PARALLEL)
                pyro.sample("x", dist.Normal(mean[d], sigma), obs=x.T)

    def guide(x: Tensor) -> None:
        pass

    def log_evidence(x: Tensor) -> Tensor:
        terms = []
        for c in range(2):
            for d in itertools.product(range(3), repeat=3):
                choice = list(d)
                log_prior = share[c].log() + below[c, choice].log().sum()
                log_likelihood = -((x - mean[choice]) ** 2).sum(-1) / (2 * sigma**2)
                terms.append(log_prior + log_likelihood - 1.5 * math.log(2 * math.pi * sigma**2))
        return _log_sum(terms)

    x = torch.tensor([[0.1, -0.8, 1.9], [1.0, 1.2, 0.8], [-2.0, -1.1, 0.0], [0.5, 0.5, 0.6]])
    return Pair(
        model, guide, x, log_evidence=log_evidence, exact=True, latents=frozenset(), summed=frozenset({"c", "d"})
    )


def chain() -> Pair:
    """A hidden Markov chain of five steps for each datum, as `pyro.markov`, which reuses the dims of older states."""
    start, step = torch.tensor([0.6, 0.4]), torch.tensor([[0.8, 0.2], [0.3, 0.7]])
    mean, sigma = torch.tensor([-1.0, 1.0]), 0.9

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            odds = start
            for t in pyro.markov(range(x.shape[1])):
                c = pyro.sample(f"c{t}", dist.Categorical(odds), infer=PARALLEL)
                odds = step[c]
                pyro.sample(f"x{t}", dist.Normal(mean[c], sigma), obs=x[:, t])

    def guide(x: Tensor) -> None:
        pass

    def log_evidence(x: Tensor) -> Tensor:
        terms = []
        for path in itertools.product(range(2), repeat=5):
            c = list(path)
            log_prior = start[c[0]].log() + step[c[:-1], c[1:]].log().sum()
            terms.append(log_prior + dist.Normal(mean[c], sigma).log_prob(x).sum(-1))
        return _log_sum(terms)

    x = torch.tensor([[0.1, -0.8, 1.9, 0.4, 0.0], [1.0, 1.2, 0.8, -0.5, -1.5], [-2.0, -1.1, 0.0, 0.3, 1.0]])
    summed = frozenset(f"c{t}" for t in range(5))
    return Pair(model, guide, x, log_evidence=log_evidence, exact=True, latents=frozenset(), summed=summed)
