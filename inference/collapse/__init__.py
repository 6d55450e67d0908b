"""Why latent units are unused: each cause by the experiment that shows it, and the cure tried in small."""

from .explain import explain_collapse
from .explained import ExplainedCollapse, Trial, UnitCause

__all__ = ["ExplainedCollapse", "Trial", "UnitCause", "explain_collapse"]
