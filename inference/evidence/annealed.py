"""log p(x) by annealed importance sampling, per datum, with its error.

Importance sampling from the guide fails where the guide misses part of the posterior: a few draws carry all the
weight, and the estimate lies too low without a sign of it. Annealing leads chains from the guide (or the prior) to the
posterior over many intermediate distributions (:mod:`ppvae.inference.sampling.annealing`), so that each chain ends
where the posterior is and the weights of the C chains are nearly equal:

    log p̂(x) = log (1/C) Σ_c w_c,   E[w_c] = p(x),   SE = √(C/(C−1) · (1/ESS − 1/C)).

As with importance sampling, E[log p̂] ≤ log p(x): the more distributions, the smaller the distance.

References:
    Annealed importance sampling (Neal, 2001), Statistics and Computing 11, arXiv:physics/9803008.
    On the Quantitative Analysis of Decoder-Based Generative Models (Wu, Burda, Salakhutdinov & Grosse, 2017),
    arXiv:1611.04273: chains that start at the encoder.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppvae.errors import CheckpointError
from ppvae.progress import Progress

from ..option_records import Annealing, record_of
from ..options import file_path, flag_or, valid_compute, whole_number
from ..pair import (
    Batch,
    Compile,
    Pair,
    Program,
    as_batch,
    finite_batch,
    in_guide_coordinates,
    named_parameters,
    seeded,
    where_parameters_are,
    why_slow,
)
from ..resume import check_fingerprint, digest, fingerprint, read_checkpoint, write_checkpoint
from ..sampling import AnnealingPath, MixtureStart, confirms, forward_in_portions, num_far_draws, tune, unreached
from .defence import SEARCH_SHARE, rounding_of, search_all
from .estimates import MOVES, AnnealedEvidence, with_elbo
from .importance import by_guide
from .streaming import evidence_of

# Draws of the guide for the ELBO, which annealing does not estimate: their cost is small beside that of the chains.
ELBO_DRAWS = 1000
VERSION = 2  # of what is kept of finished data


def annealed_evidence(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    num_chains: int = 32,
    num_distributions: int = 200,
    *,
    annealing: Annealing = Annealing(),
    compile: Compile = "auto",
    seed: int | None = None,
    memory_mb: float = 64.0,
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> AnnealedEvidence:
    """Estimate log p(x) of every datum by annealed importance sampling.

    First a search, with 15 % as many evaluations as the chains ask for, looks for modes that the guide misses
    (:mod:`ppvae.inference.sampling.mode_search`). Where it finds some, half of the chains start from these; the
    estimate is called trusted only if draws of the prior alone confirm it.

    Args:
        model: ``model(x, *context)``, the generative program.
        guide: ``guide(x, *context)``.
        x: data, first dimension ``num_data``; or a tuple ``(x, *context)``.
        num_chains: independent chains per datum, C. From 25 on, the tail of their weights is judged too (k̂).
        num_distributions: steps from the start to the posterior, T.
        annealing: where the chains begin and how they move, :class:`~ppvae.inference.Annealing`.
        compile: whether log densities and their gradients are compiled (by torch's inductor, which needs a C++
            compiler): ``"auto"`` where it pays and the programs can be; True, or else an error; False never. The result
            is the same up to rounding.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.
        memory_mb: budget in MiB for one pass of the pair; it holds whatever the number of chains and data is.
        checkpoint: a file in which finished data are kept, so that the same call goes on after an interruption.
        progress: show a progress bar with the time that remains.

    Returns:
        AnnealedEvidence: tensors of shape ``(num_data,)``, in nats.

    Raises:
        OptionError: an option has a value that cannot be used.
        DataError: ``x`` is not a tensor of at least one datum, or it holds NaN or infinite values.
        PairError: the pair breaks the contract, or a latent has no density on a continuum (see
            :meth:`ppvae.inference.pair.Pair.on`).
        CheckpointError: ``checkpoint`` is of another call, or damaged.

    Example:
        >>> import torch
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair = LinearGaussian(num_features=3, latent_dim=2)
        >>> x = torch.randn(4, 3)
        >>> from_prior = Annealing(start="prior")
        >>> evidence = annealed_evidence(pair.model, pair.guide, x, 32, 50, annealing=from_prior, seed=0)
        >>> bool(((evidence.log_evidence - pair.log_evidence(x)).abs() < 4 * evidence.standard_error).all())
        True
    """
    run = AnnealingRun(
        whole_number("num_chains", num_chains),
        whole_number("num_distributions", num_distributions),
        record_of("annealing", annealing, Annealing),
    )
    seed, memory_mb, progress = valid_compute(seed, memory_mb, progress)
    compile = flag_or("auto", "compile", compile)
    path = file_path("checkpoint", checkpoint)
    batch = where_parameters_are(model, guide, finite_batch(as_batch(x)))
    with seeded(seed):
        with Pair.on(model, guide, batch, start=annealing.start) as pair:
            pair = in_guide_coordinates(pair, annealing.start)
            num_pieces = len(list(pair.pieces(run.num_chains, memory_mb)))
            pair.evaluations.compile(compile, pair, num_pieces * run.gradients, pair.num_units * run.cost / 2)
            elbo = by_guide(pair, ELBO_DRAWS, memory_mb)
            finished = Finished(path, pair, run.marks() | {"seed": seed, "memory_mb": memory_mb})
            parts = _all_parts(pair, run, finished, memory_mb, progress)
        evidence = with_elbo(AnnealedEvidence.concatenate([_evidence(part) for part in parts]), elbo)
        notes = (*pair.remarks, *pair.evaluations.remarks)
        return replace(evidence, rounding=rounding_of(evidence.rounding, pair), notes=notes)


class AnnealingRun(NamedTuple):
    """How a run is annealed; see :func:`annealed_evidence`."""

    num_chains: int
    num_distributions: int
    annealing: Annealing

    @property
    def gradients(self) -> int:
        """Gradients that a chain takes."""
        return (self.num_distributions - 1) * self.annealing.num_steps + 1

    @property
    def cost(self) -> int:
        """Evaluations of all chains of a datum; a gradient counts as two."""
        return 2 * self.num_chains * self.gradients

    def marks(self) -> dict[str, Any]:
        """What a checkpoint must agree in."""
        sizes = {"num_chains": self.num_chains, "num_distributions": self.num_distributions}
        return sizes | asdict(self.annealing) | {"version": VERSION}


def _all_parts(
    pair: Pair, run: AnnealingRun, finished: Finished, memory_mb: float, progress: bool
) -> list[dict[str, Tensor]]:
    """The weights of all data, piece by piece."""
    each = run.num_chains * max(run.num_distributions - 1, 0)
    with Progress("log p(x)", pair.num_units * each, "transitions", progress, why_slow(pair)) as bar:
        for data in pair.pieces(run.num_chains, memory_mb):
            if data.start in finished.parts:
                bar.begin_at(data.stop * each)
            else:
                # Each piece has a seed of its own, so that what is resumed has the same bits.
                with seeded(finished.seed + data.start):
                    finished.add(data.start, _searched(pair.rows(data), run, memory_mb, bar))
    return [finished.parts[start] for start in sorted(finished.parts)]


def _searched(pair: Pair, run: AnnealingRun, memory_mb: float, bar: Progress) -> dict[str, Tensor]:
    """The weights of some data's chains, which start from modes too where a search finds some; and what it found."""
    found = search_all(pair, int(SEARCH_SHARE * run.cost), memory_mb)
    if found is None:
        unknown = torch.full((pair.num_units,), math.nan, dtype=torch.float64)
        nothing = {"missed": unknown, "confirmed": unknown > 0, "sizes": torch.zeros_like(unknown)}
        return _anneal(pair, run, memory_mb, bar) | nothing
    by_mode = {flag: (found.in_modes == flag).nonzero()[:, 0] for flag in (False, True)}
    parts: list[dict[str, Tensor]] = []
    for flag, index in by_mode.items():
        if len(index):
            some: Any = pair.rows(index) if len(index) < pair.num_units else pair
            bridge = MixtureStart(some, found.proposal_of(index)) if flag else some
            parts.append(_anneal(bridge, run, memory_mb, bar))
    order = torch.cat(list(by_mode.values())).argsort()
    part = {name: torch.cat([p[name] for p in parts], -1)[..., order] for name in parts[0]}
    log_evidence = torch.logsumexp(part["log_w"], 0) - math.log(run.num_chains)
    confirmed = confirms(found.prior_log_evidence, found.prior_ess, log_evidence)
    missed = torch.maximum(found.missed(log_evidence), found.lacking(log_evidence))
    return part | {"missed": missed, "confirmed": confirmed, "sizes": found.sizes}


