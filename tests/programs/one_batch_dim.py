"""Decoders and encoders that take rows (rows, features) and nothing to the left of them."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .network import LinearGuide, decoder_case, normal, prior
from .program import Program


def _data(num_features: int = 4) -> Tensor:
    return 0.7 * torch.sin(torch.arange(5.0 * num_features) * 1.7).reshape(5, num_features)


class _Upsample(nn.Module):
    """ConvTranspose2d from 2 × 2 to 4 × 4, as DCGAN decoders have it."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.up = nn.Linear(2, 8), nn.ConvTranspose2d(2, 1, 2, stride=2)

    def forward(self, z: Tensor) -> Tensor:
        image = torch.tanh(self.dense(z)).view(z.size(0), 2, 2, 2)
        return self.up(image).view(z.size(0), 16)


def transposed_convolution() -> Program:
    """`view(z.size(0), channels, height, width)` before a transposed convolution."""
    torch.manual_seed(31)
    return decoder_case(normal(_Upsample()), _data(16))


class _Unflattened(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(2, 12), nn.Unflatten(1, (3, 4)), nn.Conv1d(3, 1, 3, padding=1), nn.Flatten()
        )

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.body(z.view(-1, 2)))


def convolution_in_one_dimension() -> Program:
    """`Unflatten(1, …)`, Conv1d, `Flatten`: the batch is dim 0."""
    torch.manual_seed(32)
    return decoder_case(normal(_Unflattened()), _data())


def convolution_in_the_encoder() -> Program:
    """The data are images in the guide and rows in the model."""
    torch.manual_seed(33)
    kernel = nn.Conv2d(1, 2, 2)

    def guide(linear: LinearGuide):
        def program(x):
            pyro.module("kernel", kernel)
            image = kernel(x.view(-1, 1, 2, 2)).view(len(x), -1)
            with pyro.plate("data", len(x)):
                loc = linear(x) + 0.05 * torch.tanh(image)
                pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=linear.tril))

        return program

    return decoder_case(normal(nn.Sequential(nn.Linear(2, 4), nn.Tanh())), _data(), guide=guide)


class _Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(2, 6), nn.BatchNorm1d(6), nn.Linear(6, 4)
        self.norm.running_var = torch.full((6,), 0.4)

    def forward(self, z: Tensor) -> Tensor:
        return self.last(nn.functional.softplus(self.norm(self.first(z))))


def batch_norm_of_rows() -> Program:
    """BatchNorm1d takes two dimensions; under a third it would read the data as channels, or fail."""
    torch.manual_seed(34)
    return decoder_case(normal(_Normed()), _data())


class _Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(2, 5), nn.Linear(7, 4)

    def forward(self, z: Tensor) -> Tensor:
        return self.last(torch.cat((z, torch.tanh(self.first(z))), dim=1))


def skip_connection_by_cat() -> Program:
    """`torch.cat((z, h), dim=1)`: features for rows, data under a plate of particles."""
    torch.manual_seed(35)
    return decoder_case(normal(_Skip()), _data())


class _Slices(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope, self.bend = nn.Parameter(0.6 * torch.randn(1, 4)), nn.Parameter(0.4 * torch.randn(1, 4))

    def forward(self, z: Tensor) -> Tensor:
        return z[:, :1] * self.slope + torch.tanh(z[:, 1:]) * self.bend


def slices_of_the_latent() -> Program:
    """`z[:, :1]` and `z[:, 1:]`: with five data a plate of particles would cut the data and say nothing."""
    torch.manual_seed(36)
    return decoder_case(normal(_Slices()), _data())


class _Recurrent(nn.Module):
    """A GRU over four steps whose first state comes from z."""

    def __init__(self, cell: type) -> None:
        super().__init__()
        self.cell, self.out = cell(2, 3, batch_first=True), nn.Linear(3, 1)

    def forward(self, z: Tensor) -> Tensor:
        steps, _ = self.cell(z.unsqueeze(1).repeat(1, 4, 1))
        return 2 * self.out(steps).squeeze(-1)


def gru_decoder() -> Program:
    """`nn.GRU(batch_first=True)` takes three dimensions: rows, steps, features."""
    torch.manual_seed(37)
    return decoder_case(normal(_Recurrent(nn.GRU)), _data())


def lstm_decoder() -> Program:
    """The same with an LSTM."""
    torch.manual_seed(38)
    return decoder_case(normal(_Recurrent(nn.LSTM)), _data())


class _Einsum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.7 * torch.randn(2, 4))

    def forward(self, z: Tensor) -> Tensor:
        return torch.sinh(0.5 * torch.einsum("bi,ij->bj", z, self.weight))


def einsum_of_rows() -> Program:
    """`einsum("bi,ij->bj")` names each dimension."""
    torch.manual_seed(39)
    return decoder_case(normal(_Einsum()), _data())


def _two_heads(z: Tensor, kind: Tensor, heads: nn.ModuleList) -> Tensor:
    out = torch.empty(len(z), 4)
    for k, head in enumerate(heads):
        out[kind == k] = head(z[kind == k])
    return out


def boolean_masks() -> Program:
    """Rows of each kind go through a head of their own, picked and put back by a boolean mask."""
    torch.manual_seed(40)
    heads, kind = nn.ModuleList([nn.Linear(2, 4), nn.Linear(2, 4)]), torch.tensor([0, 1, 1, 0, 1])

    def model(x, kind):
        pyro.module("heads", heads)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior(x))
            pyro.sample("x", dist.Normal(_two_heads(z, kind, heads), 1.0).to_event(1), obs=x)

    def guide(linear: LinearGuide):
        def program(x, kind):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.1).to_event(1))

        return program

    def output(z):
        return torch.stack([heads[int(k)](z) for k in kind], 1)

    return decoder_case(
        normal(heads), _data(), model, guide, output, (kind,), num_particles=20_000, again_tolerance=1e-3
    )


def batched_matrix_product() -> Program:
    """`torch.bmm` of a matrix per datum with z as columns."""
    torch.manual_seed(41)
    matrices = 0.7 * torch.randn(5, 4, 2)

    def model(x, matrices):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior(x))
            pyro.sample("x", dist.Normal(torch.bmm(matrices, z.unsqueeze(2)).squeeze(2), 1.0).to_event(1), obs=x)

    def guide(linear: LinearGuide):
        def program(x, matrices):
            precision = torch.eye(2) + torch.bmm(matrices.transpose(1, 2), matrices)
            loc = torch.linalg.solve(precision, torch.bmm(matrices.transpose(1, 2), x.unsqueeze(2)))
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.MultivariateNormal(loc.squeeze(2), precision_matrix=0.85 * precision))

        return program

    def output(z):
        return torch.einsum("nj,bij->nbi", z, matrices)

    return decoder_case(
        normal(None), _data(), model, guide, output, (matrices,), num_particles=2000, again_tolerance=1e-3
    )


PROGRAMS = (
    transposed_convolution,
    convolution_in_one_dimension,
    convolution_in_the_encoder,
    batch_norm_of_rows,
    skip_connection_by_cat,
    slices_of_the_latent,
    gru_decoder,
    lstm_decoder,
    einsum_of_rows,
    boolean_masks,
    batched_matrix_product,
)
