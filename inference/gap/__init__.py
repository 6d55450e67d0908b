"""The causes of the gap between log p(x) and the ELBO, and better guides."""

from .attribution import GapAttribution, attribute_gap
from .refinement import Refinement, refine

__all__ = ["GapAttribution", "Refinement", "attribute_gap", "refine"]
