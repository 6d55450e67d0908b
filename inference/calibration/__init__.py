"""Whether the guide is right on data of the model's own."""

from .calibrate import Calibration, calibrate
from .simulation import Simulation, drawn, simulate, simulations

__all__ = ["Calibration", "Simulation", "calibrate", "drawn", "simulate", "simulations"]
