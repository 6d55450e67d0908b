"""Draws of enumerated sites from p(d|z, x), by Pyro's ``infer_discrete``.

Pyro gathers the values of such sites by their batch dims alone, and so cannot draw a one-hot vector: the sampler sees
its index instead, and the program the vector.
"""

from __future__ import annotations

from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Categorical
from pyro.infer.discrete import infer_discrete
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import OneHotCategorical

from .arguments import Batch
from .sites import Values
from .traces import Program


def discrete_draws(model: Program, names: frozenset[str], batch: Batch, first_dim: int) -> Values:
    """One draw of each of these sites of a model whose other latents are given, with the batch dims that it has.

    Args:
        model: the program, with its enumerated sites marked.
        names: of the sites.
        batch: what the program takes.
        first_dim: the first dim that is left for enumeration.
    """
    by_index = _ByIndex(names)
    drawing: Any = infer_discrete(by_index(model), first_available_dim=first_dim)
    trace: Any = poutine.trace(drawing).get_trace(*batch)
    values = {}
    for name in names & set(trace.nodes):
        value, event_dim = trace.nodes[name]["value"], trace.nodes[name]["fn"].event_dim
        value = value.reshape(value.shape[max(value.dim() - event_dim + first_dim + 1, 0) :])
        values[name] = by_index.vector(name, value)
    return values


class _ByIndex(Messenger):
    """Lets all handlers further out see the index of a one-hot vector."""

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__()
        self._names = names
        self._probs: dict[str, Tensor] = {}

    def vector(self, name: str, index: Tensor) -> Tensor:
        """The value of a site as the program has it."""
        if name not in self._probs:
            return index
        probs = self._probs[name]
        return torch.nn.functional.one_hot(index.long(), probs.shape[-1]).to(probs.dtype)

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self._names and isinstance(msg["fn"], OneHotCategorical) and not msg["done"]:
            self._probs[msg["name"]] = msg["fn"].probs
            msg["fn"] = Categorical(logits=msg["fn"].logits)

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"] in self._probs:
            msg["value"] = self.vector(msg["name"], msg["value"])
