"""Training by stochastic variational inference."""

from .checkpoint import load_parameters, save_values
from .fit import Fit, fit
from .objectives import IWAE, STL, TVO, VIMCO, VRIWAE, Beta, Cyclical, DReG, FreeBits, WakeWake, WarmUp

__all__ = [
    "IWAE",
    "STL",
    "TVO",
    "VIMCO",
    "VRIWAE",
    "Beta",
    "Cyclical",
    "DReG",
    "Fit",
    "FreeBits",
    "WakeWake",
    "WarmUp",
    "fit",
    "load_parameters",
    "save_values",
]
