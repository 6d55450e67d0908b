"""A better guide for a trained pair: what removes the causes of the gap is tried, and kept if it gains."""

from .mend import mend
from .mended import Mended, MendingStep
from .mending_data import MendingData, some, training_data
from .mending_steps import (
    Budget,
    drawn_elbo,
    kept_values,
    left_as_found,
    paired_gain,
    put_back,
    train_pair,
    valid_training,
)

__all__ = [
    "Budget",
    "Mended",
    "MendingData",
    "MendingStep",
    "drawn_elbo",
    "kept_values",
    "left_as_found",
    "mend",
    "paired_gain",
    "put_back",
    "some",
    "train_pair",
    "training_data",
    "valid_training",
]
