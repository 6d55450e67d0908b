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
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import transform_to

from ppvae.errors import DataError, PairError

from ..pair import Arguments, Batch, Frame, Pair, Program, Programs, Values, opened, site_log_prob, without_zuko
from .ascent import Parameters

# Shifts by site and parameter, as the programs shape them.
Shifts = dict[str, dict[str, Tensor]]

# Spellings of one thing: a parameter is freed in the first only.
_SPELLINGS = (
    ("scale_tril", "covariance_matrix", "precision_matrix"),
    ("logits", "probs"),
    ("gate_logits", "gate"),
)

# A natural unit is read off this many particles at least.
_UNIT_PARTICLES = 64


class Offset(NamedTuple):
    """An offset: whose it is, ``(*plates inside the unit, *rest)`` its shape, and which plates that begins with."""

    site: str
    parameter: str
    shape: tuple[int, ...]
    plates: tuple[int, ...]

    @property
    def key(self) -> str:
        """A name for the offset among others."""
        return f"{self.site}.{self.parameter}"


class GuideFamily:
    """The members of the guide's own family on a batch: one offset for each parameter of each latent site.

    Args:
        pair: the pair on the data.

    Raises:
        PairError: the pair has no continuous latent, or a latent's distribution cannot be freed.
    """

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        trace: Any = pair.programs.trace(pair.guide, pair.frame, pair.batch, enumerate_sites=False)
        names = [name for name in pair.structure.drawn if name in trace.nodes]
        if not names:
            raise PairError("the guide draws no continuous latent: there is nothing to refine; give one that does.")
        self.offsets: list[Offset] = []
        start = []
        for name in names:
            for parameter, zero, plates in _offsets(name, trace.nodes[name], pair):
                self.offsets.append(Offset(name, parameter, tuple(zero.shape[1:]), plates))
                start.append(zero)
        self.start: Parameters = tuple(start)

    def log_weights(self, parameters: Parameters, index: Any, num_particles: int) -> Tensor:
        """log p(x, z) − log q'(z|x) of draws of a member, ``(num_particles, num_units)``; enumerated sites summed out.

        Its gradient in the offsets leaves out what comes from log q' itself, whose mean is zero.
        """
        pair = self.pair.rows(index)
        inputs = {offset.key: value[None] for offset, value in zip(self.offsets, parameters, strict=True)}
        bodies = partial(self._weights, pair.programs), partial(self._proposals, pair.programs)
        return pair.weigh(*bodies, num_particles, inputs)

    def _weights(self, programs: Programs, frame: Frame, batch: Batch, inputs: Values) -> Values:
        shifts = self._placed(frame, inputs)
        model_trace, guide_trace = replace(programs, guide=shifted_guide(programs.guide, shifts)).traces(frame, batch)
        _hold(guide_trace, shifts)
        return {"log_w": programs.weigh(frame, model_trace, guide_trace)}

    def _proposals(self, programs: Programs, frame: Frame, batch: Batch, inputs: Values) -> Values:
        shifts = self._placed(frame, inputs)
        guide = shifted_guide(programs.guide, shifts)
        guide_trace = programs.trace(guide, frame, batch, enumerate_sites=False)
        nodes: dict[str, Any] = guide_trace.nodes
        values = {name: frame.by_unit(nodes[name]["value"], site) for name, site in programs.sites.items()}
        _hold(guide_trace, shifts)
        return {**values, "log_q": programs.log_q(frame, guide_trace)}

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
        """∂ log q'(z|x)/∂δ of every draw, ``(num_particles, num_units, *shape)`` by offset."""
        pair = self.pair.rows(index)
        own = [p.new_zeros(num_particles, *p.shape).requires_grad_() for p in parameters]
        inputs = {offset.key: value[None] for offset, value in zip(self.offsets, parameters, strict=True)}
        moved = {f"own {offset.key}": value for offset, value in zip(self.offsets, own, strict=True)}
        body = partial(self._log_q, pair.programs)
        found = pair.run(body, num_particles, inputs | moved, pair.guide_layout, random=True)
        return list(torch.autograd.grad(found["log_q"].sum(), own))

    def _log_q(self, programs: Programs, frame: Frame, batch: Batch, inputs: Values) -> Values:
        """log q' of draws as a function of further offsets, one for each draw."""
        with torch.no_grad():
            guide = shifted_guide(programs.guide, self._placed(frame, inputs))
            trace: Any = programs.trace(guide, frame, batch, enumerate_sites=True)
        further = {name.removeprefix("own "): value for name, value in inputs.items() if name.startswith("own ")}
        total = torch.zeros(frame.shape, dtype=torch.float64, device=frame.device)
        for name, shifts in self._placed(frame, further).items():
            site = trace.nodes[name]
            term = site_log_prob({**site, "fn": shifted(site["fn"], shifts)})
            total = total + term.sum() / total.numel()
        return {"log_q": total}

    def _placed(self, frame: Frame, inputs: Values) -> Shifts:
        return place(self.offsets, {offset.key: inputs[offset.key] for offset in self.offsets}, frame)


