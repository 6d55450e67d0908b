"""The networks that a mended guide adds: from a datum, and the guide's own parameters for it, to numbers.

All begin as a change that changes nothing: the last layer is zero.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from .maps import Coupling, MapNumbers

HIDDEN = 64
# Hidden units of a coupling layer, and how far its log scale may go.
COUPLING_HIDDEN, MOST_LOG_SCALE = 32, 2.0
NUM_COUPLINGS = 2
# The weight of a second part at first.
FIRST_SHARE = 0.25


class Trunk(nn.Module):
    """Standardised features of a datum, ``(num_rows, num_features)``, to hidden units, ``(num_rows, HIDDEN)``.

    Without features, where the data set is the unit, the one hidden unit is 1, and what follows are free parameters.

    Args:
        features: of some data, from which their means and spreads are taken; None for none.
        like: a tensor of the type and device that the layers have.
    """

    centre: Tensor
    spread: Tensor
    one: Tensor

    def __init__(self, features: Tensor | None, like: Tensor) -> None:
        super().__init__()
        self.width = 1 if features is None else HIDDEN
        if features is None:
            self.register_buffer("one", like.new_ones(1, 1))
            return
        features = features.detach()
        spread = features.std(0) if len(features) > 1 else torch.ones_like(features[0])
        self.register_buffer("centre", features.mean(0))
        self.register_buffer("spread", torch.where(spread > 0, spread, torch.ones_like(spread)))
        self.layers = nn.Sequential(
            nn.Linear(features.shape[1], HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU()
        ).to(like)

    def forward(self, features: Tensor | None) -> Tensor:
        """The hidden units; a value that is missing counts as the mean."""
        if features is None:
            return self.one
        return self.layers(((features - self.centre) / self.spread).nan_to_num(0.0).clamp(-10, 10))


def site_key(name: str) -> str:
    """A site's name as that of a module."""
    return name.replace(".", "__dot__")


def zero_linear(num_in: int, num_out: int, like: Tensor) -> nn.Linear:
    """A linear layer of zeros."""
    layer = nn.Linear(num_in, num_out).to(like)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class SiteNumbers(nn.Module):
    """The numbers of the map of one site, from hidden units and the earlier sites' ε.

    Args:
        num_hidden: hidden units that the trunk gives.
        plates: sizes of the site's plates inside the unit.
        dim: d, unconstrained numbers of a draw.
        earlier: how many numbers of earlier sites the map reads.
        flow: whether with S and C, which the affine map is without.
        like: a tensor of the type and device that the layers have.
    """

    def __init__(
        self, num_hidden: int, plates: tuple[int, ...], dim: int, earlier: int, flow: bool, like: Tensor
    ) -> None:
        super().__init__()
        self.plates, self.dim, self.earlier, self.flow = plates, dim, earlier, flow
        self.sizes = [dim, dim, dim * (dim - 1) // 2, earlier * dim, *([dim, dim] if flow else [])]
        self.linear = zero_linear(num_hidden, math.prod(plates) * sum(self.sizes), like)
        still = [(dim + 1) // 2, dim - (dim + 1) // 2]
        layers = NUM_COUPLINGS if flow and dim > 1 else 0
        self.couplings = nn.ModuleList(
            CouplingNetwork(still[i % 2], still[1 - i % 2], earlier + num_hidden, like) for i in range(layers)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """All numbers, ``(num_rows, *plates, n)``."""
        return self.linear(hidden).reshape((len(hidden), *self.plates, -1))

    def numbers(self, flat: Tensor, hidden: Tensor, earlier: list[Tensor]) -> MapNumbers:
        """The numbers of the map, as the program shapes them.

        Args:
            flat: what :meth:`forward` gave, ``(*batch, n)``.
            hidden: the hidden units, ``(*batch, num_hidden)``.
            earlier: ε of the earlier sites that are read, each ``(*batch, d)``.
        """
        shift, log_scale, below, slopes, *bends = flat.split(self.sizes, -1)
        rows, columns = torch.tril_indices(self.dim, self.dim, -1, device=flat.device)
        place = torch.zeros(len(rows), self.dim, self.dim, dtype=flat.dtype, device=flat.device)
        place[torch.arange(len(rows)), rows, columns] = 1
        lower = (below @ place.reshape(len(rows), self.dim**2)).reshape((*below.shape[:-1], self.dim, self.dim))
        earlier = [eps.to(flat) for eps in earlier]  # a program may mix single and double precision
        if earlier:
            eps = concatenated(earlier)
            matrix = slopes.reshape((*slopes.shape[:-1], self.dim, self.earlier))
            shift = shift + (matrix @ eps.unsqueeze(-1)).squeeze(-1)
        context = concatenated([hidden, *earlier])
        couplings = tuple(network.reading(context) for network in self.couplings)  # type: ignore[operator]
        skew, tail = bends or (None, None)
        return MapNumbers(shift, log_scale, lower, skew, tail, couplings)


class PartLogit(nn.Module):
    """Hidden units to log a/(1 − a), linearly: buffers, since they are fitted by themselves and not trained.

    At first a is below a half: the less a part weighs, the more it wins where the other is not.

    Args:
        num_hidden: hidden units.
        like: a tensor of the type and device that they have.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, num_hidden: int, like: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", like.new_zeros(num_hidden))
        self.register_buffer("bias", like.new_full((), math.log(FIRST_SHARE / (1 - FIRST_SHARE))))

    def forward(self, hidden: Tensor) -> Tensor:
        """The logit, ``(num_rows,)``."""
        return hidden.detach() @ self.weight + self.bias


class CouplingNetwork(nn.Module):
    """The half that stays and a context, to the log scale and the shift of the half that moves."""

    def __init__(self, still: int, moving: int, context: int, like: Tensor) -> None:
        super().__init__()
        self.first = nn.Linear(still + context, COUPLING_HIDDEN).to(like)
        self.last = zero_linear(COUPLING_HIDDEN, 2 * moving, like)

    def forward(self, still: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Log scale and shift."""
        raw, shift = self.last(torch.tanh(self.first(concatenated([still, context])))).chunk(2, -1)
        return MOST_LOG_SCALE * torch.tanh(raw / MOST_LOG_SCALE), shift

    def reading(self, context: Tensor) -> Coupling:
        """The layer in a context."""
        return lambda still: self(still, context)


def concatenated(parts: list[Any]) -> Tensor:
    """Tensors of batch shapes that broadcast, joined along the last dim."""
    batch = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand((*batch, part.shape[-1])) for part in parts], -1)
