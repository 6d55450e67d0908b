"""Compiled code of log densities and their gradients, in blocks of one size (:mod:`.block_code`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..graphs import Checks
from .block_code import BlockCode, Prepared
from .log_terms import Term, log_terms

if TYPE_CHECKING:
    from .pair import Pair  # which evaluates by this file


class Evaluated(NamedTuple):
    """Terms ``(num_terms, num_chains, num_units)`` and their gradients ``(num_terms, num_chains, num_units, dim)``."""

    values: Tensor
    gradients: Tensor


class DensityCode(BlockCode):
    """Compiled code of some terms of a pair.

    Args:
        pair: the pair on data.
        names: of the terms.
        u: where they are first wanted, ``(num_chains, num_units, dim)``.

    Raises:
        NoGraph: the terms cannot be recorded or compiled; the sentence says why.
    """

    def __init__(self, pair: Pair, names: tuple[Term, ...], u: Tensor) -> None:
        super().__init__(pair, len(u), partial(_with_gradients, names=names), u)

    def __call__(self, u: Tensor, prepared: Prepared) -> Evaluated | None:
        """Terms and gradients at ``(num_chains, num_units, dim)``; None where a check comes out as never before."""
        found = self.run(prepared, u)
        if found is None:
            return None
        values, gradients = found[0] if len(found) == 1 else (torch.cat(p, 1) for p in zip(*found, strict=True))
        count = u.shape[0] * u.shape[1] if self.by_row else len(u)
        terms = len(values)
        return Evaluated(values[:, :count].reshape(terms, *u.shape[:2]), gradients[:, :count].reshape(terms, *u.shape))


def _with_gradients(pair: Pair, names: tuple[Term, ...]) -> Callable[..., tuple[Tensor, ...]]:
    """The function that is recorded, of u and the tensors of the arguments, which the programs find where they are."""

    def evaluate(u: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        flat = u.dim() == 2  # pairs of a chain and a datum
        with Checks(u.device) as checks, torch.enable_grad():
            u = u.detach().requires_grad_()
            terms = log_terms(pair, names, u[None] if flat else u)
            values = [(term[0] if flat else term) + 0 * u.sum(-1) for term in terms]  # a term may not depend on u
            gradients = [torch.autograd.grad(value.sum(), u, retain_graph=True)[0] for value in values]
        return torch.stack(values).detach(), torch.stack(gradients), checks.passed

    return evaluate
