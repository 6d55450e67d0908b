"""Location and scale of a distribution, read off the outputs of a network."""

import torch
from torch import Tensor
from torch.nn import functional as F


def location_and_scale(output: Tensor) -> tuple[Tensor, Tensor]:
    """A location and a positive scale from the two halves of a network's outputs: `(..., 2d)` to two of `(..., d)`.

    Example:
        >>> loc, scale = location_and_scale(torch.zeros(5, 4))
        >>> loc.shape, round(scale[0, 0].item(), 3)
        (torch.Size([5, 2]), 0.693)
    """
    loc, raw_scale = output.chunk(2, dim=-1)
    # softplus grows linearly, so that no step of the optimiser makes σ overflow; below the format's smallest step ε
    # the draw μ + σ ε' is μ itself and log q would be wrong.
    return loc, F.softplus(raw_scale) + torch.finfo(raw_scale.dtype).eps
