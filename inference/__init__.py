"""One question a room, over ``(model, guide, x, ...)``: any pair of Pyro programs, never a class of ours."""

from .bounds import Certificate, certify
from .calibration import Calibration, Simulation, calibrate, simulate
from .evidence import Evidence, annealed_evidence, estimate_evidence, importance_evidence, log_weights
from .gap import GapAttribution, Refinement, attribute_gap, refine
from .latents import ColumnStability, LatentUnits, column_stability, latent_units
from .mending import Mended, mend
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
from .svi import IWAE, STL, TVO, VIMCO, VRIWAE, Beta, Cyclical, DReG, Fit, FreeBits, WakeWake, WarmUp, fit

__all__ = [
    "IWAE",
    "STL",
    "TVO",
    "VIMCO",
    "VRIWAE",
    "Annealing",
    "Beta",
    "Calibration",
    "Certificate",
    "ColumnStability",
    "Cyclical",
    "DReG",
    "DrawsFrom",
    "Embedding",
    "Evidence",
    "Finding",
    "Fit",
    "FreeBits",
    "GapAttribution",
    "LatentUnits",
    "Mended",
    "Optimiser",
    "Posterior",
    "Prediction",
    "Quality",
    "Refinement",
    "Sampling",
    "Simulation",
    "Surgery",
    "TrainedPair",
    "WakeWake",
    "WarmUp",
    "annealed_evidence",
    "attribute_gap",
    "calibrate",
    "certify",
    "check",
    "column_stability",
    "decode",
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
    "mend",
    "reconstruct",
    "refine",
    "sample",
    "sample_posterior",
    "simulate",
    "to_datatree",
]
