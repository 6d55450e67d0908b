"""The guide's own family, per datum: its site distributions with their parameters freed.

An amortised guide computes the parameters φ of each site's distribution by a network, and a network's best is a
compromise over the data. Here every latent site of any guide keeps its distribution, and its parameters become

    φ' = T(T⁻¹(φ) + δ),      T: ℝ → the parameter's constraint (exp for scales, a Cholesky factor's map, …)

with an offset δ of its own for every datum (and every place in the plates inside a datum), zero at first. Where φ does
not depend on other latents the offset frees it completely; where it does (hierarchies), the dependence is kept and
shifted. What is no continuous parameter (the number of trials of a Binomial), what would move the support (the ends of
a Uniform), and what a transformed distribution does to its base are left as they are. So is a discrete site that is
summed out; a latent that depends on it has one offset for all its values.

An offset's natural unit is F^(−½), with F = E_q[(∂ log q/∂δ)²] the Fisher information: one unit away costs ½ nat of KL
to leading order, whatever the units of the latents. Steps are taken in it.

References:
    Sticking the Landing: Simple, Lower-Variance Gradient Estimators for Variational Inference (Roeder, Wu & Duvenaud,
    2017), arXiv:1703.09194: the gradient is taken along the path of the draws only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import transform_to

from ppvae.errors import DataError, PairError

from .ascent import Parameters
from .objective import enumerated
from .parameters import owner
from .structure import sound_plates
from .traces import Batch, Plates, Program, latents, particle_traces, plain_traces, rows
from .weights import site_log_prob, weigh

# Spellings of one thing: a parameter is freed in the first only.
_SPELLINGS = (
    ("scale_tril", "covariance_matrix", "precision_matrix"),
    ("logits", "probs"),
    ("gate_logits", "gate"),
)

# A natural unit is read off this many particles at least.
_UNIT_PARTICLES = 64


class Offset(NamedTuple):
    """An offset: whose it is, ``(*plates inside the datum, *rest)`` its shape, and how many plates that begins with."""

    site: str
    parameter: str
    shape: tuple[int, ...]
    num_plates: int

    def place(self, value: Tensor) -> Tensor:
        """``(num_data, *plates, *rest)`` as the programs shape it, ``(*plates, num_data, *rest)``."""
        return value.movedim(0, self.num_plates)


class GuideFamily:
    """The members of the guide's own family on a batch: one offset for each parameter of each latent site.

    Args:
        model: the generative program.
        guide: the guide.
        batch: ``(x, *context)``.

    Raises:
        PairError: the pair breaks the contract, has no continuous latent, or a latent's distribution cannot be freed.
    """

    def __init__(self, model: Program, guide: Program, batch: Batch) -> None:
        self.model, self.guide, self.batch = model, guide, batch
        self.plates: Plates = sound_plates(model, guide, batch)
        _, guide_trace = plain_traces(model, guide, batch)
        sites = {name: site["fn"] for name, site in latents(guide_trace).items() if not enumerated(site)}
        if not sites:
            raise PairError("the guide draws no continuous latent, so that it has no parameters to refine.")
        self.offsets: list[Offset] = []
        start = []
        for name, fn in sites.items():
            for parameter, zero, num_plates in _offsets(name, fn):
                self.offsets.append(Offset(name, parameter, tuple(zero.shape[1:]), num_plates))
                start.append(zero)
        self.start: Parameters = tuple(start)

    def log_weights(self, parameters: Parameters, index: Any, num_particles: int) -> Tensor:
        """log p(x, z) − log q'(z|x) of draws of a member, ``(num_particles, num_data)``; enumerated sites summed out.

        Its gradient in the offsets leaves out what comes from log q' itself, whose mean is zero.
        """
        placed = self._placed(parameters)
        with pyro.validation_enabled(False):
            part = rows(self.batch, index)
            guide = shifted_guide(self.guide, placed)
            model_trace, guide_trace = particle_traces(self.model, guide, part, num_particles, self.plates)
            if torch.is_grad_enabled():
                for name, shifts in placed.items():
                    site: Any = guide_trace.nodes[name]
                    site["fn"] = shifted(site["fn"], {k: v.detach() - v for k, v in shifts.items()})
            return weigh(model_trace, guide_trace, self.plates, num_particles, len(part[0]))

    def units(self, parameters: Parameters, index: Any, num_particles: int) -> Parameters:
        """The natural unit of every offset, F^(−½), estimated from draws of a member."""
        pieces = -(-_UNIT_PARTICLES // num_particles)
        information = [torch.zeros_like(p) for p in parameters]
        for _ in range(pieces):
            for total, score in zip(information, self._scores(parameters, index, num_particles), strict=True):
                total += score.square().mean(0) / pieces
        usable = [torch.isfinite(F) & (torch.finfo(F.dtype).tiny < F) for F in information]
        return tuple(torch.where(ok, F, 1.0).rsqrt() for ok, F in zip(usable, information, strict=True))

    def _scores(self, parameters: Parameters, index: Any, num_particles: int) -> list[Tensor]:
        """∂ log q'(z|x)/∂δ of every draw, ``(num_particles, num_data, *shape)`` by offset."""
        with pyro.validation_enabled(False):
            part = rows(self.batch, index)
            with torch.no_grad():
                guide = shifted_guide(self.guide, self._placed(parameters))
                _, trace = particle_traces(self.model, guide, part, num_particles, self.plates)
            own = [p.new_zeros(num_particles, *p.shape).requires_grad_() for p in parameters]
            by_site: dict[str, dict[str, Tensor]] = {}
            for offset, value in zip(self.offsets, own, strict=True):
                placed = value.movedim(1, 1 + offset.num_plates)
                for _ in range(self.plates.nesting - 1 - offset.num_plates):
                    placed = placed.unsqueeze(1)
                by_site.setdefault(offset.site, {})[offset.parameter] = placed
            log_q = torch.zeros((), dtype=torch.float64, device=part[0].device)
            for name, shifts in by_site.items():
                site: Any = trace.nodes[name]
                log_q = log_q + site_log_prob({**site, "fn": shifted(site["fn"], shifts)}).sum()
            return list(torch.autograd.grad(log_q, own))

    def _placed(self, parameters: Parameters) -> dict[str, dict[str, Tensor]]:
        return place(self.offsets, parameters)


