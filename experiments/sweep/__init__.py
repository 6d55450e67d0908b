"""Sweeps over the options of a run, on Optuna, with the error of every comparison: what `ppvae sweep` does."""

from .ranking import Difference, MeasuredTrial, Ranking, ranked
from .study import Sweep, sweep

__all__ = ["Difference", "MeasuredTrial", "Ranking", "Sweep", "ranked", "sweep"]
