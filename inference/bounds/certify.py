"""Bounds on log p(x) from both sides, with a confidence that asks nothing of the guide or the chains.

Where a pair knows log p(x), that is the certificate. Else it is read off weights
(:mod:`ppvae.inference.bounds.markov`): importance weights first, then those of annealed chains
(:mod:`ppvae.inference.sampling.annealing`) over 32, 64, 128, … distributions, until the mean's interval is as narrow
as is wanted or the budget is spent.

Settings are chosen on one set of draws and the certificate is made from another: a bound that is read off the same
draws by which it was chosen has lost its confidence. For simulated data this includes the data. Each comes with a
single exact posterior draw, so that choosing by what they show would use that up; the settings are chosen on a pilot's
data, simulated apart, and then everything is drawn afresh.

On data that were given, x, there is no exact posterior draw, and only the lower side can be certified. The same
settings are run on *twins*, data simulated from the model with the context of x. With s = mean of log p̃ − log p̂ over
the twins, which is at least the mean bias of log p̂ there, and z the normal quantile of the side's risk,

    mean:        log p̂ + s + z √(SE(log p̂)² + SE(s)²),
    one datum:   log p̂ + the quantile of log p̃ − log p̂ over the twins, p̃ and p̂ from a half of the chains each.

That holds as far as x is to the sampler what the twins are. With an amortised guide it usually is not: the twins may
lie where the guide was never trained, so that started from the guide s is too large; started from the prior it is fair.
Where the unit is the data set, each twin is a data set that is annealed by itself, which takes minutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppvae.errors import OptionError, PairError

from ..calibration import Simulation, simulate, simulations
from ..evidence import log_weights
from ..option_records import Sampling, record_of
from ..options import flag, number_between, positive_number, valid_compute
from ..pair import (
    Batch,
    Pair,
    Program,
    as_batch,
    evaluation_mode,
    finite_batch,
    own_parameters,
    owner,
    seeded,
    stated_named,
    where_parameters_are,
)
from .bidirectional import BidirectionalWeights, Effort, Weights, gather
from .certificate import Certificate
from .markov import Groups, Sandwich, best_groups, concatenate, margin, sandwich

# Draws per datum of the first, cheapest attempt, and distributions of the second.
IMPORTANCE_DRAWS = 1024
FIRST_DISTRIBUTIONS = 32
# Data of the pilot that chooses the settings; the context of x is repeated where x has fewer.
NUM_PILOT = 32
# Data drawn beside those that were given, where ``Sampling`` does not say how many.
NUM_TWINS = 100
# The same where the unit is the data set, since they are annealed one by one: 39 are the least for a bound at 95 %.
NUM_PILOT_SETS = 8
NUM_TWIN_SETS = 40
# Where the margins alone are wider than what is wanted, refinement ends at this multiple of them.
REACHABLE = 1.5
# Standard errors of a pilot's distance between the sides that are added to it.
RESERVE = 1.5


def certify(
    model: Program,
    guide: Program,
    x: Tensor | Batch | None = None,
    *,
    like: Tensor | Batch | None = None,
    closed_form: bool = False,
    confidence: float = 0.95,
    width: float = 0.1,
    sampling: Sampling = Sampling(),
    seed: int | None = None,
    memory_mb: float = 64.0,
    progress: bool = False,
) -> Certificate:
    """Bound log p(x) of every datum, and the mean over the data, from both sides.

    Args:
        model: ``model(x, *context)``, the generative program.
        guide: ``guide(x, *context)``.
        x: data, first dimension ``num_data``; or a tuple ``(x, *context)``. None: as many data as ``like`` has are
            drawn from the model, and both sides are certified.
        like: data that show the shape of those to be drawn, with their context; only without ``x``.
        closed_form: take log p(x) from the ``log_evidence(x)`` of the object that the model is a method of, and not
            from the programs.
        confidence: with which the two bounds of the mean hold together, and those of each datum.
        width: how wide the interval of the mean may be, in nats. The budget is not spent further once it is reached.
        sampling: where chains begin, how many there are, how far the budget goes, and how many data are drawn beside
            ``x``, :class:`~ppvae.inference.Sampling`.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.
        memory_mb: budget in MiB for one pass of the pair; the weights of a piece of the data come on top.
        progress: show a progress bar with the time that remains; each attempt has its own.

    Returns:
        Certificate: with its ``kind``, the bounds, and whether the width was reached.

    Raises:
        OptionError: both or neither of ``x`` and ``like`` are given, an option has a value that cannot be used, or
            ``closed_form`` is asked of a pair that has none.
        DataError: the data are not a tensor of at least one datum, or hold NaN or infinite values.
        PairError: the pair breaks the contract, a latent has no density on a continuum (see
            :meth:`ppvae.inference.pair.Pair.on`), or no data can be drawn from the model (see
            :func:`ppvae.inference.calibration.simulation.simulate`).

    Example:
        A pair that knows its evidence, and what its programs say of it:

        >>> import torch
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair = LinearGaussian(num_features=3, latent_dim=2)
        >>> like = torch.zeros(200, 3)
        >>> certify(pair.model, pair.guide, like=like, closed_form=True).kind
        'exact'
        >>> certificate = certify(pair.model, pair.guide, like=like, seed=0)
        >>> certificate.kind, certificate.reached
        ('simulated', True)
        >>> truth = pair.log_evidence(certificate.x).mean().item()
        >>> certificate.mean_lower < truth < certificate.mean_upper
        True
    """
    seed, memory_mb, progress = valid_compute(seed, memory_mb, progress)
    closed_form, sampling = flag("closed_form", closed_form), record_of("sampling", sampling, Sampling)
    job = _Certification(
        BidirectionalWeights(model, guide, sampling.start, sampling.num_steps, memory_mb, progress),
        (1 - number_between("confidence", confidence, 0, 1)) / 2,
        positive_number("width", width, "nats"),
        sampling,
    )
    batch = where_parameters_are(model, guide, _given(x, like))
    with seeded(seed):
        known = _known(job, batch, closed_form)
        if known is not None:
            data = batch if x is not None else simulate(model, guide, batch).batch
            return Certificate.exact(known(data), data[0].cpu(), job.width)
        return _simulated(job, batch) if x is None else _real(job, batch)


class _Certification(NamedTuple):
    """What was asked for; ``risk`` is that of one side."""

    bridge: BidirectionalWeights
    risk: float
    width: float
    sampling: Sampling

    def least_width(self, num_data: int, *, real: bool) -> float:
        """The margins that remain when all weights are equal."""
        above = 0.0 if real else margin(self.risk, num_data)
        return above + margin(self.risk, self.sampling.num_chains * num_data)

    def simulate(self, like: Batch, count: int | None = None) -> list[Simulation]:
        """Data drawn from the model: ``count`` units, or as many as ``like`` has."""
        with Pair.on(self.bridge.model, self.bridge.guide, like) as pair, torch.no_grad():
            return simulations(pair, pair.num_units if count is None else count)

    def twins(self, like: Batch, count: int) -> list[Simulation]:
        """The same, and none where no data can be drawn from the model."""
        try:
            return self.simulate(like, count)
        except PairError:
            return []

    def weights(self, drawn: list[Simulation], effort: Effort, title: str) -> Iterator[Weights]:
        """The weights of data that were drawn with their latents."""
        for one in drawn:
            yield from self.bridge.weights(one.batch, one.latents, effort, title)

    def sandwich(self, weights: Iterable[Weights], settings: _Settings) -> Sandwich:
        """The two sides of what the weights are of."""
        return concatenate([sandwich(*part, settings.groups) for part in weights])


class _Subject(NamedTuple):
    """How many units there are, and are simulated for the pilot and as twins; what must be told of the pair."""

    num_units: int
    num_pilot: int
    num_twins: int
    notes: tuple[str, ...]


class _Settings(NamedTuple):
    """What the pilot chose, the transitions that it took, and what it is chosen for."""

    effort: Effort
    groups: Groups
    spent: int
    subject: _Subject


def _given(x: Tensor | Batch | None, like: Tensor | Batch | None) -> Batch:
    """The one of the two that was given."""
    if x is None and like is None:
        raise OptionError(
            "neither x nor like is given: give x, the data whose log p(x) is to be bounded, or like, data in whose "
            "shape others are to be drawn from the model."
        )
    if x is not None and like is not None:
        raise OptionError("both x and like are given: give x for its own bounds, or like for those of drawn data.")
    name, given = ("like", like) if x is None else ("x", x)
    return finite_batch(as_batch(given, name), name)


def _known(job: _Certification, batch: Batch, stated_form: bool) -> Callable[[Batch], Tensor] | None:
    """log p(x) as a function of the data, where every latent is summed out, or where the pair's own is asked for."""
    model, guide = job.bridge.model, job.bridge.guide
    # What an object states is of its ``model``, and of no other program that it may have.
    stated = getattr(owner(model), "log_evidence", None) if getattr(owner(model), "model", model) == model else None
    with Pair.on(model, guide, batch) as pair:
        drawn = bool(pair.structure.drawn)

    def closed_form(data: Batch) -> Tensor:
        named = stated_named("the pair's log_evidence(x)")
        with named, torch.no_grad(), own_parameters(), evaluation_mode(model, guide):
            value: Any = stated(*data)  # type: ignore[misc]
        if not isinstance(value, Tensor) or value.shape != (len(data[0]),):
            raise PairError(
                f"the pair's log_evidence(x) must give one number for each of the {len(data[0])} data: mend it, or "
                "give the model as a function of its own (lambda x: pair.model(x))."
            )
        return value.detach().double().cpu()

    def finite_sum(data: Batch) -> Tensor:
        # Without a draw there is only one weight, and it is p(x).
        return log_weights(model, guide, data, 1, memory_mb=job.bridge.memory_mb)[0]

    if not stated_form:
        return None if drawn else finite_sum
    if callable(stated):
        return closed_form
    raise OptionError(
        "closed_form is asked for, and the model is no method of an object with log_evidence(x): leave closed_form out."
    )


