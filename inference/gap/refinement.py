"""Local refinement: the best member q* of a family, for every datum by itself.

A guide computes q(z|x) for all data by one network. Given a datum, the ELBO can be climbed further, with the network
out of the way:

    guide   the guide's own family: its site distributions, their parameters freed per datum (:mod:`.guide_family`);
    full    an affine map, per datum, of draws of that member: full covariance (:mod:`.flows`);
    flow    two coupling layers on top of it (:mod:`.flows`).

Each starts from the best member of the one before, and an iterate is kept only if its ELBO is higher, on draws that
the final estimates are not made from: so no member ends below a poorer one, but for noise. The networks stay as they
are.

The ELBO of every member comes from fresh draws, and what it gained from random numbers common to the two members.

References:
    Inference Suboptimality in Variational Autoencoders (Cremer, Li & Duvenaud, 2018), arXiv:1801.03558.
    Semi-Amortized Variational Autoencoders (Kim, Wiseman, Miller, Sontag & Rush, 2018), arXiv:1802.02550.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ppvae.errors import PairError
from ppvae.progress import Progress

from ..evidence import Evidence
from ..option_records import Optimiser, record_of
from ..options import one_of, valid_compute, whole_number
from ..pair import (
    Batch,
    Pair,
    Program,
    as_batch,
    finite_batch,
    named_parameters,
    seeded,
    where_parameters_are,
    why_slow,
)
from ..records import Printed, of_data, row
from .climbing import FAMILIES, Climb, Climbing, FamilyName, climb_part, joined, pieces_of
from .flows import unmapped_latent
from .guide_family import GuideFamily, RefinedGuide


@dataclass(frozen=True, repr=False)
class Refinement(Printed):
    """The best member found, for every datum: tensors of shape ``(num_data,)``, ELBOs in nats.

    Attributes:
        family: ``amortised`` (the guide as it came), ``guide``, ``full`` or ``flow``.
        guide: the guide with its refined parameters, a program like any other guide of the pair, for the data that it
            was refined on. A *full* or *flow* member is a map of its draws.
        elbo: E[log p(x, z) − log q*(z|x)], on draws that neither the optimiser nor its selection saw.
        elbo_standard_error: of ``elbo``.
        gain: ``elbo`` less that of the member it started from.
        gain_standard_error: of ``gain``; the two members share their random numbers.
        converged: whether a whole round of steps changed the ELBO by less than the tolerance (:mod:`.ascent`).
        steps: steps made.
        evidence: log p(x) by importance sampling from this member, from the draws that ``elbo`` or ``gain`` is read
            off. The richer the member, the closer its weights are to constant.
        poorer: the member it started from; None for the guide as it came.
        notes: what a reader of the guide as it came must be told.
    """

    family: str
    guide: Program
    elbo: Tensor
    elbo_standard_error: Tensor
    gain: Tensor
    gain_standard_error: Tensor
    converged: Tensor
    steps: Tensor
    evidence: Evidence
    poorer: Refinement | None
    notes: tuple[str, ...] = ()

    @property
    def members(self) -> dict[str, Refinement]:
        """This member and all poorer ones by family, the poorest first."""
        return {**(self.poorer.members if self.poorer else {}), self.family: self}

    def __repr__(self) -> str:
        """A few lines, without the tensors."""
        n = len(self.elbo)
        parts = (("elbo", self.elbo, self.elbo_standard_error), ("gain", self.gain, self.gain_standard_error))
        rows = [row(name, float(mean.mean()), float(error.norm()) / n) for name, mean, error in parts]
        rows.append(row("converged", of_data(int(self.converged.sum()), n)))
        return "\n".join(
            [f"Refinement, family {self.family!r} (nats):", *rows, *(f"  {remark}" for remark in self.remarks())]
        )

    def remarks(self) -> list[str]:
        """Remarks on the numbers, a sentence each; empty when there are none."""
        n, missing = len(self.elbo), int((~self.converged).sum())
        found = self.poorer.remarks() if self.poorer else list(self.notes)
        if missing:
            found.append(
                f"the best member of the family {self.family!r} was not reached for {of_data(missing, n)}: its ELBO "
                "may be higher; give more steps."
            )
        return found


def refine(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    *,
    family: FamilyName = "guide",
    optimiser: Optimiser = Optimiser(),
    num_draws: int = 1000,
    seed: int | None = None,
    memory_mb: float = 64.0,
    progress: bool = False,
) -> Refinement:
    """Find the best member of the guide's family, or of a richer one, for every datum.

    Args:
        model: ``model(x, *context)``, the generative program.
        guide: ``guide(x, *context)``; the search starts from it, and its continuous latents are drawn by rsample.
        x: data, first dimension ``num_data``; or a tuple ``(x, *context)``.
        family: ``guide``, the guide's own; ``full``, with full covariance; ``flow``, with coupling layers as well.
        optimiser: how each datum's ELBO is climbed, and for how long, :class:`~ppvae.inference.Optimiser`.
        num_draws: draws per datum that each ELBO is estimated from.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.
        memory_mb: budget in MiB for one pass of the pair; a step takes one datum at least. How the data are cut
            depends on it, and with it which draws are made.
        progress: show a progress bar with the time that remains.

    Returns:
        Refinement: tensors of shape ``(num_data,)``, in nats; ``poorer`` holds the families before.

    Raises:
        OptionError: an option has a value that cannot be used.
        DataError: ``x`` is not a tensor of at least one datum, or it holds NaN or infinite values.
        PairError: the pair breaks the contract, has no continuous latent, or a latent's distribution has no gradient
            (no rsample), no density, or nothing to free. For ``full`` and ``flow`` also: a latent is auxiliary, or
            depends on a site that the guide enumerates.

    Example:
        The guide starts at the prior, and the posterior is in its family:

        >>> import torch
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair, x = LinearGaussian(num_features=3, latent_dim=2), torch.randn(4, 3)
        >>> best = refine(pair.model, pair.guide, x, seed=0)
        >>> bool(best.converged.all())
        True
        >>> bool(torch.allclose(best.elbo, pair.log_evidence(x), atol=0.01))
        True

        The refined guide is a guide:

        >>> from ppvae.inference import importance_evidence
        >>> bool((importance_evidence(pair.model, best.guide, x, 100, seed=0).standard_error < 0.02).all())
        True
    """
    family = one_of("family", family, FAMILIES)
    return refine_within(model, guide, x, family, Allowance(optimiser, num_draws, seed, memory_mb, progress))


class Allowance(NamedTuple):
    """What a refinement may cost; the attributes are those arguments of :func:`refine`."""

    optimiser: Optimiser
    num_draws: int
    seed: int | None
    memory_mb: float
    progress: bool


def refine_within(
    model: Program, guide: Program, x: Tensor | Batch, family: FamilyName | None, allowance: Allowance
) -> Refinement:
    """Find the best member of a family; arguments and errors are those of :func:`refine`.

    Args:
        model: see there, as the next two.
        guide: see there.
        x: see there.
        family: see there; None is ``flow``, or ``guide``, with a note, where the guide's draws cannot be mapped.
        allowance: see there.
    """
    seed, memory_mb, progress = valid_compute(allowance.seed, allowance.memory_mb, allowance.progress)
    optimiser = record_of("optimiser", allowance.optimiser, Optimiser)
    num_draws = whole_number("num_draws", allowance.num_draws, least=2)
    batch = where_parameters_are(model, guide, finite_batch(as_batch(x)))
    with seeded(seed), Pair.on(model, guide, batch, start=None if family == "guide" else "guide") as pair:
        unmapped = None if family == "guide" else unmapped_latent(pair)
        if unmapped and family is not None:
            raise PairError(
                f"{unmapped!r} depends on a site that the guide enumerates, so that its draws cannot be mapped: refine "
                "within family='guide', or leave that site to the model."
            )
        names = FAMILIES[: 1 if unmapped else FAMILIES.index(family or "flow") + 1]
        total = pair.num_units * optimiser.steps * len(names)
        title = f"best member ({names[-1]})"
        with Progress(title, total, "steps", progress, why_slow(pair)) as bar, _networks_still(pair):
            how = Climbing(optimiser, num_draws, memory_mb, bar.advance)
            parts = [climb_part(part, names, how) for part in pieces_of(pair, how)]
        offsets = joined([offsets for offsets, _, _ in parts])
        refined = RefinedGuide(GuideFamily(pair), offsets)
    climbs = {str(name): Climb(*joined([climbs[name] for _, climbs, _ in parts])) for name in names}
    evidence = [Evidence.concatenate(pieces) for pieces in zip(*(p for _, _, p in parts), strict=True)]
    return _chain(guide, refined, climbs, evidence, (*_nothing_amortised(pair), *_nothing_mapped(unmapped)))


def _nothing_amortised(pair: Pair) -> tuple[str, ...]:
    """Why no network stands between the data and the guide's parameters; empty where one does."""
    parameters = named_parameters(pair.model, pair.guide, pair.few.batch).values()
    own = not pair.divisible and any(p.dim() and len(p) == pair.arguments.num_rows for p in parameters)
    if pair.unit == "datum" and not own:
        return ()
    why = "the latents are shared by the data" if pair.unit == "data set" else "the guide has parameters for each datum"
    return (
        f"{why}, so that nothing is amortised: the part called amortisation is what training has not reached, and the "
        "family's part is what the best member of the family leaves.",
    )


