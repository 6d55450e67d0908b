"""One algorithm a file, over ``(model, guide, x, ...)``: any pair of Pyro programs, never a class of ours."""

from .ais import annealed_evidence
from .check import check
from .evidence import Evidence
from .importance import importance_evidence
from .structure import Finding
from .surgery import Surgery, elbo_surgery
from .svi import Fit, fit
from .weights import log_weights

__all__ = [
    "Evidence",
    "Finding",
    "Fit",
    "Surgery",
    "annealed_evidence",
    "check",
    "elbo_surgery",
    "fit",
    "importance_evidence",
    "log_weights",
]
