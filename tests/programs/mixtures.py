"""Mixtures whose components all data share, the assignments enumerated. The unit is the data set."""

import math

import pyro
import pyro.distributions as dist
import torch
import torch.distributions as td
from pyro.infer import config_enumerate

from .program import Program
from .quadrature import line, moments, plane


def mixture_of_shared_means() -> Program:
    """Two means that all data share, the assignments enumerated: 2-D quadrature, and 2⁶ assignments in closed form."""
    x, share = torch.tensor([-1.8, 2.4, 1.1, -0.9, 1.7, 0.2]), torch.tensor([0.4, 0.6])
    centre = torch.tensor([-1.5, 1.5])

    def joint(means):
        mixed = torch.logsumexp(share.log() + td.Normal(means.unsqueeze(-2), 0.8).log_prob(x.unsqueeze(-1)), -1)
        return td.Normal(centre, 0.7).log_prob(means).sum(-1) + mixed.sum(-1)

    loc, covariance = moments(joint, (-5, -5), (5, 5))

    @config_enumerate
    def model(x):
        with pyro.plate("components", 2):
            means = pyro.sample("means", dist.Normal(centre, 0.7))
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(share))
            loc = torch.where(c == 0, means[..., :1], means[..., 1:])
            pyro.sample("x", dist.Normal(loc, 0.8), obs=x)

    def guide(x):
        with pyro.plate("components", 2):
            pyro.sample("means", dist.Normal(loc, 1.15 * covariance.diagonal().sqrt()))

    def again():
        terms = []
        for c in torch.cartesian_prod(*[torch.arange(2)] * len(x)):
            same = (c.unsqueeze(0) == c.unsqueeze(1)).to(x)
            spread = 0.49 * same + 0.64 * torch.eye(len(x))
            terms.append(share[c].log().sum() + td.MultivariateNormal(centre[c], spread).log_prob(x))
        return torch.logsumexp(torch.stack(terms), 0).reshape(1)

    return Program(
        model, guide, x, plane(joint, (-6, -6), (6, 6)), again, unit="data set", num_particles=1000, tolerance=0.05
    )


def mixture_of_unknown_shares() -> Program:
    """Two known components, their share ~ Beta(3, 2): a polynomial in the share, integrated term by term."""
    x = torch.tensor([-1.2, 1.3, 0.8, 0.2, 1.9])
    low, high = td.Normal(-1.0, 0.7).log_prob(x), td.Normal(1.0, 0.7).log_prob(x)

    def joint(share):
        mixed = torch.logaddexp(torch.log1p(-share) + low, share.log() + high)
        return td.Beta(3.0, 2.0).log_prob(share) + mixed.sum(-1, keepdim=True)

    def model(x):
        share = pyro.sample("share", dist.Beta(3.0, 2.0))
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(share), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(2 * c - 1, 0.7), obs=x)

    def guide(x):
        pyro.sample("share", dist.Beta(5.4, 3.1))

    def log_beta(a, b):
        return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)

    def truth():
        terms = []
        for c in torch.cartesian_prod(*[torch.arange(2)] * len(x)):
            ups = c.sum().to(x)
            log_c = log_beta(3 + ups, 2 + len(x) - ups) - log_beta(torch.tensor(3.0), torch.tensor(2.0))
            terms.append(log_c + torch.where(c == 1, high, low).sum())
        return torch.logsumexp(torch.stack(terms), 0).reshape(1)

    return Program(
        model, guide, x, truth(), lambda: line(joint, 0, 1), unit="data set", num_particles=1000, tolerance=0.05
    )


def topics_of_a_toy_corpus() -> Program:
    """LDA: two topics over three words, two documents of three words, word topics enumerated: 2⁶ assignments.

    The guide is a Dirichlet with the expected counts of the enumeration. `topics[topic]` indexes without a batch in
    mind, as the published programs do.
    """
    words = torch.tensor([[0, 0, 1], [2, 1, 2]])  # documents in rows
    topic_prior = torch.tensor([[8.0, 4.0, 2.0], [2.0, 4.0, 8.0]])
    share_prior = torch.tensor([6.0, 6.0])

    def log_dirichlet(a):
        return torch.lgamma(a).sum(-1) - torch.lgamma(a.sum(-1))

    terms, shares, counts = [], [], []
    for z in torch.cartesian_prod(*[torch.arange(2)] * 6):
        z = z.reshape(2, 3)
        shares.append(torch.stack([(z == k).sum(1) for k in range(2)], -1).to(topic_prior))
        counts.append(torch.stack([torch.bincount(words[z == k], minlength=3) for k in range(2)]).to(topic_prior))
        log_z = (log_dirichlet(share_prior + shares[-1]) - log_dirichlet(share_prior)).sum()
        terms.append(log_z + (log_dirichlet(topic_prior + counts[-1]) - log_dirichlet(topic_prior)).sum())
    weights = torch.stack(terms).softmax(0).reshape(-1, 1, 1)
    topic_counts, share_counts = (weights * torch.stack(counts)).sum(0), (weights * torch.stack(shares)).sum(0)

    def model(words):
        with pyro.plate("each_topic", 2):
            topics = pyro.sample("topics", dist.Dirichlet(topic_prior))
        with pyro.plate("documents", words.shape[0], dim=-1):
            share = pyro.sample("share", dist.Dirichlet(share_prior))
            with pyro.plate("words", words.shape[1], dim=-2):
                topic = pyro.sample("topic", dist.Categorical(share), infer={"enumerate": "parallel"})
                pyro.sample("word", dist.Categorical(topics[topic]), obs=words.t())

    def guide(words):
        with pyro.plate("each_topic", 2):
            pyro.sample("topics", dist.Dirichlet(0.95 * (topic_prior + topic_counts)))
        with pyro.plate("documents", words.shape[0], dim=-1):
            pyro.sample("share", dist.Dirichlet(0.95 * (share_prior + share_counts)))

    def again():
        draws = torch.Generator().manual_seed(0)
        gammas = torch._standard_gamma(topic_prior.expand(400_000, 2, 3), generator=draws)
        topics = gammas / gammas.sum(-1, keepdim=True)
        gammas = torch._standard_gamma(share_prior.expand(400_000, 2, 2), generator=draws)
        mixed = (gammas / gammas.sum(-1, keepdim=True)) @ topics
        log_p = torch.stack([mixed[:, d, words[d]].log().sum(-1) for d in range(2)]).sum(0)
        return (torch.logsumexp(log_p, 0) - math.log(400_000)).reshape(1)

    truth = torch.logsumexp(torch.stack(terms), 0).reshape(1)
    return Program(
        model,
        guide,
        words,
        truth,
        again,
        again_tolerance=0.005,
        unit="data set",
        num_particles=1000,
        tolerance=0.05,
    )


PROGRAMS = (
    mixture_of_shared_means,
    mixture_of_unknown_shares,
    topics_of_a_toy_corpus,
)