def place(offsets: Iterable[Offset], values: Parameters) -> dict[str, dict[str, Tensor]]:
    """The offsets by site and parameter, as the programs shape them."""
    placed: dict[str, dict[str, Tensor]] = {}
    for offset, value in zip(offsets, values, strict=True):
        placed.setdefault(offset.site, {})[offset.parameter] = offset.place(value)
    return placed


class RefinedGuide:
    """A guide whose parameters are shifted by offsets of their own for each of the data that it was refined on.

    It takes what the guide takes, and stands wherever a guide does. A datum is known again by its values, so that it
    may be called on some of the data, in any order.

    Raises:
        DataError: it is called on a datum that it was not refined on.
    """

    def __init__(self, guide: Program, batch: Batch, offsets: list[Offset], values: Parameters) -> None:
        self.__self__ = owner(guide)  # it runs on the guide's parameters, as the guide itself does
        self._guide, self._offsets, self._values = guide, offsets, values
        self._row = {key: i for i, key in enumerate(_keys(batch))}

    def __call__(self, *batch: Any) -> Any:
        """Run the guide with its offsets."""
        found = [self._row.get(key, -1) for key in _keys(batch)]
        if -1 in found:
            raise DataError(
                f"x holds a datum that the guide was not refined on, the first in row {found.index(-1)}: refine the "
                "guide on all the data that it is to be used on."
            )
        index = torch.tensor(found, device=self._values[0].device)
        values = tuple(value[index] for value in self._values)
        return shifted_guide(self._guide, place(self._offsets, values))(*batch)


def _keys(batch: Batch) -> list[bytes]:
    """What tells the data apart: the bytes of every member of the batch that runs over them."""
    n = len(batch[0])
    over = [b.detach().cpu().numpy() for b in batch if isinstance(b, Tensor) and b.dim() and len(b) == n]
    return [b"".join(part[i].tobytes() for part in over) for i in range(n)]


def shifted_guide(guide: Program, shifts: dict[str, dict[str, Tensor]]) -> Program:
    """The guide with its parameters shifted, by site and parameter."""
    return _Shift(shifts)(guide)


class _Shift(Messenger):
    """Shifts the parameters of the sites that are drawn."""

    def __init__(self, shifts: dict[str, dict[str, Tensor]]) -> None:
        super().__init__()
        self._shifts = shifts

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self._shifts and not msg["is_observed"]:
            msg["fn"] = shifted(msg["fn"], self._shifts[msg["name"]])


def shifted(fn: Any, shifts: dict[str, Tensor]) -> Any:
    """The distribution with parameters φ' = T(T⁻¹(φ) + δ)."""
    base, wrap = _open(fn)
    parameters = {name: getattr(base, name) for name in _parameter_names(base)}
    for name, shift in shifts.items():
        to_constraint = transform_to(base.arg_constraints[name])
        parameters[name] = to_constraint(to_constraint.inv(parameters[name]) + shift)
    return wrap(type(base)(**parameters, **_settings(base)))


