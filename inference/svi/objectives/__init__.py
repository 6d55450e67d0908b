"""Objectives to train a pair by, each a loss for ``fit`` and for Pyro's own ``SVI``."""

from .beta import Beta
from .doubly_reparameterised import DReG
from .free_bits import FreeBits
from .iwae import IWAE
from .schedules import Cyclical, WarmUp
from .sticking_the_landing import STL

__all__ = ["IWAE", "STL", "Beta", "Cyclical", "DReG", "FreeBits", "WarmUp"]
