"""Mend a guide: try what removes the causes of its gap, the cheapest first, and keep what gains.

The steps, each from the best guide so far:

    warm-up           model and guide are trained on with a KL term let in slowly (only if the model may change);
    more steps        the guide's own parameters are trained on, with a step size that falls to zero;
    correction        a network of x and of the guide's parameters shifts them: amortisation, within the family;
    full covariance   the draws of all latents of a unit are mapped affinely: the correlations;
    flow              they are bent and mapped by coupling layers too: skewness, tails, curvature.

A step is kept if its gain of the ELBO on data held out, paired by datum, is so many standard errors and 0.01 nats or
more; else all is as it was before. With two of them a step that changes nothing on average is kept with a probability
of 2.3 %; a guide that is exact already cannot gain at all. A step that gained much is tried again.

The model's parameters stand still in all steps but the first, so that log p(x) stays what it was.

References:
    Inference Suboptimality in Variational Autoencoders (Cremer, Li & Duvenaud, 2018), arXiv:1801.03558.
    Iterative Amortized Inference (Marino, Yue & Mandt, 2018), arXiv:1807.09356.
    Ladder Variational Autoencoders (Sønderby et al., 2016), arXiv:1602.02282, for the warm-up.
"""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from ppvae.datasets import Dataset
from ppvae.errors import NonFiniteError, PairError
from ppvae.progress import Progress

from ..options import flag, positive_number, valid_compute, whole_number
from ..pair import (
    Batch,
    ParameterValues,
    Program,
    Trained,
    named_parameters,
    programs_named,
    restored,
    seeded,
)
from .mended import CORRECTION, COVARIANCE, FLOW, MORE_STEPS, WARM_UP, Mended, MendingStep, with_family
from .mending_data import MendingData
from .mending_steps import (
    Budget,
    drawn_elbo,
    kept_values,
    left_as_found,
    paired_gain,
    put_back,
    train_both,
    train_guide,
)

# In nats per unit: what a step must gain to be kept, and to be tried again.
LEAST_GAIN, MUCH = 0.01, 0.1
# How often a step is tried at most.
ROUNDS = 3


def mend(
    model: Program,
    guide: Program,
    x: Tensor | Batch | Dataset,
    *,
    validation: Tensor | Batch | None = None,
    steps: int = 2000,
    learning_rate: float | None = None,
    standard_errors: float = 2.0,
    train_model: bool = False,
    seed: int | None = None,
    memory_mb: float = 64.0,
    progress: bool = False,
) -> Mended:
    """A better guide for a trained pair, and what each step that was tried gained and cost.

    The programs and Pyro's parameter store are left as they were: what is returned runs on values of its own.

    Args:
        model: ``model(x, *context)``, the generative program.
        guide: ``guide(x, *context)``; its continuous latents are drawn by rsample.
        x: data, first dimension ``num_data``; or a tuple ``(x, *context)``; or a :class:`ppvae.datasets.Dataset`, whose
            validation part is then used too. The guide is trained on them.
        validation: data that gains are measured on. None holds out every fifth datum of ``x``; where none can be (the
            data share latents), gains are those of the training data.
        steps: gradient steps of each attempt.
        learning_rate: of Adam at first; None takes 0.001, and 0.01 where the data set is the unit.
        standard_errors: how many of them a gain must be; it must be 0.01 nats per unit too.
        train_model: whether the model may be trained on too, by a warm-up of the KL term, as where latents have
            collapsed; log p(x) is then that of another model.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.
        memory_mb: budget in MiB for one pass of the pair.
        progress: show a progress bar with the time that remains.

    Returns:
        Mended: the pair with the mended guide, in nats what each step gained.

    Raises:
        OptionError: an option has a value that cannot be used.
        DataError: ``x`` is not a tensor of at least one datum, or it holds NaN or infinite values.
        PairError: the pair breaks the contract, or no step can be tried on it.

    Example:
        >>> import torch
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair, x = LinearGaussian(num_features=3, latent_dim=1), torch.randn(60, 3)
        >>> mended = mend(pair.model, pair.guide, x, steps=20, learning_rate=0.05, seed=0)
        >>> bool(mended.elbo.mean() > mended.elbo_before.mean())
        True
    """
    seed, memory_mb, progress = valid_compute(seed, memory_mb, progress)
    steps, train_model = whole_number("steps", steps), flag("train_model", train_model)
    rate = None if learning_rate is None else positive_number("learning_rate", learning_rate)
    errors = positive_number("standard_errors", standard_errors)
    plan = [*([WARM_UP] if train_model else []), MORE_STEPS, CORRECTION, COVARIANCE, FLOW]
    bar = Progress("mending", len(plan) * ROUNDS, "attempts", progress)
    with seeded(seed), programs_named(), left_as_found(model, guide), bar:
        model, guide = restored(model, guide)
        data = MendingData.of(model, guide, x, validation)
        budget = Budget(steps, rate or (1e-3 if data.unit == "datum" else 1e-2), data.divisible)
        work = _Mending(model, guide, data, budget, errors, memory_mb)
        for name in plan:
            for attempt in range(ROUNDS):
                bar.advance(0, name)
                again = work.try_step(name)
                bar.advance(1 if again else ROUNDS - attempt, name)
                if not again:
                    break
        return work.mended()


