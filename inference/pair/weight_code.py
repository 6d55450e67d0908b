"""Compiled code of log weights of draws of the guide, in blocks of one size (:mod:`.block_code`).

The draws are made by the same code, by torch's own generators. Weights are compiled where data can be cut and do not
depend on each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..graphs import Checks, NoGraph
from .block_code import BlockCode, Prepared, by_row
from .randomness import generator_kept

if TYPE_CHECKING:
    from .pair import Pair  # which evaluates by this file


class WeightCode(BlockCode):
    """Compiled code of the log weights of a pair.

    Args:
        pair: the pair on data.
        num_draws: how many are first wanted.

    Raises:
        NoGraph: the weights cannot be recorded or compiled; the sentence says why.
    """

    def __init__(self, pair: Pair, num_draws: int) -> None:
        if not by_row(pair):
            raise NoGraph("log weights are compiled for data that do not depend on each other only")
        super().__init__(pair, num_draws, _log_weights)

    def __call__(self, pair: Pair, prepared: Prepared) -> Tensor | None:
        """Log weights ``(num_draws, num_units)``; None where a check comes out as never before."""
        found = self.run(prepared)
        if found is None:
            return None
        log_w = torch.cat([block for (block,) in found])
        return log_w[: prepared.num_draws * pair.num_units].reshape(prepared.num_draws, pair.num_units)

    def trial(self, pair: Pair, prepared: Prepared) -> tuple[Tensor, Tensor] | None:
        """Log weights of the first block by the code and by the programs, with the same noise; generators stay."""
        with generator_kept():
            found = self.run(prepared._replace(blocks=prepared.blocks[:1]))
        if found is None:
            return None
        with generator_kept(), torch.no_grad():
            (by_programs,) = _weigh(self.on_block(pair, 0, prepared.num_draws))
        return found[0][0], by_programs


def _weigh(block: Pair) -> Tensor:
    """One draw for every row of a block, ``(1, num_rows)``."""
    return block.run(block.programs.weights, 1, {}, "loop", random=True)["log_w"]


def _log_weights(pair: Pair) -> Callable[..., tuple[Tensor, ...]]:
    """The function that is recorded, of the tensors of the arguments, which the programs find where they are."""

    def draw(*_: Tensor) -> tuple[Tensor, Tensor]:
        with Checks(pair.device) as checks, torch.no_grad():
            (log_w,) = _weigh(pair)
        return log_w, checks.passed

    return draw
