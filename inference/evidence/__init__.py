"""log p(x) with its error."""

from .adaptive import estimate_evidence
from .annealed import annealed_evidence
from .defence import SEARCH_SHARE, search_all
from .estimates import AdaptiveEvidence, AnnealedEvidence, ImportanceEvidence, shifted, with_elbo
from .evidence import PARETO_K_LIMIT, Evidence, mean_with_errors
from .importance import importance_evidence
from .streaming import evidence_of, tail_shape
from .weights import log_weights

__all__ = [
    "PARETO_K_LIMIT",
    "SEARCH_SHARE",
    "AdaptiveEvidence",
    "AnnealedEvidence",
    "Evidence",
    "ImportanceEvidence",
    "annealed_evidence",
    "estimate_evidence",
    "evidence_of",
    "importance_evidence",
    "log_weights",
    "mean_with_errors",
    "search_all",
    "shifted",
    "tail_shape",
    "with_elbo",
]
