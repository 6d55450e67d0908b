"""One algorithm a file, over ``(model, guide, x, ...)``: any pair of Pyro programs, never a class of ours."""

from .adaptive import estimate_evidence
from .ais import annealed_evidence
from .calibration import Calibration, calibrate
from .certificate import Certificate
from .certify import certify
from .check import check
from .collapse import latent_units
from .datatree import to_datatree
from .evidence import Evidence
from .gap import GapAttribution, attribute_gap
from .importance import importance_evidence
from .posterior import Posterior, sample_posterior
from .quality import Quality, guide_quality
from .refine import Refinement, refine
from .simulation import Simulation, simulate
from .stability import ColumnStability, column_stability
from .structure import Finding
from .surgery import Surgery, elbo_surgery
from .svi import Fit, fit
from .units import LatentUnits
from .weights import log_weights

__all__ = [
    "Calibration",
    "Certificate",
    "ColumnStability",
    "Evidence",
    "Finding",
    "Fit",
    "GapAttribution",
    "LatentUnits",
    "Posterior",
    "Quality",
    "Refinement",
    "Simulation",
    "Surgery",
    "annealed_evidence",
    "attribute_gap",
    "calibrate",
    "certify",
    "check",
    "column_stability",
    "elbo_surgery",
    "estimate_evidence",
    "fit",
    "guide_quality",
    "importance_evidence",
    "latent_units",
    "log_weights",
    "refine",
    "sample_posterior",
    "simulate",
    "to_datatree",
]
