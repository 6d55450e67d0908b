"""Data as rows: sets known by name, downloaded once and verified, a user's own files, and objects in memory."""

from .arrangement import PARTS
from .arrays import evenly_spaced, to_rows, without_missing
from .context import Context
from .dataset import Dataset
from .hashes import data_hash
from .known import DATASETS
from .load import BYTES, load_dataset
from .program_arguments import column_names, program_arguments
from .rows import Rows
from .splits import FRACTIONS, Split
from .standardise import Standardisation

__all__ = [
    "BYTES",
    "DATASETS",
    "FRACTIONS",
    "PARTS",
    "Context",
    "Dataset",
    "Rows",
    "Split",
    "Standardisation",
    "column_names",
    "data_hash",
    "evenly_spaced",
    "load_dataset",
    "program_arguments",
    "to_rows",
    "without_missing",
]
