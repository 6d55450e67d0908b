"""Between which numbers log p(x) lies."""

from .certificate import Certificate
from .certify import certify
from .pooling import pooled

__all__ = ["Certificate", "certify", "pooled"]
