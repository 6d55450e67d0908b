"""The causes of the ELBO's gap: the guide's family, and its amortisation.

With q* the best member of the guide's family for a datum,

    log p(x) − ELBO(q)  =  [log p(x) − ELBO(q*)]  +  [ELBO(q*) − ELBO(q)]
       total                  family                   amortisation

and, with the best member of two richer families (:mod:`.refinement`),

    family  =  [ELBO(full) − ELBO(q*)]  +  [ELBO(flow) − ELBO(full)]  +  [log p(x) − ELBO(flow)]
                  covariance                 flow                           rest

Amortisation is what a larger or better trained network could win; covariance and flow, what a richer guide could; the
rest is what these families leave, and the error of log p(x).

The parts add up exactly, for every datum, because each ELBO appears in two of them. A difference of ELBOs has the
standard error of paired draws; a part with log p(x) in it carries the error of log p(x). A q* that has not been
reached makes amortisation too small and the family's part too large by the same amount, so every datum says whether
its split is *resolved*: q* has converged and log p(x) is to be trusted.

References:
    Inference Suboptimality in Variational Autoencoders (Cremer, Li & Duvenaud, 2018), arXiv:1801.03558. There a datum
    was given a hundred q's, on training data, and the flow ended below the Gaussian; here one q, the data given, and
    each family starts from the best of the poorer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ..evidence import Evidence, mean_with_errors
from ..option_records import Optimiser
from ..options import instance_of, one_of
from ..pair import Batch, Program, as_batch
from ..records import Summarised, demand_as_many, of_data
from .refinement import Refinement, refine

if TYPE_CHECKING:
    import xarray as xr

PARTS = ("total", "amortisation", "family", "covariance", "flow", "rest")

# What must hold for a part: these members have converged, and log p(x) is to be trusted.
_NEEDS: dict[str, tuple[tuple[str, ...], bool]] = {
    "total": ((), True),
    "amortisation": (("guide",), False),
    "family": (("guide",), True),
    "covariance": (("guide", "full"), False),
    "flow": (("full", "flow"), False),
    "rest": (("flow",), True),
}


# In nats. Where log p(x) is known this well the weights are all but constant, and the shape of the tail of what is left
# of them, k̂, is that of rounding and of the optimiser's last steps.
_CONSTANT = 1e-3


@dataclass(frozen=True, repr=False)
class GapAttribution(Summarised):
    """The parts of log p(x) − ELBO for every datum, ``(num_data,)`` in nats.

    Attributes:
        log_evidence: log p(x), from the evidence that was given or estimated.
        log_evidence_standard_error: of ``log_evidence``.
        reliable: whether log p(x) is to be trusted, ``(num_data,)`` bool: k̂ < 0.7, or weights that hardly vary.
        refinement: the members whose ELBOs the parts are differences of.
    """

    printed: ClassVar = "num_data log_evidence elbo total amortisation family covariance flow rest"

    log_evidence: Tensor
    log_evidence_standard_error: Tensor
    reliable: Tensor
    refinement: Refinement

    @property
    def elbo(self) -> Tensor:
        """ELBO of the guide, ``(num_data,)``."""
        return self.refinement.members["amortised"].elbo

    @property
    def total(self) -> Tensor:
        """log p(x) − ELBO of the guide."""
        return self.log_evidence - self.elbo

    @property
    def amortisation(self) -> Tensor:
        """What the best member of the guide's family wins over the guide."""
        return self.refinement.members["guide"].gain

    @property
    def family(self) -> Tensor:
        """log p(x) − ELBO of the best member of the guide's family."""
        return self.total - self.amortisation

    @property
    def covariance(self) -> Tensor:
        """What full covariance wins over the best member of the guide's family."""
        return self.refinement.members["full"].gain

    @property
    def flow(self) -> Tensor:
        """What coupling layers win over full covariance."""
        return self.refinement.members["flow"].gain

    @property
    def rest(self) -> Tensor:
        """log p(x) − ELBO of the richest member."""
        return self.family - self.covariance - self.flow

    @property
    def standard_error(self) -> dict[str, Tensor]:
        """The Monte Carlo error of each part by name, ``(num_data,)``.

        log p(x) and an ELBO count as independent; where they come from the same draws this errs on the large side.
        """
        members = self.refinement.members

        def from_evidence(family: str) -> Tensor:
            return torch.hypot(self.log_evidence_standard_error, members[family].elbo_standard_error)

        return {
            "total": from_evidence("amortised"),
            "amortisation": members["guide"].gain_standard_error,
            "family": from_evidence("guide"),
            "covariance": members["full"].gain_standard_error,
            "flow": members["flow"].gain_standard_error,
            "rest": from_evidence("flow"),
        }

    def resolved_part(self, part: str) -> Tensor:
        """Whether a part is resolved, ``(num_data,)`` bool: the members it compares have converged, and log p(x), where
        the part holds it, is to be trusted.

        Args:
            part: ``total``, ``amortisation``, ``family``, ``covariance``, ``flow`` or ``rest``.

        Raises:
            OptionError: there is no such part.
        """
        one_of("part", part, PARTS)
        families, evidence = _NEEDS[part]
        holds = self.reliable.clone() if evidence else torch.ones_like(self.reliable)
        for family in families:
            holds &= self.refinement.members[family].converged
        return holds

    @property
    def resolved(self) -> Tensor:
        """Whether the split into family and amortisation is resolved, ``(num_data,)`` bool."""
        return self.resolved_part("family")

    def summary(self) -> dict[str, float]:
        """Means over all data in nats, with errors.

        For each part, and for ``log_evidence`` and ``elbo``: the mean and its ``*_standard_error``, of which
        ``*_monte_carlo_error`` and ``*_data_error`` are the parts, as in :meth:`Evidence.summary`. For each part
        ``*_resolved``, the share of data for which it is resolved; and ``num_data``.
        """
        out: dict[str, float] = {"num_data": len(self.total)}
        amortised = self.refinement.members["amortised"]
        rows = [
            ("log_evidence", self.log_evidence, self.log_evidence_standard_error),
            ("elbo", self.elbo, amortised.elbo_standard_error),
            *((part, getattr(self, part), self.standard_error[part]) for part in PARTS),
        ]
        for name, values, errors in rows:
            out |= {f"{name}{suffix}": value for suffix, value in mean_with_errors(values, errors).items()}
        out |= {f"{part}_resolved": float(self.resolved_part(part).double().mean()) for part in PARTS}
        return out

    def remarks(self) -> list[str]:
        """Remarks on the numbers, a sentence each; empty when there are none."""
        n = len(self.total)
        found = self.refinement.remarks()
        unreached = int((~self.refinement.members["guide"].converged).sum())
        if unreached:
            found.append(
                f"amortisation is not resolved for {of_data(unreached, n)}: there it is too small, and the family's "
                "part too large by the same amount."
            )
        doubtful = int((~self.reliable).sum())
        if doubtful:
            found.append(
                f"log p(x) is not to be trusted for {of_data(doubtful, n)}, and with it total, family and rest; they "
                "are probably larger: give the evidence of a stronger estimator."
            )
        below = int((self.rest + 3 * self.standard_error["rest"] < 0).sum())
        if below:
            found.append(
                f"the richest member's ELBO lies above log p(x) by more than three standard errors for "
                f"{of_data(below, n)}, which no ELBO can: log p(x) is too low there."
            )
        return found

    def to_dataset(self) -> xr.Dataset:
        """As an xarray Dataset with dim ``datum``, in nats."""
        import xarray as xr

        variables = {"log_evidence": self.log_evidence, "elbo": self.elbo}
        variables["log_evidence_standard_error"] = self.log_evidence_standard_error
        variables["elbo_standard_error"] = self.refinement.members["amortised"].elbo_standard_error
        for part in PARTS:
            variables[part] = getattr(self, part)
            variables[f"{part}_standard_error"] = self.standard_error[part]
        flags = {f"{part}_resolved": self.resolved_part(part) for part in PARTS}
        coords = {"datum": range(len(self.total))}
        dataset = xr.Dataset({k: ("datum", v.numpy()) for k, v in {**variables, **flags}.items()}, coords=coords)
        for name in variables:
            dataset[name].attrs["units"] = "nats"
        return dataset


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
            is. (The best member of a narrow family is a treacherous one: it sits inside the posterior.)
        optimiser: how each datum's ELBO is climbed, and for how long, :class:`~ppvae.inference.Optimiser`.
        num_draws: draws per datum that each ELBO, and by default log p(x), is estimated from.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.
        memory_mb: budget in MiB for one pass of the pair; a step takes one datum at least.
        progress: show a progress bar with the time that remains.

    Returns:
        GapAttribution: tensors of shape ``(num_data,)``, in nats.

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
    compute: Any = {"seed": seed, "memory_mb": memory_mb, "progress": progress}
    best = refine(model, guide, x, family="flow", optimiser=optimiser, num_draws=num_draws, **compute)
    evidence = best.evidence if evidence is None else evidence
    demand_as_many(len(evidence.log_evidence), len(best.elbo))
    reliable = evidence.trusted | (evidence.delta_standard_error < _CONSTANT)
    return GapAttribution(evidence.log_evidence, evidence.standard_error, reliable, best)
