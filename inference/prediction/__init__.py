"""What a trained pair is used for: draws of data, embeddings, reconstructions, imputations, interpolations."""

from .decoding import decode
from .embedding import Embedding, embed
from .interpolation import interpolate
from .prior_predictive import sample
from .reconstruction import Prediction, impute, reconstruct
from .trained import TrainedPair

__all__ = [
    "Embedding",
    "Prediction",
    "TrainedPair",
    "decode",
    "embed",
    "impute",
    "interpolate",
    "reconstruct",
    "sample",
]
