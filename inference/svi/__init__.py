"""Training by stochastic variational inference."""

from .checkpoint import load_parameters, save_values
from .fit import Fit, fit

__all__ = ["Fit", "fit", "load_parameters", "save_values"]
