"""Bugs as people plant them, each beside the same program mended: `BUILDERS[name].make(mended)`."""

from . import densities, shapes, training
from .bug import Bug
from .unusual import UNUSUAL

FILES = (shapes, densities, training)
BUILDERS: dict[str, Bug] = {bug.make.__name__: bug for file in FILES for bug in file.BUGS}

__all__ = ["BUILDERS", "FILES", "UNUSUAL", "Bug"]
