"""Calibration by a classifier between the model's latents and the guide's draws, on data drawn from the model.

A simulation is u* ~ p(u), x' ~ p(x|u*), so that u* is a draw of the posterior p(u|x'). Beside it stand u_1 … u_L ~
q(u|x'). A classifier gives each of the 1 + L a score s(u, x'), linear in features φ, and says which is u*: by

    P(k | u_0 … u_L, x') = exp s(u_k, x') / Σ_j exp s(u_j, x').

**Divergence.** With n simulations on which the classifier was not fitted, the mean of Λ = log P(u*) + log(1 + L) has an
expectation that is at most the mutual information D_L of label and set. D_L ≤ E_{p(x')} KL(p(u|x') ‖ q(u|x')), since
the mixture of the laws under each label is nearer to them than q⊗…⊗q is, and D_L ≤ log(1 + L).

**Two scores.** The best one is known, s = log w = log p(x', u) − log q(u|x'), since log p(x') cancels. It needs no fit
and reaches D_L, if both programs state the densities that they draw from. The other is learnt by logistic regression
and sees what densities do not say. Its features are log w, log q, and the latents z standardised by other draws of the
guide, z_j², z_j z_k, z_j m_j (m the guide's mean); with those of one unit alone it says where a fault lies.

**p-values.** If q is the posterior, each of the 1 + L is u* with the same probability whatever the set is. The
simulations are cut into five parts, each scored by a classifier that was fitted on the parts before it, so that given
the past its labels are uniform: the p-value of a part, by drawing labels anew, is exact, and those of the four parts
are independent and are joined by Stouffer's rule. No classifier is fitted again. The parts' Λ are martingale
differences, so that their spread gives the error of the mean.

**Power.** For small D, Λ has the mean D if labels are the posterior's, −D if they are uniform, and the variance 2D.
Both p-values are doubled, so that the smallest D found with probability 0.8 at a risk of 5 % is 2.80²/2M.
Reference: Discriminative Calibration (Yao & Domke, 2023), arXiv:2305.14593.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ppvae.errors import PairError
from ppvae.progress import Progress

from ..options import valid_compute, whole_number
from ..pair import Batch, Pair, Program, as_batch, finite_batch, seeded, where_parameters_are, why_slow
from ..records import Summarised
from .calibrate import SimulatedData
from .classifier_scores import Candidates, candidates, known, scored
from .ranks import holm, shape_p_value
from .simulation import unit_names
from .view import LEVEL, mean_and_error

# Latents up to which products are features.
MOST_PRODUCTS = 12
# z_0.975 + z_0.8, levels of the central regions, and thirds of the data.
NEEDED, LEVELS, REGIONS = 2.802, (0.5, 0.8, 0.95), ("least probable", "middle", "most probable")


@dataclass(frozen=True, repr=False)
class Discrimination(Summarised):
    """How well a classifier tells exact draws from the guide's.

    Attributes:
        score: Λ with s = log w, ``(num_simulations,)``, in nats.
        score_p_value: that the guide is the posterior, by this score.
        learnt_score: Λ with a learnt score, of the simulations on which it was not fitted, ``(num_scored,)``, in nats.
        learnt_p_value: by the learnt score.
        unit: name of every unit, such as ``z[3]``.
        unit_score: Λ with the features of one unit alone, ``(num_units, num_scored)``, in nats.
        unit_p_value: of each unit, as it is, ``(num_units,)``.
        elbo: of every simulation, ``(num_simulations,)``, in nats: how probable the guide holds x' to be.
        depth: of the exact draw among the guide's, uniform if the guide is right; ``(num_simulations,)``. At most c
            where u* lies in the guide's central region of probability c.
    """

    printed: ClassVar = "num_simulations divergence p_value detectable units_faulty"

    score: Tensor
    score_p_value: float
    learnt_score: Tensor
    learnt_p_value: float
    unit: tuple[str, ...]
    unit_score: Tensor
    unit_p_value: Tensor
    elbo: Tensor
    depth: Tensor

    @property
    def p_value(self) -> float:
        """The p-value of "the guide is the posterior": twice the smaller of the two scores' p-values."""
        return min(1.0, 2 * min(self.score_p_value, self.learnt_p_value))

    @property
    def divergence(self) -> tuple[float, float]:
        """The mean of Λ and its standard error: a lower bound on the mean KL(p(u|x) ‖ q(u|x)), in nats."""
        return mean_and_error(self.score)

    @property
    def faulty(self) -> bool:
        """Whether the guide is not the posterior, at a risk of 5 %."""
        return self.p_value <= LEVEL

    @cached_property
    def adjusted(self) -> Tensor:
        """p-values of the units after Holm's rule, ``(num_units,)``: at most 5 % risk of any false one at 0.05."""
        return torch.from_numpy(holm(self.unit_p_value.numpy()))

    @property
    def units_faulty(self) -> tuple[str, ...]:
        """The units that are at fault by themselves."""
        return tuple(name for name, p in zip(self.unit, self.adjusted.tolist(), strict=True) if p <= LEVEL)

    @property
    def depth_p_value(self) -> float:
        """The p-value of "the depths are uniform"."""
        return float(shape_p_value(self.depth.numpy()[:, None])[0])

    @property
    def detectable(self) -> float:
        """The smallest divergence that is found with probability 0.8 with as many simulations, in nats."""
        return NEEDED**2 / (2 * len(self.score))

    def coverage(self, level: float) -> tuple[float, float]:
        """How many exact draws lie in the guide's central region of this probability, and the standard error."""
        inside = float((self.depth <= level).double().mean())
        return inside, math.sqrt(max(level * (1 - level), 0.0) / len(self.depth))

    def by_region(self) -> dict[str, tuple[float, float]]:
        """The divergence in the thirds of the simulations, by the guide's ELBO of x': mean and standard error."""
        thirds = self.elbo.argsort().tensor_split(3)
        return {name: mean_and_error(self.score[third]) for name, third in zip(REGIONS, thirds, strict=True)}

    def summary(self) -> dict[str, float]:
        """Divergence in nats, p-values, coverage and power."""
        mean, error = self.divergence
        out: dict[str, float] = {"num_simulations": len(self.depth), "divergence": mean}
        out |= {"divergence_standard_error": error, "p_value": self.p_value, "detectable": self.detectable}
        out["learnt_divergence"], out["learnt_divergence_standard_error"] = mean_and_error(self.learnt_score)
        out |= {"units_faulty": len(self.units_faulty), "units_least_p": float(self.adjusted.min())}
        for level in LEVELS:
            out[f"coverage_{level:g}"], out[f"coverage_{level:g}_standard_error"] = self.coverage(level)
        return out | {"depth_p": self.depth_p_value}

    def remarks(self) -> list[str]:
        """What a classifier can tell, how far, and where."""
        mean, error = self.divergence
        if not self.faulty:
            return [
                "no classifier told the guide's draws from exact ones; a divergence of "
                f"{self.detectable:.2g} nats would have been seen with probability 0.8."
            ]
        out = [
            f"the guide is not the posterior (p = {self.p_value:.1g}): KL(p ‖ q) is at least {mean:.2g} ± {error:.1g} "
            "nats on simulations from the prior."
        ]
        if self.units_faulty:
            scores = self.unit_score.mean(-1)
            worst = sorted(self.units_faulty, key=lambda name: -float(scores[self.unit.index(name)]))
            out.append(f"units with faults: {', '.join(worst[:6])}{' and others' if len(worst) > 6 else ''}.")
        else:
            out.append("no unit is at fault by itself: a correlation is wrong or missing, or faults change with x.")
        found = self.by_region()
        (low, low_error), (high, high_error) = found[REGIONS[0]], found[REGIONS[-1]]
        if abs(low - high) > 3 * math.hypot(low_error, high_error):
            where = REGIONS[0] if low > high else REGIONS[-1]
            out.append(f"it is worse on the {where} data ({low:.2g} and {high:.2g} nats on the outer thirds).")
        return out


