"""The latents of a unit as one flat vector u, and its parts as a program shapes them."""

from __future__ import annotations

import torch
from torch import Tensor

from .sites import Frame, Site, Values


def parts_of(u: Tensor, latents: dict[str, Site], frame: Frame) -> Values:
    """The parts of u ``(*frame.shape, dim)`` that belong to the latents, by site."""
    return {
        name: frame.by_program(u[..., site.start : site.stop].reshape(*u.shape[:-1], *site.u_shape), site.plates)
        for name, site in latents.items()
    }


def joined(parts: Values, latents: dict[str, Site], frame: Frame) -> Tensor:
    """The inverse of :func:`parts_of`."""
    found = []
    for name, site in latents.items():
        event_dim = len(site.u_shape) - len(site.plates)
        part = frame.arranged(parts[name], site.plates, event_dim).expand(*frame.shape, *site.u_shape)
        found.append(part.reshape(*frame.shape, -1))
    return torch.cat(found, -1) if found else torch.zeros(*frame.shape, 0, device=frame.device)