def _simulated(job: _Certification, like: Batch) -> Certificate:
    """Both sides, on data drawn from the model."""
    settings = _choose(job, like, None)
    drawn = job.simulate(like)
    sides = job.sandwich(job.weights(drawn, settings.effort, "certificate"), settings)
    x = torch.cat([one.batch[0] for one in drawn])
    num_data = len(sides.estimate)
    return Certificate(
        kind="simulated",
        upper=sides.above + margin(job.risk),
        mean_upper=float(sides.above.mean()) + margin(job.risk, num_data),
        least_width=job.least_width(num_data, real=False),
        transitions=settings.spent + settings.effort.transitions(num_data, num_data),
        **_common(job, sides, sides, x, settings),
    )


def _real(job: _Certification, batch: Batch) -> Certificate:
    """The lower side of x, and the upper side as its twins suggest."""
    settings = _choose(job, batch, _spread(job, batch, NUM_PILOT))
    drawn = job.twins(batch, settings.subject.num_twins)
    twins = job.sandwich(job.weights(drawn, settings.effort, "twins"), settings) if drawn else None
    sides = job.sandwich(job.bridge.weights(batch, None, settings.effort, "certificate"), settings)
    num_data, num_twins = len(sides.estimate), 0 if twins is None else len(twins.estimate)
    above = sides.estimate + (math.inf if twins is None else _quantile(twins.apart, 1 - job.risk))
    return Certificate(
        kind="real",
        upper=torch.where(sides.estimate.isneginf(), math.inf, above),
        mean_upper=float(sides.estimate.mean()) + _excess(job, sides, twins, settings.subject),
        least_width=job.least_width(num_data, real=True),
        num_twins=num_twins,
        transitions=settings.spent + settings.effort.transitions(num_data + num_twins, num_twins),
        **_common(job, sides, twins or sides, batch[0], settings),
    )


