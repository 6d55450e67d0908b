"""Lower and upper bounds of log p(x), with a confidence that, where there is one, assumes nothing of guide and chains.

Where a pair knows log p(x), that is the certificate. Else it is read off weights with the mean p(x), those of
importance sampling or of annealed chains, whose settings are chosen beforehand (:mod:`.pilot`).

On data that were drawn from the model both sides hold with their confidence (:mod:`.markov`). On data that were given
the lower one does; the upper one is that of the tangents (:mod:`.tangent`), an unbiased estimate of a number that is at
least the mean of log p(x), with the error of a large sample. It holds only if the chains reach all of the posterior,
which two looks from elsewhere may disprove (:mod:`.second_looks`), and the tail of the weights is light.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ppvae.errors import OptionError, PairError

from ..calibration import simulate
from ..evidence import log_weights, tail_shape
from ..option_records import Sampling, record_of
from ..options import flag, number_between, positive_number, valid_compute
from ..pair import (
    Batch,
    Pair,
    Program,
    as_batch,
    demand_continuum,
    evaluation_mode,
    finite_batch,
    own_parameters,
    owner,
    seeded,
    stated_named,
    where_parameters_are,
)
from ..records import of_data
from .bidirectional import BidirectionalWeights, gather
from .certificate import Certificate
from .chosen_effort import TAIL_LIMIT, Certification, Choice, chosen_for_drawn, chosen_for_given, doubt_of_own
from .markov import Sandwich, margin, sandwich
from .second_looks import look_at_twins, look_from_the_prior
from .tangent import end_of_mean, mean_parts, upper


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
            ``x`` to look for what the chains miss, :class:`~ppvae.inference.Sampling`.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.
        memory_mb: budget in MiB for one pass of the pair; the weights come on top.
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
    job = Certification(
        BidirectionalWeights(model, guide, sampling.start, sampling.num_steps, memory_mb, progress),
        (1 - number_between("confidence", confidence, 0, 1)) / 2,
        positive_number("width", width, "nats"),
        sampling,
    )
    batch = where_parameters_are(model, guide, _given(x, like))
    with seeded(seed):
        with Pair.on(model, guide, batch) as pair:
            known = _known(job, pair, closed_form)
            if known is None and x is not None:
                return _real(job, pair)
            num_data, by_datum, notes = pair.num_units, pair.unit == "datum", pair.remarks
        if known is not None:
            data = batch if x is not None else simulate(model, guide, batch).batch
            return Certificate.exact(known(data), data[0].cpu(), job.width)
        return _simulated(job, batch, chosen_for_drawn(job, batch, num_data, by_datum=by_datum), notes)


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


def _known(job: Certification, pair: Pair, stated_form: bool) -> Callable[[Batch], Tensor] | None:
    """log p(x) as a function of the data, where every latent is summed out, or where the pair's own is asked for."""
    model, guide = job.bridge.model, job.bridge.guide
    # What an object states is of its ``model``, and of no other program that it may have.
    stated = getattr(owner(model), "log_evidence", None) if getattr(owner(model), "model", model) == model else None
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


def _simulated(job: Certification, like: Batch, settings: Choice, notes: tuple[str, ...]) -> Certificate:
    """Both sides, on data drawn from the model."""
    drawn = job.simulate(like)
    sides = settings.sandwich(job.weights(drawn, settings.effort, "certificate"))
    num_data, count = len(sides.estimate), len(sides.shortfall)
    return Certificate(
        kind="simulated",
        upper=sides.above + margin(job.risk),
        mean_upper=float(sides.above.mean()) + margin(job.risk, num_data),
        least_width=job.least_width(num_data, real=False),
        shortfall=float(sides.shortfall.mean()),
        shortfall_error=float(sides.shortfall.std()) / math.sqrt(count) if count > 1 else math.nan,
        transitions=settings.spent + settings.effort.transitions(num_data, num_data),
        notes=notes,
        **_common(job, sides, torch.cat([one.batch[0] for one in drawn]), settings),
    )


def _real(job: Certification, pair: Pair) -> Certificate:
    """The lower side of data that were given, and the upper side where nothing speaks against it."""
    demand_continuum(pair.few, job.bridge.start)
    pair = job.bridge.view(pair)
    found = job.search(pair)
    settings = chosen_for_given(job, pair, found)
    log_w, _ = gather(job.bridge.of(pair, None, settings.effort, "certificate", found))
    num_data, k_hat = log_w.shape[1], tail_shape(log_w)
    spent = settings.spent + settings.effort.transitions(num_data, 0)
    doubt, num_twins = settings.doubt or doubt_of_own(log_w), 0
    if not doubt:
        doubt, more = look_from_the_prior(job, pair, log_w, settings.effort)
        spent += more
    if not doubt:
        doubt, num_twins, more = look_at_twins(job, pair, settings.effort)
        spent += more
    known = (k_hat < TAIL_LIMIT) if not doubt else torch.zeros_like(k_hat, dtype=torch.bool)
    missed = 0 if found is None else int(found.in_modes.sum())
    parts = mean_parts(log_w, k_hat)
    return Certificate(
        kind="real",
        upper=torch.where(known, upper(log_w, job.risk, k_hat), math.inf),
        mean_upper=math.inf if doubt else end_of_mean(parts, job.risk),
        tangents=parts,
        pareto_k=k_hat,
        least_width=job.least_width(num_data, real=True),
        num_twins=num_twins,
        transitions=spent,
        notes=(*pair.remarks, *_said_of_search(missed, num_data), *([doubt] if doubt else [])),
        **_common(job, sandwich(log_w, None, settings.groups), pair.batch[0], settings),
    )


def _said_of_search(missed: int, num_data: int) -> list[str]:
    if not missed:
        return []
    return [
        f"the guide misses a part of the posterior for {of_data(missed, num_data)}: their chains start from what a "
        "search found there too, and a part that it did not find is in neither bound."
    ]


def _common(job: Certification, sides: Sandwich, x: Tensor, settings: Choice) -> dict[str, Any]:
    """What both kinds say of the lower side, and of the draws behind them."""
    return {
        "confidence": 1 - 2 * job.risk,
        "lower": sides.below - margin(job.risk, settings.groups.single),
        "mean_lower": float(sides.below_mean.mean()) - margin(job.risk, settings.groups.mean * len(sides.estimate)),
        "log_evidence": sides.estimate,
        "standard_error": sides.standard_error,
        "x": x.cpu(),
        "width": job.width,
        "start": job.bridge.start,
        "num_chains": settings.effort.num_chains,
        "num_distributions": settings.effort.num_distributions,
        "num_groups": settings.groups.mean,
    }
