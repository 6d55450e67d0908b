"""Guides that take gradient steps on each datum's own ELBO: semi-amortised inference as a program.

The guide gives the parameters φ₀ of its sites for a datum. From there T steps of gradient ascent on that datum's ELBO,

    δ_{t+1} = δ_t + 2 s tanh(η_t s ∇_δ ELBO(x; φ₀ ⊕ δ_t)/2),      φ_T = T(T⁻¹(φ₀) + δ_T),

lead to the parameters that the guide draws with; s is the natural unit of each parameter (:mod:`ppvae.inference.gap`),
and no step is longer than two of them. The ELBO in each step is a mean over draws whose noise is fixed, the same for
every datum and another for every step. So φ_T is a function of the datum alone, log q(z|x) is as exact as that of the
guide without steps, and whatever takes the guide takes this one; it costs T gradients of model and guide on S draws.

The steps' sizes η_t, one for each kind of parameter, are trained; so are the guide's own parameters, as if the
gradients in the steps were constants.

References:
    Semi-Amortized Variational Autoencoders (Kim, Wiseman, Miller, Sontag & Rush, 2018), arXiv:1802.02550.
    Iterative Amortized Inference (Marino, Yue & Mandt, 2018), arXiv:1807.09356.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from ppvae.errors import PairError

from ..gap import place, shifted_guide
from ..pair import Arguments, Frame, Pair, Programs
from .guide_reader import GuideReader, reader_of

# Gradient steps T, and draws S of each step: half of them are the others with the sign of the noise turned.
NUM_STEPS, NUM_DRAWS = 8, 8
# The size of a step before any training; the longest step, in natural units.
FIRST_RATE, LONGEST = 0.1, 2.0
# Draws that a natural unit is read off.
_UNIT_DRAWS = 64


class SteppedGuide:
    """The guide with its parameters bettered by gradient steps; made by :func:`stepped`.

    Attributes:
        programs: of the pair whose guide it began as.
        reader: which parameters are moved.
        networks: sizes of the steps, natural units, and the noise of the draws.
        name: of the networks in Pyro's parameter store.
    """

    def __init__(self, programs: Programs, reader: GuideReader, networks: Steps, name: str) -> None:
        self.programs, self.reader, self.networks, self.name = programs, reader, networks, name

    def __call__(self, *batch: Any) -> Any:
        """Run the guide with the parameters that the steps lead to."""
        networks: Any = pyro.module(self.name, self.networks)
        deltas = {offset.key: torch.zeros(()) for offset in self.reader.offsets}
        for step in range(NUM_STEPS):
            slopes = self._slopes(batch, deltas, networks.noise(step))
            for i, offset in enumerate(self.reader.offsets):
                unit = networks.units[i]
                moved = torch.tanh(networks.log_rates[step, i].exp() * unit * slopes[offset.key] / LONGEST)
                deltas[offset.key] = deltas[offset.key] + LONGEST * unit * moved
        return shifted_guide(self.programs.guide, place(self.reader.offsets, deltas, self.reader.frame(batch)))(*batch)

    def _slopes(self, batch: Any, deltas: dict[str, Tensor], noise: dict[str, Tensor]) -> dict[str, Tensor]:
        """∇_δ of every datum's ELBO, ``(num_rows, *shape)`` by offset."""
        num_rows = len(batch[0])
        arguments = replace(Arguments.of(batch), by_row=self.reader.by_row).repeated(NUM_DRAWS)
        frame = Frame(self.reader.plates, NUM_DRAWS * num_rows, None, batch[0].device)
        with poutine.block(), torch.enable_grad():
            leaves = {
                offset.key: deltas[offset.key].detach().expand(num_rows, *offset.shape).clone().requires_grad_()
                for offset in self.reader.offsets
            }
            repeated = {name: leaf.repeat(NUM_DRAWS, *(1,) * (leaf.dim() - 1)) for name, leaf in leaves.items()}
            guide: Any = shifted_guide(self.programs.guide, place(self.reader.offsets, repeated, frame))
            drawn = {
                name: frame.by_program(eps.repeat_interleave(num_rows, 0), self.programs.sites[name].plates)
                for name, eps in noise.items()
            }
            programs = replace(self.programs, guide=FixedDraws(drawn)(guide))
            model_trace, guide_trace = programs.traces(frame, arguments.batch)
            total = programs.weigh(frame, model_trace, guide_trace).sum() / NUM_DRAWS
            slopes = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        zero = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
        found = zip(leaves, slopes, strict=True)
        return {name: zero[name] if slope is None else slope.nan_to_num() for name, slope in found}