class _Mending:
    """The best guide so far, and what was tried."""

    def __init__(
        self, model: Program, guide: Program, data: MendingData, budget: Budget, errors: float, memory_mb: float
    ) -> None:
        self.model, self.guide, self.data, self.budget, self.errors = model, guide, data, budget, errors
        self.memory_mb, self.draws_seed = memory_mb, int(torch.randint(2**31, ()))
        self.before = self.best = self._elbo(guide)
        self.steps: list[MendingStep] = []
        self.families: list[tuple[str, str]] = []

    def try_step(self, name: str) -> bool:
        """Try a step, and keep it or go back; whether it gained much."""
        started = time.monotonic()
        candidate, families = self.guide, self.families
        values = kept_values(self.model, self.guide, self.data.example)
        gain = error = math.nan
        kept, note = False, ""
        try:
            if name in (CORRECTION, COVARIANCE, FLOW) and name not in [family for family, _ in families]:
                families = [*families, (name, f"mended_{len(self.steps)}")]
                candidate = with_family(self.model, self.guide, self.data.shown, *families[-1])
            train = train_both if name == WARM_UP else train_guide
            train(self.model, candidate, self.data.train, self.data.example, self.budget)
            after = self._elbo(candidate)
            gain, error = paired_gain(self.best, after)
            kept = gain > max(self.errors * error, LEAST_GAIN)
        except (PairError, NonFiniteError) as problem:
            note = str(problem).rstrip(".")
        if kept:
            self.guide, self.families, self.best = candidate, families, after
        else:
            put_back(values)
        self.steps.append(MendingStep(name, gain, error, time.monotonic() - started, kept, note))
        return kept and gain > MUCH

    def mended(self) -> Mended:
        """The record of all steps.

        Raises:
            PairError: none could be tried.
        """
        if all(step.note for step in self.steps):
            raise PairError(f"no step can be tried on this pair: {self.steps[0].note}.")
        leaves = named_parameters(self.model, self.guide, self.data.example)
        values = ParameterValues.copied(self.model, self.guide, leaves)
        return Mended(
            model=Trained(self.model, values),
            guide=Trained(self.guide, values),
            example=self.data.example,
            steps=tuple(self.steps),
            families=tuple(self.families),
            elbo_before=self.before.mean(0),
            elbo=self.best.mean(0),
            gain_error=paired_gain(self.before, self.best)[1],
            held_out=self.data.held_out,
            model_changed=any(step.kept and step.name == WARM_UP for step in self.steps),
        )

    def _elbo(self, guide: Program) -> Tensor:
        return drawn_elbo(self.model, guide, self.data.measured, self.draws_seed, self.memory_mb)
