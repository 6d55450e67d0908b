"""Objectives to train a pair by, each a loss for ``fit`` and for Pyro's own ``SVI``."""

from .beta import Beta
from .doubly_reparameterised import DReG
from .free_bits import FreeBits
from .iwae import IWAE
from .lagging import ByTurns
from .renyi import VRIWAE
from .schedules import Cyclical, WarmUp
from .semi_amortised import SemiAmortised
from .sticking_the_landing import STL
from .thermodynamic import TVO
from .vimco import VIMCO
from .wake_sleep import WakeSleep, WakeWake

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
    "FreeBits",
    "SemiAmortised",
    "WakeSleep",
    "WakeWake",
    "WarmUp",
]
