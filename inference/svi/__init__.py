"""Training by stochastic variational inference."""

from .fit import Fit, fit

__all__ = ["Fit", "fit"]
