"""Training by stochastic variational inference."""

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
]
