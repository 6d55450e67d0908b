"""Latents that a guide puts at a function of auxiliary draws, as Pyro's automatic guides and flows do.

Where a ~ q(a) and z = f(a) with f a bijection, q(z|x) = q(a) |det ∂f/∂a|⁻¹. Pyro writes it as a Delta at f(a) whose
``log_density`` is the logarithm of that Jacobian factor. One draw shows by automatic differentiation which auxiliary
sites the Deltas are functions of, whether there are as many numbers on both sides, and whether the stated Jacobian is
the true one; what fails has no density q(z|x), or a wrong one, and is refused. A point between, at a function of
auxiliary draws and itself auxiliary, counts by the density that it states.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppvae.errors import PairError

from .contract import ContractError, point_mass
from .distributions import is_point_mass
from .handlers import Put, Read
from .pair import Pair
from .sites import Frame
from .structure import Structure
from .traces import guide_log_prob

# With more numbers than these in a unit the Jacobian is not computed.
MOST_NUMBERS = 300
# The stated and the true Jacobian may differ by rounding: this much, relative to their size.
_ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-2}


class _Run(NamedTuple):
    """One draw of the guide.

    Attributes:
        leaves: auxiliary draws by unit, which the rest is differentiated in.
        between: auxiliary points (Delta), as the program has them.
        u: ``(num_units, dim)``, a function of the leaves.
        stated: of unit 0, the log density that each point states.
        log_det: of unit 0, log |det ∂T/∂u| of the latents that are points.
    """

    leaves: dict[str, Tensor]
    between: dict[str, Tensor]
    u: Tensor
    stated: dict[str, Tensor]
    log_det: Tensor


def resolved_points(pair: Pair) -> Structure:
    """The structure with what its points are functions of.

    Raises:
        PairError: a latent is a point mass, or the Jacobian that the guide states for it is wrong.
    """
    structure = pair.structure
    with torch.enable_grad():
        run = _one_draw(pair, pair.frame)
        places = [i for name in sorted(structure.points, key=list(structure.latents).index) for i in _range(pair, name)]
        columns = _columns(run.u[0], places, run.leaves)
        between = [name for name, value in run.between.items() if _moves(run.u[0], places, value)]
    sources = [name for name, column in columns.items() if bool((column != 0).any())]
    for name in structure.points:
        own = [places.index(i) for i in _range(pair, name)]
        if not any(bool((columns[source][own] != 0).any()) for source in sources):
            raise ContractError(point_mass(name))
    jacobian = torch.cat([columns[name] for name in sources], 1)
    first = sorted(structure.points)[0]
    if jacobian.shape[0] != jacobian.shape[1]:
        raise PairError(
            f"the guide makes {jacobian.shape[0]} numbers of {first!r} from {jacobian.shape[1]} numbers of "
            f"{sources[0]!r}, which is no bijection, so that q(z|x) has no known density: draw as many as the latents "
            "have, or sample the latents from a distribution with a density."
        )
    if len(jacobian) <= MOST_NUMBERS:
        stated = torch.stack([run.stated[name] for name in [*structure.points, *between]]).sum()
        _demand_jacobian(jacobian, stated, run.log_det, first)
    if between:  # the latents may be the last point's numbers; the draws behind it are others
        return replace(structure, sources=frozenset([*sources, *between]))
    order = _order(jacobian, run.u[0], places, torch.cat([run.leaves[name][0].reshape(-1) for name in sources]))
    return replace(structure, sources=frozenset(sources), order=order)


def _one_draw(pair: Pair, frame: Frame) -> _Run:
    """One draw of the guide, its auxiliary draws as leaves."""
    programs, structure = pair.programs, pair.structure
    drawn: Any = programs.trace(pair.guide, frame, pair.batch, enumerate_sites=False)
    points = {name for name in structure.auxiliary if is_point_mass(drawn.nodes[name]["fn"])}
    leaves = {
        name: frame.by_unit(drawn.nodes[name]["value"], site).detach().clone().requires_grad_()
        for name, site in structure.auxiliary.items()
        if site.dtype.is_floating_point and name not in points
    }
    put = Put({name: frame.by_program(leaf, structure.auxiliary[name].plates) for name, leaf in leaves.items()})
    trace: Any = programs.trace(pair.guide, frame, pair.batch, enumerate_sites=False, handler=put)
    values = {name: trace.nodes[name]["value"] for name in structure.latents}
    read = Read(structure.latents, values)
    programs.trace(pair.model, frame, pair.batch, enumerate_sites=False, handler=read)
    parts, log_det = [], torch.zeros(())
    for name, site in structure.latents.items():
        event_dim = len(site.u_shape) - len(site.plates)
        part = frame.arranged(read.u[name], site.plates, event_dim).expand(*frame.shape, *site.u_shape)
        parts.append(part.reshape(frame.num_units, -1))
        if name in structure.points:
            log_det = log_det + _first(frame, read.log_det(name))
    stated = {name: _first(frame, guide_log_prob(trace.nodes[name])) for name in structure.points | points}
    between = {name: trace.nodes[name]["value"] for name in points}
    return _Run(leaves, between, torch.cat(parts, -1), stated, log_det)


def _moves(u: Tensor, places: list[int], value: Tensor) -> bool:
    """Whether some of these numbers of u are computed from a value."""
    if not value.requires_grad:
        return False
    moved = [u[i] for i in places if u[i].requires_grad]
    found = [torch.autograd.grad(one, value, retain_graph=True, allow_unused=True)[0] for one in moved]
    return any(gradient is not None and bool((gradient != 0).any()) for gradient in found)


def _first(frame: Frame, term: Tensor) -> Tensor:
    return frame.sum_plates(term.detach().double()).expand(frame.shape)[0].cpu()


def _range(pair: Pair, name: str) -> range:
    site = pair.sites[name]
    return range(site.start, site.stop)


def _columns(u: Tensor, places: list[int], leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """∂u/∂a of one unit by auxiliary site, ``(len(places), numbers of a)``."""
    found: dict[str, list[Tensor]] = {name: [] for name in leaves}
    for i in places:
        if not u[i].requires_grad:
            gradients: Any = [None] * len(leaves)
        else:
            gradients = torch.autograd.grad(u[i], list(leaves.values()), retain_graph=True, allow_unused=True)
        for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True):
            found[name].append(torch.zeros_like(leaf[0]).reshape(-1) if gradient is None else gradient[0].reshape(-1))
    return {name: torch.stack(rows) for name, rows in found.items() if rows}


def _demand_jacobian(jacobian: Tensor, stated: Tensor, log_det: Tensor, name: str) -> None:
    """Raise PairError unless the Delta's log_density is −log |det ∂z/∂a|."""
    true = -torch.linalg.slogdet(jacobian.double())[1].cpu() - log_det
    if not bool((true - stated).abs() <= _ROUNDING.get(jacobian.dtype, 0.1) * (1 + true.abs())):
        raise PairError(
            f"the guide puts {name!r} at a function of its auxiliary draws with log_density {float(stated):.4g}, where "
            f"-log |det| of that function is {float(true):.4g} at a draw, so that q(z|x) would be wrong: give it as "
            "dist.Delta(f(a), log_density=-log_abs_det_jacobian, event_dim=…), or mend its flow's log_abs_det_jacobian."
        )


def _order(jacobian: Tensor, u: Tensor, places: list[int], a: Tensor) -> Tensor | None:
    """Where each number of a stands in u, if a is a part of u in some order."""
    row = jacobian.abs().argmax(0)
    order = torch.tensor(places)[row.cpu()]
    ones = torch.zeros_like(jacobian)
    ones[row, torch.arange(len(row))] = 1.0
    same = torch.allclose(jacobian, ones, atol=1e-6) and torch.allclose(u[order.to(u.device)], a, rtol=1e-4, atol=1e-6)
    return order if same else None
