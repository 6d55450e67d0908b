"""Why an unused latent unit is unused, each cause by the experiment that shows it.

A unit is unused (:mod:`ppvae.inference.latents.active_units`) if it is not seen to tell anything about x. From the
trained state the pair is trained on, a little, with one thing changed at a time, cheapest first. The first change after
which the unit is active, and the ELBO on data held out is higher by two standard errors and 0.05 nats than without the
change, names the cause:

    longer                 the optimiser: training was not over; if the KL term had a weight above 1, the KL schedule
    KL warm-up             the KL schedule: the term had its full weight before the unit was learnt
    free bits              the same: a quarter of a nat of each number's KL costs nothing
    a shaken start         the optimiser: it stands where the gradient is zero, whatever the KL term weighs
    a noise that is learnt the likelihood: its noise is too wide, and hides what the unit would say
    a blind decoder        the decoder: it reads x itself (autoregressive), and needs no latents
    the others cut         redundancy: the unit says something, which the others say already

The last two are compared with the same training without any latents. A unit that none of them moves is held down by the
likelihood: what it could say is not worth its KL. ρ of :mod:`.growth` must not contradict that; else no cause is named.

An active unit whose means those of the other units explain (R² > 0.9) is redundant if the pair, trained on without it,
loses nothing.

References:
    Don't Blame the ELBO! (Lucas et al., 2019), arXiv:1911.02469, for the test of the likelihood.
    Generating Sentences from a Continuous Space (Bowman et al., 2016), arXiv:1511.06349: decoders that need no latents.
    Ladder Variational Autoencoders (Sønderby et al., 2016), arXiv:1602.02282: the warm-up.
    Improved Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016), arXiv:1606.04934: free bits.
"""

from __future__ import annotations

from torch import Tensor

from ppvae.datasets import Dataset
from ppvae.errors import PairError
from ppvae.progress import Progress

from ..mending import Budget, MendingData, left_as_found, valid_training
from ..options import positive_number, valid_compute
from ..pair import Batch, Program, programs_named, restored, seeded
from .cause_search import CauseSearch
from .explained import ExplainedCollapse
from .trials import Trials


def explain_collapse(
    model: Program,
    guide: Program,
    x: Tensor | Batch | Dataset,
    *,
    validation: Tensor | Batch | None = None,
    steps: int = 1000,
    learning_rate: float = 1e-3,
    kl_weight: float = 1.0,
    standard_errors: float = 2.0,
    seed: int | None = None,
    memory_mb: float = 64.0,
    progress: bool = False,
) -> ExplainedCollapse:
    """The cause of every unused latent unit, the number that shows it, and what a cure tried in small gained.

    The programs and Pyro's parameter store are left as they were. Up to eleven short trainings are done, none if all
    units are active.

    Args:
        model: ``model(x, *context)``, the generative program.
        guide: ``guide(x, *context)``; the numbers of its continuous latents are the units.
        x: data, first dimension ``num_data``; or a tuple ``(x, *context)``; or a :class:`ppvae.datasets.Dataset`, whose
            validation part is then used too. The trials are trained on them.
        validation: data that gains are measured on. None holds out every fifth datum of ``x``.
        steps: gradient steps of each trial.
        learning_rate: of Adam at first; it falls to zero by a cosine.
        kl_weight: weight of the KL term that the pair was trained with in the end, as in ``Beta(4.0)``.
        standard_errors: how many of them a gain must be; it must be 0.05 nats too.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.
        memory_mb: budget in MiB for one pass of the pair.
        progress: show a progress bar with the time that remains.

    Returns:
        ExplainedCollapse: a row for each unit, and the trials.

    Raises:
        OptionError: an option has a value that cannot be used.
        DataError: ``x`` is not a tensor of at least one datum, or it holds NaN or infinite values.
        PairError: the pair breaks the contract, or the data share its latents.

    Example:
        A guide that has never been trained, of a model that has:

        >>> import torch
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(100, 1) @ torch.tensor([[2.0, 1.0, -1.0]]) + 0.3 * torch.randn(100, 3)
        >>> pair = LinearGaussian(num_features=3, latent_dim=1)
        >>> found = explain_collapse(pair.model, pair.guide, x, steps=40, learning_rate=0.1, seed=0)
        >>> [(row.unit, row.cause, row.cure) for row in found.rows]
        [('z[0]', 'optimiser', 'longer')]
    """
    seed, memory_mb, progress = valid_compute(seed, memory_mb, progress)
    steps, rate, errors = valid_training(steps, learning_rate, standard_errors)
    weight = positive_number("kl_weight", kl_weight)
    with seeded(seed), programs_named(), left_as_found(model, guide):
        model, guide = restored(model, guide)
        data = MendingData.of(model, guide, x, validation)
        if not data.divisible:
            raise PairError(
                "the programs run on all data at once, so that none can be held out to judge the trials: give a "
                "pair that can be run on some of them."
            )
        trials = Trials(model, guide, data, Budget(steps, rate, data.divisible), weight, memory_mb)
        with Progress("trials", 11, "trainings", progress) as bar:
            return CauseSearch(trials, errors, bar).explained()
