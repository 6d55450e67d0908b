"""log p(x) by annealed importance sampling, per datum, with its error.

Importance sampling from the guide fails where the guide misses part of the posterior: a few draws carry all the
weight, and the estimate lies too low without a sign of it. Annealing leads chains from the guide (or the prior) to the
posterior over many intermediate distributions (:mod:`ppvae.inference.annealing`), so that each chain ends where the
posterior is and the weights of the C chains are nearly equal:

    log p̂(x) = log (1/C) Σ_c w_c,   E[w_c] = p(x),   SE = √(C/(C−1) · (1/ESS − 1/C)).

As with importance sampling, E[log p̂] ≤ log p(x): the more distributions, the smaller the distance.

References:
    Annealed importance sampling (Neal, 2001), Statistics and Computing 11, arXiv:physics/9803008.
    On the Quantitative Analysis of Decoder-Based Generative Models (Wu, Burda, Salakhutdinov & Grosse, 2017),
    arXiv:1611.04273: chains that start at the encoder.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from ppvae.errors import CheckpointError, OptionError
from ppvae.progress import Progress
from ppvae.storage import atomic_path

from .annealing import LEAPFROG_STEPS, Schedule, forward, tune
from .chunks import chunks
from .defence import SEARCH_SHARE, can_search, rounding_of, search_pieces
from .defensive import confirms
from .density import Density, Start, density_of
from .estimates import AnnealedEvidence
from .evidence import Evidence
from .importance import by_guide, finite_batch
from .mixture_start import Bridge, MixtureStart
from .parameters import named_parameters, where_parameters_are
from .running import Running
from .traces import Batch, Program, as_batch, seeded

# Draws of the guide for the ELBO, which annealing does not estimate: their cost is small beside that of the chains.
ELBO_DRAWS = 1000


def annealed_evidence(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    num_chains: int = 32,
    num_distributions: int = 200,
    *,
    start: Start = "guide",
    schedule: Schedule = "adaptive",
    num_steps: int = LEAPFROG_STEPS,
    seed: int | None = None,
    memory_mb: float = 64.0,
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> AnnealedEvidence:
    """Estimate log p(x) of every datum by annealed importance sampling.

    First a search, with 15 % as many evaluations as the chains ask for, looks for modes that the guide misses
    (:mod:`ppvae.inference.mode_search`). Where it finds some, half of the chains start from these; the estimate is
    called trusted only if draws of the prior alone confirm it.

    Args:
        model: ``model(x, *context)``, the generative program.
        guide: ``guide(x, *context)``.
        x: data, first dimension ``num_data``; or a tuple ``(x, *context)``.
        num_chains: independent chains per datum, C. From 25 on, the tail of their weights is judged too (k̂).
        num_distributions: steps from the start to the posterior, T.
        start: where the chains begin: ``"guide"``, usually much nearer to the posterior, or ``"prior"``.
        schedule: of the temperatures: ``"adaptive"`` (steps of equal thermodynamic length, per datum, from a pilot
            run), ``"sigmoid"`` or ``"linear"``.
        num_steps: leapfrog steps of the transition between two distributions.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.
        memory_mb: budget in MiB for one pass of the pair, whatever the number of chains and data is.
        checkpoint: a file in which finished data are kept, so that the same call goes on after an interruption.
        progress: show a progress bar with the time that remains.

    Returns:
        AnnealedEvidence: tensors of shape ``(num_data,)``, in nats.

    Raises:
        OptionError: a number is not positive, or ``start`` or ``schedule`` is none of those above.
        DataError: ``x`` is not a tensor of at least one datum, or it holds NaN or infinite values.
        PairError: the pair breaks the contract, or a latent has no density on a continuum (see
            :func:`ppvae.inference.density.density_of`).
        CheckpointError: ``checkpoint`` is of another call, or damaged.

    Example:
        >>> import torch
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair = LinearGaussian(num_features=3, latent_dim=2)
        >>> x = torch.randn(4, 3)
        >>> evidence = annealed_evidence(pair.model, pair.guide, x, num_distributions=50, start="prior", seed=0)
        >>> bool(((evidence.log_evidence - pair.log_evidence(x)).abs() < 4 * evidence.standard_error).all())
        True
    """
    batch = finite_batch(as_batch(x))
    check_annealing(num_chains, num_distributions, num_steps, start, schedule)
    batch = where_parameters_are(model, guide, batch)
    run = Run(num_chains, num_distributions, start, schedule, num_steps)
    with seeded(seed):
        elbo = by_guide(model, guide, batch, ELBO_DRAWS, memory_mb)
        searchable = start == "prior" or can_search(model, guide, batch)
        with density_of(model, guide, batch, start=start) as density:
            finished = Finished(checkpoint, density, [*run, seed, memory_mb])
            parts = _all_parts(density, run, searchable, finished, memory_mb, progress)
    evidence = with_elbo(AnnealedEvidence.concatenate([_evidence(part) for part in parts]), elbo)
    return replace(evidence, rounding=rounding_of(evidence.rounding, batch))


class Run(NamedTuple):
    """How a run is annealed; see :func:`annealed_evidence`."""

    num_chains: int
    num_distributions: int
    start: Start
    schedule: Schedule
    num_steps: int

    @property
    def cost(self) -> int:
        """Evaluations of all chains of a datum; a gradient counts as two."""
        return 2 * self.num_chains * ((self.num_distributions - 1) * self.num_steps + 1)


def check_annealing(num_chains: int, num_distributions: int, num_steps: int, start: str, schedule: str) -> None:
    """Raise OptionError unless these can be annealed with."""
    for name, value in (("num_chains", num_chains), ("num_distributions", num_distributions), ("num_steps", num_steps)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise OptionError(f"{name} must be an integer of at least 1; it is {value!r}.")
    for name, word, known in (("start", start, get_args(Start)), ("schedule", schedule, get_args(Schedule))):
        if word not in known:
            raise OptionError(f"{name} must be one of {', '.join(map(repr, known))}; it is {word!r}.")


def _all_parts(
    density: Density, run: Run, searchable: bool, finished: Finished, memory_mb: float, progress: bool
) -> list[dict[str, Tensor]]:
    """The weights of all data, piece by piece."""
    each = run.num_chains * max(run.num_distributions - 1, 0)
    with Progress("log p(x)", density.num_data * each, "transitions", progress) as bar:
        for data in pieces(density, run.num_chains, memory_mb):
            if data.start in finished.parts:
                bar.begin_at(data.stop * each)
            else:
                # Each piece has a seed of its own, so that what is resumed has the same bits.
                with seeded(finished.seed + data.start):
                    finished.add(data.start, _searched(density.rows(data), run, searchable, memory_mb, bar))
    return [finished.parts[start] for start in sorted(finished.parts)]


def pieces(density: Density, num_chains: int, memory_mb: float) -> Iterator[slice]:
    """Slices of the data whose chains fit the budget together."""
    for data, particles in chunks(num_chains, density.num_data, density.bytes_each, memory_mb):
        if particles.start == 0:
            yield data


def _searched(density: Density, run: Run, searchable: bool, memory_mb: float, bar: Progress) -> dict[str, Tensor]:
    """The weights of some data's chains, which start from modes too where a search finds some; and what it found."""
    found = search_pieces(density, int(SEARCH_SHARE * run.cost), memory_mb) if searchable else None
    if found is None:
        unknown = torch.full((density.num_data,), math.nan, dtype=torch.float64)
        nothing = {"missed": unknown, "confirmed": unknown > 0, "sizes": torch.zeros_like(unknown)}
        return _anneal(density, run, memory_mb, bar) | nothing
    by_mode = {flag: (found.in_modes == flag).nonzero()[:, 0] for flag in (False, True)}
    parts: list[dict[str, Tensor]] = []
    for flag, index in by_mode.items():
        if len(index):
            some: Any = density.rows(index) if len(index) < density.num_data else density
            bridge = MixtureStart(some, found.proposal.rows(index)) if flag else some
            parts.append(_anneal(bridge, run, memory_mb, bar))
    order = torch.cat(list(by_mode.values())).argsort()
    part = {name: torch.cat([p[name] for p in parts], -1)[..., order] for name in parts[0]}
    log_evidence = torch.logsumexp(part["log_w"], 0) - math.log(run.num_chains)
    confirmed = confirms(found.prior_log_evidence, found.prior_ess, log_evidence)
    missed = torch.maximum(found.missed(log_evidence), found.lacking(log_evidence))
    return part | {"missed": missed, "confirmed": confirmed, "sizes": found.sizes}


