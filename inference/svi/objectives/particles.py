"""Draws of the guide for a step of training, their log densities by unit, and the scale of the sum over units.

For K draws z_k ~ q_φ(z|x_n) of every unit n (a datum, or the data set where the data share latents),

    log w_{kn} = log p_θ(x_n, z_{kn}) − log q_φ(z_{kn}|x_n),        loss = −s Σ_n bound(log w_{1n}, …, log w_{Kn}).

A mini-batch of B of N data scales a sum, s = N/B, and the sum stands *outside* the logarithm. (Pyro's ``RenyiELBO`` has
both inside, so that its "lower bound" lies above log p(x) when a plate subsamples.) How draws meet data is what
:class:`~ppvae.inference.pair.Pair` finds out for any measurement: by broadcasting, by rows, or by one run a draw.

**Gradients along the path.** With z = z(ε, φ), ∇_φ log q_φ(z|x) is the path through z plus the score ∂_φ log q_φ at a
fixed z. The score is the gradient of one more evaluation of the guide at z held fixed, and is taken off: no parameter
need be swapped for a constant, and any guide will do whose density is the same in two runs.

References:
    Sticking the Landing (Roeder, Wu & Duvenaud, 2017), arXiv:1703.09194.
    Importance Weighted Autoencoders (Burda, Grosse & Salakhutdinov, 2016), arXiv:1509.00519.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ppvae.errors import PairError

from ...pair import Arguments, Batch, Pair, Program, Values


@dataclass(frozen=True)
class Particles:
    """K draws of the guide for each unit of a batch; log densities are ``(K, num_units)``, float64, in nats.

    Attributes:
        pair: both programs on the batch.
        num: K.
        scales: the scales of the sites that were run.
    """

    pair: Pair
    num: int
    scales: Scales

    @staticmethod
    def of(seen: Pair, batch: Batch, num: int) -> Particles:
        """The particles of a batch, from what was found out about its pair on another."""
        arguments, scales = replace(Arguments.of(batch), by_row=seen.arguments.by_row), Scales()
        model, guide = seen.model, seen.guide
        if seen.plates_made_whole:  # the programs choose the data of a step themselves: the same ones in every run
            shown, num_rows = _subsample(guide, batch, seen.structure.plates.data)
            model, guide = poutine.replay(model, trace=shown), poutine.replay(guide, trace=shown)
            arguments = replace(arguments, num_rows=num_rows or arguments.num_rows)
        programs = replace(seen.programs, model=scales.noted(model), guide=scales.noted(guide))
        return Particles(replace(seen, programs=programs, arguments=arguments), num, scales)

    def log_weights(self) -> Tensor:
        """log w of fresh draws, with gradients through the draws."""
        return self.pair.log_weights(self.num)

    def draws(self) -> tuple[Values, Tensor]:
        """Fresh draws z by site, ``(K, num_units, ...)``, and their log q(z|x)."""
        body = self.pair.programs.proposals
        drawn = self.pair.run(body, self.num, {}, self.pair.guide_layout, random=True)
        log_q = drawn.pop("log_q")
        return drawn, log_q

    def log_joint(self, z: Values) -> Tensor:
        """log p(x, z) at draws."""
        return self.pair.run(self.pair.programs.densities, self.num, z, self.pair.model_layout)["log_p"]

    def log_guide(self, z: Values) -> Tensor:
        """log q(z|x) at draws."""
        return self.pair.log_guide(z, self.num)

    def log_densities(self) -> tuple[Tensor, Tensor]:
        """log p(x, z) and log q(z|x) of fresh draws that are held fixed."""
        with torch.no_grad():
            z, _ = self.draws()
        return self.log_joint(z), self.log_guide(z)

    def along_path(self, z: Values, log_q: Tensor) -> Tensor:
        """log q(z|x), whose gradient is that along the path z(ε, φ) alone, without the score."""
        return log_q - without_value(self.log_guide(held(z)))


class Scales:
    """The scales of the sites of both programs, which must be one number: that of the sum over units."""

    def __init__(self) -> None:
        self._found: dict[str, Any] = {}

    def noted(self, program: Program) -> Program:
        """The program, whose sites' scales are noted when it runs."""
        return _Note(self._found)(program)

    @property
    def common(self) -> float:
        """The scale of all sites.

        Raises:
            PairError: two sites have different scales, which no factor outside the logarithm stands for.
        """
        if any(isinstance(scale, Tensor) for scale in self._found.values()):
            raise PairError(
                "a site is scaled by a tensor (poutine.scale), which importance weights have no place for: leave "
                "it out, or train with Trace_ELBO."
            )
        sizes = {float(scale) for scale in self._found.values()}
        if len(sizes) > 1:
            named = ", ".join(f"{name!r} by {float(scale):g}" for name, scale in sorted(self._found.items()))
            raise PairError(
                f"sites have different scales ({named}), and with a scale inside the logarithm there is no bound: "
                "where data that share latents are subsampled, show all of them in a step or train with Trace_ELBO; "
                "where a KL term is weighted, leave poutine.scale out and train with Beta."
            )
        return sizes.pop() if sizes else 1.0


class _Note(Messenger):
    def __init__(self, found: dict[str, Any]) -> None:
        super().__init__()
        self._found = found

    def _pyro_post_sample(self, msg: Any) -> None:
        if type(msg["fn"]).__name__ != "_Subsample" and not msg["infer"].get("_deterministic", False):
            self._found[msg["name"]] = msg["scale"]


def held(z: Values) -> Values:
    """The draws as constants."""
    return {name: value.detach() for name, value in z.items()}


def without_value(term: Tensor) -> Tensor:
    """Zero, with the gradient of a term."""
    return term - term.detach()


def valued(value: Tensor, surrogate: Tensor) -> Tensor:
    """A value with the gradient of something else."""
    return value.detach() + without_value(surrogate)


def log_mean(log_w: Tensor) -> Tensor:
    """log (1/K) Σ_k w_k of each unit."""
    return log_w.logsumexp(0) - math.log(len(log_w))


def _subsample(guide: Program, batch: Batch, data: str | None) -> tuple[poutine.Trace, int | None]:
    """The subsamples that a run of the guide draws, and how many data the plate over them shows."""
    shown, size = poutine.Trace(), None
    with torch.no_grad(), poutine.block():
        trace: Any = poutine.trace(guide).get_trace(*batch)
    for name, node in trace.nodes.items():
        if node["type"] == "sample" and type(node["fn"]).__name__ == "_Subsample":
            shown.add_node(name, **node)
        elif node["type"] == "sample":
            size = next((f.size for f in node["cond_indep_stack"] if f.name == data), size)
    return shown, size
