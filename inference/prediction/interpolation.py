"""Interpolation: E[x|z] at latents on the line between two data.

The way is a straight line in unconstrained coordinates, u(t) = (1 − t) u_a + t u_b with u = T⁻¹(E[z|x]), so that z(t) =
T(u(t)) stays in the support of its site; for latents on all reals it is a straight line in z.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from ppvae.errors import OptionError, PairError

from ..options import valid_compute, whole_number
from ..pair import (
    Batch,
    Pair,
    Program,
    Values,
    as_batch,
    demand_prediction,
    finite_batch,
    seeded,
    where_parameters_are,
)
from .decoding import decoded
from .embedding import embedded
from .reconstruction import float_type


def interpolate(
    model: Program,
    guide: Program,
    a: Tensor | Batch,
    b: Tensor | Batch,
    num_steps: int = 10,
    *,
    num_particles: int = 100,
    seed: int | None = None,
    memory_mb: float = 64.0,
) -> Tensor:
    """E[x|z] at latents on the line between the embeddings of data, a row of ``a`` with the same row of ``b``.

    Args:
        model: ``model(x, *context)``, the generative program.
        guide: ``guide(x, *context)``.
        a: data, first dimension ``num_data``, or a tuple ``(x, *context)``.
        b: as many data of the same shape; with context, the same context.
        num_steps: points on each line, both ends among them; at least 2.
        num_particles: draws of the guide to average over, at least 2; where the guide's own means are known it does
            not matter.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.
        memory_mb: budget in MiB for one pass of the pair.

    Returns:
        ``(num_steps, num_data, *event)``; the first of each line is E[x|z] at the embedding of ``a``, the last at that
        of ``b``.

    Raises:
        OptionError: an option has a value that cannot be used, or ``b`` does not fit ``a``.
        DataError: ``a`` or ``b`` is not a tensor of at least one datum, or it holds infinite values.
        PairError: as of :func:`ppvae.inference.embed` and :func:`ppvae.inference.reconstruct`; or a latent is discrete,
            so that there is nothing between two values of it.

    Example:
        >>> import torch
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair, x = LinearGaussian(num_features=3, latent_dim=2).set_exact_guide(), torch.randn(4, 3)
        >>> line = interpolate(pair.model, pair.guide, x[:2], x[2:], 5)
        >>> line.shape, torch.allclose(line[2], (line[0] + line[4]) / 2)
        (torch.Size([5, 2, 3]), True)
    """
    num_steps, num_particles = whole_number("num_steps", num_steps, 2), whole_number("num_particles", num_particles, 2)
    seed, memory_mb, _ = valid_compute(seed, memory_mb)
    ends = [where_parameters_are(model, guide, finite_batch(as_batch(x, n), n)) for x, n in ((a, "a"), (b, "b"))]
    _demand_fit(*ends)
    with seeded(seed), torch.no_grad():
        with Pair.on(model, guide, ends[0], density=False) as pair:  # refused before anything is drawn
            _demand_between(pair)
            demand_prediction(pair, "data cannot be interpolated by the model")
        with Pair.on(model, guide, ends[1], density=False) as pair:
            _demand_between(pair)
            last = _means(pair, num_particles, memory_mb)
        with Pair.on(model, guide, ends[0], density=False) as pair:
            first = _means(pair, num_particles, memory_mb)
            x = ends[0][0]
            out = torch.empty((num_steps, *x.shape), dtype=float_type(x), device=x.device)
            for data in pair.pieces(num_steps, memory_mb):
                here, there = ({name: mean[data] for name, mean in one.items()} for one in (first, last))
                out[:, data] = _line(pair.rows(data), here, there, num_steps)
    return out


def _means(pair: Pair, num_particles: int, memory_mb: float) -> Values:
    return {name: found.mean for name, found in embedded(pair, num_particles, memory_mb).items()}


def _demand_fit(a: Batch, b: Batch) -> None:
    """Raise OptionError unless the data have one shape and one context."""
    if a[0].shape != b[0].shape:
        raise OptionError(
            f"b has shape {tuple(b[0].shape)}, and a {tuple(a[0].shape)}: give as many data of one shape."
        )
    ours, theirs = (tree_flatten(batch[1:]) for batch in (a, b))
    if ours[1] != theirs[1] or not all(map(_same, ours[0], theirs[0])):
        raise OptionError(
            "b has another context than a, and what lies between them has neither: give both the context that is to be "
            "decoded with."
        )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return bool(one is other or one == other)


def _demand_between(pair: Pair) -> None:
    """Raise PairError if a latent is discrete."""
    discrete = [*(name for name, site in pair.sites.items() if site.discrete), *pair.structure.classes]
    if discrete:
        raise PairError(
            f"{discrete[0]!r} is discrete, so that there is nothing between two values of it: a pair can be "
            "interpolated whose latents are all continuous."
        )


def _line(pair: Pair, a: dict[str, Tensor], b: dict[str, Tensor], num_steps: int) -> Tensor:
    """E[x|z] along the lines of some data, ``(num_steps, num_data, *event)``."""
    ends = [pair.unconstrained({n: m[None].to(pair.sites[n].dtype) for n, m in one.items()}, 1) for one in (a, b)]
    if not all(bool(end.isfinite().all()) for end in ends):
        raise PairError("a mean of the latents lies outside the support that the model gives them: take another guide.")
    t = torch.linspace(0, 1, num_steps, dtype=ends[0].dtype, device=pair.device)[:, None, None]
    return decoded(pair, pair.constrained(torch.lerp(ends[0], ends[1], t)), num_steps)
