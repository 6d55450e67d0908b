"""Which latent units the guide uses."""

from .active_units import latent_units
from .stability import ColumnStability, column_stability
from .units import LatentUnits, unit_name

__all__ = ["ColumnStability", "LatentUnits", "column_stability", "latent_units", "unit_name"]
