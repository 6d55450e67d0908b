"""Lower and upper bounds of log p(x)."""

from .certificate import Certificate
from .certify import certify
from .pooling import pooled

__all__ = ["Certificate", "certify", "pooled"]