def _common(job: _Certification, sides: Sandwich, drawn: Sandwich, x: Tensor, settings: _Settings) -> dict[str, Any]:
    """What both kinds say of the lower side, and of the draws behind them."""
    below, count = margin(job.risk, settings.groups.mean * len(sides.estimate)), len(drawn.shortfall)
    return {
        "confidence": 1 - 2 * job.risk,
        "lower": sides.below - margin(job.risk, settings.groups.single),
        "mean_lower": float(sides.below_mean.mean()) - below,
        "log_evidence": sides.estimate,
        "standard_error": sides.standard_error,
        "x": x.cpu(),
        "width": job.width,
        "notes": settings.subject.notes,
        "shortfall": float(drawn.shortfall.mean()),
        "shortfall_error": float(drawn.shortfall.std()) / math.sqrt(count) if count > 1 else math.nan,
        "start": job.bridge.start,
        "num_chains": settings.effort.num_chains,
        "num_distributions": settings.effort.num_distributions,
    }


def _excess(job: _Certification, sides: Sandwich, twins: Sandwich | None, subject: _Subject) -> float:
    """s + z √(SE(log p̂)² + SE(s)²) of the mean over the data, as these and these twins show it; +inf without twins."""
    if twins is None:
        return math.inf
    variance = sides.standard_error.square().mean() / subject.num_units + twins.shortfall.var() / subject.num_twins
    return float((twins.shortfall.mean() + _normal(job) * variance.sqrt()).nan_to_num(math.inf))


