"""A better guide for a trained pair: what removes the causes of the gap is tried, and kept if it gains."""

from .mend import mend
from .mended import Mended, MendingStep

__all__ = ["Mended", "MendingStep", "mend"]
