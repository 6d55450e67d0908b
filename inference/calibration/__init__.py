"""Tests of the guide on data drawn from the model."""

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
