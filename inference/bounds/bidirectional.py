"""Weights from both ends of a bridge: from the start to the posterior and, from exact posterior draws, back.

A bridge of one distribution has no transitions, and its weights are those of importance sampling from the start:

    w_k = p(x, u_k) / π₀(u_k),   u_k ~ π₀,        w* = p(x, u*) / π₀(u*),   u* ~ p(u|x).

A longer one is annealed (:mod:`ppvae.inference.sampling.annealing`). Either way E[w_k] = p(x) and E[1/w*] = 1/p(x),
whatever the number of distributions is, and all w given x are independent. What the transitions need to know
beforehand comes from chains of the tuning's own, which never see u*.

References:
    Sandwiching the marginal likelihood using bidirectional Monte Carlo (Grosse, Ghahramani & Adams, 2015),
    arXiv:1511.02543.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ppvae.progress import Progress

from ..option_records import Start
from ..pair import Batch, Pair, Program, why_slow
from ..sampling import backward, forward, tune

Latents = dict[str, Tensor]

# log w, (num_chains, num_data), and log w* of each datum's exact draw, (num_data,), if there is one.
Weights = tuple[Tensor, Tensor | None]


class Effort(NamedTuple):
    """How many chains a datum has, and how many distributions lie on their way."""

    num_chains: int
    num_distributions: int

    def transitions(self, num_data: int, num_exact: int) -> int:
        """Transitions of the chains of some data, ``num_exact`` of which have one more, back from an exact draw."""
        return (self.num_chains * num_data + num_exact) * (self.num_distributions - 1)


class BidirectionalWeights(NamedTuple):
    """A pair, and how chains are to be led to its posterior.

    Attributes:
        model: the generative program.
        guide: the guide.
        start: ``"guide"`` or ``"prior"``.
        num_steps: leapfrog steps of a transition.
        memory_mb: budget in MiB for one pass of the pair.
        progress: show a progress bar.
    """

    model: Program
    guide: Program
    start: Start
    num_steps: int
    memory_mb: float
    progress: bool

    def weights(self, batch: Batch, exact: Latents | None, effort: Effort, title: str) -> Iterator[Weights]:
        """The weights of a batch, a piece of the data at a time.

        Args:
            batch: ``(x, *context)``.
            exact: exact posterior draws as :func:`ppvae.inference.calibration.simulation.simulate` gives them.
            effort: of the chains.
            title: what the progress bar says.
        """
        with Pair.on(self.model, self.guide, batch, start=self.start) as pair:
            u = None if exact is None else pair.unconstrained(exact, 1)
            total = effort.transitions(pair.num_units, 0 if u is None else pair.num_units)
            with Progress(title, max(total, 1), "transitions", self.progress, why_slow(pair)) as bar:
                for data in pair.pieces(effort.num_chains, self.memory_mb):
                    part, own = pair.rows(data), None if u is None else u[:, data]
                    if effort.num_distributions == 1:
                        yield self._importance(part, effort, own)
                    else:
                        yield self._annealed(part, effort, own, bar)

    def _importance(self, pair: Pair, effort: Effort, u: Tensor | None) -> Weights:
        terms = pair.path(self.start)

        def weigh(u: Tensor) -> Tensor:
            with torch.no_grad():
                log_start, log_joint = terms(u)
            return (log_joint - log_start).cpu()

        log_w = [weigh(pair.draw(self.start, n)) for n in self._portions(pair, effort)]
        return torch.cat(log_w), None if u is None else weigh(u)[0]

    def _annealed(self, pair: Pair, effort: Effort, u: Tensor | None, bar: Progress) -> Weights:
        tuning = tune(pair, self.start, effort.num_distributions, num_steps=self.num_steps)
        log_w, exact = [], None
        for n in self._portions(pair, effort):
            moved = partial(bar.advance, n * pair.num_units)
            log_w.append(forward(pair, tuning, self.start, n, self.num_steps, moved)[0].cpu())
        if u is not None:
            moved = partial(bar.advance, pair.num_units)
            exact = backward(pair, tuning, self.start, u, self.num_steps, moved)[0].cpu()
        return torch.cat(log_w), exact

    def _portions(self, pair: Pair, effort: Effort) -> Iterator[int]:
        """How many chains of all these data fit the budget at once, until there are enough."""
        for chains in pair.portions(effort.num_chains, self.memory_mb):
            yield chains.stop - chains.start


def gather(parts: Iterable[Weights]) -> Weights:
    """The weights of several pieces of the data as one."""
    log_w, exact = zip(*parts, strict=True)
    return torch.cat(log_w, -1), None if exact[0] is None else torch.cat(exact)
