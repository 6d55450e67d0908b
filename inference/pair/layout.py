"""How draws meet data: four ways to run a program for K draws of N units, all with the same answer.

broadcast   one run under a plate of K draws, left of the program's own plates. Fastest, where the program broadcasts.
fold        one run on K·N rows, x.repeat(K, …), log densities viewed as (K, N): for programs with one batch dim
            (``view(-1, …)``, ``cat(…, dim=1)``, ``BatchNorm1d``, recurrent networks, einsums, boolean masks).
vectorised  one run for one draw, vectorised by ``torch.vmap``: for latents that all data share (``x @ beta``). It
            evaluates densities; draws are made by the loop, whose generators it cannot vectorise.
loop        one run for each draw. Always right, and slow.

A *body* is a function of a frame, arguments and inputs by unit; it runs programs and returns tensors by unit. Which
layout fits a pair is found out by replay (:mod:`.replay`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from .arguments import Arguments, Batch
from .sites import Frame, Plates

if TYPE_CHECKING:
    from .pair import Pair  # which imports this file

Layout = Literal["broadcast", "fold", "vectorised", "loop"]
LAYOUTS: tuple[Layout, ...] = ("broadcast", "fold", "vectorised", "loop")

Tensors = dict[str, Tensor]
Body = Callable[[Frame, Batch, Tensors], Tensors]


def why_slow(pair: Pair) -> str:
    """That measuring a pair is slow, and why; empty where no program runs in the layout ``loop``."""
    looped = [n for n, one in (("model", pair.model_layout), ("guide", pair.guide_layout)) if one == "loop"]
    if not looped:
        return ""
    programs = "model and guide give" if len(looped) == 2 else f"the {looped[0]} gives"
    return f"slow, one draw a run: {programs} other densities, or fail, where many draws are run at once"


def run(
    layout: Layout, body: Body, plates: Plates, arguments: Arguments, num_draws: int, inputs: Tensors, *, random: bool
) -> Tensors:
    """Run a body for ``num_draws`` draws of every unit.

    Args:
        layout: how.
        body: what is run.
        plates: of the pair.
        arguments: of the programs.
        num_draws: K.
        inputs: tensors ``(K or 1, num_units, ...)``.
        random: whether the body draws.

    Returns:
        What the body returns, ``(K, num_units, ...)`` each.
    """
    num_units = 1 if plates.data is None else arguments.num_rows
    frame = Frame(plates, num_units, None, arguments.device)
    if layout == "broadcast":
        return body(Frame(plates, num_units, num_draws, arguments.device), arguments.batch, inputs)
    if layout == "fold":
        return _folded(body, plates, arguments, num_draws, inputs)
    if layout == "vectorised" and not random:
        return _vectorised(body, frame, arguments.batch, num_draws, inputs)
    rows = [body(frame, arguments.batch, _draw(inputs, k)) for k in range(num_draws)]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def _draw(inputs: Tensors, k: int) -> Tensors:
    return {name: value[k if len(value) > 1 else 0] for name, value in inputs.items()}


def _folded(body: Body, plates: Plates, arguments: Arguments, num_draws: int, inputs: Tensors) -> Tensors:
    num_units = arguments.num_rows
    repeated = arguments.repeated(num_draws)
    frame = Frame(plates, repeated.num_rows, None, arguments.device)
    flat = {name: v.expand(num_draws, *v.shape[1:]).reshape(-1, *v.shape[2:]) for name, v in inputs.items()}
    found = body(frame, repeated.batch, flat)
    return {name: value.reshape(num_draws, num_units, *value.shape[1:]) for name, value in found.items()}


def _vectorised(body: Body, frame: Frame, batch: Batch, num_draws: int, inputs: Tensors) -> Tensors:
    each = {name: value for name, value in inputs.items() if len(value) > 1 or num_draws == 1}
    shared = {name: value[0] for name, value in inputs.items() if name not in each}
    number = torch.zeros(num_draws, device=frame.device)

    def one(_: Tensor, own: Tensors) -> Tensors:
        return body(frame, batch, {**shared, **own})

    return torch.vmap(one)(number, each)
