"""The causes of the ELBO's gap: the guide's family, and its amortisation.

With q* the best member of the guide's family for a datum,

    log p(x) − ELBO(q)  =  [log p(x) − ELBO(q*)]  +  [ELBO(q*) − ELBO(q)]
       total                  family                   amortisation

and, with the best member of two richer families (:mod:`.refinement`),

    family  =  [ELBO(full) − ELBO(q*)]  +  [ELBO(flow) − ELBO(full)]  +  [log p(x) − ELBO(flow)]
                  covariance                 flow                           rest

Amortisation is what a larger or better trained network could win; covariance and flow, what a richer guide could; the
rest is what these families leave, and the error of log p(x).

Where a latent depends on a site that the guide enumerates, its draws cannot be mapped, and total, amortisation and
family are all that is known. An offset of that latent's parameters is one for all values of the site
(:mod:`.guide_family`): what offsets for each value would win besides is counted in the family's part.

The parts add up exactly, for every datum, because each ELBO appears in two of them. A difference of ELBOs has the
standard error of paired draws; a part with log p(x) in it carries the error of log p(x). A q* that has not been
reached makes amortisation too small and the family's part too large by the same amount, so every datum says whether
its split is *resolved*: q* has converged and log p(x) is to be trusted. The record of all that is :mod:`.gap_parts`.

References:
    Inference Suboptimality in Variational Autoencoders (Cremer, Li & Duvenaud, 2018), arXiv:1801.03558. There a datum
    was given a hundred q's, on training data, and the flow ended below the Gaussian; here one q, the data given, and
    each family starts from the best of the poorer.
"""

from __future__ import annotations

from torch import Tensor

from ..evidence import Evidence
from ..option_records import Optimiser
from ..options import instance_of
from ..pair import Batch, Program, as_batch
from ..records import demand_as_many
from .gap_parts import GapAttribution
from .refinement import Allowance, refine_within

# In nats. Where log p(x) is known this well the weights are all but constant, and the shape of the tail of what is left
# of them, k̂, is that of rounding and of the optimiser's last steps.
_CONSTANT = 1e-3


def attribute_gap(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    *,
    evidence: Evidence | None = None,
    optimiser: Optimiser = Optimiser(),
    num_draws: int = 2000,
    seed: int | None = None,
    memory_mb: float = 64.0,
    progress: bool = False,
) -> GapAttribution:
    """Split log p(x) − ELBO of every datum into what the family costs and what amortisation costs.

    Args:
        model: ``model(x, *context)``, the generative program.
        guide: ``guide(x, *context)``; its continuous latents are drawn by rsample.
        x: data, first dimension ``num_data``; or a tuple ``(x, *context)``.
        evidence: log p(x) of the same data in the same order, by any estimator. None reads it off the
            weights of the richest member: importance sampling from a proposal far nearer the posterior than the guide
            is. (The best member of a narrow family is a treacherous one: it sits inside the posterior. Where the
            guide's draws cannot be mapped there is no richer one: give the evidence of
            :func:`~ppvae.inference.estimate_evidence`, above all where ``reliable`` is false.)
        optimiser: how each datum's ELBO is climbed, and for how long, :class:`~ppvae.inference.Optimiser`.
        num_draws: draws per datum that each ELBO, and by default log p(x), is estimated from.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.
        memory_mb: budget in MiB for one pass of the pair; a step takes one datum at least.
        progress: show a progress bar with the time that remains.

    Returns:
        GapAttribution: tensors of shape ``(num_data,)``, in nats. Where a latent depends on a site that the guide
            enumerates, the family's part is not split into covariance, flow and rest.

    Raises:
        OptionError: an option has a value that cannot be used, or ``evidence`` is of another number of data.
        DataError: ``x`` is not a tensor of at least one datum, or it holds NaN or infinite values.
        PairError: the pair breaks the contract, has no continuous latent, or a latent has no gradient (no rsample), no
            density (a point mass), or is auxiliary; see :func:`refine`.

    Example:
        The guide starts at the prior, and the posterior is in its family: all of the gap is amortisation.

        >>> import torch
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair, x = LinearGaussian(num_features=3, latent_dim=2), torch.randn(4, 3)
        >>> gap = attribute_gap(pair.model, pair.guide, x, seed=0)
        >>> bool(gap.resolved.all()), gap.remarks()
        (True, [])
        >>> truth = (pair.log_evidence(x) - pair.exact_elbo(x)).mean().item()
        >>> parts = gap.summary()
        >>> bool(abs(parts["amortisation"] - truth) < 0.05), bool(abs(parts["family"]) < 0.05)
        (True, True)
    """
    num_data = len(as_batch(x)[0])
    if evidence is not None:
        instance_of("evidence", evidence, Evidence, "the record of an estimator of evidence, or None")
        demand_as_many(len(evidence.log_evidence), num_data, 1)  # the data set may be the unit
    best = refine_within(model, guide, x, None, Allowance(optimiser, num_draws, seed, memory_mb, progress))
    evidence = best.evidence if evidence is None else evidence
    demand_as_many(len(evidence.log_evidence), len(best.elbo))
    reliable = evidence.trusted | (evidence.delta_standard_error < _CONSTANT)
    return GapAttribution(evidence.log_evidence, evidence.standard_error, reliable, best)
