"""Data sets as rows: those known by name, downloaded once and verified, and a user's own files."""

from .arrays import evenly_spaced, to_rows, without_missing
from .context import Context
from .dataset import DATASETS, Dataset, load_dataset
from .user_files import PARTS

__all__ = ["DATASETS", "PARTS", "Context", "Dataset", "evenly_spaced", "load_dataset", "to_rows", "without_missing"]
