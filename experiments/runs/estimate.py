"""log p(x) of the data of a run: by which estimator, of how many data, and what draws of the guide say beside it.

Where the cheapest estimator that reaches a tolerance is asked for, the data are taken in a random order, which is the
same for all runs, and in portions of fixed sizes, each with a seed of its own. So what is measured of a datum does not
depend on how many data there is time for, and two runs can be compared by the data that both have measured.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ppvae.inference import Evidence, annealed_evidence, estimate_evidence, importance_evidence
from ppvae.inference.evidence import with_elbo
from ppvae.progress import Progress
from ppvae.storage import Method

from .command_options import ShardOptions
from .own_units import of_evidence
from .run_data import Batch
from .saved_run import SavedRun
from .sharded import computed

# Data of the first portions, which tell how long the others take, and of the others.
FIRST_PORTIONS, PORTION = (5, 45), 100
# Data that get their draws of the guide together.
BLOCK = 2000


@dataclass(frozen=True)
class Estimation:
    """How log p(x) is estimated.

    Attributes:
        method: see :class:`ppvae.storage.Settings`.
        num_particles: draws of the guide per datum.
        tolerance: of auto, in nats.
        eval_minutes: of auto, after which no further data are measured; None measures all.
        num_chains: of ais, per datum.
        num_distributions: of ais, from the guide to the posterior.
        shards: who computes; in shards all data are measured, whatever the time.
    """

    method: Method
    num_particles: int
    tolerance: float
    eval_minutes: float | None
    num_chains: int = 32
    num_distributions: int = 200
    shards: ShardOptions = field(default_factory=ShardOptions)


@dataclass(frozen=True)
class Measured:
    """The estimate of log p(x) of a run, and the data that it is of.

    Attributes:
        evidence: of the data that were measured, with ELBO and K-sample bounds by ``draws``.
        draws: what draws of the guide alone say of the same data; with importance the same as ``evidence``.
        index: which rows of the data they are; None for a data set, which is one unit.
    """

    evidence: Evidence
    draws: Evidence
    index: Tensor | None


def measure(run: SavedRun, how: Estimation) -> Measured:
    """Estimate log p(x) of the data of a run, in their own units where they were standardised."""
    found = _measured(run, how)
    x = run.x if found.index is None else run.x[found.index]
    evidence, draws = (of_evidence(run.data, x, one) for one in (found.evidence, found.draws))
    return replace(found, evidence=evidence, draws=draws)


def _measured(run: SavedRun, how: Estimation) -> Measured:
    batch, index = run.batch, None if run.data.unit == "data set" else torch.arange(len(run.x))
    if how.method == "importance":
        evidence: Evidence = computed(run, how.shards, importance_evidence, batch, num_particles=how.num_particles)
        return Measured(evidence, evidence, index)
    if how.method == "ais":
        chains, steps = how.num_chains, how.num_distributions
        evidence = computed(run, how.shards, annealed_evidence, batch, num_chains=chains, num_distributions=steps)
    elif how.shards.sharded:
        evidence = computed(run, how.shards, estimate_evidence, batch, tolerance=how.tolerance)
    else:
        return _to_tolerance(run, how)
    draws: Evidence = computed(run, how.shards, importance_evidence, batch, num_particles=how.num_particles)
    return Measured(_with_draws(evidence, draws), draws, index)


def _to_tolerance(run: SavedRun, how: Estimation) -> Measured:
    """The evidence to a tolerance of as many data as there is time for, and draws of the guide for the same data."""
    model, guide, seed = run.pair.model, run.pair.guide, run.settings.seed
    if not run.data.data.divided:
        evidence = estimate_evidence(model, guide, run.batch, tolerance=how.tolerance, seed=seed, progress=True)
        draws = importance_evidence(model, guide, run.batch, how.num_particles, seed=seed)
        index = None if run.data.unit == "data set" else torch.arange(len(run.x))
        return Measured(_with_draws(evidence, draws), draws, index)
    limit = None if how.eval_minutes is None else 60 * how.eval_minutes
    blocks: list[tuple[Evidence, Evidence, Tensor]] = []
    found, done = list[Evidence](), list[Tensor]()
    started, num_done = time.monotonic(), 0

    def with_draws() -> None:
        """Give the data of a block, in the order of their rows, their draws of the guide."""
        index = torch.cat(done)
        order = index.argsort()
        batch = run.data.rows(run.batch, index[order])
        draws = importance_evidence(model, guide, batch, how.num_particles, seed=(seed + len(blocks)) % 2**32)
        evidence = type(found[0]).concatenate(found).rows(order)
        blocks.append((_with_draws(evidence, draws), draws, index[order]))
        found.clear()
        done.clear()

    with Progress("log p(x)", len(run.x), "data") as bar:
        for number, index in enumerate(_portions(len(run.x))):
            used = time.monotonic() - started
            if limit is not None and num_done and used * (1 + len(index) / num_done) > limit:
                break
            portion: Batch = run.data.rows(run.batch, index)
            found.append(
                estimate_evidence(model, guide, portion, tolerance=how.tolerance, seed=(seed + number) % 2**32)
            )
            done.append(index)
            num_done += len(index)
            if sum(map(len, done)) >= BLOCK:  # so that the time of their draws is counted too
                with_draws()
            bar.advance(len(index), "" if limit is None else f"ends after {how.eval_minutes:g} min at the latest")
    if done:
        with_draws()
    rows = torch.cat([block[2] for block in blocks])
    order = rows.argsort()
    evidences, drawn = [block[0] for block in blocks], [block[1] for block in blocks]
    whole = type(evidences[0]).concatenate(evidences).rows(order)
    return Measured(whole, type(drawn[0]).concatenate(drawn).rows(order), rows[order])


def _portions(num_data: int) -> Iterator[Tensor]:
    """Row numbers in a random order that is the same for all runs, a portion at a time."""
    order = torch.randperm(num_data, generator=torch.Generator().manual_seed(0))
    at = 0
    for size in (*FIRST_PORTIONS, *[PORTION] * (num_data // PORTION + 1)):
        if at < num_data:
            yield order[at : at + size].sort().values
        at += size


def _with_draws(evidence: Evidence, draws: Evidence) -> Evidence:
    """The evidence with ELBO and K-sample bounds from more draws of the guide than the estimator itself made."""
    return replace(
        with_elbo(evidence, draws),
        bound_k=draws.bound_k,
        bound=draws.bound,
        bound_standard_error=draws.bound_standard_error,
    )
