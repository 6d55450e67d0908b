"""Names of dims, and values along them, as ArviZ's users give them.

A variable has the dims ``chain`` and ``draw``, then ``datum``, then its own: the plates inside a datum and the event.
``dims`` names the last by variable (``{"z": ["factor"]}``), ``coords`` gives values along any of them
(``{"factor": ["first", "second"]}``). The schema wants each dim to have one length wherever it stands, and no variable
to have the name of a dim.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence, Sized
from typing import Any

from ppvae.errors import OptionError, PairError

from ..options import shown
from ..pair import Pair, Values

SAMPLE = ("chain", "draw")
DATUM, COLUMN = "datum", "column"
# Names that the schema keeps for dims.
RESERVED = {*SAMPLE, DATUM, "sample", "pred_id"}


def dims_of_variables(
    pair: Pair, context: Values, dims: Mapping[str, Sequence[Hashable]]
) -> dict[str, dict[Hashable, int]]:
    """The dims of every variable after ``chain`` and ``draw``, with their lengths.

    Args:
        pair: its latents and observed sites are variables.
        context: so are these, which come with the data.
        dims: names of a variable's own dims; the rest are called ``<variable>_dim_0`` and so on.

    Raises:
        PairError: a site has a name that cannot stand in a group.
        OptionError: ``dims`` does not fit the variables.
    """
    shapes = {name: (pair.num_units, *place.shape) for name, place in (pair.sites | pair.structure.observed).items()}
    for name in shapes:
        if name in RESERVED or "/" in name:
            raise PairError(
                f"a variable cannot be called {name!r} (nor have a slash in its name, nor be one of "
                f"{sorted(RESERVED)}): give the site another name."
            )
    shapes |= {name: tuple(value.shape) for name, value in context.items()}
    for name in dims:
        if name not in shapes:
            raise OptionError(f"dims names {name!r}, which is no variable: it may name {sorted(shapes)}.")
    lengths: dict[Hashable, int] = {}
    out = {}
    for name, shape in shapes.items():
        out[name] = _dims(name, shape, pair.num_units, dims.get(name, ()), RESERVED | set(shapes))
        for dim, length in out[name].items():
            if lengths.setdefault(dim, length) != length:
                raise OptionError(f"dims gives {dim!r} the lengths {lengths[dim]} and {length}: name them apart.")
    return out


def _dims(
    name: str, shape: tuple[int, ...], num_data: int, given: Sequence[Hashable], taken: set[str]
) -> dict[Hashable, int]:
    """The dims of one variable with their lengths; ``given`` may begin with ``datum``, as ArviZ would have it."""
    of_data = [DATUM] if shape and shape[0] == num_data else []
    if isinstance(given, str) or not isinstance(given, Iterable) or not all(isinstance(dim, Hashable) for dim in given):
        raise OptionError(f"dims of {name!r} must be a list of names; it is {shown(given)}.")
    own = [dim for dim in given if dim != DATUM]
    most = len(shape) - len(of_data)
    if len(own) > most or len(set(own)) < len(own) or taken.intersection(own):
        raise OptionError(
            f"dims of {name!r} must be a list of up to {most} different names, and none of {sorted(taken)}; it is "
            f"{given!r}."
        )
    own += [f"{name}_dim_{i}" for i in range(most - len(own))]
    return dict(zip((*of_data, *own), shape, strict=True))


def with_columns(
    pair: Pair,
    columns: Sequence[str],
    dims: Mapping[str, Sequence[Hashable]] | None,
    coords: Mapping[str, Sequence[Any]] | None,
) -> tuple[dict[str, Sequence[Hashable]], dict[str, Sequence[Any]]]:
    """The dims and coords that were asked for, and ``column`` for observed sites that have the columns of a table.

    Args:
        pair: whose observed sites are meant.
        columns: names of the features of x; empty where they have none.
        dims: see :func:`ppvae.inference.to_datatree`.
        coords: the same.
    """
    given, values = dict(dims or {}), dict(coords or {})
    names = [n for n, place in pair.structure.observed.items() if tuple(place.shape) == (len(columns),)]
    if not columns or COLUMN in {*pair.sites, *pair.structure.observed, *values}:
        return given, values
    new: dict[str, Sequence[Hashable]] = {name: [COLUMN] for name in names if name not in given}
    return given | new, values | ({COLUMN: list(columns)} if new else {})


def check_coords(
    coords: Mapping[str, Sequence[Any]], dims_of: dict[str, dict[Hashable, int]], size: tuple[int, int]
) -> None:
    """Raise OptionError unless each of the coords runs along a dim."""
    lengths: dict[Hashable, int] = dict(zip(SAMPLE, size, strict=True))
    for sizes in dims_of.values():
        lengths |= sizes
    for dim, values in coords.items():
        if dim not in lengths:
            raise OptionError(f"coords names {dim!r}, which is no dim: the dims are {list(lengths)}.")
        if isinstance(values, str) or not isinstance(values, Sized):
            raise OptionError(f"coords must hold a list of values for {dim!r}; it holds {shown(values)}.")
        if len(values) != lengths[dim]:
            raise OptionError(f"coords has {len(values)} values for {dim!r}, which has {lengths[dim]}: give as many.")
