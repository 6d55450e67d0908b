"""Mend a guide: try what removes the causes of its gap, the largest first, and keep what gains.

The steps, each from the best guide so far (:mod:`.mending_plan` has their order):

    warm-up           model and guide are trained on with a KL term let in slowly (only if the model may change);
    more steps        the guide's own parameters are trained on, with a step size that falls to zero;
    correction        a network of x and of the guide's parameters shifts them: amortisation, within the family;
    gradient steps    the guide's parameters for a datum are bettered by steps on that datum's own ELBO;
    full covariance   the draws of all latents of a unit are mapped affinely: the correlations;
    flow              they are bent and mapped by coupling layers too: skewness, tails, curvature;
    mixture           a second part is mixed in, which goes where the guide is not: modes that it misses;
    defence           the prior is mixed in, for the tail of the weights.

A step is kept if its gain of the ELBO on data held out, paired by datum, is so many standard errors and 0.01 nats or
more; else all is as it was before. With two of them a step that changes nothing on average is kept with a probability
of 2.3 %; a guide that is exact already cannot gain at all. A step that gained much is tried again.

A defence buys no ELBO. It is tried where the weights of some datum have k-hat above 0.7, and kept if the mean square of
the weights falls (:mod:`.weight_tail`), by so many standard errors of its logarithm, and the ELBO does not fall by both
so many standard errors and 0.01 nats.

The model's parameters stand still in all steps but the first, so that log p(x) stays what it was.

References:
    Inference Suboptimality in Variational Autoencoders (Cremer, Li & Duvenaud, 2018), arXiv:1801.03558.
    Iterative Amortized Inference (Marino, Yue & Mandt, 2018), arXiv:1807.09356.
    Ladder Variational Autoencoders (Sønderby et al., 2016), arXiv:1602.02282, for the warm-up.
"""

from __future__ import annotations

from torch import Tensor

from ppvae.datasets import Dataset
from ppvae.progress import Progress

from ..option_records import Attempts, record_of
from ..options import flag, valid_compute
from ..pair import Batch, Program, programs_named, restored, seeded
from .mended import Mended
from .mending_data import MendingData
from .mending_plan import as_asked, planned
from .mending_steps import Budget, left_as_found, valid_training
from .step_trials import StepTrials


def mend(
    model: Program,
    guide: Program,
    x: Tensor | Batch | Dataset,
    *,
    validation: Tensor | Batch | None = None,
    steps: int = 2000,
    learning_rate: float | None = None,
    train_model: bool = False,
    attempts: Attempts = Attempts(),
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
        train_model: whether the model may be trained on too, by a warm-up of the KL term, as where latents have
            collapsed; log p(x) is then that of another model.
        attempts: which steps are tried, and when one is kept, :class:`~ppvae.inference.Attempts`. By default those that
            the attribution of the gap of 20 data asks for.
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
        >>> attempts = Attempts(only=("more steps",))
        >>> mended = mend(pair.model, pair.guide, x, steps=20, learning_rate=0.05, attempts=attempts, seed=0)
        >>> bool(mended.elbo.mean() > mended.elbo_before.mean())
        True
    """
    seed, memory_mb, progress = valid_compute(seed, memory_mb, progress)
    attempts, train_model = record_of("attempts", attempts, Attempts), flag("train_model", train_model)
    steps, rate, errors = valid_training(
        steps, 1e-3 if learning_rate is None else learning_rate, attempts.standard_errors
    )
    with seeded(seed), programs_named(), left_as_found(model, guide):
        model, guide = restored(model, guide)
        data = MendingData.of(model, guide, x, validation)
        if learning_rate is None and data.unit == "data set":
            rate = 1e-2
        rest = [] if attempts.only else planned(model, guide, data, steps, memory_mb)
        plan = as_asked(attempts.only, train_model, rest)
        work = StepTrials(model, guide, data, Budget(steps, rate, data.divisible), errors, memory_mb)
        with Progress("mending", len(plan) * attempts.rounds, "attempts", progress) as bar:
            for step in plan:
                bar.advance(0, step.name)
                for attempt in range(attempts.rounds):
                    again = work.wanted(step, attempt) and work.try_step(step)
                    bar.advance(1 if again else attempts.rounds - attempt, step.name)
                    if not again:
                        break
        return work.mended()
