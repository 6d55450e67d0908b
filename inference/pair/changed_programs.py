"""Programs with a part taken away or freed, to see what it was for: units of the guide, the data that a decoder reads,
a noise that is fixed.

    CutGuide        units of the latents are drawn from the prior: they tell nothing about x, and cost no KL;
    BlindModel      the likelihood is that of a decoder that is shown the same row in place of every x;
    FreedNoise      the scales of the observed distributions are multiplied by a number that is learnt.

Each wraps a program and has its parameters, so that it can be measured and trained like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ppvae.errors import PairError

from .distributions import is_point_mass, opened
from .marginals import has_parents
from .pair import Pair
from .sites import Frame
from .traces import Program, observations

# Differences of a log density that are rounding.
ROUNDING = 1e-4


class CutGuide:
    """The guide with some units drawn from the prior; made by :func:`cut`."""

    def __init__(self, guide: Program, model: Program, masks: Mapping[str, Tensor], pair: Pair) -> None:
        self.guide, self.model, self.masks = guide, model, dict(masks)
        self._plates, self._own = pair.structure.plates, {name: pair.sites[name].plates for name in masks}

    def __call__(self, *batch: Any) -> Any:
        """Run the guide, with the prior in the place of its cut units."""
        with poutine.block():
            prior: Any = poutine.trace(self.model).get_trace(*batch)
        frame = Frame(self._plates, 1 if self._plates.data is None else len(batch[0]), None, batch[0].device)
        placed = {}
        for name, mask in self.masks.items():
            every = mask.to(batch[0].device).expand(frame.num_units, *mask.shape)
            placed[name] = frame.by_program(every, self._own[name]), prior.nodes[name]["fn"]
        with _Splice(placed):
            return self.guide(*batch)


class _Splice(Messenger):
    """Puts the prior in the place of some numbers of the sites that are drawn."""

    def __init__(self, placed: dict[str, tuple[Tensor, Any]]) -> None:
        super().__init__()
        self._placed = placed

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self._placed and not msg["is_observed"]:
            msg["fn"] = spliced(msg["fn"], *(self._placed[msg["name"]][i] for i in (1, 0)))


def spliced(q: Any, p: Any, mask: Tensor) -> Any:
    """A guide's distribution with the numbers of a mask distributed as in the prior, and independent of the others.

    Raises:
        PairError: the numbers of a distribution depend on each other, and it is no multivariate normal guide.
    """
    event_dim = q.event_dim
    single_q, single_p = _single(q), _single(p)
    if single_p is None or (single_q is None and not isinstance(q, torch.distributions.MultivariateNormal)):
        raise PairError(f"the numbers of a {type(q).__name__} depend on each other, so that none can be cut by itself")
    if single_q is not None:
        return Spliced(single_q, single_p, mask).to_event(event_dim)
    loc, variance = single_p.mean.expand(q.mean.shape), single_p.variance.expand(q.mean.shape)
    keep = (~mask).to(q.mean)
    covariance = q.covariance_matrix * keep.unsqueeze(-1) * keep.unsqueeze(-2)
    covariance = covariance + torch.diag_embed(torch.where(mask, variance, torch.zeros_like(variance)))
    return dist.MultivariateNormal(torch.where(mask, loc, q.mean), covariance)


def _single(fn: Any) -> Any:
    """The distribution of single numbers, where they are declared independent; else None."""
    while isinstance(fn, torch.distributions.Independent):
        fn = fn.base_dist
    return None if fn.event_shape or is_point_mass(fn) or not fn.has_rsample else fn


class Spliced(dist.TorchDistribution):
    """Single numbers from one distribution where a mask is False, and from another where it is True."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    has_rsample = True

    def __init__(self, q: Any, p: Any, mask: Tensor) -> None:
        shape = torch.broadcast_shapes(q.batch_shape, p.batch_shape, mask.shape)
        self.q, self.p, self.cut = q.expand(shape), p.expand(shape), mask.expand(shape)
        super().__init__(shape, torch.Size(), validate_args=False)

    def rsample(self, sample_shape: Any = ()) -> Tensor:  # noqa: D102
        return torch.where(self.cut, self.p.rsample(sample_shape), self.q.rsample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:  # noqa: D102
        return torch.where(self.cut, self.p.log_prob(value), self.q.log_prob(value))

    def expand(self, batch_shape: Any, _instance: Any = None) -> Spliced:  # noqa: D102
        return Spliced(self.q.expand(batch_shape), self.p.expand(batch_shape), self.cut.expand(batch_shape))

    @property
    def support(self) -> Any:  # noqa: D102
        return self.q.support

    @property
    def mean(self) -> Tensor:  # noqa: D102
        return torch.where(self.cut, self.p.mean, self.q.mean)

    @property
    def variance(self) -> Tensor:  # noqa: D102
        return torch.where(self.cut, self.p.variance, self.q.variance)


def cut(pair: Pair, masks: Mapping[str, Tensor]) -> CutGuide:
    """The guide of a pair with some units drawn from the prior.

    Args:
        pair: the pair on some data, inside its context.
        masks: by site, which of its numbers are cut, ``(*plates inside a datum, *event)`` bool.

    Raises:
        PairError: they cannot be cut: the numbers of a site depend on each other, or on latents drawn before.
    """
    for name in masks:
        if pair.few.num_units and has_parents(pair.few, "model", name):
            raise PairError(f"the prior of {name!r} depends on other latents, so that its units cannot be cut alone")
    trace: Any = pair.programs.trace(pair.guide, pair.frame, pair.batch, enumerate_sites=False)
    prior: Any = pair.programs.seen(pair.frame, pair.batch)
    for name, mask in masks.items():
        spliced(trace.nodes[name]["fn"], prior.nodes[name]["fn"], torch.zeros_like(mask))
    return CutGuide(pair.guide, pair.model, masks, pair)


class BlindModel:
    """The model with a decoder that is shown the same row in place of every x, and scored at x all the same.

    Args:
        model: ``model(x, *context)``.
        row: what it is shown, of the shape of a datum.
    """

    def __init__(self, model: Program, row: Tensor) -> None:
        self.model, self.row = model, row

    def __call__(self, x: Tensor, *context: Any) -> Any:
        """Run the model on the row, with the observed values that x would have."""
        with poutine.block():
            seen = observations(poutine.trace(self.model).get_trace(x, *context))
        shown = self.row.to(x).expand_as(x).clone()
        with _Observe({name: site["value"] for name, site in seen.items()}):
            return self.model(shown, *context)


class _Observe(Messenger):
    """Puts values at observed sites."""

    def __init__(self, values: dict[str, Tensor]) -> None:
        super().__init__()
        self._values = values

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] and msg["name"] in self._values:
            msg["value"] = self._values[msg["name"]]


