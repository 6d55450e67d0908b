"""Whether q(z|x) can be trusted as a posterior, and draws for ArviZ."""

from .datatree import to_datatree
from .quality import Quality, guide_quality
from .reference import PER_DATUM, Posterior, sample_posterior
from .surgery import Surgery, elbo_surgery
from .tree_units import in_own_units

__all__ = [
    "PER_DATUM",
    "Posterior",
    "Quality",
    "Surgery",
    "elbo_surgery",
    "guide_quality",
    "in_own_units",
    "sample_posterior",
    "to_datatree",
]
