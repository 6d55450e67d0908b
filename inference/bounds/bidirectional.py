"""Weights from both ends of a bridge: from the start to the posterior and, from exact posterior draws, back.

A bridge of one distribution has no transitions, and its weights are those of importance sampling from the start:

    w_k = p(x, u_k) / π₀(u_k),   u_k ~ π₀,        w* = p(x, u*) / π₀(u*),   u* ~ p(u|x).

A longer one is annealed (:mod:`ppvae.inference.sampling.annealing`). Either way E[w_k] = p(x) and E[1/w*] = 1/p(x),
whatever the number of distributions is, and all w given x are independent. What the transitions need to know
beforehand comes from chains of the tuning's own, which never see u*. Where a search found modes that the guide misses,
the chains of those data start from guide and modes together (:mod:`ppvae.inference.sampling.mixture_start`).

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
from ..pair import Batch, Pair, Program, in_guide_coordinates, why_slow
from ..sampling import AnnealingPath, MixtureStart, Search, backward, forward, tune

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
            yield from self.of(self.view(pair), exact, effort, title)

    def view(self, pair: Pair) -> Pair:
        """The pair in the coordinates in which its chains move."""
        return in_guide_coordinates(pair, self.start)

    def of(
        self, pair: Pair, exact: Latents | None, effort: Effort, title: str, found: Search | None = None
    ) -> Iterator[Weights]:
        """The weights of a batch, as :meth:`weights` gives them, for a pair that is on its data already.

        Args:
            pair: whose latents have densities on a continuum.
            exact: exact posterior draws, or None.
            effort: of the chains.
            title: what the progress bar says.
            found: what a search for modes that the guide misses has found.
        """
        u = None if exact is None else pair.unconstrained(exact, 1)
        total = effort.transitions(pair.num_units, 0 if u is None else pair.num_units)
        with Progress(title, max(total, 1), "transitions", self.progress, why_slow(pair)) as bar:
            for data in pair.pieces(effort.num_chains, self.memory_mb):
                units = torch.arange(data.start, min(data.stop, pair.num_units))
                parts = []
                for index, path in paths(pair, units, found):
                    own = None if u is None else u[:, index]
                    if effort.num_distributions == 1:
                        parts.append((index, self._importance(path, effort, own)))
                    else:
                        parts.append((index, self._annealed(path, effort, own, bar)))
                yield _in_order(parts)

    def _importance(self, pair: AnnealingPath, effort: Effort, u: Tensor | None) -> Weights:
        terms = pair.path(self.start)

        def weigh(u: Tensor) -> Tensor:
            with torch.no_grad():
                log_start, log_joint = terms(u)
            return (log_joint - log_start).cpu()

        log_w = [weigh(pair.draw(self.start, n)) for n in self._portions(pair, effort)]
        return torch.cat(log_w), None if u is None else weigh(u)[0]

    def _annealed(self, pair: AnnealingPath, effort: Effort, u: Tensor | None, bar: Progress) -> Weights:
        tuning = tune(pair, self.start, effort.num_distributions, num_steps=self.num_steps)
        log_w, exact = [], None
        for n in self._portions(pair, effort):
            moved = partial(bar.advance, n * pair.num_units)
            log_w.append(forward(pair, tuning, self.start, n, self.num_steps, moved)[0].cpu())
        if u is not None:
            moved = partial(bar.advance, pair.num_units)
            exact = backward(pair, tuning, self.start, u, self.num_steps, moved)[0].cpu()
        return torch.cat(log_w), exact

    def _portions(self, pair: AnnealingPath, effort: Effort) -> Iterator[int]:
        """How many chains of all these data fit the budget at once, until there are enough."""
        for chains in pair.portions(effort.num_chains, self.memory_mb):
            yield chains.stop - chains.start


def gather(parts: Iterable[Weights]) -> Weights:
    """The weights of several pieces of the data as one."""
    log_w, exact = zip(*parts, strict=True)
    return torch.cat(log_w, -1), None if exact[0] is None else torch.cat(exact)


def paths(pair: Pair, units: Tensor, found: Search | None) -> Iterator[tuple[Tensor, AnnealingPath]]:
    """Groups of units with the path of their chains: where modes were found, the chains start from these too.

    Every chain starts from the mixture by itself, since the bounds ask for independent weights of one mean.
    """
    in_modes = torch.zeros(len(units), dtype=torch.bool) if found is None else found.in_modes[units]
    for flag in (False, True):
        index = units[in_modes == flag]
        if len(index):
            some = pair.rows(index)
            yield index, MixtureStart(some, found.proposal_of(index), independent=True) if flag and found else some


def _in_order(parts: list[tuple[Tensor, Weights]]) -> Weights:
    order = torch.cat([index for index, _ in parts]).argsort()
    log_w, exact = gather(weights for _, weights in parts)
    return log_w[:, order], None if exact is None else exact[order]
