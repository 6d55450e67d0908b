"""Objectives to train a pair by, each a loss for ``fit`` and for Pyro's own ``SVI``."""

from .beta import Beta
from .doubly_reparameterised import DReG
from .free_bits import FreeBits
from .iwae import IWAE
from .renyi import VRIWAE
from .schedules import Cyclical, WarmUp
from .sticking_the_landing import STL
from .thermodynamic import TVO
from .vimco import VIMCO
from .wake_sleep import WakeWake

__all__ = ["IWAE", "STL", "TVO", "VIMCO", "VRIWAE", "Beta", "Cyclical", "DReG", "FreeBits", "WakeWake", "WarmUp"]
