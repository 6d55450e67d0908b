"""Plates as people write them: without a size, of any name, inside or outside others, fixed, subsampled."""

import math

import pyro
import pyro.distributions as dist
import torch
import torch.distributions as td
from torch import Tensor

from .program import Program
from .quadrature import hermite_line, line

LOC, SCALE = 0.5, 0.8  # of the readings below: z ~ N(1, 1), x ~ N(0.5 + z, 0.8²)


def readings() -> Tensor:
    return torch.tensor([1.1, -0.4, 2.9, 1.6, 0.2, 3.3])


def latent() -> dist.Normal:
    return dist.Normal(1.0, 1.0)


def posterior(x: Tensor) -> dist.Normal:
    """The posterior of z given x, a tenth wider."""
    return dist.Normal((SCALE**2 + x - LOC) / (1 + SCALE**2), 1.1 * math.sqrt(SCALE**2 / (1 + SCALE**2)))


def reading(z: Tensor) -> dist.Normal:
    return dist.Normal(LOC + z, SCALE)


def case(model, guide, **known) -> Program:
    x = readings()
    truth = td.Normal(1.0 + LOC, math.sqrt(1 + SCALE**2)).log_prob(x)

    def joint(z):
        return td.Normal(1.0, 1.0).log_prob(z) + td.Normal(LOC + z, SCALE).log_prob(x)

    return Program(model, guide, x, truth, lambda: hermite_line(joint, x / 2, 1.0), **known)


def plate_of_another_name_and_no_size() -> Program:
    """`pyro.plate("patients")`: name and size are the user's."""

    def model(x):
        with pyro.plate("patients"):
            z = pyro.sample("z", latent().expand([len(x)]))
            pyro.sample("x", reading(z), obs=x)

    def guide(x):
        with pyro.plate("patients"):
            pyro.sample("z", posterior(x))

    return case(model, guide)


def plate_of_no_size_over_vectors() -> Program:
    """No size, and a latent vector: the prior's rows come from `x.new_zeros`."""

    def model(x):
        with pyro.plate("data"):
            z = pyro.sample("z", dist.Normal(x.new_ones(x.shape[0], 1), 1.0).to_event(1))
            pyro.sample("x", reading(z).to_event(1), obs=x.view(-1, 1))

    def guide(x):
        with pyro.plate("data"):
            pyro.sample("z", posterior(x.view(-1, 1)).to_event(1))

    return case(model, guide)


def plate_of_another_name_in_the_guide() -> Program:
    """The two programs name their plates apart."""

    def model(x):
        with pyro.plate("observations", x.shape[0]):
            pyro.sample("x", reading(pyro.sample("z", latent())), obs=x)

    def guide(x):
        with pyro.plate("batch", x.shape[0], dim=-1):
            pyro.sample("z", posterior(x))

    return case(model, guide)


def plate_of_size_six() -> Program:
    """The number of data is written into both programs, and into a constant of the guide."""

    def model(x):
        with pyro.plate("data", 6):
            z = pyro.sample("z", dist.Normal(torch.ones(6), 1.0))
            pyro.sample("x", reading(z), obs=x)

    def guide(x):
        with pyro.plate("data", 6):
            pyro.sample("z", dist.Normal(posterior(x).loc + torch.zeros(6), 0.66))

    return case(model, guide, num_particles=1000, tolerance=0.04)


def _repeats() -> Tensor:
    return torch.tensor([[0.9, 1.4, 0.1], [-0.6, 0.3, 0.2], [2.4, 1.8, 3.0], [0.5, -0.7, 0.8]])


def _repeated(model, guide) -> Program:
    """z ~ N(0, 1) for each datum, three readings x_j ~ N(z, 0.9²)."""
    x = _repeats()
    truth = td.MultivariateNormal(torch.zeros(3), torch.ones(3, 3) + 0.81 * torch.eye(3)).log_prob(x)

    def joint(z):
        return td.Normal(0.0, 1.0).log_prob(z) + td.Normal(z.unsqueeze(-1), 0.9).log_prob(x).sum(-1)

    return Program(model, guide, x, truth, lambda: line(joint, -9, 9))


def _of_repeats(x: Tensor) -> tuple[Tensor, float]:
    """The posterior of z given three readings, a tenth wider."""
    return x.sum(-1) / 3.81, 1.1 * math.sqrt(0.81 / 3.81)


def data_at_dim_2_and_readings_inside() -> Program:
    """The data plate at dim −2 and an inner plate over the columns at −1."""

    def model(x):
        with pyro.plate("data", x.shape[0], dim=-2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("readings", x.shape[1], dim=-1):
                pyro.sample("x", dist.Normal(z, 0.9), obs=x)

    def guide(x):
        loc, scale = _of_repeats(x)
        with pyro.plate("data", x.shape[0], dim=-2):
            pyro.sample("z", dist.Normal(loc.unsqueeze(-1), scale))

    return _repeated(model, guide)


def readings_at_dim_2_over_the_data() -> Program:
    """The data plate at −1, an inner plate at −2, and the data transposed on the way in."""

    def model(x):
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("readings", x.shape[1]):
                pyro.sample("x", dist.Normal(z, 0.9), obs=x.t())

    def guide(x):
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(*_of_repeats(x)))

    return _repeated(model, guide)


def local_latents_in_both_plates() -> Program:
    """A latent in the outer plate at −2 and one in the inner at −1: x_ij ~ N(z_i + e_ij, 0.5²), e ~ N(0, 0.56)."""
    inner = math.sqrt(0.56)  # 0.56 + 0.25 = 0.9²

    def model(x):
        with pyro.plate("groups", x.shape[0], dim=-2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("members", x.shape[1], dim=-1):
                e = pyro.sample("e", dist.Normal(0.0, inner))
                pyro.sample("x", dist.Normal(z + e, 0.5), obs=x)

    def guide(x):
        loc, scale = _of_repeats(x)
        with pyro.plate("groups", x.shape[0], dim=-2):
            z = pyro.sample("z", dist.Normal(loc.unsqueeze(-1), scale))
            with pyro.plate("members", x.shape[1], dim=-1):
                pyro.sample("e", dist.Normal((x - z) * 0.56 / 0.81, math.sqrt(0.56 * 0.25 / 0.81)))

    return _repeated(model, guide)


def subsampled_by_pyro() -> Program:
    """`subsample_size` with `pyro.subsample`: measured on all of the data."""

    def model(x):
        with pyro.plate("data", len(x), subsample_size=2):
            z = pyro.sample("z", latent())
            pyro.sample("x", reading(z), obs=pyro.subsample(x, event_dim=0))

    def guide(x):
        with pyro.plate("data", len(x), subsample_size=2):
            pyro.sample("z", posterior(pyro.subsample(x, event_dim=0)))

    return case(model, guide)


def subsampled_by_indices() -> Program:
    """The indices that the plate hands out, and a size that is written down."""

    def model(x):
        with pyro.plate("data", 6, subsample_size=3) as index:
            z = pyro.sample("z", latent().expand([len(index)]))
            pyro.sample("x", reading(z), obs=x[index])

    def guide(x):
        with pyro.plate("data", 6, subsample_size=3) as index:
            pyro.sample("z", posterior(x[index]))

    return case(model, guide)


PROGRAMS = (
    plate_of_another_name_and_no_size,
    plate_of_no_size_over_vectors,
    plate_of_another_name_in_the_guide,
    plate_of_size_six,
    data_at_dim_2_and_readings_inside,
    readings_at_dim_2_over_the_data,
    local_latents_in_both_plates,
    subsampled_by_pyro,
    subsampled_by_indices,
)
