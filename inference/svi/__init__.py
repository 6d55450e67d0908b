"""Training by stochastic variational inference."""

from .fit import Fit, fit
from .objectives import IWAE, STL, Beta, Cyclical, DReG, FreeBits, WarmUp

__all__ = ["IWAE", "STL", "Beta", "Cyclical", "DReG", "Fit", "FreeBits", "WarmUp", "fit"]