def _anneal(pair: AnnealingPath, run: AnnealingRun, memory_mb: float, bar: Progress) -> dict[str, Tensor]:
    """The weights of some data's chains, and how the chains fared."""
    start, schedule, num_steps = run.annealing.start, run.annealing.schedule, run.annealing.num_steps
    tuning = tune(pair, start, run.num_distributions, schedule, num_steps)
    chains = forward_in_portions(pair, tuning, start, run.num_chains, memory_mb, num_steps, bar.advance)
    missing = unreached(pair, chains.ends, chains.log_w, num_far_draws(run.cost), memory_mb)
    found = {name: getattr(chains, name) for name in ("log_w", "acceptance", "diverged")}
    return found | {"path_length": tuning.length.cpu(), "unreached": missing}


def _evidence(part: dict[str, Tensor]) -> AnnealedEvidence:
    """What the weights of some data say."""
    evidence = AnnealedEvidence.of(evidence_of(part["log_w"]), **{name: part[name] for name in MOVES})
    sizes = evidence.log_evidence.abs() + part["sizes"]
    return replace(evidence, missed=part["missed"], confirmed=part["confirmed"], rounding=sizes)


class Finished:
    """The weights of the data that are finished, kept in a file if one is given."""

    def __init__(self, path: Path | None, pair: Pair, options: dict[str, Any]) -> None:
        self.parts: dict[int, dict[str, Tensor]] = {}
        self.seed = int(torch.randint(2**31, ()))
        self._path = path
        self._marks: dict[str, str] = {}
        if self._path is not None:
            parameters = named_parameters(pair.model, pair.guide, pair.few.batch)
            values = digest(parameters.values())
            self._marks = fingerprint(parameters, tuple(pair.arguments.leaves), values=values, **options)
            if self._path.is_file():
                self._read(self._path)

    def add(self, start: int, part: dict[str, Tensor]) -> None:
        """Keep the weights of the data from ``start`` on."""
        self.parts[start] = part
        if self._path is not None:
            write_checkpoint(self._path, {"fingerprint": self._marks, "seed": self.seed, "parts": self.parts})

    def _read(self, path: Path) -> None:
        state = read_checkpoint(path)
        if not {"fingerprint", "seed", "parts"} <= state.keys():
            raise CheckpointError(f"the checkpoint {path} is not one of annealed_evidence: give another file.")
        check_fingerprint(path, state["fingerprint"], self._marks)
        self.seed, self.parts = state["seed"], state["parts"]