def _open(fn: Any) -> tuple[Any, Callable[[Any], Any]]:
    """The distribution that holds the parameters, and how to wrap another one as it is wrapped."""
    if isinstance(fn, dist.Independent):
        base, wrap = _open(fn.base_dist)
        return base, lambda new: wrap(new).to_event(fn.reinterpreted_batch_ndims)
    if isinstance(fn, dist.MaskedDistribution):
        base, wrap = _open(fn.base_dist)
        return base, lambda new: wrap(new).mask(fn._mask)
    if isinstance(fn, ExpandedDistribution):
        base, wrap = _open(fn.base_dist)
        return base, lambda new: _expanded(wrap(new), fn.batch_shape)
    if isinstance(fn, torch.distributions.TransformedDistribution) and not fn.arg_constraints:
        base, wrap = _open(fn.base_dist)
        return base, lambda new: dist.TransformedDistribution(wrap(new), fn.transforms)
    return fn, lambda new: new


def _expanded(fn: Any, shape: torch.Size) -> Any:
    return fn.expand(torch.broadcast_shapes(fn.batch_shape, shape))


def _parameter_names(base: Any) -> list[str]:
    """The parameters that the distribution is built from, each in one spelling."""
    names = [name for name in inspect.signature(type(base).__init__).parameters if name in base.arg_constraints]
    for first, *others in _SPELLINGS:
        if first in names:
            names = [name for name in names if name not in others]
    return names


def _settings(base: Any) -> dict[str, Any]:
    """What the distribution is built from beside its parameters (a temperature)."""
    arguments = list(inspect.signature(type(base).__init__).parameters)[1:]
    settled = {"validate_args", *base.arg_constraints}
    return {name: getattr(base, name) for name in arguments if name not in settled and hasattr(base, name)}


def _offsets(name: str, fn: Any) -> Iterable[tuple[str, Tensor, int]]:
    """A zero offset ``(num_data, *plates, *rest)`` for each parameter to be freed, and the number of its plates."""
    base, _ = _open(fn)
    if isinstance(base, dist.Delta):
        raise PairError(f"{name!r} is a point mass (Delta) and has no density: give it a distribution with a density.")
    if not fn.has_rsample:
        raise PairError(
            f"{name!r} is drawn from {type(base).__name__}, whose draws have no gradient: if it is discrete, sum it "
            "out with infer={'enumerate': 'parallel'}; else give the guide a distribution that has rsample."
        )
    plates = len(fn.batch_shape) - 1
    batch = fn.batch_shape + _inner_shape(fn)
    found = []
    for parameter in _parameter_names(base):
        unconstrained = _freed(base, parameter)
        if unconstrained is not None:
            rest = unconstrained.shape[len(base.batch_shape) :]
            found.append((parameter, unconstrained.new_zeros(batch + rest).movedim(plates, 0), plates))
    if not found:
        raise PairError(
            f"{name!r} is drawn from {type(base).__name__}, which has no parameter that could be freed without moving "
            "its support: give the guide a distribution on the support of the model's."
        )
    return found


def _inner_shape(fn: Any) -> torch.Size:
    """The dims of the base's batch that its wrappers made part of the event."""
    if isinstance(fn, dist.Independent):
        n = fn.reinterpreted_batch_ndims
        return fn.base_dist.batch_shape[len(fn.base_dist.batch_shape) - n :] + _inner_shape(fn.base_dist)
    wrapped = isinstance(fn, (dist.MaskedDistribution, ExpandedDistribution)) or _open(fn)[0] is not fn
    return _inner_shape(fn.base_dist) if wrapped else torch.Size()


def _freed(base: Any, parameter: str) -> Tensor | None:
    """The parameter in unconstrained space, or None if it is not continuous or moves the support."""
    constraint = base.arg_constraints[parameter]
    if constraint.is_discrete:
        return None
    try:
        unconstrained = transform_to(constraint).inv(getattr(base, parameter))
    except NotImplementedError:
        return None
    with torch.no_grad(), pyro.validation_enabled(False):
        moved = shifted(base, {parameter: torch.ones_like(unconstrained)})
    return unconstrained if _ends(moved.support) == _ends(base.support) else None


def _ends(support: Any) -> list[Any]:
    """What a constraint is made of, as numbers."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return [torch.as_tensor(v).tolist() for v in vars(support).values() if isinstance(v, (int, float, Tensor))]
