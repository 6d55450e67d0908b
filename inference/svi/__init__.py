"""Training by stochastic variational inference."""

from .checkpoint import load_parameters, save_values
from .fit import Fit, fit
from .launching import helps, team_of
from .objectives import (
    IWAE,
    STL,
    TVO,
    VIMCO,
    VRIWAE,
    Beta,
    ByTurns,
    Cyclical,
    DReG,
    FreeBits,
    SemiAmortised,
    WakeSleep,
    WakeWake,
    WarmUp,
)

__all__ = [
    "IWAE",
    "STL",
    "TVO",
    "VIMCO",
    "VRIWAE",
    "Beta",
    "ByTurns",
    "Cyclical",
    "DReG",
    "Fit",
    "FreeBits",
    "SemiAmortised",
    "WakeSleep",
    "WakeWake",
    "WarmUp",
    "fit",
    "helps",
    "load_parameters",
    "save_values",
    "team_of",
]
