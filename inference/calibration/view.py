"""What simulations from one source say of a guide: ranks, joint tests, divergence, and their verdict in words.

Every unit (one unconstrained coordinate of a latent) has three p-values, of shape, mean and spread of its ranks
(:mod:`ppvae.inference.calibration.ranks`), and all units together have two more, of the shape alone, for the ranks of

    the distance   |u − ρ| to a random place ρ, in units of the spread of {u*, u_1 … u_K}     (TARP),
    the density    log p(x, u).

Both see a wrong correlation that no marginal shows; the second also sees a guide that ignores x, whose every other rank
is uniform. All 3J + 2 p-values are adjusted by Holm's rule, so that a guide which is right is faulted anywhere in this
view with probability at most 5 %; half of it each, where two views are asked for.

A unit's verdict is read off its adjusted p-values, held against that level. Let s be the normal scores of its ranks:
s̄ > 0 means that the exact draws lie above the guide's.

    mean     small    biased down if s̄ > 0, biased up if s̄ < 0
    spread   small    too narrow if Var s > 1, too wide if Var s < 1; not said where |s̄| > 1.5, since ranks that are
                      heaped at an end have lost their spread
    shape    small    wrong shape, if neither of the others

A guide whose bias changes from datum to datum, as with an encoder that is too small, is too narrow by this rule: its
exact draws scatter about its means more widely than it says.

References:
    Sampling-Based Accuracy Testing of Posterior Estimators for General Inference (Lemos, Coogan, Hezaveh &
    Perreault-Levasseur, 2023), arXiv:2302.03026: TARP.
    Simulation-Based Calibration Checking for Bayesian Computation: The Choice of Test Quantities Shapes Sensitivity
    (Modrák et al., 2023), arXiv:2211.02383: the joint density.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import scipy
import torch
from torch import Tensor

from ..records import Summarised
from .ranks import holm, p_values, shape_p_value

Anchor = Literal["prior", "data"]

# Chance that a guide which is right is faulted.
LEVEL = 0.05
JOINT = ("distance", "density")
# Above this |s̄| the spread of the ranks says nothing.
HEAPED = 1.5
# Faults whose power is stated: a guide whose standard deviation is 0.8 of the posterior's; one shifted by 0.25 of it.
SCALE, BIAS = 0.8, 0.25
REPEATS = 100


@dataclass(frozen=True, repr=False)
class View(Summarised):
    """M simulations from one source, and how a guide did on them.

    Attributes:
        anchor: ``"prior"``, u* ~ p(u); or ``"data"``, u* ~ r(u), which was fitted to the guide's draws at the data.
        unit: name of every unit, such as ``z[3]``.
        pit: U of every simulation and unit, ``(num_simulations, num_units)``; uniform if the guide is right.
        joint_pit: the same for distance and density, ``(num_simulations, 2)``.
        symmetric_kl: log w(u*) − Σ_k v_k log w(u_k) / Σ_k v_k of every simulation, ``(num_simulations,)``, in nats. Its
            mean estimates KL(p ‖ q) + KL(q ‖ p), with v = 1 without bias; a single one may be negative.
        elbo: (1/K) Σ_k log w(u_k), ``(num_simulations,)``, in nats.
        gap: log (1/K) Σ_k w(u_k) − ``elbo``, ``(num_simulations,)``, in nats; its expectation lies below KL(q ‖ p).
        weights: v of u* and of the draws, which add up to one, ``(1 + num_draws, num_simulations)``.
        level: chance that a guide which is right is faulted in this view.
    """

    printed: ClassVar = "num_simulations gap symmetric_kl units_faulty"

    anchor: Anchor
    unit: tuple[str, ...]
    pit: Tensor
    joint_pit: Tensor
    symmetric_kl: Tensor
    elbo: Tensor
    gap: Tensor
    weights: Tensor
    level: float = LEVEL

    @property
    def num_simulations(self) -> int:
        """M, the number of simulations."""
        return len(self.pit)

    @property
    def num_draws(self) -> int:
        """K, the guide's draws for each simulation."""
        return len(self.weights) - 1

    @property
    def ess(self) -> Tensor:
        """(Σv)²/Σv² of the K draws of every simulation, ``(num_simulations,)``; K where they are not weighted."""
        v = self.weights[1:]
        return v.sum(0).square() / v.square().sum(0).clamp(min=1e-300)

    @cached_property
    def p_value(self) -> Tensor:
        """The p-values of shape, mean and spread of every unit, ``(num_units, 3)``, not adjusted."""
        return torch.from_numpy(p_values(self.pit.numpy()))

    @cached_property
    def joint_p_value(self) -> Tensor:
        """The p-values of distance and density, ``(2,)``, not adjusted."""
        return torch.from_numpy(shape_p_value(self.joint_pit.numpy()))

    @cached_property
    def adjusted(self) -> tuple[Tensor, Tensor]:
        """All p-values adjusted by Holm's rule, to be compared with the level."""
        every = holm(np.concatenate([self.p_value.numpy().ravel(), self.joint_p_value.numpy()]))
        return torch.from_numpy(every[:-2].reshape(-1, 3)), torch.from_numpy(every[-2:])

    @property
    def scores(self) -> Tensor:
        """s = Φ⁻¹(U), ``(num_simulations, num_units)``."""
        return torch.from_numpy(scipy.special.ndtri(self.pit.numpy()))

    @property
    def bias(self) -> Tensor:
        """−s̄ of every unit: how far the guide lies above the exact draws, in its own standard deviations."""
        return -self.scores.mean(0)

    @property
    def width(self) -> Tensor:
        """1/sd(s) of every unit: the guide's standard deviation in those that the exact draws ask for.

        Ranks among K draws do not reach beyond Φ⁻¹(1/(K + 1)), so that gross faults of width and bias are understated.
        """
        return 1 / self.scores.std(0)

    @cached_property
    def verdict(self) -> tuple[str, ...]:
        """ "fine", "too narrow", "too wide", "biased up", "biased down", two of these, or "wrong shape", by unit."""
        mean, std = self.scores.mean(0).tolist(), self.scores.std(0).tolist()
        rejected = (self.adjusted[0] <= self.level).tolist()
        return tuple(_words(*unit) for unit in zip(rejected, mean, std, strict=True))

    @property
    def joint_faults(self) -> tuple[str, ...]:
        """Which of distance and density are not uniform."""
        return tuple(name for name, p in zip(JOINT, self.adjusted[1].tolist(), strict=True) if p <= self.level)

    @property
    def faulty(self) -> bool:
        """Whether the guide is not the posterior, at a risk of the level."""
        return bool(self.joint_faults) or any(word != "fine" for word in self.verdict)

    def power(self, scale: float = 1.0, bias: float = 0.0) -> float:
        """The probability of finding one unit at fault, for a guide N(m + bias·s, (scale·s)²) and a posterior N(m, s²).

        Simulated with as many simulations, draws and tests as here, and with these weights, taken as independent of
        where in this unit the draws lie; which of a simulation's draws is the exact one is drawn by its weight. A
        p-value has to be below level/(3J + 2), so that Holm's rule has somewhat more power than is stated. Near data
        the fault is that of the guide under r, from the posterior under r: a guide's scale is nearer to 1 there.
        """
        generator, every = np.random.default_rng(0), np.arange(self.num_simulations)
        v = self.weights.numpy()
        up_to = v.cumsum(0)
        pit = np.empty((self.num_simulations, REPEATS))
        for i in range(REPEATS):
            exact = (up_to < up_to[-1] * generator.uniform(size=len(every))).sum(0)
            u = bias + scale * generator.standard_normal(v.shape)
            u[exact, every] = generator.standard_normal(len(every))
            below = u < u[exact, every]
            pit[:, i] = (v * below).sum(0) + generator.uniform(size=len(every)) * v[exact, every]
        least = np.finfo(float).eps
        p = p_values(pit.clip(least, 1 - least))
        return float((p <= self.level / (3 * len(self.unit) + 2)).any(-1).mean())

    @cached_property
    def stated_power(self) -> tuple[float, float]:
        """The power against a scale of 0.8 and against a bias of 0.25."""
        return self.power(scale=SCALE), self.power(bias=BIAS)

    def summary(self) -> dict[str, float]:
        """Means over the simulations in nats with standard errors, faults found, least p-values, and power."""
        out: dict[str, float] = {"num_simulations": self.num_simulations, "num_draws": self.num_draws}
        for name in ("symmetric_kl", "elbo", "gap"):
            out[name], out[f"{name}_standard_error"] = mean_and_error(getattr(self, name))
        out["units_faulty"] = sum(word != "fine" for word in self.verdict)
        out["units_least_p"] = float(self.adjusted[0].min())
        out |= {f"{name}_p": float(p) for name, p in zip(JOINT, self.adjusted[1], strict=True)}
        out["ess_mean"] = float(self.ess.mean())
        out[f"power_scale_{SCALE}"], out[f"power_bias_{BIAS}"] = self.stated_power
        return out

    def remarks(self) -> list[str]:
        """What the ranks say, a sentence for each kind of fault; and what they could not have seen."""
        where, out = SOURCES[self.anchor], []
        for word in dict.fromkeys(self.verdict):
            if word != "fine":
                names = [self._described(j) for j, w in enumerate(self.verdict) if w == word]
                out.append(
                    f"{where}, the guide is {word.replace('wrong shape', 'of the wrong shape')} in {_list(names)}."
                )
        if self.joint_faults and not any(word != "fine" for word in self.verdict):
            out.append(
                f"{where}, no unit is at fault by itself but all are together (ranks of "
                f"{' and '.join(self.joint_faults)}): a correlation is wrong or missing, or the guide does not heed x."
            )
        if self.faulty and self.symmetric_kl.isfinite().all():
            kl, error = mean_and_error(self.symmetric_kl)
            out.append(f"{where}, the expected symmetric KL is {kl:.3g} ± {error:.2g} nats.")
        broken = int((~self.symmetric_kl.isfinite()).sum())
        if broken:
            out.append(f"{where}, log weights of {broken} of {self.num_simulations} simulations are not finite.")
        scale, bias = self.stated_power
        if min(scale, bias) < 0.95:
            out.append(
                f"{where}, a unit's scale of {SCALE} would be found with probability {scale:.2f}, a bias of {BIAS} sd "
                f"with {bias:.2f}: {self._remedy()}."
            )
        return out

    def _described(self, j: int) -> str:
        return f"{self.unit[j]} (bias {float(self.bias[j]):+.2f} sd, width {float(self.width[j]):.2f})"

    def _remedy(self) -> str:
        if float(self.ess.mean()) < 10:
            return f"its weights leave {float(self.ess.mean()):.1f} of {self.num_draws} draws; give more draws"
        return "give more simulations"


SOURCES: dict[str, str] = {"prior": "on simulations from the prior", "data": "on simulations near the data"}


def _words(rejected: Sequence[bool], mean: float, std: float) -> str:
    """The verdict on one unit; see the module."""
    shape, off, spread = rejected
    found = ["biased down" if mean > 0 else "biased up"] if off else []
    if spread and abs(mean) <= HEAPED:
        found.append("too narrow" if std > 1 else "too wide")
    return " and ".join(found) or ("wrong shape" if shape or spread else "fine")


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean over simulations and its standard error."""
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def _list(names: Sequence[Any]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
