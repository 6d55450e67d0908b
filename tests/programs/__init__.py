"""Programs as people write them, each a function that builds one with its true evidence: `programs.build(name)`.

They are built inside a test, so that their numbers have the test's floating-point type.
"""

from collections.abc import Callable

from . import (
    automatic,
    changing_sites,
    context,
    discrete,
    eight_schools,
    enumerated,
    guides,
    hidden_markov,
    hierarchies,
    missing,
    mixtures,
    modes,
    one_batch_dim,
    one_way_flows,
    plates,
    point_masses,
    recaptures,
    renditions,
    row_parameters,
    sequences,
    shared_latents,
    supports,
    trained,
    unnormalised,
)
from .program import REFUSED, Program

FILES = (
    guides,
    point_masses,
    one_way_flows,
    unnormalised,
    modes,
    one_batch_dim,
    plates,
    row_parameters,
    context,
    enumerated,
    shared_latents,
    mixtures,
    hierarchies,
    eight_schools,
    automatic,
    missing,
    sequences,
    recaptures,
    hidden_markov,
    renditions,
    changing_sites,
    supports,
    discrete,
    trained,
)
BUILDERS: dict[str, Callable[[], Program]] = {make.__name__: make for file in FILES for make in file.PROGRAMS}


def build(name: str) -> Program:
    """The program of this name, in the default floating-point type."""
    return BUILDERS[name]()


__all__ = ["BUILDERS", "FILES", "REFUSED", "Program", "build"]