def _nothing_mapped(latent: str | None) -> tuple[str, ...]:
    """Why no family richer than the guide's was tried, by the latent that cannot be mapped; empty where one was."""
    if latent is None:
        return ()
    return (
        f"{latent!r} depends on a site that the guide enumerates, so that its draws cannot be mapped: the family's "
        "part is not split further, and counts what parameters freed for each value of that site would win.",
    )


@contextmanager
def _networks_still(pair: Pair) -> Iterator[None]:
    """No gradient for the parameters of the pair: it is not wanted, and its graph costs memory."""
    leaves = list(named_parameters(pair.model, pair.guide, pair.few.batch).values())
    for leaf in leaves:
        leaf.requires_grad_(False)
    try:
        yield
    finally:
        for leaf in leaves:
            leaf.requires_grad_(True)


def _chain(
    guide: Program,
    refined: RefinedGuide,
    climbs: dict[str, Climb],
    evidence: Sequence[Evidence],
    notes: tuple[str, ...],
) -> Refinement:
    """The members, each with the poorer one that it started from; the richest is returned."""
    first = climbs.pop("guide")
    zero, yes = torch.zeros_like(first.gain), torch.ones_like(first.converged)
    none = torch.zeros_like(first.steps)
    start = first.start, first.start_error
    member = Refinement("amortised", guide, *start, zero, zero, yes, none, evidence[0], None, notes)
    member = Refinement("guide", refined, *first[2:], evidence=evidence[1], poorer=member)
    for (name, climb), log_p in zip(climbs.items(), evidence[2:], strict=True):
        elbo, error = member.elbo + climb.gain, torch.hypot(member.elbo_standard_error, climb.gain_error)
        member = Refinement(name, refined, elbo, error, *climb[4:], evidence=log_p, poorer=member)
    return member