def discriminative_calibration(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    *,
    num_simulations: int = 1000,
    num_draws: int = 5,
    seed: int | None = None,
    memory_mb: float = 64.0,
    progress: bool = False,
) -> Discrimination:
    """Train a classifier to tell exact draws from the guide's, on data simulated from the prior.

    Args:
        model: ``model(x, *context)``, the generative program; its data must be drawable.
        guide: ``guide(x, *context)``; its latents all live on a continuum.
        x: data, first dimension ``num_data``; or a tuple ``(x, *context)``. They show shape and context.
        num_simulations: M, at least 100; the learnt score is tried on four fifths of them.
        num_draws: L, draws of the guide beside each exact one; 50 more standardise.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.
        memory_mb: budget in MiB for one pass of the pair; M·(L + 51) draws come on top.
        progress: show a progress bar with the time that remains.

    Returns:
        Discrimination: p-value, lower bound on the KL in nats, units at fault, coverage and power.

    Raises:
        OptionError: an option has a value that cannot be used.
        DataError: ``x`` is not a tensor of at least one datum, or it holds NaN or infinite values.
        PairError: as :func:`ppvae.inference.calibrate` raises it.

    Example:
        >>> import torch
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair = LinearGaussian(num_features=5, latent_dim=2).set_exact_guide()
        >>> x = torch.randn(20, 5)
        >>> discriminative_calibration(pair.model, pair.guide, x, num_simulations=300, seed=0).faulty
        False
        >>> with torch.no_grad():
        ...     _ = pair.guide_log_scale.sub_(0.7)
        >>> found = discriminative_calibration(pair.model, pair.guide, x, num_simulations=300, seed=0)
        >>> found.faulty, found.units_faulty
        (True, ('z[0]', 'z[1]'))
    """
    num_simulations = whole_number("num_simulations", num_simulations, least=100)
    num_draws = whole_number("num_draws", num_draws, least=1)
    seed, memory_mb, progress = valid_compute(seed, memory_mb, progress)
    batch = where_parameters_are(model, guide, finite_batch(as_batch(x)))
    job = SimulatedData(num_simulations, num_draws, memory_mb)
    with seeded(seed), Pair.on(model, guide, batch, start="prior") as pair:
        if pair.dim == 0:
            raise PairError("the model has no latent on a continuum to calibrate: give a pair that has one.")
        with Progress("classifier", num_simulations, "simulations", progress, why_slow(pair)) as bar, torch.no_grad():
            sets = candidates(job.pairs(pair, None), num_draws, memory_mb, bar)
        return discriminate(sets, unit_names(pair))


