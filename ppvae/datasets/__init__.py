"""Data sets as rows: those known by name, downloaded once and verified, and a user's own files."""

from .arrays import evenly_spaced, to_rows
from .context import Context
from .dataset import DATASETS, Dataset, load_dataset

__all__ = ["DATASETS", "Context", "Dataset", "evenly_spaced", "load_dataset", "to_rows"]
