"""Where the climbs of the search for missed modes start: images of the best draw, and draws of the prior."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import one_hot


def climb_starts(images: Tensor, image_values: Tensor, prior: Tensor, prior_values: Tensor, num_climbs: int) -> Tensor:
    """The best images, the best of the prior's draws, and others of these whatever they weigh.

    Args:
        images: ``(num_images, num_data, dim)``, and prior: ``(num_prior, num_data, dim)``.
        image_values: what each is worth, ``(num_images, num_data)``, and prior_values the same.
        prior: see images.
        prior_values: see image_values.
        num_climbs: how many starts are wanted.
    """
    by_image = min(num_climbs // 3, len(images))
    others = (num_climbs - by_image) // 2
    best_prior = _best(prior[others:], prior_values[others:], num_climbs - by_image - others)
    return torch.cat([_best(images, image_values, by_image), best_prior, prior[:others]])


def _best(places: Tensor, values: Tensor, count: int) -> Tensor:
    values = values.nan_to_num(-math.inf, -math.inf, -math.inf)
    return pick(places, values.topk(min(count, len(places)), dim=0).indices)


def pick(places: Tensor, index: Tensor) -> Tensor:
    """The places ``(num, num_data, dim)`` that an index ``(count, num_data)`` names."""
    return places.gather(0, index[..., None].expand(-1, -1, places.shape[-1]))


def images_of(u: Tensor, centre: Tensor, count: int) -> Tensor:
    """At most ``count`` images of u ``(num_data, dim)``, one of them under the reflection of all coordinates.

    The others are reflections of one coordinate about the centre, and exchanges of two blocks of coordinates.
    """
    dim = u.shape[-1]
    exchanges = _exchanges(dim, max(count - dim - 1, count // 2)).to(u.device)
    one = torch.randperm(dim)[: max(count - len(exchanges) - 1, 0)] if dim > 1 else torch.zeros(0, dtype=torch.long)
    signs = torch.cat([-torch.ones(1, dim), 1 - 2 * one_hot(one, dim)]).to(u)
    reflected = centre + signs[:, None] * (u - centre)
    return torch.cat([reflected, u[:, exchanges].movedim(1, 0)])[: max(count, 1)]


def _exchanges(dim: int, count: int) -> Tensor:
    """At most ``count`` orders of the coordinates in which two blocks of equal length have changed places."""
    lengths = [n for n in range(1, dim // 2 + 1) if dim % n == 0]
    if not lengths or count < 1:
        return torch.zeros(0, dim, dtype=torch.long)
    blocks = torch.tensor([dim // n for n in lengths])
    # As often of each length as it has pairs of blocks.
    which = torch.multinomial((blocks * (blocks - 1)).double(), count, replacement=True)
    first = (torch.rand(count) * blocks[which]).long()
    second = (first + 1 + (torch.rand(count) * (blocks[which] - 1)).long()) % blocks[which]
    chosen = torch.stack([which, torch.minimum(first, second), torch.maximum(first, second)], 1).unique(dim=0)
    orders = torch.arange(dim).repeat(len(chosen), 1)
    for order, (i, a, b) in zip(orders, chosen.tolist(), strict=True):
        n = lengths[i]
        order[a * n : (a + 1) * n] = torch.arange(b * n, (b + 1) * n)
        order[b * n : (b + 1) * n] = torch.arange(a * n, (a + 1) * n)
    return orders