def _hold(trace: Any, shifts: Shifts) -> None:
    """Let log q' of a trace be that of its draws alone: as a function of the offsets it stands still."""
    if torch.is_grad_enabled():
        for name, own in shifts.items():
            site = trace.nodes[name]
            site["fn"] = shifted(site["fn"], {k: v.detach() - v for k, v in own.items()})


def place(offsets: Iterable[Offset], values: Values, frame: Frame) -> Shifts:
    """The offsets by site and parameter, as the programs shape them."""
    placed: Shifts = {}
    for offset in offsets:
        placed.setdefault(offset.site, {})[offset.parameter] = frame.by_program(values[offset.key], offset.plates)
    return placed


class RefinedGuide:
    """A guide whose parameters are shifted by offsets of their own for each of the data that it was refined on.

    It takes what the guide takes, and stands wherever a guide does. A datum is known again by its values, so that it
    may be called on some of the data, in any order.

    Raises:
        DataError: it is called on a datum that it was not refined on.
    """

    def __init__(self, family: GuideFamily, values: Parameters) -> None:
        self.program, self._plates = family.pair.guide, family.pair.structure.plates
        self._offsets, self._values = family.offsets, values
        self._by_row = family.pair.arguments.by_row
        self._row = {key: i for i, key in enumerate(_keys(family.pair.batch, self._by_row))}

    def __call__(self, *batch: Any) -> Any:
        """Run the guide with its offsets."""
        if self._plates.data is None:
            index = torch.zeros(1, dtype=torch.long)
        else:
            found = [self._row.get(key, -1) for key in _keys(batch, self._by_row)]
            if -1 in found:
                raise DataError(
                    f"x holds a datum that the guide was not refined on, the first in row {found.index(-1)}: refine "
                    "the guide on all the data that it is to be used on."
                )
            index = torch.tensor(found)
        values = {
            offset.key: value[index.to(value.device)] for offset, value in zip(self._offsets, self._values, strict=True)
        }
        frame = Frame(self._plates, len(index), None)
        return shifted_guide(self.program, place(self._offsets, values, frame))(*batch)


def _keys(batch: Batch, by_row: Sequence[bool]) -> list[bytes]:
    """What tells the data apart: the bytes of every leaf of the batch that has a row for each of them."""
    leaves = Arguments.of(batch).leaves
    over = [leaf.detach().cpu().numpy() for leaf, own in zip(leaves, by_row, strict=True) if own]
    return [b"".join(part[i].tobytes() for part in over) for i in range(len(batch[0]))]


def shifted_guide(guide: Program, shifts: Shifts) -> Program:
    """The guide with its parameters shifted, by site and parameter."""
    return _Shift(shifts)(guide)


class _Shift(Messenger):
    """Shifts the parameters of the sites that are drawn."""

    def __init__(self, shifts: Shifts) -> None:
        super().__init__()
        self._shifts = shifts

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self._shifts and not msg["is_observed"]:
            msg["fn"] = shifted(msg["fn"], self._shifts[msg["name"]])


def shifted(fn: Any, shifts: dict[str, Tensor]) -> Any:
    """The distribution with parameters φ' = T(T⁻¹(φ) + δ)."""
    base, wrap = opened(without_zuko(fn))
    parameters = {name: getattr(base, name) for name in _parameter_names(base)}
    for name, shift in shifts.items():
        to_constraint = transform_to(base.arg_constraints[name])
        parameters[name] = to_constraint(to_constraint.inv(parameters[name]) + shift)
    return wrap(type(base)(**parameters, **_settings(base)))


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


def _offsets(name: str, site: Any, pair: Pair) -> Iterable[tuple[str, Tensor, tuple[int, ...]]]:
    """A zero offset ``(num_units, *plates, *rest)`` for each parameter to be freed, and the plates."""
    fn = without_zuko(site["fn"])
    base, _ = opened(fn)
    if isinstance(base, dist.Delta):
        if name in pair.structure.points:
            return []  # its auxiliary draws are freed
        raise PairError(f"{name!r} is a point mass (Delta) and has no density: give it a distribution with a density.")
    if not fn.has_rsample:
        raise PairError(
            f"{name!r} is drawn from {type(base).__name__}, whose draws have no gradient: if it is discrete, sum it "
            "out with infer={'enumerate': 'parallel'}; else give the guide a distribution that has rsample."
        )
    own = {frame.dim for frame in site["cond_indep_stack"] if frame.vectorized}
    plates = tuple(dim for dim in pair.structure.plates.inside if dim in own)
    batch = fn.batch_shape + _inner_shape(fn)
    found = []
    for parameter in _parameter_names(base):
        unconstrained = _freed(base, parameter)
        if unconstrained is not None:
            rest = _inner_shape(fn) + unconstrained.shape[len(base.batch_shape) :]
            zero = unconstrained.new_zeros(batch + unconstrained.shape[len(base.batch_shape) :])
            arranged = pair.frame.arranged(zero, plates, len(rest))
            found.append((parameter, arranged.expand(pair.frame.num_units, *arranged.shape[1:]).clone(), plates))
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
    wrapped = isinstance(fn, (dist.MaskedDistribution, ExpandedDistribution)) or opened(fn)[0] is not fn
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
