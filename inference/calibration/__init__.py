"""Whether the guide is right on data of the model's own."""

from .calibrate import Calibration, calibrate
from .discriminative import Discrimination, discriminative_calibration
from .simulation import Simulation, drawn, on_drawn, simulate, simulations

__all__ = [
    "Calibration",
    "Discrimination",
    "Simulation",
    "calibrate",
    "discriminative_calibration",
    "drawn",
    "on_drawn",
    "simulate",
    "simulations",
]