def reads_its_data(pair: Pair, row: Tensor) -> bool:
    """Whether the likelihood at the same latents changes with the x that the decoder is shown: it is autoregressive."""
    x, *context = pair.batch
    z = pair.guide_values(2)
    own = pair.densities(z).log_likelihood
    with Pair.on(BlindModel(pair.model, row), pair.guide, (x, *context)) as blind:
        return bool((blind.densities(z).log_likelihood - own).abs().max() > ROUNDING * (1 + own.abs().max()))


class FreedNoise:
    """The model with the scales of its observed distributions multiplied by exp(c), one c that is learnt.

    Args:
        model: ``model(x, *context)``.
        scaled: makes of a distribution and c the one with its scale multiplied.
    """

    name = "freed_noise"

    def __init__(self, model: Program, scaled: Callable[[Any, Tensor], Any]) -> None:
        self.model, self.scaled = model, scaled

    def __call__(self, *batch: Any) -> Any:
        """Run the model with its noise freed."""
        c = pyro.param(self.name, lambda: torch.zeros((), device=batch[0].device))
        with _Rescale(lambda fn: self.scaled(fn, c)):
            return self.model(*batch)


class _Rescale(Messenger):
    """Changes the distributions of observed sites."""

    def __init__(self, change: Callable[[Any], Any]) -> None:
        super().__init__()
        self._change = change

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"]:
            msg["fn"] = self._change(msg["fn"])


def has_noise_scale(pair: Pair) -> bool:
    """Whether every observed distribution has a scale of its own, as the normal and Laplace's have."""
    sites = observations(pair.programs.seen(pair.frame, pair.batch))
    return bool(sites) and all("scale" in opened(site["fn"])[0].arg_constraints for site in sites.values())
