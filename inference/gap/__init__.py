"""The causes of the gap between log p(x) and the ELBO, and better guides."""

from .attribution import attribute_gap
from .gap_parts import GapAttribution
from .guide_family import GuideFamily, Offset, place, shifted, shifted_guide
from .refinement import Refinement, refine

__all__ = [
    "GapAttribution",
    "GuideFamily",
    "Offset",
    "Refinement",
    "attribute_gap",
    "place",
    "refine",
    "shifted",
    "shifted_guide",
]
