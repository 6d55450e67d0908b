"""One question a room, over ``(model, guide, x, ...)``: any pair of Pyro programs, never a class of ours."""

from .bounds import Certificate, certify
from .calibration import Calibration, Discrimination, Simulation, calibrate, discriminative_calibration, simulate
from .evidence import Evidence, annealed_evidence, estimate_evidence, importance_evidence, log_weights
from .gap import GapAttribution, Refinement, attribute_gap, refine
from .latents import ColumnStability, LatentUnits, column_stability, latent_units
from .option_records import Annealing, DrawsFrom, Optimiser, Sampling
from .pair import Finding, check
from .posterior import (
    Posterior,
    Quality,
    Surgery,
    elbo_surgery,
    guide_quality,
    sample_posterior,
    to_datatree,
)
from .prediction import Embedding, Prediction, TrainedPair, decode, embed, impute, interpolate, reconstruct, sample
from .svi import Fit, fit

__all__ = [
    "Annealing",
    "Calibration",
    "Certificate",
    "ColumnStability",
    "Discrimination",
    "DrawsFrom",
    "Embedding",
    "Evidence",
    "Finding",
    "Fit",
    "GapAttribution",
    "LatentUnits",
    "Optimiser",
    "Posterior",
    "Prediction",
    "Quality",
    "Refinement",
    "Sampling",
    "Simulation",
    "Surgery",
    "TrainedPair",
    "annealed_evidence",
    "attribute_gap",
    "calibrate",
    "certify",
    "check",
    "column_stability",
    "decode",
    "discriminative_calibration",
    "elbo_surgery",
    "embed",
    "estimate_evidence",
    "fit",
    "guide_quality",
    "importance_evidence",
    "impute",
    "interpolate",
    "latent_units",
    "log_weights",
    "reconstruct",
    "refine",
    "sample",
    "sample_posterior",
    "simulate",
    "to_datatree",
]
