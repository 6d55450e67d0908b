"""Work is cut so that it covers everything once and keeps to the budget."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from ppvae.errors import OptionError
from ppvae.inference.pair import Pair, chunks


@pytest.mark.parametrize(("num_particles", "num_data"), [(1, 1), (7, 5), (5000, 3), (1, 1000)])
@pytest.mark.parametrize("budget", [1, 10, 64, 10**6])
def test_covers_everything_once_within_the_budget(num_particles, num_data, budget):
    seen = torch.zeros(num_particles, num_data)
    before = (0, 0)
    for data, particles in chunks(num_particles, num_data, bytes_each=2**10, memory_mb=budget / 2**10):
        seen[particles, data] += 1
        assert (data.stop - data.start) * (particles.stop - particles.start) <= budget
        assert (data.start, particles.start) >= before  # data outermost, in order
        before = (data.start, particles.start)
    assert (seen == 1).all()


@pytest.mark.parametrize("memory_mb", [0.0, -1.0, float("nan")])
def test_refuses_a_budget_without_meaning(memory_mb):
    with pytest.raises(OptionError, match="memory_mb"):
        list(chunks(1, 1, 64, memory_mb))


def test_measures_what_a_particle_costs():
    """One particle of this pair makes a hidden vector of 1000 doubles, at least two tensors of them, and no 100."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            hidden = torch.tanh(z.unsqueeze(-1) * torch.ones(1000))
            pyro.sample("x", dist.Normal(hidden.mean(-1), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    with Pair.on(model, guide, (torch.zeros(5),)) as pair:
        cost = pair.bytes_each // 2  # without the gradient
    assert 2 * 8000 <= cost < 10 * 8000