def _normal(job: _Certification) -> float:
    """z, the normal quantile of one side's risk."""
    return math.sqrt(2) * torch.erfinv(torch.tensor(1 - 2 * job.risk, dtype=torch.float64)).item()


def _quantile(values: Tensor, share: float) -> float:
    """What one more such value does not exceed with this probability; +inf where there are too few of them."""
    place = math.ceil(share * (len(values) + 1))
    return float(values.sort().values[place - 1]) if place <= len(values) else math.inf


def _choose(job: _Certification, batch: Batch, shown: Batch | None) -> _Settings:
    """The cheapest settings that promise the width, found on draws, and on data, that are used for nothing else.

    Args:
        job: what was asked for.
        batch: the data, or those that show the shape.
        shown: some of the data, where their own lower side is wanted.
    """
    subject = _subject(job, batch)
    num_data, num_pilot = subject.num_units, subject.num_pilot
    drawn = job.simulate(batch, num_pilot) if shown is None else job.twins(batch, num_pilot)
    effort, spent = Effort(IMPORTANCE_DRAWS, 1), 0
    while True:
        title = f"pilot of {effort.num_distributions}"
        drawn_w = gather(job.weights(drawn, effort, title)) if drawn else None
        spent += effort.transitions(num_pilot, num_pilot) if drawn else 0
        if shown is None:
            assert drawn_w is not None  # without any, drawing them has raised
            groups = best_groups(drawn_w[0], job.risk, num_data)
            enough = _enough(job, sandwich(*drawn_w, groups), groups, num_data)
        else:
            w = gather(job.bridge.weights(shown, None, effort, title))
            spent += effort.transitions(w[0].shape[1], 0)
            groups = best_groups(w[0], job.risk, num_data)
            twins = None if drawn_w is None else sandwich(*drawn_w, groups)
            enough = _enough_for_real(job, sandwich(*w, groups), twins, groups, subject)
        further = max(2 * effort.num_distributions, FIRST_DISTRIBUTIONS)
        if enough or further > job.sampling.max_distributions:
            return _Settings(effort, groups, spent, subject)
        effort = Effort(job.sampling.num_chains, further)


def _subject(job: _Certification, batch: Batch) -> _Subject:
    with Pair.on(job.bridge.model, job.bridge.guide, batch) as pair:
        whole = pair.unit == "data set"
        num_pilot, num_twins = (NUM_PILOT_SETS, NUM_TWIN_SETS) if whole else (NUM_PILOT, NUM_TWINS)
        return _Subject(pair.num_units, num_pilot, job.sampling.num_twins or num_twins, pair.remarks)


def _enough(job: _Certification, sides: Sandwich, groups: Groups, num_data: int) -> bool:
    """Whether the width, or what can be had of it, is to be expected on drawn data.

    A reserve is kept for the noise of the pilot and of the certificate, so that the width is seldom missed.
    """
    between = sides.above - sides.below_mean
    between = between.mean() + RESERVE * between.std() * math.sqrt(1 / len(between) + 1 / num_data)
    expected = margin(job.risk, groups.mean * num_data) + float(between) + margin(job.risk, num_data)
    return expected <= max(job.width, REACHABLE * job.least_width(num_data, real=False))


def _enough_for_real(
    job: _Certification, sides: Sandwich, twins: Sandwich | None, groups: Groups, subject: _Subject
) -> bool:
    """Whether the width, or what can be had of it, is to be expected on data that were given."""
    num_data = subject.num_units
    below = float((sides.estimate - sides.below_mean).mean()) + margin(job.risk, groups.mean * num_data)
    noise = _normal(job) * float(sides.standard_error.norm()) / math.sqrt(len(sides.estimate) * num_data)
    expected = below + (noise if twins is None else _excess(job, sides, twins, subject))
    return expected <= max(job.width, REACHABLE * job.least_width(num_data, real=True))


def _spread(job: _Certification, batch: Batch, count: int) -> Batch:
    """At most ``count`` units, from all over the batch."""
    with Pair.on(job.bridge.model, job.bridge.guide, batch) as pair:
        if not pair.divisible:
            return batch
        return pair.rows(torch.linspace(0, pair.num_units - 1, min(count, pair.num_units)).long()).batch
