"""The ELBO with a weight on its KL term, fixed or by a schedule.

    β-ELBO(x) = E_q[log p_θ(x|z)] − β KL(q_φ(z|x) ‖ p_θ(z)) = E_q[log p_θ(x|z) + β (log p_θ(z) − log q_φ(z|x))].

β = 1 is the ELBO, β = 0 leaves the reconstruction alone, and with β < 1 the value is no bound on log p(x) (the ELBO
that ``fit`` reports of the validation data is unweighted). The weight is Pyro's scale at every site that the guide
draws, in both programs, and the rest is left to one of Pyro's ELBOs: ``TraceMeanField_ELBO`` takes the KL in closed
form where there is one, ``TraceEnum_ELBO`` sums enumerated sites out, and score functions are weighted rightly. A site
that only the model sums out is a part of log p_θ(x|z).

The weight is a tensor, so that a compiled step reads it anew each time. ``fit`` tells the objective the number of the
step; with Pyro's ``SVI`` it counts the calls of ``loss_and_grads``.

References:
    beta-VAE (Higgins et al., 2017), ICLR; for schedules see :mod:`.schedules`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.infer import ELBO
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ppvae.errors import OptionError

from ...options import not_negative
from ...pair import Batch, Program, elbo_for, plain_traces


class Beta(ELBO):
    """Minus the ELBO with its KL term weighted by β: see the module.

    Args:
        weight: β ≥ 0, or a function of the number of steps taken, such as ``WarmUp(1000)`` or ``Cyclical(500)``.
        elbo: the ELBO of Pyro's that is weighted; by default ``Trace_ELBO``, or ``TraceEnum_ELBO`` where a site is
            enumerated. ``TraceMeanField_ELBO()`` has the KL in closed form.

    Attributes:
        steps: steps that Pyro's ``SVI`` has taken; to be set when its training goes on from a checkpoint.

    Example:
        >>> import torch
        >>> from ppvae.inference import fit
        >>> from ppvae.inference.svi.objectives import WarmUp
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair, x = LinearGaussian(num_features=3, latent_dim=1), torch.randn(20, 3)
        >>> trained = fit(pair.model, pair.guide, x, loss=Beta(WarmUp(num_steps=10)), epochs=2, progress=False)
        >>> trained.steps
        2
    """

    def __init__(self, weight: float | Callable[[int], float], elbo: ELBO | None = None) -> None:
        """Make the objective; the class says what its arguments are."""
        super().__init__()
        if elbo is not None and not hasattr(elbo, "differentiable_loss"):
            raise OptionError(
                f"elbo must have a differentiable loss to be weighted; {type(elbo).__name__} has none: give "
                "Trace_ELBO or TraceEnum_ELBO."
            )
        self._weight_of = weight if callable(weight) else None
        self._weight = torch.tensor(0.0 if callable(weight) else not_negative("weight", weight), dtype=torch.float64)
        self._elbo: Any = elbo
        self.steps = 0
        self.at_step(0)

    @property
    def elbo(self) -> Any:
        """The ELBO that is weighted; None until the first call has found which, if none was given."""
        return self._elbo

    def at_step(self, step: int) -> None:
        """Take the weight of a step.

        Raises:
            OptionError: the schedule returns no number that is at least 0.
        """
        if self._weight_of is None:
            return
        weight = float(self._weight_of(step))
        if not (math.isfinite(weight) and weight >= 0):
            raise OptionError(f"the weight of step {step} must be a finite number of at least 0; it is {weight}.")
        self._weight.fill_(weight)

    def differentiable_loss(self, model: Program, guide: Program, *args: Any) -> Tensor:
        """The loss as a tensor, in nats, summed over units."""
        return self._found(model, guide, args).differentiable_loss(*self._weighted(model, guide), *args)

    def loss(self, model: Program, guide: Program, *args: Any) -> float:
        """The loss, a number, at the present weight."""
        return float(self._found(model, guide, args).loss(*self._weighted(model, guide), *args))

    def loss_and_grads(self, model: Program, guide: Program, *args: Any) -> float:
        """The loss of the next step of Pyro's ``SVI``, with its gradients added to those of the parameters."""
        self.at_step(self.steps)
        self.steps += 1
        return float(self._found(model, guide, args).loss_and_grads(*self._weighted(model, guide), *args))

    def _found(self, model: Program, guide: Program, args: Batch) -> Any:
        """The ELBO that is weighted."""
        if self._elbo is None:
            with poutine.block():
                self._elbo = elbo_for(*plain_traces(model, guide, args))
        return self._elbo

    def _weighted(self, model: Program, guide: Program) -> tuple[Program, Program]:
        drawn: set[str] = set()  # by the guide, which runs first
        return _Weigh(self._weight, drawn, False)(model), _Weigh(self._weight, drawn, True)(guide)

    def _get_trace(self, model: Program, guide: Program, args: Batch, kwargs: Any) -> Any:
        """A run of both programs with weighted sites, as Pyro's ELBOs make it."""
        return self._found(model, guide, args)._get_trace(*self._weighted(model, guide), args, kwargs)


class _Weigh(Messenger):
    """Scales every site that the guide draws."""

    def __init__(self, weight: Tensor, drawn: set[str], of_guide: bool) -> None:
        super().__init__()
        self._weight, self._drawn, self._of_guide = weight, drawn, of_guide

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or type(msg["fn"]).__name__ == "_Subsample":
            return
        if self._of_guide:
            self._drawn.add(msg["name"])
        if msg["name"] in self._drawn:
            msg["scale"] = msg["scale"] * self._weight
