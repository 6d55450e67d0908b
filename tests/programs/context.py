"""Context beside the data: per datum, shared, with as many rows as data by accident, in tuples and dicts."""

import math

import pyro
import pyro.distributions as dist
import torch
import torch.distributions as td
from torch import nn

from .program import Program
from .quadrature import hermite_line


def _case(model, guide, x, context, mean) -> Program:
    """z ~ N(mean, 1), x ~ N(z, 0.5²), where `mean` (num_data,) is what the context makes of the prior's mean."""

    def joint(z):
        return td.Normal(mean, 1.0).log_prob(z) + td.Normal(z, 0.5).log_prob(x)

    truth = td.Normal(mean, math.sqrt(1.25)).log_prob(x)
    return Program(model, guide, (x, *context), truth, lambda: hermite_line(joint, x, 0.6), num_particles=1000)


def _by_mean(mean_of):
    """The two programs, given the prior's mean as a function of the context; the guide is a twentieth wide of exact."""

    def model(x, *context):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(mean_of(*context), 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x, *context):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((4 * x + mean_of(*context)) / 5, 0.47))

    return model, guide


def _x():
    return torch.tensor([0.4, -1.3, 2.2, 0.9])


def covariate_per_datum() -> Program:
    """A matrix of covariates, one row a datum, through a network."""
    torch.manual_seed(51)
    network, c = nn.Linear(3, 1), torch.randn(4, 3)
    model, guide = _by_mean(lambda c: network(c).squeeze(-1))
    return _case(model, guide, _x(), (c,), network(c).squeeze(-1).detach())


def embedding_with_as_many_rows_as_data() -> Program:
    """Four words in the vocabulary, four data: the table is looked up, not cut."""
    torch.manual_seed(52)
    table, word = torch.randn(4, 3) * 1.5, torch.tensor([3, 3, 0, 2])
    model, guide = _by_mean(lambda table, word: table[word].sum(-1))
    return _case(model, guide, _x(), (table, word), table[word].sum(-1))


def adjacency_of_categories() -> Program:
    """A graph over four categories, four data: matrix and table are both shared."""
    adjacency = torch.tensor([[0.0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]])
    table, category = torch.tensor([-1.0, 0.5, 2.0, 3.0]), torch.tensor([2, 0, 1, 1])

    def smoothed(category, adjacency, table):
        return (adjacency @ table / adjacency.sum(-1))[category]

    model, guide = _by_mean(smoothed)
    return _case(model, guide, _x(), (category, adjacency, table), smoothed(category, adjacency, table))


def adjacency_of_the_data() -> Program:
    """A graph over the data: its rows go with the data, its columns and the features of all nodes do not."""
    adjacency = torch.tensor([[0.0, 0.5, 0.5, 0], [0.3, 0, 0, 0.7], [1, 0, 0, 0], [0, 1, 0, 0]])
    features = torch.tensor([-1.0, 0.5, 2.0, 3.0])
    model, guide = _by_mean(lambda adjacency, features: adjacency @ features)
    return _case(model, guide, _x(), (adjacency, features), adjacency @ features)


def grid_of_times_as_long_as_the_data() -> Program:
    """Four data of four readings at four times, which all data share: x_t ~ N(z t, 0.5²)."""
    times = torch.tensor([0.2, 0.5, 1.0, 1.4])
    x = torch.tensor([[0.1, 0.4, 0.9, 1.5], [-0.4, -0.2, -1.1, -1.0], [0.0, 0.3, -0.2, 0.1], [1.0, 0.8, 2.5, 2.9]])

    def model(x, times):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1) * times, 0.5).to_event(1), obs=x)

    def guide(x, times):
        precision = 1 + 4 * (times**2).sum()
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(4 * (x * times).sum(-1) / precision, 1.1 / precision.sqrt()))

    truth = td.MultivariateNormal(torch.zeros(4), torch.outer(times, times) + 0.25 * torch.eye(4)).log_prob(x)

    def joint(z):
        return td.Normal(0.0, 1.0).log_prob(z) + td.Normal(z.unsqueeze(-1) * times, 0.5).log_prob(x).sum(-1)

    return Program(model, guide, (x, times), truth, lambda: hermite_line(joint, x[:, -1] / 2, 0.5))


def tuple_of_tensors() -> Program:
    """One context argument that is a tuple: an offset per datum and a slope per category."""
    offset, category = torch.tensor([0.1, -0.5, 0.9, 0.0]), torch.tensor([0, 1, 1, 0])
    slope = torch.tensor([1.0, -2.0])
    model, guide = _by_mean(lambda pair, slope: pair[0] + slope[pair[1]])
    return _case(model, guide, _x(), ((offset, category), slope), offset + slope[category])


def dict_of_tensors() -> Program:
    """A batch as a dict: a covariate per datum beside a vector that all data share, of another length."""
    batch = {"age": torch.tensor([0.3, 1.0, -0.8, 0.2]), "weights": torch.tensor([0.5, -1.0, 0.2])}

    def polynomial(batch):
        w = batch["weights"]
        return w[0] + w[1] * batch["age"] + w[2] * batch["age"] ** 2

    model, guide = _by_mean(polynomial)
    return _case(model, guide, _x(), (batch,), polynomial(batch))


def dict_with_a_table_of_as_many_rows() -> Program:
    """A dict that holds both a column of the data and a table with as many rows."""
    batch = {"site": torch.tensor([1, 1, 3, 0]), "effects": torch.tensor([0.4, -1.0, 5.0, 2.0])}
    model, guide = _by_mean(lambda batch: batch["effects"][batch["site"]])
    return _case(model, guide, _x(), (batch,), batch["effects"][batch["site"]])


def number_and_text() -> Program:
    """Context that is no tensor: a float and a word."""
    model, guide = _by_mean(lambda scale, kind: torch.tensor(scale if kind == "high" else 0.0))
    return _case(model, guide, _x(), (1.5, "high"), torch.tensor(1.5))


def packed_sequence() -> Program:
    """Covariates of unequal length as a `PackedSequence`: it passes through as it is, with all data at once."""
    lengths = torch.tensor([3, 2, 2, 1])
    padded = torch.tensor([[0.2, 0.5, -0.1], [1.0, -0.4, 0.0], [0.3, 0.3, 0.0], [-0.7, 0.0, 0.0]])
    packed = nn.utils.rnn.pack_padded_sequence(padded, lengths, batch_first=True)

    def total(packed):
        return nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)[0].sum(-1)

    model, guide = _by_mean(total)
    return _case(model, guide, _x(), (packed,), padded.sum(-1))


PROGRAMS = (
    covariate_per_datum,
    embedding_with_as_many_rows_as_data,
    adjacency_of_categories,
    adjacency_of_the_data,
    grid_of_times_as_long_as_the_data,
    tuple_of_tensors,
    dict_of_tensors,
    dict_with_a_table_of_as_many_rows,
    number_and_text,
    packed_sequence,
)