def _anneal(density: Bridge, run: Run, memory_mb: float, bar: Progress) -> dict[str, Tensor]:
    """The weights of some data's chains, and how the chains fared."""
    tuning = tune(density, run.start, run.num_distributions, run.schedule, run.num_steps)
    log_w, acceptance = [], torch.zeros(density.num_data, dtype=torch.float64)
    for _, chains in chunks(run.num_chains, 1, density.bytes_each * density.num_data, memory_mb):
        count = chains.stop - chains.start
        units = count * density.num_data
        part, _, accepted = forward(density, tuning, run.start, count, run.num_steps, partial(bar.advance, units))
        log_w.append(part.cpu())
        acceptance += accepted.cpu() * count / run.num_chains
    return {"log_w": torch.cat(log_w), "acceptance": acceptance, "path_length": tuning.length.cpu()}


def _evidence(part: dict[str, Tensor]) -> AnnealedEvidence:
    """What the weights of some data say."""
    running = Running(*part["log_w"].shape)
    running.add(part["log_w"])
    evidence = AnnealedEvidence.of(running.evidence(), part["acceptance"], part["path_length"])
    sizes = evidence.log_evidence.abs() + part["sizes"]
    return replace(evidence, missed=part["missed"], confirmed=part["confirmed"], rounding=sizes)


