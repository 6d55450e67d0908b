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


def committed(loc: Tensor, scale: Tensor, rate: float) -> Tensor:
    """A location at which every unit's KL(N(location, scale²) ‖ N(0, 1)) is `rate` nats at least, in the shape of both.

        |μ| = √(m² + max(0, 2δ + 1 + log σ² − σ²)),   with the sign of m

    so that KL = ½ (μ² + σ² − 1 − log σ²) = δ + ½ m² where the scale alone says too little, and μ = m where it says
    enough. With rate 0 it is the location that was given.
    "Preventing Posterior Collapse with delta-VAEs" (Razavi et al., 2019), arXiv:1901.03416, which has one sign only and
    bounds the scale too.

    Args:
        loc: m.
        scale: σ > 0.
        rate: δ ≥ 0, in nats per unit.

    Example:
        >>> committed(torch.tensor([0.1, -2.0]), torch.tensor([1.0, 1.0]), rate=0.5)
        tensor([ 1.0050, -2.2361])
    """
    least = 2 * rate + 1 + 2 * scale.log() - scale.square()
    # Where nothing is to be added the root is not taken: it has no gradient at 0.
    needed = least > 0
    far = (loc.square() + torch.where(needed, least, torch.ones_like(least))).sqrt()
    return torch.where(needed, torch.where(loc < 0, -far, far), loc)
