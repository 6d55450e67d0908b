"""Sum enumerated discrete sites out of a pair's density, exactly.

The log densities of the sites are factors that stand in nested plates and share the dims of the enumerated sites. The
factors are multiplied, the enumerated dims summed, and the plates inside a unit multiplied, in the order that keeps
the tensors small ("Tensor Variable Elimination for Plated Factor Graphs", Obermeyer et al., 2019, arXiv:1902.03210).
Pyro does the contraction; it also names the dims, since under ``pyro.markov`` one dim serves several sites in turn.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import torch
from pyro.ops import packed
from pyro.ops.contract import contract_to_tensor
from pyro.ops.rings import LogRing
from pyro.poutine import Trace
from torch import Tensor

from .traces import sample_sites


def has_enumerated(*traces: Trace) -> bool:
    """Whether a site of the traces is enumerated."""
    return any(site["infer"].get("_enumerate_dim") is not None for trace in traces for _, site in sample_sites(trace))


def sum_out(
    terms: Iterable[tuple[dict[str, Any], Tensor]], model_trace: Trace, guide_trace: Trace, kept: dict[str, int]
) -> Tensor:
    """The log of the sum, over all values of the enumerated sites, of the product of the factors.

    Args:
        terms: sites of the two traces with their factors: log densities, those of the guide negated.
        model_trace: the run that ``terms`` come from, as is ``guide_trace``.
        guide_trace: see there.
        kept: names and sizes of the plates that are not multiplied: that of the draws and that of the data.

    Returns:
        Tensor of the sizes of ``kept``, in their order.
    """
    guide_trace.symbolize_dims()
    model_trace.symbolize_dims(guide_trace.plate_to_symbol)
    symbol = model_trace.plate_to_symbol
    size = {symbol[f.name]: kept.get(f.name, f.size) for site, _ in terms for f in _plates(site)}
    factors: OrderedDict[frozenset[str], list[Tensor]] = OrderedDict()
    for site, term in terms:
        full = _over_plates(term, {f.dim: size[symbol[f.name]] for f in _plates(site)})
        ordinal = frozenset(symbol[f.name] for f in _plates(site))
        factors.setdefault(ordinal, []).append(packed.pack(full, site["infer"]["_dim_to_symbol"]))
    summed = {
        site["infer"]["_enumerate_symbol"]
        for trace in (model_trace, guide_trace)
        for _, site in sample_sites(trace)
        if site["infer"].get("_enumerate_dim") is not None
    }
    symbols = tuple(symbol[name] for name in kept)
    result = contract_to_tensor(factors, summed, target_ordinal=frozenset(symbols), ring=LogRing(dim_to_size=size))
    ordered = _ordered(result, symbols)
    return ordered.expand(*kept.values()) if kept else ordered


def _plates(site: dict[str, Any]) -> list[Any]:
    return [frame for frame in site["cond_indep_stack"] if frame.vectorized]


def _over_plates(term: Tensor, sizes: dict[int, int]) -> Tensor:
    """A log density expanded over the plates that its site stands in."""
    dims = max(term.dim(), *(-dim for dim in sizes), 0)
    shape = [1] * (dims - term.dim()) + list(term.shape)
    for dim, size in sizes.items():
        shape[dim] = size
    return term.expand(shape)


def _ordered(result: Any, symbols: tuple[str, ...]) -> Tensor:
    """A packed tensor with its dims in the order of the symbols; packing drops dims of size 1, which come back."""
    present = [symbol for symbol in symbols if symbol in getattr(result, "_pyro_dims", "")]
    ordered: Tensor = result.permute(*(result._pyro_dims.index(symbol) for symbol in present)) if present else result
    for position, symbol in enumerate(symbols):
        if symbol not in present:
            ordered = ordered.unsqueeze(position)
    return torch.as_tensor(ordered)