class Steps(nn.Module):
    """The sizes of the steps, which are trained, and what stays as it is.

    Args:
        units: the natural unit of every offset.
        noise: standard normal draws by site, ``(NUM_STEPS, NUM_DRAWS, *shape)``.
    """

    def __init__(self, units: list[Tensor], noise: dict[str, Tensor]) -> None:
        super().__init__()
        like = units[0]
        self.log_rates = nn.Parameter(like.new_full((NUM_STEPS, len(units)), math.log(FIRST_RATE)))
        self._names = list(noise)
        for i, unit in enumerate(units):
            self.register_buffer(f"unit_{i}", unit)
        for i, eps in enumerate(noise.values()):
            self.register_buffer(f"noise_{i}", eps)

    @property
    def units(self) -> list[Tensor]:
        """The natural unit of every offset."""
        return [buffer for name, buffer in self.named_buffers() if name.startswith("unit_")]

    def noise(self, step: int) -> dict[str, Tensor]:
        """The noise of a step by site."""
        return {name: getattr(self, f"noise_{i}")[step] for i, name in enumerate(self._names)}


class FixedDraws(Messenger):
    """Runs a guide with noise that is given, by site."""

    def __init__(self, noise: dict[str, Tensor]) -> None:
        super().__init__()
        self._noise = noise

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self._noise and not msg["is_observed"]:
            msg["value"], msg["done"] = placed_at(msg["fn"], self._noise[msg["name"]]), True


def placed_at(fn: Any, eps: Tensor) -> Tensor:
    """The draw of a normal, or of maps of one, that standard normal noise leads to.

    Raises:
        PairError: the distribution is another.
    """
    if isinstance(fn, torch.distributions.Normal):
        return fn.loc + fn.scale * eps
    if isinstance(fn, torch.distributions.MultivariateNormal):
        return fn.loc + (fn.scale_tril @ eps.unsqueeze(-1)).squeeze(-1)
    if isinstance(fn, torch.distributions.TransformedDistribution):
        value = placed_at(fn.base_dist, eps)
        for transform in fn.transforms:
            value = transform(value)
        return value
    if isinstance(fn, (dist.Independent, dist.MaskedDistribution, dist.ExpandedDistribution)):
        return placed_at(fn.base_dist, eps)
    raise PairError(f"gradient steps are taken on normals and maps of them, and the guide draws a {type(fn).__name__}")


def stepped(pair: Pair, name: str) -> SteppedGuide:
    """The pair's guide with gradient steps.

    Args:
        pair: the pair on some data, inside its context.
        name: of the steps in Pyro's parameter store.

    Raises:
        PairError: the guide's family cannot be read off, the pair has no amortisation, or a latent is no normal.
    """
    if pair.unit != "datum" or not pair.divisible:
        raise PairError("the pair runs on all data at once, so that nothing is amortised: refine betters it as a whole")
    reader, family = reader_of(pair)
    units = family.units(family.start, slice(None), _UNIT_DRAWS)
    parts = [unit.detach().square().mean(0).sqrt() for unit in units]
    trace: Any = pair.programs.trace(pair.guide, pair.frame, pair.batch, enumerate_sites=False)
    noise = {}
    for one, site in pair.structure.drawn.items():
        if one in pair.structure.points:
            continue  # a function of other draws
        placed_at(trace.nodes[one]["fn"], torch.zeros_like(trace.nodes[one]["value"]))
        half = torch.randn(NUM_STEPS, NUM_DRAWS // 2, *site.shape, dtype=site.dtype, device=pair.device)
        noise[one] = torch.cat([half, -half], 1)
    return SteppedGuide(pair.programs, reader, Steps(parts, noise), name)