def discriminate(sets: Candidates, unit: tuple[str, ...]) -> Discrimination:
    """The classifiers of all features and of each unit's, scored part by part."""
    generator = np.random.default_rng(int(torch.randint(2**31, ())))
    position = (sets.mean - sets.mean.mean(0)) / sets.mean.std(0).clamp(min=1e-300)
    own = torch.stack([sets.z, sets.z.square(), sets.z * position[:, None]], -1)
    products = [sets.z[..., i] * sets.z[..., j] for i in range(len(unit)) for j in range(i)]
    more = [sets.log_w, sets.log_q, *(products if len(unit) <= MOST_PRODUCTS else [])]
    features = torch.cat([own.flatten(-2), torch.stack(more, -1)], -1).numpy()
    score, tail = known(sets.log_w.numpy(), generator)
    learnt, learnt_tail = scored(features, generator)
    by_unit = [scored(own[:, :, j].numpy(), generator) for j in range(len(unit))]
    distance = sets.z.square().sum(-1)
    below = (distance[:, 1:] < distance[:, :1]).sum(-1).double()
    depth = (below + torch.from_numpy(generator.uniform(size=len(below)))) / distance.shape[1]
    return Discrimination(
        torch.from_numpy(score),
        tail,
        torch.from_numpy(learnt),
        learnt_tail,
        unit,
        torch.from_numpy(np.stack([one for one, _ in by_unit])),
        torch.tensor([one for _, one in by_unit], dtype=torch.float64),
        sets.elbo,
        depth.clamp(1e-12, 1 - 1e-12),
    )