def with_elbo(evidence: AnnealedEvidence, draws: Evidence) -> AnnealedEvidence:
    """The record with the ELBO of other, independent draws."""
    gap_error = (evidence.standard_error.square() + draws.elbo_standard_error.square()).sqrt()
    return replace(
        evidence,
        elbo=draws.elbo,
        elbo_standard_error=draws.elbo_standard_error,
        gap_standard_error=gap_error,
    )


class Finished:
    """The weights of the data that are finished, kept in a file if one is given."""

    def __init__(self, path: str | Path | None, density: Density, settings: list[Any]) -> None:
        self.parts: dict[int, dict[str, Tensor]] = {}
        self.seed = int(torch.randint(2**31, ()))
        self._path = Path(path) if path is not None else None
        self._mark = _mark(density, settings)
        if self._path is not None and self._path.is_file():
            self._read(self._path)

    def add(self, start: int, part: dict[str, Tensor]) -> None:
        """Keep the weights of the data from ``start`` on."""
        self.parts[start] = part
        if self._path is not None:
            content = io.BytesIO()
            torch.save({"mark": self._mark, "seed": self.seed, "parts": self.parts}, content)
            with atomic_path(self._path) as temporary:
                temporary.write_bytes(content.getbuffer())

    def _read(self, path: Path) -> None:
        try:
            state = torch.load(path, weights_only=True)
            mark, self.seed, self.parts = state["mark"], state["seed"], state["parts"]
        except Exception as error:  # torch raises a different type for each kind of damage
            raise CheckpointError(
                f"the checkpoint {path} is damaged or is not one of annealed_evidence: remove it and start anew."
            ) from error
        if mark != self._mark:
            raise CheckpointError(
                f"the checkpoint {path} is of another pair, other data or other options: give those, or a new file."
            )


def _mark(density: Density, settings: list[Any]) -> str:
    """What tells this call from others: the options, the data, the parameters."""
    digest = hashlib.sha256(repr(settings).encode())
    parameters = named_parameters(density.model, density.guide, density.batch).values()
    for part in (*density.batch, *parameters):
        if isinstance(part, Tensor):
            digest.update(part.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
